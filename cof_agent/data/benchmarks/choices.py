"""Options: taken out of the text or the columns they are published in, put into a sample, and shuffled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from string import ascii_uppercase
from typing import Any

from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

_REFERS_TO_OTHERS = re.compile(
    r"\b(?:(?:all|none|any|both|neither)(?: of)? the above|the (?:above|other) (?:answers|options|choices))\b",
    re.IGNORECASE,
)


def options_in(text: str) -> tuple[str, dict[str, str]]:
    """What stands before option A, and the text of each option by its letter: "(A) red", "A. red", "A) red" or "A: red".

    A mark is looked for at the start of a line first, then behind a space. Letters follow each other; the first that has
    no mark ends the options.
    """
    marks: list[tuple[int, int]] = []
    for letter in ascii_uppercase:
        begin = marks[-1][1] if marks else 0
        mark = rf"\(?{letter}[.):]"
        found = re.compile(rf"^[^\S\n]*{mark}", re.MULTILINE).search(text, begin)
        found = found or re.compile(rf"(?<=\s){mark}(?=\s)").search(text, begin)
        if found is None:
            break
        marks.append(found.span())
    ends = [start for start, _ in marks[1:]] + [len(text)]
    found_options = {
        letter: " ".join(text[start:end].split())
        for letter, (_, start), end in zip(ascii_uppercase, marks, ends, strict=False)
    }
    return (text[: marks[0][0]] if marks else text).strip(), found_options


def listed(options: Iterable[Any]) -> dict[str, str]:
    """Options by letter from a list in order, each with or without its own mark ("(A) red")."""
    texts = [str(option).strip() for option in options]
    return {
        letter: re.sub(rf"^\(?{letter}[.):]\s*", "", option)
        for letter, option in zip(ascii_uppercase, texts, strict=False)
    }


def letter_in(answer: Any, where: str) -> str:
    """The letter that an answer column gives: "B", "(B)" or "b.".

    Raises:
        InputError: if it is none, naming the row.
    """
    letter = str(answer).strip().strip("().").upper()
    if letter not in ascii_uppercase or len(letter) != 1:
        raise InputError(f"{where} gives the right answer as {str(answer)[:40]!r}, which is no letter of an option.")
    return letter


def multiple_choice(
    id: str, image: str, question: str, options: Mapping[str, str], letter: str, **metadata: Any
) -> Sample:
    """A sample with the options as texts, in order, and the right one as its answer.

    Where the right option is not among them, which published sets have here and there, the sample has no answer, is not
    scored, and `metadata["unscored"]` says why.
    """
    shown = {key: text for key, text in options.items() if text}
    right = shown.get(letter)
    if right is None:
        metadata["unscored"] = f"the right option {letter} is not among {', '.join(shown) or 'none'}"
    return Sample(
        id=id,
        image=image,
        question=question,
        answers=(right,) if right is not None else (),
        choices=tuple(shown.values()),
        metadata=metadata,
    )


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The samples, the options of each in an order drawn by its id and the seed.

    An option that speaks of the others ("all of the above") keeps its place. Answers are texts, so they stay right.
    """
    return [replace(sample, choices=_shuffled(sample, seed)) for sample in samples]


def _shuffled(sample: Sample, seed: int) -> tuple[str, ...]:
    moving = [text for text in sample.choices if not _REFERS_TO_OTHERS.search(text)]
    Random(f"options:{seed}:{sample.id}").shuffle(moving)
    order = iter(moving)
    return tuple(text if _REFERS_TO_OTHERS.search(text) else next(order) for text in sample.choices)
