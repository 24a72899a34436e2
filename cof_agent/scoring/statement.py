"""What a reply says: sentences and clauses, which options they name or deny, and whether each word of theirs is accounted for.

A sentence counts if it names an option, and each other word belongs to any answer ("I think it is"), restates the question, or
gives a reason behind "because". So a reply is not credited for a word that happens to stand in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from cof_agent.scoring.names import Names, names_of
from cof_agent.scoring.words import (
    ASKS_FOR_TEXT,
    CONCLUSIONS,
    COPULAS,
    CURRENCIES,
    FRAME,
    LIKELY,
    LOOKING,
    NEGATIONS,
    NOT_GIVEN,
    NUMBER_SIGNS,
    OPEN,
    QUANTIFIERS,
    REASONS,
    RELATIONS,
    REVISIONS,
    SPEECH,
    UNITS,
    Word,
    sought,
    stem,
    words_of,
)

_LONGEST = 4000  # characters of a reply that are read; of a longer one, the last
_SHORT = 4  # words; what has fewer and is not understood is no explanation
_SCALES = frozenset(("%", "percent", "thousand", "million", "billion", "trillion"))
_ARTICLES = frozenset(("a", "an", "the"))
_ENDS, _PAUSES = frozenset(".!?;\n"), frozenset(",:-(")


@dataclass(frozen=True, slots=True)
class Item:
    """A word, or the words that name an option."""

    text: str
    before: str
    option: int | None = None
    by_letter: bool = False
    after: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """The words of a question, in order, of which a reply may restate some.

    known: those that a reply may hold whatever it answers; ordered: whether their order matters; telling: words of any sentence
    that say something beside these names, as "right" does beside "left"; written: whether it asks for what is written.
    """

    words: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    ordered: bool = False
    telling: frozenset[str] = frozenset()
    written: bool = False


@dataclass(slots=True)
class Reading:
    """What one sentence says. clear: every word is accounted for; length: in words and names."""

    items: Sequence[Item]
    asks: bool
    named: set[int] = field(default_factory=set)
    denied: set[int] = field(default_factory=set)
    clear: bool = False

    @property
    def words(self) -> set[str]:
        return {item.text for item in self.items if item.option is None}

    @property
    def revises(self) -> bool:
        return any(item.option is None and item.text in REVISIONS for item in self.items[:2])


def named(reply: str, names: Names, question: str = "") -> set[int]:
    """The options that a reply settles on; empty where it names none, denies them, or leaves it open.

    Takes time in proportion to the length of the reply, of which at most the last 4,000 characters are read.
    """
    if len(reply) > _LONGEST:
        reply = reply[-_LONGEST:].partition("\n")[2] or ""
    asked = _question(question, names)
    items = _without_void(_items(words_of(reply), names), asked)
    readings = [_read(sentence, asks, names, asked) for sentence, asks in _sentences(items)]
    statements = [one for one in readings if not one.asks]
    if not any(one.named for one in statements):
        statements = readings if len(readings) == 1 and not _asks_back(readings[0]) else []
    start = next((at for at, one in enumerate(statements) if one.clear and one.named and _concludes(one)), 0)
    return _settled(statements[start:], bool(names.letters))


def _question(question: str, names: Names) -> Question:
    words = [word.text for word in words_of(question)]
    skipped = set()
    for at, word in enumerate(words):
        if word == "or":
            behind = (
                other for other in words[at + 1 :] if other not in ("to", "the", "a", "an", "on", "in", "at", "of")
            )
            skipped |= {*words[max(0, at - 1) : at], *list(behind)[:1]}
    known = {stem(word) for word in words if word not in OPEN | NEGATIONS | skipped} | {
        stem(word) for word in names.known
    }
    if known & {"percent", "percentage"}:
        known |= {"percent", "%"}
    options = {word for text in names.texts if not _speaks_of_others(text) for word in text}
    ordered = bool((set(words) | options) & RELATIONS)
    written = not names.letters and ASKS_FOR_TEXT.search(question) is not None
    return Question(tuple(map(stem, words)), frozenset(known), ordered, _telling(names, words), written)


def _speaks_of_others(words: Sequence[str]) -> bool:
    """Whether these are the words of an option such as "none of the above"."""
    return len(words) > 1 and words[-1] == "above" and words[0] in ("all", "none", "any", "both", "neither")


def _telling(names: Names, asked: Sequence[str]) -> frozenset[str]:
    said = {word for name in names.by_words for word in name}
    counts = said & QUANTIFIERS or any(word[-1:].isdigit() for word in said)
    sides = {"right"} if "left" in said or "left" in asked else set()
    return frozenset(sides | ({"one", "more", "most"} if counts else set())) - said


def _items(words: Sequence[Word], names: Names) -> list[Item]:
    found: list[Item] = []
    at = 0
    while at < len(words):
        option, length, by_letter = _name_at(words, at, names)
        text = " ".join(word.text for word in words[at : at + length])
        found.append(Item(text, words[at].before, option, by_letter, words[at + length - 1].after))
        at += length
    return found


def _without_void(items: Sequence[Item], question: Question) -> list[Item]:
    """With the "no" of "no answer" and "There is no image" as a word: nobody asked for these, and it names no option."""
    made = list(items)
    asked = sought(question.words)
    for at, item in enumerate(items[:-1]):
        behind = next((one for one in items[at + 1 : at + 3] if one.text != "visible"), items[at + 1])
        void = behind.text in NOT_GIVEN and stem(behind.text) not in asked
        if item.text == "no" and item.option is not None and not behind.before and void:
            made[at] = replace(item, option=None)
    return made


def _name_at(words: Sequence[Word], at: int, names: Names) -> tuple[int | None, int, bool]:
    """The option named from a word on, in how many words, and whether by its letter."""
    letter = names.letters.get(words[at].text)
    if letter is not None and _marked(words, at):
        return letter, 1, True
    for length in (length for length in names.lengths if at + length <= len(words)):
        name = tuple(word.text for word in words[at : at + length])
        option = names.by_words.get(name)
        paused = name not in names.paused and any({",", ";"} & set(word.before) for word in words[at + 1 : at + length])
        if option is not None and not paused and not (length == 1 and _is_article(words, at)):
            return option, length, False
    if letter is not None and not _is_article(words, at):
        return letter, 1, True
    return None, 1, False


def _marked(words: Sequence[Word], at: int) -> bool:
    """Whether a letter is marked as that of an option: "(B)", "B)", "B:", "option B"."""
    before, after = words[at].before[-1:], words[at].after[:1]
    if (before in ("(", "[") and after in (")", "]")) or (after in (")", "]", ":") and before not in ("(", "[")):
        return True
    return at > 0 and words[at - 1].text in ("option", "choice", "letter")


def _is_article(words: Sequence[Word], at: int) -> bool:
    """Whether "a" or "i" is a word of the sentence here."""
    if words[at].text not in ("a", "i") or words[at].after or at + 1 == len(words):
        return False
    return words[at + 1].text not in COPULAS | REASONS | {"and", "or"}


def _sentences(items: Sequence[Item]) -> Iterator[tuple[list[Item], bool]]:
    """The sentences, and whether each is a question."""
    found: list[Item] = []
    for at, item in enumerate(items):
        if found and _begins(items, at):
            yield found, "?" in item.before
            found = []
        found.append(item)
    if found:
        yield found, "?" in found[-1].after


def _begins(items: Sequence[Item], at: int) -> bool:
    item = items[at]
    if _ENDS & set(item.before) or (item.option is None and item.text in CONCLUSIONS):
        return True
    if not _PAUSES & set(item.before):
        return False
    ahead = [one.text for one in items[at : at + 4] if one.option is None]
    return "answer" in ahead and all(text in FRAME for text in ahead[: ahead.index("answer")])


def _read(items: Sequence[Item], asks: bool, names: Names, question: Question) -> Reading:
    items = _without_comparand(_without_looking(items), question)
    said = _without_reason(items)
    found = Reading(items, asks)
    everywhere = any(item.option is None and item.text in ("neither", "nor") for item in items)
    for clause in _clauses(items):
        positive, negative = _polarity(clause)
        found.named |= set() if everywhere else positive
        found.denied |= negative | (positive if everywhere else set())
    if len(said) < len(items):  # a reason may speak of other options
        found.named = {item.option for item in said if item.option is not None} - found.denied
        found.denied &= {item.option for item in said if item.option is not None}
    strict = replace(question, telling=FRAME - _ARTICLES) if question.written and not _speaks(said) else question
    given = _begin_of_name(said)  # what stands before it, up to a pause, is no part of what is written
    left = [at for at in range(len(said)) if not _accounted(said, at, names, question if at < given else strict)]
    unclear = any(map(_is_unclear, _clauses(said)))
    in_order = not question.ordered or _in_order(said, names, question)
    found.clear = not unclear and in_order and (not left or _is_subject(said, left, found, question))
    return found


def _begin_of_name(items: Sequence[Item]) -> int:
    """Where the clause begins that names the first option."""
    first = next((at for at, item in enumerate(items) if item.option is not None), 0)
    return next((at for at in range(first, 0, -1) if _PAUSES & set(items[at].before)), 0)


def _speaks(items: Sequence[Item]) -> bool:
    """Whether a reply speaks of what is written, and does not only give it: by a word such as "says", by a colon or in quotes."""
    marked = any({":", '"'} & set(item.before) for item in items)
    return marked or any(item.option is None and item.text in SPEECH for item in items)


def _without_looking(items: Sequence[Item]) -> Sequence[Item]:
    """Without "After zooming in," at the beginning, which says how something was seen, and not what."""
    pause = next((at for at, item in enumerate(items) if at and "," in item.before), 0)
    opening = {item.text for item in items[:pause]}
    if not opening & LOOKING or opening & (NEGATIONS | OPEN) or any(item.option is not None for item in items[:pause]):
        return items
    return items[pause:]


def _without_comparand(items: Sequence[Item], question: Question) -> list[Item]:
    """Without "than B": what something is compared with is not named as the answer."""
    kept: list[Item] = []
    for item in items:
        behind = [one.text for one in kept[-2:] if one.option is None]
        named = item.option is not None or (item.text not in FRAME and stem(item.text) in question.words)
        if named and "than" in behind:
            while kept.pop().text != "than":
                pass
        else:
            kept.append(item)
    return kept


def _without_reason(items: Sequence[Item]) -> Sequence[Item]:
    """What stands before "because", if that names an option and the reason does not take it back."""
    for at, item in enumerate(items):
        if item.option is None and item.text in REASONS and any(one.option is not None for one in items[:at]):
            behind = {one.text for one in items[at:] if one.option is None}
            return items if behind & (REVISIONS - {"no"} | {"answer"}) else items[:at]
    return items


def _clauses(items: Sequence[Item]) -> Iterator[list[Item]]:
    clause: list[Item] = []
    for item in items:
        if clause and _PAUSES & set(item.before):
            yield clause
            clause = []
        clause.append(item)
    if clause:
        yield clause


def _polarity(clause: Sequence[Item]) -> tuple[set[int], set[int]]:
    """The options that a clause names, and those that it denies: what stands behind "not", or, with nothing there, before it."""
    place = next((at for at, item in enumerate(clause) if item.option is None and item.text in NEGATIONS), len(clause))
    before = {item.option for item in clause[:place] if item.option is not None}
    behind = {item.option for item in clause[place:] if item.option is not None}
    if place == len(clause) or behind:
        return before, behind
    return set(), before


def _is_unclear(clause: Sequence[Item]) -> bool:
    """Whether a clause could be meant in two ways: "B, no C", or "False: B"."""
    words = [item.text if item.option is None else "" for item in clause]
    return words[:2] == ["no", ""] or (words[0] != "no" and set(words) <= NEGATIONS)


def _accounted(items: Sequence[Item], at: int, names: Names, question: Question) -> bool:
    item = items[at]
    if item.option is not None:
        return True
    if item.text in OPEN:
        return False
    behind = items[at + 1].text if at + 1 < len(items) else ""
    if (item.text, behind) in _HARMLESS or (item.text == "most" and behind in LIKELY):
        return True
    if item.text in FRAME - question.telling or item.text in NEGATIONS or stem(item.text) in question.known:
        return True
    if at > 1 and items[at - 1].text == "not" and stem(item.text) in question.words:
        return True  # "red, not green", of a question whether it is red or green
    unit = not names.units and item.text in UNITS
    signed = item.text in NUMBER_SIGNS
    beside = items[at + 1 : at + 2] if signed else items[max(0, at - 1) : at]
    return (unit or item.text == "#") and any(one.option is not None and one.text[-1:].isdigit() for one in beside)


def _in_order(items: Sequence[Item], names: Names, question: Question) -> bool:
    """Whether the words that restate the question, and the name if the question holds it, stand as they do there."""
    by_text = [at for at, item in enumerate(items) if item.option is not None and not item.by_letter]
    if not by_text:
        return True
    words = [stem(word) for item in items if _restates(item, question) for word in item.text.split()]
    option = items[by_text[0]].option
    orders = [question.words, tuple(map(stem, names.texts[option if option is not None else 0]))]
    if _is_inverted(items[by_text[-1] + 1 :]):
        return False
    return any(_is_subsequence(words, order) for order in orders)


_HARMLESS = {("right", word) for word in ("answer", "option", "choice")}
_RELATIVE = ("who", "which", "that")


def _is_inverted(behind: Sequence[Item]) -> bool:
    """Whether a name is followed by a copula and what that speaks of: "On the left is the man", not "the man who is"."""
    clause = list(takewhile(lambda item: not _PAUSES & set(item.before), behind))
    copulas = (at for at, item in enumerate(clause) if item.text in COPULAS)
    copula = next((at for at in copulas if not at or clause[at - 1].text not in _RELATIVE), len(clause))
    return any(item.text not in FRAME and item.text not in NEGATIONS for item in clause[copula:])


def _restates(item: Item, question: Question) -> bool:
    if item.option is not None:
        return not item.by_letter and all(stem(word) in question.words for word in item.text.split())
    return item.text not in FRAME and item.text not in NEGATIONS


def _is_subsequence(words: Sequence[str], order: Sequence[str]) -> bool:
    rest = iter(order)
    return all(word in rest for word in words)


def _is_subject(items: Sequence[Item], left: Sequence[int], found: Reading, question: Question) -> bool:
    """Whether the words that are left over describe what the question asks about: "The bag beside the bench is blue"."""
    places = [at for at, item in enumerate(items) if item.option is not None]
    if question.ordered or len(found.named) != 1 or found.denied or found.words & (OPEN | NEGATIONS):
        return False
    copula = max((at for at in range(places[0]) if items[at].text in COPULAS), default=-1)
    head = next((at for at, item in enumerate(items) if item.text not in FRAME), None)
    if head is None or items[head].option is not None or stem(items[head].text) not in question.known:
        return False
    # What is left over behind a copula is the answer: "The umbrella is blue, the car is red".
    between = range(head + 1, left[0])
    if any(items[at].text in COPULAS and items[at - 1].text not in _RELATIVE for at in between):
        return False
    return left[-1] < copula


def _concludes(reading: Reading) -> bool:
    return bool(reading.words & {"answer", "ans", "choose", "pick", "select"}) or "答" in reading.words


def _asks_back(reading: Reading) -> bool:
    first = reading.items[0]
    return (
        reading.asks
        and first.option is None
        and first.text in COPULAS | {"could", "can", "would", "should", "do", "does"}
    )


def _settled(statements: Sequence[Reading], with_options: bool) -> set[int]:
    """What sentences settle on together: a later one may explain or take back what was said, but not contradict it."""
    chosen: set[int] = set()
    denied: set[int] = set()
    revised = False
    for one in statements:
        if one.clear:
            chosen = one.named if one.named and (revised or one.revises) else chosen | one.named
            denied |= one.denied
            revised = not one.named and bool(one.words & REVISIONS)
        elif not _explains(one, chosen, with_options):
            return set()
    return set() if chosen & denied else chosen


def _explains(one: Reading, chosen: set[int], with_options: bool) -> bool:
    """Whether a sentence that is not fully understood can stand beside an answer."""
    if len(one.items) < _SHORT or one.words & QUANTIFIERS:
        return False
    if not chosen:
        return not one.words & {"if", "unless"}
    if one.revises or one.denied & chosen or (one.named and not one.named & chosen):
        return False
    return not one.words & OPEN or (with_options and not one.named)


def content_of(reply: str, question: str) -> str:
    """The words of a reply from the first to the last that neither belong to any answer nor restate the question."""
    words = [word.text for word in words_of(reply[-_LONGEST:])]
    known = _question(question, names_of((), lettered=False)).known
    told = [at for at, word in enumerate(words) if (word not in FRAME or word in RELATIONS) and stem(word) not in known]
    return " ".join(words[told[0] : told[-1] + 1]) if told else ""


def number_said(reply: str, question: str = "") -> str:
    """The one number in a reply of which every other word is accounted for, with its unit; empty if there is no such number."""
    words = words_of(reply[-_LONGEST:])
    numbers = [at for at, word in enumerate(words) if word.text.lstrip("+-")[:1].isdigit()]
    known = _question(question, names_of((), lettered=False)).known
    if len(numbers) != 1:
        return ""
    start = numbers[0] - (numbers[0] > 0 and words[numbers[0] - 1].text in CURRENCIES)
    behind = numbers[0] + 1
    end = behind + (behind < len(words) and words[behind].text in UNITS | _SCALES)
    rest = [word.text for word in (*words[:start], *words[end:])]
    if any(word in OPEN or (word not in FRAME and stem(word) not in known) for word in rest):
        return ""
    return " ".join(word.text for word in words[start:end])
