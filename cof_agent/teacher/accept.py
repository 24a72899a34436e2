"""What may be learned from: a collected trajectory is checked as a whole, and refused for one stated reason."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from cof_agent import protocol, scoring
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import BoxError, CoordinateSystem, View, read_box
from cof_agent.protocol.dialects import Dialect
from cof_agent.scoring.words import NUMBER_WORDS
from cof_agent.trajectory import Sample, Trajectory, to_json, views_of


class Refusal(StrEnum):
    """Why a sample has no trajectory to learn from."""

    IMAGE = "image"  # cannot be opened
    POLICY = "policy"  # gave no answer; the same command asks again
    NO_TRUTH = "no_truth"
    BOX = "box_answer"
    DUPLICATE = "duplicate"
    NO_ANSWER = "no_answer"
    WRONG = "wrong_answer"
    UNSUPPORTED = "unsupported"  # the crops alone do not lead to the answer
    NO_WORDS = "no_words"
    FORMAT = "format"
    OUTSIDE = "box_outside"
    REPLAY = "replay"
    SCORE = "score"
    REVEALS = "reveals_answer"
    CONTRADICTS = "contradicts_answer"
    SPEAKS = "speaks_of_search"


Refused = tuple[Refusal, str] | None


def refusal(trajectory: Trajectory, environment: ZoomEnvironment, dialect: Dialect | None = None) -> Refused:
    """The reason and the sentence why `trajectory` is not to be learned from; None if it is.

    `environment` must have the settings that the student will have. dialect: in which it speaks, by default ours.
    """
    if found := _format(trajectory, dialect):
        return found
    for check in (_boxes, _replay, _score, _thoughts):
        found = check(trajectory, environment)
        if found:
            return found
    return None


def _format(trajectory: Trajectory, dialect: Dialect | None) -> Refused:
    for number, turn in enumerate(trajectory.turns, 1):
        read = protocol.parse(turn.text, dialect=dialect)
        if not protocol.well_formed(turn.text, dialect=dialect) or read != turn.actions:
            return Refusal.FORMAT, f"turn {number} does not have the wire format"
    if TypeAdapter(Trajectory).validate_json(to_json(trajectory)) != trajectory:
        return Refusal.FORMAT, "the record does not come back from JSON as it was"
    return None


def _boxes(trajectory: Trajectory, environment: ZoomEnvironment) -> Refused:
    """Nothing is clipped here: a box that reaches out of its image teaches to point wrongly."""
    for number, turn in enumerate(trajectory.turns):
        views = views_of(trajectory.overviews, trajectory.turns[:number])
        for box, image in turn.boxes:
            if not _inside(box, image, views, environment.settings.system):
                return Refusal.OUTSIDE, f"the box of turn {number + 1} does not lie in image {image}"
    return None


def _inside(written: tuple[Any, ...], image: int, views: tuple[View, ...], system: CoordinateSystem) -> bool:
    if not 0 <= image < len(views):
        return False
    try:
        box = read_box(written)
    except BoxError:
        return False
    frame = views[image].frame(system, box)
    return box.x0 >= frame.x0 and box.y0 >= frame.y0 and box.x1 <= frame.x1 and box.y1 <= frame.y1


def _replay(trajectory: Trajectory, environment: ZoomEnvironment) -> Refused:
    if environment.overviews(trajectory.sample) != trajectory.overviews:
        return Refusal.REPLAY, "the overview is not the one that the environment shows"
    for number, turn in enumerate(trajectory.turns):
        views = views_of(trajectory.overviews, trajectory.turns[:number])
        seen = environment.step(turn.actions, views, sample=trajectory.sample)
        if seen != turn.observations or any(observation.view is None for observation in seen):
            return Refusal.REPLAY, f"turn {number + 1} does not bring what was recorded"
    return None


def _score(trajectory: Trajectory, environment: ZoomEnvironment) -> Refused:
    return None if scoring.accuracy(trajectory) else (Refusal.SCORE, "the answer does not score as right")


_SEARCH_WORDS = re.compile(
    r"\b(?:verif\w*|tools?|attempts?|ground[ -]truth|feedback|hints?|annotat\w*|bounding|bbox\w*|correct answer"
    r"|right answer|true answer|previous answer|was wrong|try again|retry)\b",
    re.IGNORECASE,
)


def _thoughts(trajectory: Trajectory, environment: ZoomEnvironment) -> Refused:
    thoughts, sample = [protocol.thought(turn.text) for turn in trajectory.turns], trajectory.sample
    asked = " ".join((sample.question, *sample.choices, *sample.answers)).casefold()
    for number, text in enumerate(thoughts, 1):
        if found := next((one for one in _SEARCH_WORDS.findall(text) if one.casefold() not in asked), None):
            return Refusal.SPEAKS, f"the thought of turn {number} speaks of {found!r}"
        if number < len(thoughts) and reveals(text, trajectory.sample):
            return Refusal.REVEALS, f"the thought of turn {number} says the answer before it was seen"
    if thoughts and (other := _contradicts(thoughts[-1], trajectory.sample)):
        return Refusal.CONTRADICTS, f"the last thought names {other!r}, and the answer is another choice"
    return None


_YES_NO = {"yes", "no"}
_ALTERNATIVES = re.compile(r"(\w+) or (?:(?:a|an|the) )?(\w+)")


def reveals(thought: str, sample: Sample) -> bool:
    """Whether a thought says an accepted answer: its words, its number in words or digits, or its letter. What the question says
    tells nothing, unless it is one of two that it asks to choose between ("red or blue?"). Yes and no tell only where a thought
    begins with them."""
    said, asked = (f" {_words(text)} " for text in (thought, sample.question))
    answers = {_words(answer) for answer in sample.answers} - {""}
    if any(said.startswith(f" {answer} ") for answer in answers & _YES_NO):
        return True
    if any(f" {answer} " in said and f" {answer} " not in asked for answer in answers - _YES_NO):
        return True
    for pair in (set(found) for found in _ALTERNATIVES.findall(asked)):
        if any(f" {answer} " in said for answer in answers & pair) and not any(
            f" {other} " in said for other in pair - answers
        ):
            return True
    letters = {letter for letter, text in protocol.lettered(sample.choices) if _words(text) in answers}
    return any(found in letters for found in _LETTER.findall(thought))


def _contradicts(thought: str, sample: Sample) -> str | None:
    """A choice that the last thought names, where it names no right one and the question does not name it; else None."""
    said, asked = (f" {_words(text)} " for text in (thought, sample.question))
    answers = {_words(answer) for answer in sample.answers}
    named = [
        text for text in sample.choices if (word := _words(text)) and f" {word} " in said and f" {word} " not in asked
    ]
    return named[0] if named and not any(_words(text) in answers for text in named) else None


_LETTER = re.compile(r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*(?:is\s*)?\(?([A-Z])\b")


def _words(text: str) -> str:
    """Words as they are compared: numbers in digits, plurals as their singulars."""
    words = (_DIGITS.get(word, word) for word in re.findall(r"\w+", scoring.normalise(text)))
    return " ".join(word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word for word in words)


_DIGITS = {word: str(number) for number, word in enumerate(NUMBER_WORDS) if word != "one"}
"""Numbers in words; but "one" stands for a thing as often."""
