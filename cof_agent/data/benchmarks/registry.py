"""Which benchmarks there are, and `load`: one of them as samples, complete or with words for what is missing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from cof_agent.data.benchmarks import (
    hrbench,
    infographicvqa,
    mme_realworld,
    pope,
    textvqa,
    treebench,
    visualprobe,
    vstar,
)
from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.choices import shuffled
from cof_agent.data.samples import read_samples, unique_id
from cof_agent.errors import InputError, said
from cof_agent.plugins import is_plugin, load_function
from cof_agent.trajectory import Sample

Scoring = Literal["choice", "exact", "anls", "vqa", "yes_no"]
"""The rule that scores an answer: the right option by letter or text; equal to an accepted text; average normalised
Levenshtein similarity; VQA accuracy over ten people's answers; yes or no."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark. `hub`: repositories of the hub with the files to fetch from each. `questions`: how many were published,
    by category where that is known; None where there is no such number."""

    title: str
    read: Callable[[Copy], Iterator[Sample]]
    scoring: Scoring
    hub: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    questions: int | Mapping[str, int] | None = None

    @property
    def parts(self) -> Mapping[str, int]:
        """The published number of questions by category, empty where it is not known."""
        return self.questions if isinstance(self.questions, Mapping) else {}

    @property
    def size(self) -> int | None:
        """The published number of questions."""
        return sum(self.questions.values()) if isinstance(self.questions, Mapping) else self.questions


def _scenes(copy: Copy) -> Iterator[Sample]:
    return iter(read_samples(copy.roots[0]))


def _hrbench(size: str) -> Benchmark:
    hub = {hrbench.REPOSITORY: (f"hr_bench_{size}.parquet",)}
    return Benchmark(f"HR-Bench {size.upper()}", partial(hrbench.read, size=size), "choice", hub, hrbench.PARTS)


BENCHMARKS: dict[str, Benchmark] = {
    "vstar": Benchmark("V*", vstar.read, "choice", vstar.HUB, vstar.PARTS),
    "hrbench-4k": _hrbench("4k"),
    "hrbench-8k": _hrbench("8k"),
    "mme-realworld": Benchmark("MME-RealWorld", mme_realworld.read, "choice", mme_realworld.HUB, mme_realworld.SIZE),
    "mme-realworld-lite": Benchmark(
        "MME-RealWorld-Lite", mme_realworld.read_lite, "choice", mme_realworld.HUB_LITE, mme_realworld.SIZE_LITE
    ),
    "treebench": Benchmark("TreeBench", treebench.read, "choice", treebench.HUB, treebench.PARTS),
    "visualprobe": Benchmark("VisualProbe", visualprobe.read, "exact", visualprobe.HUB, visualprobe.PARTS),
    "pope": Benchmark("POPE", pope.read, "yes_no", pope.HUB, pope.PARTS),
    "infographicvqa": Benchmark("InfographicVQA", infographicvqa.read, "anls", infographicvqa.HUB, infographicvqa.SIZE),
    "textvqa": Benchmark("TextVQA", textvqa.read, "vqa", textvqa.HUB, textvqa.SIZE),
    "scenes": Benchmark("scenes", _scenes, "exact"),
}


def load(
    name: str,
    path: str | Path | None = None,
    *,
    limit: int | None = None,
    shuffle_options: int | None = None,
    keep_images: str | Path | None = None,
) -> list[Sample]:
    """The samples of a benchmark, in published order; one of the user's own is named as `module:function`.

    Their metadata has benchmark, scoring, category and subcategory, the
    last two where there are any; choices are the options' texts, and the answer is the text of the right one.

    path: a local copy in the published layout, a folder or its one file; without it the hub's, which is downloaded once
    to the hub's own cache. limit: only the first so many, of a copy that may be partial. shuffle_options: a seed by which
    the options of each sample are shuffled. keep_images: where images are written that rows hold themselves, by default
    below the user's cache folder.

    Raises:
        InputError: if there is no such benchmark or copy, it is not in its published layout, questions or images of it are
            missing, or it cannot be downloaded.
    """
    benchmark = _own(name) if is_plugin(name) else BENCHMARKS.get(name)
    if benchmark is None:
        raise InputError(
            f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}, or module:function for your own."
        )
    if path is not None and not Path(path).exists():
        raise InputError(f"there is no file or folder {path}; without a path, {benchmark.title} comes from the hub.")
    roots = (Path(path),) if path is not None else _download(name, benchmark)
    copy = Copy(benchmark.title, roots, Path(keep_images) if keep_images else _cache() / name)
    samples = _named(islice(benchmark.read(copy), limit), name, benchmark)
    if not samples:
        raise InputError(f"{copy} holds no questions of {benchmark.title}.")
    if limit is None:
        _check_complete(samples, copy, benchmark)
    _check_images(samples, copy)
    return samples if shuffle_options is None else shuffled(samples, shuffle_options)


def _own(spec: str) -> Benchmark:
    """A benchmark of the user's: a function that makes samples of the path of a copy."""
    read = load_function(spec, "benchmark")

    def samples(copy: Copy) -> Iterator[Sample]:
        return iter(read(copy.roots[0]))

    return Benchmark(spec, samples, "exact")


def _named(read: Iterator[Sample], name: str, benchmark: Benchmark) -> list[Sample]:
    """With ids that no other sample has, here or in another benchmark, and with the metadata that all share."""
    shared, taken = {"benchmark": name, "scoring": benchmark.scoring}, set[str]()
    return [
        replace(
            sample,
            id=unique_id(f"{name}-{sample.id}", number, taken),
            metadata=shared | sample.metadata,
        )
        for number, sample in enumerate(read, 1)
    ]


def _check_complete(samples: Sequence[Sample], copy: Copy, benchmark: Benchmark) -> None:
    found = Counter(str(sample.metadata.get("category")) for sample in samples)
    parts = benchmark.parts
    if benchmark.size in (None, len(samples)) and (not parts or found == Counter(parts)):
        return
    of_each = [f"{found[part]} of {number} {part}" for part, number in parts.items() if found[part] != number]
    of_each += [
        f"{number} {part}, which it does not have" for part, number in found.items() if parts and part not in parts
    ]
    details = f" ({'; '.join(of_each)})" if of_each else ""
    raise InputError(
        f"{copy} holds {len(samples)} questions, {benchmark.title} has {benchmark.size}{details}: download it again, or "
        "set a limit to take a part of it."
    )


def _check_images(samples: Sequence[Sample], copy: Copy) -> None:
    missing = [sample.image for sample in samples if not os.path.isfile(sample.image)]
    if missing:
        raise InputError(
            f"{len(missing)} of the images of {len(samples)} questions are missing in {copy}, the first is {missing[0]}: "
            "download or unpack them, or set a limit to take the questions before."
        )


def _download(name: str, benchmark: Benchmark) -> tuple[Path, ...]:
    """The folders of the hub's cache that hold the benchmark's repositories."""
    if not benchmark.hub:
        raise InputError(f"{benchmark.title} cannot be downloaded; give a local copy with --data.")
    from huggingface_hub import snapshot_download

    try:
        return tuple(
            Path(snapshot_download(repository, repo_type="dataset", allow_patterns=list(files)))
            for repository, files in benchmark.hub.items()
        )
    except Exception as error:  # what a connection, a proxy or the hub can do wrong is not limited
        raise InputError(
            f"cannot download {benchmark.title} ({', '.join(benchmark.hub)}) from the hub: {said(error)}; give a local copy."
        ) from None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chain-of-focus"
