"""Our own layout, `samples.jsonl`: samples as they stand, with what a person who writes the file by hand may leave to us.

`id` may be missing (the row's number), `answer` or `answers` may be a text or a list, boxes may be lists `[x0, y0, x1, y1]`.
A question about several images lists them as `images`, in place of `image`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cof_agent.data import answers as truths
from cof_agent.data.boxes import Form, in_pixels, written
from cof_agent.data.choices import keys
from cof_agent.data.nested import is_missing
from cof_agent.data.unusable import (
    BAD_BOX,
    BAD_CHOICES,
    BAD_IMAGES,
    BAD_METADATA,
    BAD_REGIONS,
    BAD_RULE,
    NO_IMAGE,
    NO_OBJECT,
    NO_QUESTION,
    Unusable,
    check_characters,
)
from cof_agent.errors import InputError, unknown
from cof_agent.geometry import Box
from cof_agent.region_refs import check_regions
from cof_agent.scoring.choice import RIGHT, SEVERAL
from cof_agent.scoring.rules import RULES
from cof_agent.trajectory import Sample

KEYS = {"id", "image", "images", "question", "answer", "answers", "choices", "boxes", "regions", "metadata"}
WRITTEN = {"id", "question", "answers", "choices", "boxes", "regions", "metadata"}
"""Keys that each row has which we write."""


def sample_of(values: Any) -> Sample:
    """The sample of one row; its `id` is "" where the row has none, and its image as it is written.

    Raises:
        Unusable: if it is none.
    """
    if not isinstance(values, dict):
        raise Unusable(NO_OBJECT, values)
    check_characters(values)
    images, question = _images(values), values.get("question")
    if not isinstance(question, str) or not question.strip():
        raise Unusable(NO_QUESTION)
    choices = _choices(values.get("choices"))
    metadata = values.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Unusable(BAD_METADATA, metadata)
    rule = metadata.get("scoring")
    if rule is not None and rule not in RULES:
        raise Unusable(BAD_RULE, unknown("scoring rule", str(rule), sorted(RULES)))
    answer = values.get("answers") if not is_missing(values.get("answers")) else values.get("answer")
    sample = Sample(
        id=str(values.get("id") if values.get("id") is not None else ""),
        image=images[0],
        question=question,
        answers=_joined(answer, choices, metadata) if rule == SEVERAL else _answers(answer, choices),
        choices=choices,
        boxes=_boxes(values.get("boxes")),
        metadata=metadata,
        regions=_boxes(values.get("regions")),
        more_images=tuple(images[1:]),
    )
    _check_regions(sample)
    return sample


def _images(values: Mapping[str, Any]) -> list[str]:
    """The one image of a row, or its list of images."""
    one, several = values.get("image"), values.get("images")
    if not is_missing(one) and not is_missing(several):
        raise Unusable(BAD_IMAGES, "image and images are both given")
    listed = several if isinstance(several, list) else [one]
    paths = [path for path in listed if isinstance(path, str) and path]
    if not paths or len(paths) < len(listed):
        raise Unusable(NO_IMAGE, one if is_missing(several) else several)
    return paths


def unknown_keys(values: Any) -> set[str]:
    """The keys of a row that mean nothing here."""
    return set(values) - KEYS if isinstance(values, Mapping) else set()


def _choices(found: Any) -> tuple[str, ...]:
    if is_missing(found):
        return ()
    if not isinstance(found, list | tuple):
        raise Unusable(BAD_CHOICES, found)
    return tuple(map(str, found))


def _answers(found: Any, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The accepted texts; the letter of a choice stands for its text where it is no text of a choice itself."""
    texts = _texts(found)
    if not choices or not texts or any(text in choices for text in texts):
        return texts
    by_key = dict(zip(keys(len(choices)), choices, strict=True))
    truth = truths.understood(list(texts), by_key)
    return tuple(by_key[key] for key in truths.without_counting(truth))


def _texts(found: Any) -> tuple[str, ...]:
    return tuple(_text(one) for one in (found if isinstance(found, list | tuple) else [found]) if not is_missing(one))


def _joined(found: Any, choices: tuple[str, ...], metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The answers to a question with several right choices, as they stand; `right` in the metadata lists these."""
    right = metadata.get(RIGHT)
    if not isinstance(right, list) or not right or not {*map(str, right)} <= {*choices}:
        raise Unusable(BAD_RULE, f"{SEVERAL} needs a list of right choices as metadata {RIGHT!r}, not {right!r}")
    return _texts(found)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _boxes(found: Any) -> tuple[Box, ...]:
    if is_missing(found):
        return ()
    made = []
    for one in written(found):
        x0, y0, x1, y1 = one.numbers
        if one.order in (None, "xyxy") and (x1 < x0 or y1 < y0):
            raise Unusable(
                BAD_BOX, f"{list(one.numbers)} has its corners the other way round; x0, y0, x1, y1 are meant"
            )
        box = in_pixels(one, Form())
        if box is None:
            raise Unusable(BAD_BOX, f"{list(one.numbers)} has no area")
        made.append(box)
    return tuple(made)


def _check_regions(sample: Sample) -> None:
    try:
        check_regions(sample)
    except InputError as error:
        raise Unusable(BAD_REGIONS, error) from None


def check_unit(boxes: Sequence[Box], where: str) -> None:
    """Refuses boxes that cannot be in source pixels.

    Raises:
        InputError: if all of them are within 0..1.
    """
    if boxes and all(max(box) <= 1 for box in boxes):
        raise InputError(f"the boxes of {where} are all within 0..1; our own layout has them in source pixels.")
