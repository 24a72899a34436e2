"""Whether a reply is right: what a person would say who knows the question and the truth, without a judge."""

from __future__ import annotations

import re
from itertools import pairwise
from string import ascii_lowercase as LETTERS

from cof_agent.scoring.choice import SEVERAL, all_chosen, chosen_of, right_choices
from cof_agent.scoring.names import names_of
from cof_agent.scoring.normalise import normalise
from cof_agent.scoring.numbers import Quantity, fraction, quantity, same
from cof_agent.scoring.statement import content_of, named
from cof_agent.scoring.words import (
    ASKS_FOR_LABEL,
    AUXILIARIES,
    FRAME,
    NEGATIONS,
    NUMBER_WORDS,
    OPEN,
    ORDERED,
    PERSONS,
    QUANTIFIERS,
    RELATIONS,
    REVISIONS,
    refuses,
    stem,
    words_of,
)
from cof_agent.trajectory import Sample

YES = ("yes", "true", "yeah", "yep", "y", "correct")
NO = ("no", "false", "nope", "n", "incorrect")
_STATED = re.compile(r"^[a-z]=(?=.)")
_SENTENCE = 4  # words; a truth of fewer is no sentence
_PRONOUNS = ("it", "they", "he", "she", "there", "this", "that", "these", "those")
_TELLING = RELATIONS | set(NUMBER_WORDS) | {"both", "only"}


def matches(answer: str, sample: Sample) -> bool:
    """Whether `answer` means one of the accepted answers, in whatever words it says so.

    With choices, it must settle on one right choice, by letter or text; where several are right, on all of them. Without
    choices, it must say an accepted answer and nothing that is not accounted for (see `statement`).
    """
    right = right_choices(sample)
    if sample.metadata.get("scoring") == SEVERAL:
        return bool(right) and all_chosen(answer, sample.choices, sample.question) == right
    if right:
        chosen = chosen_of(answer, sample.choices, sample.question)
        return (
            chosen <= right
            if chosen
            else _has_no_letter(answer, len(sample.choices)) and _yes_or_no(answer, sample) is True
        )
    return _matches_text(answer, sample)


def _has_no_letter(answer: str, options: int) -> bool:
    """Whether a reply does not begin with what may be the letter of one of so many options."""
    return all(word.text not in LETTERS[:options] for word in words_of(answer)[:1])


def _matches_text(answer: str, sample: Sample) -> bool:
    answers = tuple(sample.answers)
    bare = not ASKS_FOR_LABEL.search(sample.question)
    said, accepted = _value(answer), [_value(text) for text in answers]
    if said in accepted:
        return True
    said = _STATED.sub("", said)
    if said in accepted:
        return True
    if not said or not answers:
        return False
    agrees = _yes_or_no(answer, sample)
    if agrees is not None:
        return agrees
    number = _number(said)
    if number is not None and any((true := _number(text)) and same(number, true, bare=bare) for text in accepted):
        return True
    if (numbers := _numbers(said)) and numbers in map(_numbers, accepted):
        return True
    parts = _parts(said)
    if (
        parts
        and not {stem(word.text) for word in words_of(sample.question)} & ORDERED
        and parts in map(_parts, accepted)
    ):
        return True
    if "0" in accepted and _says_none(answer, sample.question):
        return True
    if named(answer, names_of((answers,), lettered=False, bare=bare), sample.question):
        return True
    return any(_is_told(answer, truth, sample.question) for truth in sample.answers)


def _value(text: str) -> str:
    """A text in one form, its commas and equals signs spaced alike."""
    return ", ".join(part.strip() for part in re.sub(r"\s*=\s*", "=", normalise(text)).split(","))


def _number(text: str) -> Quantity | None:
    return quantity(text) or fraction(text)


def _numbers(text: str) -> list[str]:
    """The numbers of an enumeration in their order, "7, 10" or "7 and 10"; none of another text."""
    found = re.split(r", | and |, and | & ", text)
    return found if len(found) > 1 and all(re.fullmatch(r"-?\d{1,9}(?:\.\d+)?", one) for one in found) else []


def _parts(text: str) -> frozenset[str]:
    """The parts of an enumeration, "red, blue" or "red and blue"; none of a single word, or where it has figures."""
    parts = [part.removeprefix("and ").strip() for part in re.split(r",|\band\b|&", text)]
    parts = [part for part in parts if part]
    named = len(parts) > 1 and all(len(part.split()) < 3 for part in parts) and not re.search(r"\d", text)
    return frozenset(parts) if named and len(set(parts)) == len(parts) else frozenset()


