"""Scenes as `cof scenes` writes them: the same questions, with what must be seen as a region in place of its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cof_agent.errors import InputError
from cof_agent.region_refs import IN_WORDS
from cof_agent.scenes.oracle import looks
from cof_agent.trajectory import Sample, read_jsonl


def samples(folder: Path) -> Iterator[Sample]:
    """See `region_sets.build.samples_of`."""
    path = folder / "samples.jsonl"
    for sample in read_jsonl(path, Sample, strict=True):
        if "looks" not in sample.metadata:
            raise InputError(f"{path}: the sample {sample.id} is none of `cof scenes`: what must be seen is not told.")
        yield by_region(sample)


_CLOSER = 0.6
"""By how much smaller a sign is taken to be than it is: found at once, it would be read as soon as its letters are as high as
`oracle.LEGIBLE`, and then two of them stand on one image token, which nano often reads wrongly."""


def by_region(sample: Sample) -> Sample:
    """The sample of a scene, asked about regions. That of a sign is the sign itself."""
    question, named = sample.question, []
    for number, look in enumerate(looks(sample), 1):
        question = question.replace(look.name, f"<region{number}>", 1)
        detail = look.detail * (_CLOSER if len(look.boxes) > 1 else 1)
        named.append(replace(look, name=f"region {number}", boxes=look.boxes[-1:], detail=detail))
    return replace(
        sample,
        question=question,
        regions=tuple(look.boxes[0] for look in named),
        metadata=sample.metadata | {"looks": [look.to_dict() for look in named], IN_WORDS: sample.question},
    )
