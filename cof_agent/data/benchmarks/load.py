"""`load`: a benchmark as samples, complete or with words for what is missing."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from cof_agent.data.benchmarks import converted
from cof_agent.data.benchmarks.benchmark import Benchmark
from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.benchmarks.layout import Layout
from cof_agent.data.benchmarks.registry import BENCHMARKS
from cof_agent.data.choices import shuffled
from cof_agent.data.samples import unique_id
from cof_agent.data.understanding import RIGHT, SEVERAL
from cof_agent.episodes import CYCLE_OF
from cof_agent.errors import InputError, said
from cof_agent.plugins import is_plugin, load_function
from cof_agent.trajectory import Sample

_log = logging.getLogger(__name__)

_ENOUGH = 4  # questions with choices from which it is no chance that the right one always stands first


def load(
    name: str,
    path: str | Path | None = None,
    *,
    limit: int | None = None,
    shuffle_options: int | None = None,
    keep_images: str | Path | None = None,
) -> list[Sample]:
    """The samples of a benchmark, in its order: `metadata` has the benchmark's name, the rule that scores an answer, and the
    question's category. With choices, the answer is the text of the right one.

    path: a local copy in the published layout, a folder or its one file; without it the hub's, which is downloaded once
    to the hub's own cache. limit: only the first so many, of a copy that may be partial. shuffle_options: a seed by which
    the options of each sample are shuffled. keep_images: where images are written that rows hold themselves, by default
    below the user's cache folder.

    Raises:
        InputError: if there is no such benchmark or copy, it is not in its published layout, questions or images of it are
            missing, or it cannot be downloaded.
    """
    benchmark = named(name)
    if path is not None and not Path(path).exists():
        raise InputError(f"there is no file or folder {path}; without a path, {benchmark.title} comes from the hub.")
    roots = (Path(path),) if path is not None else _download(name, benchmark)
    copy = Copy(benchmark.title, roots, Path(keep_images) if keep_images else _cache() / name, benchmark.size)
    samples = _complete(islice(_read(benchmark, copy), limit), name, benchmark)
    if not samples:
        raise InputError(f"{copy} holds no questions of {benchmark.title}.")
    if limit is None:
        _check_complete(samples, copy, benchmark)
    _check_images(samples, copy)
    if shuffle_options is not None:
        return shuffled(samples, shuffle_options)
    _warn_of_order(samples, benchmark)
    _warn_of_letters(samples, benchmark)
    return samples


def named(name: str) -> Benchmark:
    """The benchmark of this name, or the user's own, `module:function`.

    Raises:
        InputError: if there is none.
    """
    if is_plugin(name):
        return Benchmark(name, "your own", "exact", "your own", own=load_function(name, "benchmark"))
    if name not in BENCHMARKS:
        raise InputError(
            f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}, or module:function for your own."
        )
    return BENCHMARKS[name]


def _read(benchmark: Benchmark, copy: Copy) -> Iterator[Sample]:
    if benchmark.own is not None:
        return iter(benchmark.own(copy.roots[0]))
    files, layout = _layout(benchmark, copy)
    return (sample for row in copy.rows(files, layout.columns) for sample in layout.read(copy, row))


def _layout(benchmark: Benchmark, copy: Copy) -> tuple[list[Path], Layout]:
    """The files that hold the questions, and the layout that they have. A file that is named itself may have any form."""
    lacking: list[tuple[Path, list[str]]] = []
    for layout in benchmark.layouts:
        files = copy.find(layout.files)
        lacks = layout.lacks(copy.first(files[0])) if files else []
        if files and not lacks:
            return files, layout
        lacking += [(files[0], lacks)] if files else []
    if not lacking:
        names = " or ".join(dict.fromkeys(name for layout in benchmark.layouts for name in layout.files))
        raise InputError(
            f"{copy} holds no {names}, where {copy.name} has its questions; unpack it, or give the folder as it was published."
        )
    file, lacks = min(lacking, key=lambda one: len(one[1]))
    here = ", ".join(map(str, copy.first(file)))[:200]
    if not here:
        raise InputError(f"{copy} holds no questions of {copy.name}.")
    if file in copy.roots:
        _log.warning(
            "%s has no published layout of %s (here are %s); it is read as other data is.", file, copy.name, here
        )
        return [file], Layout((), (), converted.read)
    raise InputError(
        f"{file} lacks {', '.join(map(repr, lacks))}, which {copy.name} has (here are {here}): is it the published file?"
    )


def _complete(read: Iterable[Sample], name: str, benchmark: Benchmark) -> list[Sample]:
    """With ids that no other sample has, here or in another benchmark, and with the metadata that all share."""
    taken = set[str]()
    samples = [
        replace(
            sample,
            id=unique_id(f"{name}-{sample.id}", number, taken),
            metadata={"benchmark": name, "scoring": _rule(sample, benchmark)} | sample.metadata,
        )
        for number, sample in enumerate(read, 1)
    ]
    return _with_cycles(samples) if benchmark.cycles > 1 else samples


def _with_cycles(samples: Sequence[Sample]) -> list[Sample]:
    """Each with the id of the first that asks the same, its options in another order."""
    first: dict[tuple[tuple[str, ...], str], str] = {}
    return [
        replace(
            sample, metadata=sample.metadata | {CYCLE_OF: first.setdefault((sample.images, sample.question), sample.id)}
        )
        for sample in samples
    ]


def _rule(sample: Sample, benchmark: Benchmark) -> str:
    if benchmark.scoring == "choice" and not sample.choices:
        return "exact"
    return "choice" if benchmark.scoring == SEVERAL and RIGHT not in sample.metadata else benchmark.scoring


def _check_complete(samples: Sequence[Sample], copy: Copy, benchmark: Benchmark) -> None:
    found = Counter(str(sample.metadata.get("category")) for sample in samples)
    parts = benchmark.parts if set(found) & set(benchmark.parts) else {}
    if benchmark.size in (None, len(samples)) and (not parts or found == Counter(parts)):
        return
    of_each = [f"{found[part]} of {number} {part}" for part, number in parts.items() if found[part] != number]
    of_each += [
        f"{number} {part}, which it does not have" for part, number in found.items() if parts and part not in parts
    ]
    details = f" ({'; '.join(of_each)})" if of_each else ""
    raise InputError(
        f"{copy} holds {len(samples)} questions, {benchmark.title} has {benchmark.size}{details}: download it again, or "
        f"take a part of it with --samples {max(1, len(samples))}."
    )


def _check_images(samples: Sequence[Sample], copy: Copy) -> None:
    missing = [image for sample in samples for image in sample.images if not os.path.isfile(image)]
    if missing:
        raise InputError(
            f"{len(missing)} of the images of {len(samples)} questions are missing in {copy}, the first is {missing[0]}: "
            "download or unpack them, or take the questions before with --samples."
        )


def _warn_of_order(samples: Sequence[Sample], benchmark: Benchmark) -> None:
    asked = [sample for sample in samples if sample.choices and sample.answers]
    if len(asked) >= _ENOUGH and all(sample.choices[0] == sample.answers[0] for sample in asked):
        _log.warning(
            "in this copy of %s the right option always stands first; give --shuffle-options SEED, or the letter A is "
            "always right.",
            benchmark.title,
        )


def _warn_of_letters(samples: Sequence[Sample], benchmark: Benchmark) -> None:
    bare = [one for one in samples if not one.choices and re.fullmatch(r"\(?[A-Z]\)?", "".join(one.answers))]
    if bare and benchmark.scoring in ("choice", SEVERAL):
        _log.warning(
            "%d questions of %s list no options that can be told apart; only the letter counts as right there, the first is %s.",
            *(len(bare), benchmark.title, bare[0].id),
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
            f"cannot download {benchmark.title} ({', '.join(benchmark.hub)}) from the hub: {said(error).rstrip('.')}; give a "
            "local copy with --data."
        ) from None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chain-of-focus"
