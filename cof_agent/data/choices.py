"""Choices: taken out of the text or the columns that they are published in, put into a sample, and shuffled.

Choices are kept by their key, which is a letter from A on, or what the set itself names them by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from cof_agent.data.columns import words
from cof_agent.data.nested import is_missing, is_nan, unpacked
from cof_agent.data.unusable import BAD_CHOICES, Unusable
from cof_agent.trajectory import Sample

Choices = dict[str, str]
"""The text of each choice by its key, in order."""

_NUMBERS = tuple(str(number) for number in range(1, len(ascii_uppercase) + 1))

_REFERS_TO_OTHERS = re.compile(
    r"\b(?:(?:all|none|any|both|neither)(?: of)? the above|the (?:above|other) (?:answers|options|choices))\b",
    re.IGNORECASE,
)


_BULLET = r"(?:[-*•][^\S\n]+)?"


def options_in(text: str) -> tuple[str, dict[str, str]]:
    """What stands before option A, and the text of each option by its letter: "(A) red", "A. red", "a) red" or "A: red".

    A mark is looked for at the start of a line first, then behind a space. Letters follow each other; the first that has
    no mark ends the options.
    """
    marks = _places(text, ascii_uppercase) or _places(text, ascii_lowercase)
    ends = [start for start, _ in marks[1:]] + [len(text)]
    found_options = {
        letter: " ".join(text[start:end].split())
        for letter, (_, start), end in zip(ascii_uppercase, marks, ends, strict=False)
    }
    return (text[: marks[0][0]] if marks else text).strip(), found_options


def _places(text: str, letters: str) -> list[tuple[int, int]]:
    """Where the marks of options stand, by these letters."""
    places: list[tuple[int, int]] = []
    for letter in letters:
        begin = places[-1][1] if places else 0
        mark = rf"\(?{letter}[.):]"
        found = re.compile(rf"^[^\S\n]*{_BULLET}{mark}", re.MULTILINE).search(text, begin)
        found = found or re.compile(rf"(?<=[\s;]){mark}(?=\s)").search(text, begin)
        if found is None:
            break
        places.append(found.span())
    return places


_OWN_MARK = re.compile(_BULLET + r"(?:[(\[]([A-Za-z])[)\]]|([A-Z])[.):]|([a-z])\))\s+(.*)", re.DOTALL)
_NO_CHOICE = re.compile(r"\W*|[^\W\d_][\w ]{2,40}:")  # "-", "Options:"


def listed(options: Iterable[Any]) -> Choices:
    """Choices by letter from a list in order, without their own marks ("(A) red") where all have one. Choices that are marked
    with numbers ("1. red") have these for keys.

    Raises:
        Unusable: if some are marked with letters that are not those of their places.
    """
    texts = [text_of(option) for option in options]
    marked = [_own_mark(text) for text in texts]
    if any(marked) and (own := _by_own_marks(texts, marked)):
        return own
    for marks, behind in ((ascii_uppercase, r"\s*"), (_NUMBERS, r"\s+")):
        bare = [re.sub(rf"^\(?{mark}[.):]{behind}", "", text) for mark, text in zip(marks, texts, strict=False)]
        if len(bare) == len(texts) and all(bare[n] != texts[n] for n in range(len(texts))):
            return {mark: text or mark for mark, text in zip(marks, bare, strict=False)}
    return dict(zip(keys(len(texts)), texts, strict=True))


def _own_mark(text: str) -> tuple[str, str] | None:
    """The letter that a choice is marked with, in upper case, and its text."""
    found = _OWN_MARK.fullmatch(text)
    return None if found is None else ((found[1] or found[2] or found[3]).upper(), found[4].strip())


def _by_own_marks(texts: Sequence[str], marked: Sequence[tuple[str, str] | None]) -> Choices:
    """Choices by their own letters, where all that may be choices have one; empty where letters may be part of the texts."""
    found = [one for one in marked if one is not None]
    letters = [letter for letter, _ in found]
    if len(set(letters)) < len(letters):
        return {}
    if all(one or _NO_CHOICE.fullmatch(text) for one, text in zip(marked, texts, strict=True)):
        return {letter: text or letter for letter, text in found}
    in_place = all(one is None or one[0] == key for one, key in zip(marked, keys(len(texts)), strict=True))
    if sorted(letters) == keys(len(letters)) and len(letters) > 1 and not in_place:
        raise Unusable(BAD_CHOICES, f"the marks {', '.join(letters)} are not those of their places")
    return {}


def keys(count: int) -> list[str]:
    """The letters of so many choices; numbers from 1 where the alphabet is too short."""
    return list(ascii_uppercase[:count]) if count <= len(ascii_uppercase) else [str(n) for n in range(1, count + 1)]


def text_of(option: Any) -> str:
    """A choice or an answer as a text; numbers that a table has made fractions of are whole again."""
    return str(int(option) if isinstance(option, float) and option.is_integer() else option).strip()


_KEY_NAMES = ("label", "key", "id", "letter", "index", "option")
_FLAG_NAMES = ("is_correct", "correct", "isCorrect", "is_answer", "right")
_TEXT_NAMES = ("text", "value", "content", "option", "choice", "answer")


def choices_of(found: Any) -> Choices:
    """The choices that a column holds: a list of texts or of objects, an object by key, or one text with all of them.

    Raises:
        Unusable: if it holds none that can be told apart.
    """
    found = unpacked(found)
    made: Choices = {}
    if is_missing(found) or _is_empty(found):
        return made
    if isinstance(found, str):
        made = _clean(options_in(found)[1]) or _without_holes(_bracketed(found) or _pieces(found))
    elif isinstance(found, list | tuple) and found and all(isinstance(one, dict) for one in found):
        made = _of_objects(found)
    elif isinstance(found, list | tuple) and not any(isinstance(one, dict | list) for one in found):
        made = _without_holes(found)
    elif isinstance(found, Mapping):
        made = _of_object(found)
    if len(made) < 2:
        raise Unusable(BAD_CHOICES, found)
    return made


def _is_empty(found: Any) -> bool:
    """Whether a column of choices holds no text, as tables have it in rows without choices."""
    inside = found.values() if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else [found]
    return all(is_missing(one) or is_nan(one) for one in inside)


def _bracketed(text: str) -> list[str | None]:
    """The parts of a list that is neither JSON nor Python: `['don't', 'do']`, `['a', nan]`, `[cat, dog]`; else none."""
    text = text.strip()
    if len(text) < 3 or text[0] != "[" or text.find("]") != len(text) - 1 or text.rfind("[") > 0:
        return []
    inner = text[1:-1].strip()
    if ";" in inner and "," not in inner:
        return [*_pieces(inner)]
    quoted = inner[:1] in ("'", '"')
    parts = re.split(r"(?<=['\"]),\s*|,\s*(?=['\"])" if quoted else r",", inner)
    bare = [part.strip()[1:-1] if part.strip()[:1] in ("'", '"') else part.strip() for part in parts]
    return [None if is_nan(one) or one == "None" else one for one in bare]


def _without_holes(found: Sequence[Any]) -> Choices:
    """The choices of a list by the letters of their places, of which some may be empty."""
    if not any(map(is_missing, found)):
        return listed(found)
    texts = {key: text_of(one) for key, one in zip(keys(len(found)), found, strict=True) if not is_missing(one)}
    marked = {key: _own_mark(text) for key, text in texts.items()}
    return {key: own[1] if (own := marked[key]) and own[0] == key else text for key, text in texts.items()}


def flags_of(found: Any) -> list[bool] | None:
    """Which choices are right, where each is an object that says so."""
    found = unpacked(found)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return None
    name = next((name for name in _FLAG_NAMES if found and all(isinstance(one.get(name), bool) for one in found)), None)
    return None if name is None else [one[name] for one in found]


def _pieces(text: str) -> list[str]:
    """The parts of a text between line breaks, semicolons, bars or commas, whichever there are first."""
    separator = next((one for one in "\n;|," if one in text), "\n")
    return [piece.strip() for piece in text.split(separator) if piece.strip()]


def _of_objects(found: Sequence[Mapping[str, Any]]) -> Choices:
    text = next((name for name in _TEXT_NAMES if all(name in one for one in found)), None)
    key = next((name for name in _KEY_NAMES if name != text and all(name in one for one in found)), None)
    if text is None:
        merged = {name: value for one in found for name, value in one.items()}  # [{"A": "red"}, {"B": "blue"}]
        return _of_object(merged) if len(merged) == len(found) else {}
    if key is None:
        return listed(one[text] for one in found)
    return {str(one[key]).strip(): text_of(one[text]) for one in found}


def _of_object(found: Mapping[str, Any]) -> Choices:
    texts = next((found[name] for name in (*_TEXT_NAMES, "choices") if isinstance(found.get(name), list)), None)
    if texts is not None:
        labels = next((found[name] for name in _KEY_NAMES if isinstance(found.get(name), list)), None)
        if labels is None or len(labels) != len(texts):
            return listed(texts)
        return {str(label).strip(): text_of(text) for label, text in zip(labels, texts, strict=True)}
    made = {str(key).strip(): text_of(text) for key, text in found.items() if not is_missing(text)}
    if not all(key in ascii_uppercase for key in made):
        return made
    bare = {key: re.sub(rf"^\(?{key}[.):]\s*", "", text) for key, text in made.items()}
    return bare if all(bare[key] != made[key] and bare[key] for key in made) and len({*bare.values()}) > 1 else made


@cache
def choice_columns(names: tuple[str, ...]) -> dict[str, str]:
    """The columns that hold one choice each (`A`, `B`, ... or `option_a`, `option 1`, ...) by the choice's key; empty where
    they do not begin with the first two."""
    found = {key: name for name in names if (key := _key_of(words(name))) is not None}
    if {"A", "B"} <= found.keys():
        return {letter: found[letter] for letter in ascii_uppercase if letter in found}
    numbers = sorted((key for key in found if key.isdecimal()), key=int)
    if numbers[:2] not in (["0", "1"], ["1", "2"]):
        return {}
    return {letter: found[number] for letter, number in zip(ascii_uppercase, numbers, strict=False)}


def _key_of(name: tuple[str, ...]) -> str | None:
    if len(name) == 2 and name[0] in ("option", "choice", "opt") and (len(name[1]) == 1 or name[1].isdecimal()):
        return name[1].upper()
    return name[0].upper() if len(name) == 1 and name[0] in ascii_lowercase else None


@dataclass(frozen=True, slots=True)
class Split:
    """A question's text in parts. before: what stands before the choices. after: what stands behind them."""

    before: str
    choices: Choices
    after: str = ""


