"""Regions from a detector, for questions that have none: the model reads what was found where, as in GPT4RoI (arXiv 2307.03601).

    samples = filled(samples, finder("facebook/detr-resnet-50"), environment, most=5)

The best of what is found become `Sample.regions`. They are named before the question: `Found in the image: <region1> person,
<region2> car.` Samples with regions of their own, and those of several images, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cof_agent.detection.checkpoint import Checkpoint
from cof_agent.environment import ZoomEnvironment, identity
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.ocr.pictures import Reading, whole
from cof_agent.ocr.rapid import RapidOcr
from cof_agent.region_refs import DETECTED, Found, with_found
from cof_agent.trajectory import Sample

OCR = "ocr"
LEAST_SCORE = 0.5


class Finder(Protocol):
    """Finds regions. name: for the record."""

    name: str

    def find(self, environment: ZoomEnvironment, sample: Sample) -> list[Found]:
        """What is in the sample's image, the best first; boxes in source pixels.

        Raises:
            InputError: if the image cannot be opened, or the detector fails.
        """
        ...


class Objects:
    """Objects by an object-detection checkpoint of transformers, the surest first. least: the lowest score.

    Raises:
        InputError: as `Checkpoint`.
    """

    def __init__(self, model: str, least: float = LEAST_SCORE, device: str | None = None) -> None:
        self._checkpoint, self._least = Checkpoint("object-detection", model, device), least
        self.name = model

    def find(self, environment: ZoomEnvironment, sample: Sample) -> list[Found]:
        """See `Finder`."""
        view = whole(environment.reset(sample).source_size)
        found = self._checkpoint.find(environment.image(sample, view), self._least)
        return [replace(one, box=view.to_source(one.box, CoordinateSystem.ABSOLUTE)) for one in found]


class Texts:
    """Lines of text by RapidOCR, the largest first; they are labelled with what they say.

    Raises:
        InputError: if RapidOCR is missing.
    """

    def __init__(self) -> None:
        engine = RapidOcr()
        self.name, self._reading = engine.name, Reading(engine)

    def find(self, environment: ZoomEnvironment, sample: Sample) -> list[Found]:
        """See `Finder`."""
        lines = self._reading.lines(environment, sample, whole(environment.reset(sample).source_size))
        return [Found(f"“{line.text}”", line.box) for line in sorted(lines, key=lambda line: -line.box.area)]


def finder(detector: str, least: float | None = None, device: str | None = None) -> Finder:
    """The detector of this name: `ocr`, a folder, or a hub id.

    Raises:
        InputError: if it cannot be had, or a score is asked of one that has none.
    """
    if detector != OCR:
        return Objects(detector, LEAST_SCORE if least is None else least, device)
    if least is not None:
        raise InputError("lines of text have no score: leave --detector-threshold out, or name another detector.")
    return Texts()


def filled(
    samples: Sequence[Sample],
    finder: Finder,
    environment: ZoomEnvironment,
    *,
    most: int,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> list[Sample]:
    """The samples, with up to `most` regions each. Where an image cannot be read, the sample says so and has none.

    on_done: called with the number of samples that are done, and of all.
    """
    found: list[Sample] = []
    last: tuple[tuple[str, int, int], tuple[list[Found], str | None]] | None = None
    for number, sample in enumerate(samples, 1):
        if takes_regions(sample):
            if last is None or last[0] != identity(sample.image):  # questions about one image follow each other
                last = (identity(sample.image), _found(finder, environment, sample))
            regions, error = last[1]
            sample = with_found(sample, regions[:most], finder.name, error)
        found.append(sample)
        on_done(number, len(samples))
    return found


def _found(finder: Finder, environment: ZoomEnvironment, sample: Sample) -> tuple[list[Found], str | None]:
    try:
        return finder.find(environment, sample), None
    except InputError as error:
        return [], str(error)


def takes_regions(sample: Sample) -> bool:
    """Whether it has one image, and no regions of its own."""
    return not sample.regions and not sample.more_images


def counts(samples: Iterable[Sample]) -> dict[str, Any] | None:
    """Who was asked for regions of how many of these samples, and found how many; `without` counts samples that have none,
    `failed` those of them whose image could not be read, `left` those that no detector was asked about. None where none was."""
    every = {sample.id: sample.metadata.get(DETECTED) for sample in samples}
    asked = {name: told for name, told in every.items() if told is not None}
    if not asked:
        return None
    return {
        "by": next(iter(asked.values()))["by"],
        "questions": len(asked),
        "regions": sum(len(one["found"]) for one in asked.values()),
        "without": sum(not one["found"] for one in asked.values()),
        "failed": sum("error" in one for one in asked.values()),
        "left": len(every) - len(asked),
    }


def in_words(found: Mapping[str, Any]) -> str:
    """`counts` as a line."""
    failed = f", {found['failed']} of them because the image could not be read" if found["failed"] else ""
    without = f"; {found['without']} asked without any{failed}" if found["without"] else ""
    left = f"; {found['left']} with regions of their own or several images" if found["left"] else ""
    return f"{found['regions']} found by {found['by']} for {found['questions']} questions{without}{left}"
