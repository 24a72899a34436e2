"""The names of options: their letters, their texts, and shorter ways to say these that fit no other option."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from cof_agent import protocol
from cof_agent.scoring.normalise import folded
from cof_agent.scoring.numbers import Quantity, quantity
from cof_agent.scoring.words import CURRENCIES, FRAME, NUMBER_WORDS, RELATIONS, UNIT_NAMES, UNITS, split, words_of

Words = tuple[str, ...]

_CHINESE = "零一二三四五六七八九十"
_ARTICLES = ("a", "an", "the")


@dataclass(frozen=True, slots=True)
class Names:
    """How options are named.

    by_words: the option of each name; letters: the option of each letter, in lower case; lengths: of the names in words,
    longest first; known: words that all options share; texts: the words of each option; units: whether a number among the
    options has a unit, so that no other unit may stand behind it; paused: names that have a comma within.
    """

    by_words: Mapping[Words, int]
    letters: Mapping[str, int]
    lengths: tuple[int, ...]
    known: frozenset[str]
    texts: tuple[Words, ...]
    units: bool
    paused: frozenset[Words]


@lru_cache(4096)
def names_of(options: tuple[tuple[str, ...], ...], lettered: bool, bare: bool = False) -> Names:
    """The names of options, each given as its accepted texts. lettered: whether the options are shown with letters. bare: whether
    a number names an option whatever stands behind it there, as it does among lettered options."""
    texts = tuple(tuple(word.text for word in words_of(option[0])) if option else () for option in options)
    full: dict[Words, int] = {}
    for number, option in enumerate(options):
        for text in option:
            full.setdefault(_name(text), number)
    shorter: dict[Words, set[int]] = defaultdict(set)
    cores, known = _cores(texts)
    for number, option in enumerate(options):
        forms = (form for text in option for form in _forms(text, lettered or bare))
        for name in (*forms, *(cores[number : number + 1] if cores else ())):
            shorter[name].add(number)
    by_words = {name: next(iter(owners)) for name, owners in shorter.items() if len(owners) == 1} | full
    by_words.pop((), None)
    letters = [letter.casefold() for letter, _ in protocol.lettered([""] * len(options))] if lettered else []
    lengths = tuple(sorted({len(name) for name in by_words}, reverse=True))
    by_letter = {letter: number for number, letter in enumerate(letters)}
    paused = frozenset(_name(text) for option in options for text in option if "," in text or ";" in text)
    units = any((found := quantity(text)) is not None and bool(found.unit) for option in options for text in option)
    return Names(by_words, by_letter, lengths, known, texts, units, paused)


def _name(text: str) -> Words:
    """The words of a text; none for "it's", whose words any sentence may have."""
    words = tuple(word.text for word in words_of(text))
    return () if "'" in folded(text) and all(word in FRAME for word in words) else words


def _forms(text: str, bare: bool) -> Iterator[Words]:
    """Further ways to say one text. bare: whether its number may name it, whatever its unit is."""
    words = tuple(word.text for word in words_of(text))
    if len(words) > 1 and words[0] in _ARTICLES:
        yield words[1:]
    for form in _number_forms(words[0]) if words else ():
        if len(words) == 1 or form != ("none",):
            yield (*form, *words[1:])
    found = quantity(text)
    if found is not None:
        yield from _quantity_forms(found, bare)


def _number_forms(word: str) -> Iterator[Words]:
    if word in NUMBER_WORDS:
        yield (str(NUMBER_WORDS.index(word)),)
    elif (
        word.isascii() and word.isdigit() and len(word) < 3 and str(int(word)) == word and int(word) < len(NUMBER_WORDS)
    ):
        yield (NUMBER_WORDS[int(word)],)
        if int(word) < len(_CHINESE):
            yield (_CHINESE[int(word)],)
        if word == "2":
            yield ("两",)
    if word in ("0", "zero"):
        yield ("none",)


def _quantity_forms(found: Quantity, bare: bool) -> Iterator[Words]:
    number = _plain(found.value)
    same = next((names for names in UNIT_NAMES if found.unit in names), (found.unit,))
    for unit in same:
        yield tuple(word.text for word in split(f"{number} {unit}"))
        yield tuple(word.text for word in split(f"{number}{unit}"))
        if found.unit:
            yield from ((*form, *(word.text for word in split(unit))) for form in _number_forms(number))
        if found.unit in CURRENCIES:
            yield tuple(word.text for word in split(f"{unit} {number}"))
            yield tuple(word.text for word in split(f"{found.unit}{number} {unit}"))
    if found.unit == "%":
        yield (_plain(found.value.scaleb(-2)),)
    elif not found.exact and not found.unit:
        yield (_plain(found.value.scaleb(2)), "%")
    if found.unit and (bare or found.is_measure):
        yield (number,)
        yield from (_number_forms(number) if bare else ())


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _cores(texts: Sequence[Words]) -> tuple[list[Words], frozenset[str]]:
    """What is left of each text without the words that all begin or end with, and these words; empty where that names nothing."""
    shortest = min(map(len, texts), default=0)
    if len(texts) < 2 or shortest == 0:
        return [], frozenset()
    head = min(_shared(texts), shortest - 1)
    tail = min(_shared([text[::-1] for text in texts]), shortest - 1 - head)
    cores = [text[head : len(text) - tail] for text in texts]
    if head + tail == 0 or not all(_names_something(core) for core in cores):
        return [], frozenset()
    return cores, frozenset(texts[0][:head] + texts[0][len(texts[0]) - tail :])


def _shared(texts: Sequence[Words]) -> int:
    """How many words all texts begin with."""
    return next((at for at, words in enumerate(zip(*texts, strict=False)) if len(set(words)) > 1), min(map(len, texts)))


def _names_something(core: Words) -> bool:
    """Whether a core is neither a letter, which would be that of an option, nor a unit, nor a word of any sentence."""
    if len(core) == 1 and (len(core[0]) == 1 and core[0].isalpha()):
        return False
    return any(word in RELATIONS or word not in FRAME | UNITS for word in core)