_STYLES = (r"\({}\)", r"\[{}\]", r"（{}）", r"{}\.", r"{}\)", r"{}:", r"{}、", r"{}．", r"{}：")
_BEGINNINGS = [
    (style.replace("\\", "").format(letters[0]), style, letters)
    for letters in (ascii_uppercase, ascii_lowercase)
    for style in _STYLES
    if letters is ascii_uppercase or style in (r"\({}\)", "（{}）", r"{}\.", r"{}\)")
]
"""How the first choice may be marked, the style of that mark, and the letters of the others."""
_NUMBERED = [("\n(1)", r"\({}\)", _NUMBERS), ("\n1.", r"{}\.", _NUMBERS), ("\n1)", r"{}\)", _NUMBERS)]

_HEADER = re.compile(
    r"(?:^|(?<=\s))(?:answer |the )?(?:options|choices|candidates|选项)\s*(?:are)?\s*[:：]?\s*\Z", re.IGNORECASE
)


_LONGEST_HEADER = 60  # characters in which one is looked for


@cache
def _mark(style: str, letter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The mark of one choice at the start of a line, and within a line."""
    mark = style.format(letter)
    inside = rf"(?<=[\s,;]){mark}" if style.startswith((r"\(", "（")) else rf"(?<=[\s,;]){mark}(?=\s)"
    return re.compile(rf"^[^\S\n]*{_BULLET}{mark}", re.MULTILINE), re.compile(inside)


def are_numbered(questions: Sequence[str]) -> bool:
    """Whether each of these questions, which have answers, has a numbered list: then it holds the choices."""
    return bool(questions) and all(any(first in text for first, _, _ in _NUMBERED) for text in questions)


def split_choices(text: str, *, numbered: bool = False) -> Split | None:
    """The choices inside a question's text; None where there are none beyond doubt. numbered: whether a numbered list counts.

    They begin with A and B, all marked in one way: at the start of lines, or in a row behind a question mark, a colon or a word
    such as "Options". What follows them on lines of its own is no part of the last, unless all choices take several lines.
    """
    for first, style, letters in [*_BEGINNINGS, *_NUMBERED] if numbered else _BEGINNINGS:
        if first in text:
            marks = _marks(text, style, letters)
            if len(marks) < 2:
                continue
            before = text[: marks[0][0]].rstrip()
            header = _HEADER.search(before, max(0, len(before) - _LONGEST_HEADER))
            in_lines = text[: marks[0][0]].rstrip(" \t").endswith("\n")
            if before and (in_lines or header or before.endswith(("?", ":", "？", "："))):
                ends = [start for start, _ in marks[1:]] + [len(text)]
                parts = [text[begin:end].strip() for (_, begin), end in zip(marks, ends, strict=True)]
                return _split(before[: header.start()].rstrip() if header else before, parts, letters is _NUMBERS)
    return None


def _marks(text: str, style: str, letters: Sequence[str]) -> list[tuple[int, int]]:
    marks: list[tuple[int, int]] = []
    in_lines = True
    for letter in letters:
        begin = marks[-1][1] if marks else 0
        own_line, inside = _mark(style, letter)
        found = own_line.search(text, begin)
        if found is None and not (marks and in_lines and _is_last(text, style, letters[len(marks) :], begin)):
            found, in_lines = inside.search(text, begin), False
        if found is None:
            break
        marks.append(found.span())
    return marks


def _is_last(text: str, style: str, letters: Sequence[str], begin: int) -> bool:
    """Whether no further choice has a line of its own: what looks like one is an initial then ("D. E. coli")."""
    return not any(_mark(style, letter)[0].search(text, begin) for letter in letters)


def _split(before: str, parts: list[str], numbered: bool) -> Split | None:
    if not before:
        return None
    after = ""
    if not any("\n" in part for part in parts[:-1]):
        parts[-1], _, after = parts[-1].partition("\n")
    names = _NUMBERS if numbered else keys(len(parts))
    return Split(before, _clean(dict(zip(names, parts, strict=False))), after.strip())


def _clean(choices: Choices) -> Choices:
    """Choices without what separates one from the next; of one that is empty the key is what can be said."""
    texts = [" ".join(text.split()) for text in choices.values()]
    for separator in (",", ";"):
        if all(text.endswith(separator) for text in texts[:-1]):
            texts = [text.removesuffix(separator) for text in texts]
    return {key: text or key for key, text in zip(choices, texts, strict=True)}


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
