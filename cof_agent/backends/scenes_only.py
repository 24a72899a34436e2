"""nano, the model that ships, knows drawn scenes only: which samples are such scenes, and what is said about others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from cof_agent.backends.families import EXAMPLE
from cof_agent.data.spec import checkpoint_of
from cof_agent.nano import NANO
from cof_agent.trajectory import Sample

SCENE_KEYS = ("looks", "thought")
"""Keys of the metadata that only drawn scenes have (`scenes.write`, `data.region_sets.drawn`)."""

KNOWS = "nano can only answer about the scenes that `cof scenes` draws"
INSTEAD = (
    f"Ask another model: --model {EXAMPLE} (about 16 GB, downloaded from the hub when it is first used), or "
    "--model openai:NAME --base-url URL for a model that is served."
)
"""What to do about it, at the command line."""
IN_PYTHON = f'Ask another model: Agent("{EXAMPLE}"), or Agent("openai:NAME", base_url=URL) for a model that is served.'
IN_TRAINING = f"{NANO} in training"
"""What a policy is called that training began as nano."""

ONE_IMAGE = "nano was taught with one image a question, so that its answer about several means nothing."
UNRELIABLE = f"{KNOWS}. This picture is not known to be one; about any other, its answer means nothing."


class UnknownPicture(UserWarning):
    """nano is asked about a picture that is no drawn scene."""


def warning_of(policy: str, sample: Sample) -> str | None:
    """The sentence that marks an answer of the policy of this name as unreliable; None where it is not known to be."""
    if checkpoint_of(policy) not in (NANO, IN_TRAINING):
        return None
    return ONE_IMAGE if sample.more_images else None if is_scene(sample) else UNRELIABLE


def warning_for(policy: str, samples: Sequence[Sample]) -> str | None:
    """As `warning_of`, for many samples at once; what to do about it stands in `INSTEAD` and `IN_PYTHON`."""
    found, total = Counter(warning_of(policy, sample) for sample in samples), len(samples)
    if total == 1:
        return next(iter(found))
    said = []
    if several := found[ONE_IMAGE]:
        which = "all of these" if several == total else f"{several:,} of these {total:,}"
        said.append(f"nano was taught with one image a question, but {which} questions have several.")
    if unknown := found[UNRELIABLE]:
        which = "These pictures are" if unknown == total else f"Of these {total:,} pictures {unknown:,} are"
        said.append(f"{KNOWS}. {which} not known to be among them; about any others, its answers mean nothing.")
    return " ".join(said) or None


def is_scene(sample: Sample) -> bool:
    """Whether the sample is a drawn scene, by its own metadata or by the samples.jsonl beside the folder of its picture."""
    if any(key in sample.metadata for key in SCENE_KEYS):
        return True
    image = Path(sample.image).resolve()
    beside = image.parent.parent / "samples.jsonl"
    try:
        return image.name in _drawn(beside, beside.stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=64)
def _drawn(path: Path, changed: int) -> frozenset[str]:
    """The names of the pictures that a `samples.jsonl` says are scenes; none where it cannot be read.

    changed: when it was, so that it is read again after that.
    """
    try:
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        return frozenset(Path(row["image"]).name for row in rows if set(SCENE_KEYS) & set(row["metadata"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return frozenset()