def _says_none(answer: str, question: str) -> bool:
    """Whether a reply to "How many?" says "There are no people"."""
    words = [word.text for word in words_of(answer)]
    known = {stem(word.text) for word in words_of(question)}
    pairs = list(pairwise(words))
    if "nobody" in words or ("no", "one") in pairs:
        rest = {stem(word) for word in words if word not in FRAME | {"no", "nobody"}}
        return bool(known & PERSONS) and rest <= known
    for at, pair in enumerate(pairs):
        if pair == ("not", "any"):
            words[at : at + 2] = ["no"]
            break
    told = [word for word in words if word not in FRAME and word != "no"]
    return words.count("no") == 1 and bool(told) and all(stem(word) in known and word not in OPEN for word in told)


def _is_told(answer: str, truth: str, question: str) -> bool:
    """Whether a short reply is what a truth says that is a sentence, as those of DeepEyes' questions are: "tan", where the truth
    is "The countertop is tan"."""
    words, content = [word.text for word in words_of(truth)], content_of(answer, question)
    if len(words) < _SENTENCE or not content:
        return False
    asked = set(_content([word.text for word in words_of(question)]))
    if words[0] not in ("it", "they", "he", "she", "there") and not asked & set(_content(words)):
        return False  # what is written somewhere, which no part of is right
    return bool(named(truth, names_of(((content,),), lettered=False), question))


def _yes_or_no(answer: str, sample: Sample) -> bool | None:
    """Whether a reply agrees with a truth that is yes or no; None if the truth is neither."""
    truths = {_truth(text, sample.question) for text in sample.answers}
    if len(truths) != 1 or None in truths or not all(_sense(text) is not None for text in sample.choices):
        return None
    said = says_yes(answer, sample.question)
    return said is not None and said in truths


def _sense(text: str) -> bool | None:
    word = normalise(text)
    return True if word in YES else False if word in NO else None


def _truth(text: str, question: str) -> bool | None:
    """The sense of a truth, also of "No, the spots are on a banana" where the question is one of yes or no."""
    sense, words = _sense(text), words_of(question)
    return _begins(text) if sense is None and words and words[0].text in AUXILIARIES else sense


def says_yes(answer: str, question: str = "") -> bool | None:
    """Whether a reply to a question says yes; None if it says neither, or both."""
    begins = _begins(answer)
    if begins is not None:
        return begins
    said = named(answer, names_of((YES, NO), lettered=False), question)
    if len(said) == 1:
        return said == {0}
    return _restated(answer, question) if not said else None


def _begins(text: str) -> bool | None:
    """The sense of "Yes, ...", "No. ..." and "no it is not"; None if what follows takes it back, or if it begins otherwise."""
    words = words_of(text)
    if len(words) < 2 or words[0].text not in ("yes", "no"):
        return None
    yes, rest = words[0].text == "yes", {word.text for word in words[1:]}
    restated = words[1].text in _PRONOUNS and (yes or not rest.isdisjoint(NEGATIONS))
    if not words[0].after.startswith((",", ".", "!", ";", ":")) and not restated:
        return None
    against = NEGATIONS | set(NO) if yes else set(YES)
    return None if rest & (against | (REVISIONS - {"instead"}) | (OPEN - QUANTIFIERS)) else yes


def says_yes_as_pope(reply: str) -> bool:
    """Whether a reply says yes by the rule of POPE's own evaluation (https://github.com/RUCAIBox/POPE, `evaluate.py`): no, where
    its first sentence has the word no or not, and else yes, whatever it says."""
    first = normalise(reply.partition(".")[0].replace(",", " ")).split()
    return not {"no", "not"} & {word.strip("!;:*\"'") for word in first}


def _restated(answer: str, question: str) -> bool | None:
    """Yes for a reply that repeats the question as a statement, or the end of it: "It is on the left"; no if with "not"."""
    words, asked = ([word.text for word in words_of(text)] for text in (answer, question))
    refused = refuses(words, asked)
    # "Not any dog" is no dog.
    words = [word for at, word in enumerate(words) if word != "any" or NEGATIONS.isdisjoint(words[:at])]
    if not asked or asked[0] not in AUXILIARIES or set(asked) & (NEGATIONS | OPEN) or not set(words) & AUXILIARIES:
        return None
    if words[0] in (*AUXILIARIES, *YES, *NO) or set(words) & (OPEN | {"yes", "true", "false", "wrong"}):
        return None
    said, whole = _content(words), _content(asked)
    if not said and refused:
        return None
    if said and (whole[-len(said) :] != said or _TELLING & set(said) != _TELLING & set(whole)):
        return None
    denials = sum(word in NEGATIONS for word in words)
    return denials == 0 if denials < 2 else None


def _content(words: list[str]) -> list[str]:
    """The words that say something, in order: in a question of left and right, or of how many, these are among them."""
    dropped = (FRAME | AUXILIARIES | NEGATIONS) - _TELLING
    return [stem(word) for word in words if word not in dropped]
