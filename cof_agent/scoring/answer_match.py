"""Whether a reply is right: what a person would say who knows the question and the truth, without a judge."""

from __future__ import annotations

from cof_agent.scoring.choice import SEVERAL, all_chosen, chosen_of, right_choices
from cof_agent.scoring.names import names_of
from cof_agent.scoring.normalise import normalise
from cof_agent.scoring.numbers import quantity, same
from cof_agent.scoring.statement import named
from cof_agent.scoring.words import FRAME, NEGATIONS, OPEN, stem, words_of
from cof_agent.trajectory import Sample

YES = ("yes", "true", "yeah", "yep", "y", "correct")
NO = ("no", "false", "nope", "n", "incorrect")
_AUXILIARIES = frozenset(
    (
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "can",
        "could",
        "will",
        "would",
        "should",
        "am",
    )
)


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
        return chosen <= right if chosen else _has_no_letter(answer) and _yes_or_no(answer, sample) is True
    return _matches_text(answer, sample)


def _has_no_letter(answer: str) -> bool:
    """Whether a reply does not begin with what may be the letter of an option."""
    return all(len(word.text) > 1 for word in words_of(answer)[:1])


def _matches_text(answer: str, sample: Sample) -> bool:
    said = _list_form(normalise(answer))
    accepted = [_list_form(normalise(text)) for text in sample.answers]
    if said in accepted:
        return True
    if not said or not sample.answers:
        return False
    agrees = _yes_or_no(answer, sample)
    if agrees is not None:
        return agrees
    number = quantity(said)
    if number is not None and any((true := quantity(text)) and same(number, true) for text in sample.answers):
        return True
    return bool(named(answer, names_of((tuple(sample.answers),), lettered=False), sample.question))


def _list_form(text: str) -> str:
    return ", ".join(part.strip() for part in text.split(","))


def _yes_or_no(answer: str, sample: Sample) -> bool | None:
    """Whether a reply agrees with a truth that is yes or no; None if the truth is neither."""
    truths = {_sense(text) for text in sample.answers}
    if len(truths) != 1 or None in truths or not all(_sense(text) is not None for text in sample.choices):
        return None
    said = says_yes(answer, sample.question)
    return said is not None and said in truths


def _sense(text: str) -> bool | None:
    word = normalise(text)
    return True if word in YES else False if word in NO else None


def says_yes(answer: str, question: str = "") -> bool | None:
    """Whether a reply to a question says yes; None if it says neither, or both."""
    said = named(answer, names_of((YES, NO), lettered=False), question)
    if len(said) == 1:
        return said == {0}
    return _restated(answer, question) if not said else None


def says_yes_as_pope(reply: str) -> bool:
    """Whether a reply says yes by the rule of POPE's own evaluation (https://github.com/RUCAIBox/POPE, `evaluate.py`): no, where
    its first sentence has the word no or not, and else yes, whatever it says."""
    first = normalise(reply.partition(".")[0].replace(",", " ")).split()
    return not {"no", "not"} & {word.strip("!;:*\"'") for word in first}


def _restated(answer: str, question: str) -> bool | None:
    """Yes for a reply that repeats the question as a statement, no if it does so with "not": "It is not"."""
    words, asked = ([word.text for word in words_of(text)] for text in (answer, question))
    if not asked or asked[0] not in _AUXILIARIES or set(asked) & (NEGATIONS | OPEN) or not set(words) & _AUXILIARIES:
        return None
    if words[0] in (*_AUXILIARIES, *YES, *NO) or set(words) & (OPEN | {"yes", "true", "false", "wrong"}):
        return None
    content = [stem(word) for word in words if word not in FRAME and word not in NEGATIONS]
    rest = iter([stem(word) for word in asked])
    if not all(word in rest for word in content):
        return None
    denials = sum(word in NEGATIONS for word in words)
    return denials == 0 if denials < 2 else None
