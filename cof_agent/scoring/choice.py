"""Which of the choices a reply names, by letter or text, and which are right."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cof_agent import protocol
from cof_agent.scoring.names import names_of
from cof_agent.scoring.normalise import folded, normalise, unwrapped
from cof_agent.scoring.statement import named
from cof_agent.trajectory import Sample

SEVERAL, RIGHT = "several", "right"
"""`metadata["scoring"]` of a sample of which several choices are right, and the key of their texts."""

_MARKED = re.compile(r"\s*(?:[(\[]\s*[a-z]\s*[)\]]|[a-z]\s*[):])\s*")
_LETTER_AND_TEXT = re.compile(r"\s*[(\[*]{0,3}([a-z])[)\]*]{0,3}(?:(?<![ai])\s|\s?[).:,-]\s?)\s?(?=\S)")
_LETTERS = re.compile(r"[A-Z]{2,26}")
_BETWEEN = re.compile(r"\s*[&+/]\s*")
_SAID = re.compile(
    r"\A(?:the )?(?:correct |final )?(?:answers?|options?|choices?|letters?)(?: is| are)?\s*:?\s*(?=\S)", re.I
)
_REASON = re.compile(r"\n|[.,;]?\s(?:because|since)\b", re.IGNORECASE)
_SPACED = re.compile(r"[a-z](?:\s+[a-z]){1,25}")  # as XLRS-Bench asks for them


def choice_of(answer: str, choices: Sequence[str], question: str = "") -> str | None:
    """The choice that an answer names by its text or its letter; None if it names none, or several.

    question: what was asked, whose words an answer may repeat.
    """
    chosen = chosen_of(answer, choices, question)
    return choices[chosen.pop()] if len(chosen) == 1 else None


def chosen_of(answer: str, choices: Sequence[str], question: str = "") -> set[int]:
    """The places of all choices that an answer names."""
    if not choices:
        return set()
    exact = _exact(answer, choices)
    if exact is not None:
        return {exact}
    both = _letter_and_text(answer, choices)
    if both:
        return both if len(both) == 1 else set()
    return named(answer, names_of(tuple((text,) for text in choices), lettered=True), question)


def _exact(answer: str, choices: Sequence[str]) -> int | None:
    """The choice whose whole text the answer is. A letter that is a text of a choice is that text, unless one is marked."""
    if _MARKED.fullmatch(folded(answer)) and len(choices) > 1:
        return None
    stripped, same = answer.strip(), normalise(answer)
    if stripped in choices:
        return list(choices).index(stripped)
    if any(_MARKED.fullmatch(folded(text)) for text in choices):  # (c), (a), (b): then a bare letter is a place
        place = ord(same) - ord("a") if len(same) == 1 and "a" <= same <= "z" else len(choices)
        return place if place < len(choices) else None
    return next((at for at, text in enumerate(choices) if normalise(text) == same), None)


def _letter_and_text(answer: str, choices: Sequence[str]) -> set[int]:
    """The choices that an answer gives by letter and by whole text, as in "B. red"; empty if it has not that form."""
    text = folded(answer)
    found = _LETTER_AND_TEXT.match(text)
    by_letter = {letter.casefold(): at for at, (letter, _) in enumerate(protocol.lettered(choices))}
    place = by_letter.get(found[1]) if found else None
    if found is None or place is None:
        return set()
    same = normalise(text[found.end() :])
    by_text = [at for at, choice in enumerate(choices) if normalise(choice) == same]
    return {place} if place in by_text else {place, *by_text} if by_text else set()


def all_chosen(answer: str, choices: Sequence[str], question: str = "") -> set[int]:
    """As `chosen_of`, for questions with several right choices: "AC" and "A C" name two."""
    bare = _REASON.split(_SAID.sub("", unwrapped(answer).strip(), count=1), maxsplit=1)[0].strip(" \n.")
    spaced = _SPACED.fullmatch(_BETWEEN.sub(" ", folded(bare)))
    letters = "".join(sorted(spaced[0].upper().split())) if spaced else normalise(bare).upper()
    ordered = sorted(set(letters)) == list(letters)
    marked = len(set(letters)) == len(letters) and bare.isupper()  # BDA, which is no word
    run = letters if _LETTERS.fullmatch(letters) and (ordered or marked) else ""
    places = {ord(letter) - ord("A") for letter in run}
    if places and max(places) < len(choices) and _exact(answer, choices) is None:
        return places
    return chosen_of(answer, choices, question)


def right_choices(sample: Sample) -> set[int]:
    """The places of the right choices, in which the truth may be given by text or by letter; empty if it is none of them."""
    if sample.metadata.get("scoring") == SEVERAL:
        texts = {normalise(str(text)) for text in sample.metadata.get(RIGHT, ())}
        return {at for at, text in enumerate(sample.choices) if normalise(text) in texts}
    right: set[int] = set()
    for truth in sample.answers:
        whole = {at for at, text in enumerate(sample.choices) if text == truth}
        chosen = whole if len(whole) == 1 else chosen_of(truth, sample.choices)
        right |= chosen if len(chosen) == 1 else set()
    same = {normalise(sample.choices[at]) for at in right}
    return {at for at, text in enumerate(sample.choices) if normalise(text) in same}
