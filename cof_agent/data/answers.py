"""The truth of a question, out of whatever an answer column holds.

Texts are taken out of their wrapping (`<answer>`, `\\boxed{}`, a thought before them). Where there are choices, an answer can
name one by its text, its letter, or its number from 0 or from 1; all rows of a set together show which it means (`agreed`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from string import ascii_uppercase
from typing import Any, Literal

from cof_agent.data.choices import Choices, text_of
from cof_agent.data.nested import is_missing, unpacked
from cof_agent.data.unusable import BAD_ANSWER, NOT_A_CHOICE, TWO_CHOICES, Unusable
from cof_agent.protocol.boxed import last_boxed

Reading = Literal["text", "letter", "number from 0", "number from 1"]
READINGS: tuple[Reading, ...] = ("text", "letter", "number from 0", "number from 1")
"""What an answer can name a choice by, the likeliest first where a set does not tell."""

PEOPLE = 10  # whose answers to one question VQA lists

Forms = list[str]
"""Ways to write one answer, any of which is right: `yes` and `true`."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What an answer column says. forms: the accepted answers, each in its ways of writing. picks: the keys of the choices that
    are right, by each reading that makes sense. box: four numbers, where the answer is a box. people: VQA's ten answers."""

    forms: list[Forms] = field(default_factory=list)
    picks: Mapping[Reading, tuple[str, ...]] = field(default_factory=dict)
    box: tuple[float, ...] | None = None
    people: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Every accepted text; each once, but for the answers of VQA's people, which are counted."""
        texts = [text for forms in self.forms for text in forms]
        return tuple(texts if self.people else dict.fromkeys(texts))


def understood(
    raw: Any, choices: Choices, *, asks_for_box: bool = False, may_be_box: bool = True, by_number: bool = False
) -> Truth:
    """The truth that a column holds. asks_for_box: whether the question does, so that four numbers in a text are one. may_be_box:
    whether four numbers in a list are one, without being asked for. by_number:
    whether its name says that it holds the number of a choice.

    Raises:
        Unusable: if nothing can be made of it, or it is none of the choices.
    """
    if is_missing(raw):
        return Truth()
    if choices and (flagged := _flagged(raw, choices)):
        return Truth([[choices[key]] for key in flagged], {"text": flagged})
    if (
        not choices
        and (asks_for_box or may_be_box or not _lists_numbers(raw))
        and (box := box_in(raw, asks_for_box)) is not None
    ):
        return Truth(forms=[[str(list(box))]], box=box)
    if not choices and isinstance(raw, list | tuple) and len(raw) == 4 and _lists_numbers(raw):
        return Truth([[", ".join(map(text_of, raw))]])  # no box, as was just seen
    forms, people = _forms(raw)
    if not choices or not forms:
        return Truth(forms, people=people)
    readings = [one for one in READINGS if one.startswith("number") or not by_number]
    picks = {reading: keys for reading in readings if (keys := _picked(forms, choices, reading))}
    concluded = _CONCLUDES.findall(raw) if isinstance(raw, str) and not picks else []
    if concluded and concluded[-1] in (by_key := _upper(tuple(choices))):
        return Truth(forms, {"letter": (by_key[concluded[-1]],)})
    if not picks:
        raise Unusable(NOT_A_CHOICE, " | ".join(text for ways in forms for text in ways))
    return Truth(forms, picks)


def _lists_numbers(raw: Any) -> bool:
    """Whether an answer is several numbers in a list."""
    return isinstance(raw, list | tuple) and len(raw) > 1 and all(type(one) in (int, float) for one in raw)


def _flagged(raw: Any, choices: Choices) -> tuple[str, ...]:
    """The keys of the choices that a list with a 0 or a 1 for each of them says are right; none where it is another list."""
    flags = isinstance(raw, list | tuple) and len(raw) == len(choices) > 1 and all(one in (0, 1) for one in raw)
    return tuple(key for key, one in zip(choices, raw, strict=True) if one) if flags else ()


def is_four_numbers(answer: Any) -> bool:
    """Whether an answer is a list of four numbers, or a text with nothing else: a box, where all answers of a set are such."""
    if isinstance(answer, str):
        answer = unpacked(answer.strip()) if answer.lstrip()[:1] == "[" else None
    one = isinstance(answer, list) and (len(answer) == 4 or (len(answer) == 1 and isinstance(answer[0], dict)))
    return one and box_in(answer, False) is not None


def agreed(truths: Iterable[Truth]) -> tuple[Reading, ...]:
    """How the answers of a set name choices: the readings in the order of how many rows they make sense in."""
    counts = Counter(reading for truth in truths for reading in truth.picks)
    return tuple(sorted(READINGS, key=lambda reading: (-counts[reading], READINGS.index(reading))))


def right_keys(truth: Truth, order: Sequence[Reading]) -> tuple[str, ...]:
    """The keys of the right choices, read as the set does, which counts from 0 or from 1; none where it reads otherwise."""
    numbers = [reading for reading in order if reading.startswith("number")]
    return next((truth.picks[one] for one in order if one in truth.picks and one not in numbers[1:]), ())


def without_counting(truth: Truth) -> tuple[str, ...]:
    """The keys of the right choices, where no other rows can show whether numbers count from 0 or from 1.

    Raises:
        Unusable: if they are numbers.
    """
    found = right_keys(truth, ("text", "letter"))
    if not found and truth.picks:
        raise Unusable(NOT_A_CHOICE, f"{', '.join(truth.texts)}; give the letter of the choice, or its text")
    return found


def _forms(raw: Any) -> tuple[list[Forms], bool]:
    """Each accepted answer in its ways of writing, and whether they are those of VQA's people."""
    if isinstance(raw, str) and "<AND>" in raw:
        raise Unusable(BAD_ANSWER, "several parts that must all be said (<AND>)")
    if isinstance(raw, str) and "<OR>" in raw:  # both as in MM-Vet
        raw = raw.split("<OR>")
    if isinstance(raw, str):
        held = unpacked(unwrapped(raw))
        is_list = isinstance(held, list) and held and all(isinstance(one, str | dict) for one in held)
        raw = held if is_list or (isinstance(held, dict) and _inside(held) is not None) else raw
    if isinstance(raw, list | tuple):
        forms = [ways for one in raw if not is_missing(one) for ways in _forms(one)[0]]
        of_people = all(isinstance(one, dict) and "answer" in one for one in raw) and len(raw) > 1
        repeated = len({tuple(ways) for ways in forms}) < len(forms)
        return forms, bool(of_people or (len(raw) == PEOPLE and repeated))
    if isinstance(raw, Mapping):
        inside = _inside(raw)
        if inside is None:
            raise Unusable(BAD_ANSWER, raw)
        return _forms(inside)
    ways = [] if is_missing(raw) else _ways(raw)
    return ([ways] if any(ways) else []), False


def _inside(held: Mapping[str, Any]) -> Any:
    """The answer in an object: `{"text": [...]}` of SQuAD's form, `{"answer": ..., "answer_confidence": ...}` of VQA's."""
    names = ("answer", "ground_truth", "target", "text", "value", "label", "key", "letter")
    return next((held[name] for name in names if not is_missing(held.get(name))), None)


def _ways(value: Any) -> Forms:
    if isinstance(value, bool):
        return ["yes", "true"] if value else ["no", "false"]
    if isinstance(value, float) and value.is_integer():
        return [str(int(value))]
    text = unwrapped(str(value))
    if text.lower() in ("true", "false"):  # as spreadsheets write them
        return [text, "yes" if text.lower() == "true" else "no"]
    return [text]


_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_TAG, _END = re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)
_SECTIONS = re.compile(r"(?:\s*<(\w+)>(?P<text>(?:(?!</?\1>).)*)</\1>)+\s*", re.DOTALL)
_LABEL = re.compile(
    r"(?:(?:the )?(?:final |correct |best )?(?:answer|option|choice)\s*(?:[:：]|is[:：]?\s)|####)\s*(\S[^\n]*)",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")


def unwrapped(text: str) -> str:
    """An answer without what stands around it: a thought, tags, `\\boxed{}`, "The answer is", signs of TeX and Markdown."""
    text = text.strip()
    if text.isalnum():
        return text
    if "<" in text:
        text = _THOUGHT.sub("", text).strip() or text
        *before, tagged = _TAG.split(text)
        if before:
            text = _END.split(tagged, maxsplit=1)[0].strip()
        elif sections := _SECTIONS.fullmatch(text):
            text = sections["text"].strip()
    if (held := last_boxed(text)) is not None:
        text = held
    elif "####" in text:
        text = text.rpartition("####")[2].strip()
    if found := _LABEL.fullmatch(text):
        text = found[1].strip().rstrip(".") if text[-1:] == "." else found[1].strip()
    text = _TEXT.sub(r"\1", text)
    for mark in ("**", "$"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = text[len(mark) : -len(mark)].strip()
    return text


@lru_cache(1 << 14)
def plain(text: str) -> str:
    """A text as answers and choices are compared: case, width of letters, spaces and marks around it do not matter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?\"'`“”‘’$*")


def _picked(forms: Sequence[Forms], choices: Choices, reading: Reading) -> tuple[str, ...]:
    """The keys of the choices that answers name, in the order of the choices; none where one answer names none."""
    found: set[str] = set()
    for ways in forms:
        keys = next((keys for text in ways if (keys := _named(text, choices, reading))), ())
        if not keys:
            return ()
        found.update(keys)
    return tuple(key for key in choices if key in found)


def _named(text: str, choices: Choices, reading: Reading) -> tuple[str, ...]:
    if reading == "text":
        exact = tuple(key for key, choice in choices.items() if choice.strip() == text.strip())
        if exact:
            return exact[:1]
        wanted = plain(text)
        return tuple(key for key, choice in choices.items() if plain(choice) == wanted)[:1]
    if reading == "letter":
        return _by_letter(text, choices)
    found = _NUMBERED.fullmatch(text)
    if found is None:
        return ()
    number, names = int(found[1]) - (reading == "number from 1"), list(choices)
    if names == sorted(set(names) & set(ascii_uppercase)):  # of which some may be left out
        return (ascii_uppercase[number],) if 0 <= number < 26 and ascii_uppercase[number] in choices else ()
    return (names[number],) if 0 <= number < len(names) else ()


_LONGEST = 2000  # characters of an answer that names a choice by its letter
_NUMBERED = re.compile(r"(?:(?:option|choice|opt)[\s_]*)?([0-9]{1,3})", re.IGNORECASE)
_MARKED = re.compile(r"(?:(?:option|choice)\s+)?[(\[（]?\s*([A-Za-z]|\d{1,2})\s*[)\].:、）：]?\s*", re.IGNORECASE)
_CONCLUDES = re.compile(r"(?i:\banswer is):? \(?([A-Z])\b\)?(?=[.,:;\s]|\Z)")
_MARKED_TEXT = re.compile(r"(?:[(\[（]\s*([A-Za-z])\s*[)\]）][.:]?|([A-Za-z])[).:、：])\s*(.+)", re.DOTALL)


def _by_letter(text: str, choices: Choices) -> tuple[str, ...]:
    """The choices that a text names by key: "B", "(b)", "B. blue", "A, C", "A and C", "AC".

    Raises:
        Unusable: if the letter names one choice and the text behind it another.
    """
    by_key = _upper(tuple(choices))
    if len(text) > _LONGEST:
        return ()
    if found := _MARKED.fullmatch(text):
        return (by_key[found[1].upper()],) if found[1].upper() in by_key else ()
    several = _several(text, by_key)
    if several:
        return several
    found = _MARKED_TEXT.fullmatch(text)
    key = by_key.get((found[1] or found[2]).upper()) if found else None
    if found is None or key is None:
        return ()
    said, own = plain(found[3]), plain(choices[key])
    if said != own and any(said == plain(choice) for choice in choices.values()):
        raise Unusable(TWO_CHOICES, text)
    return (key,) if said == own or own in said or said in own else ()


@lru_cache
def _upper(keys: tuple[str, ...]) -> dict[str, str]:
    """Keys of choices by themselves in upper case."""
    return {key.upper(): key for key in keys}


def _several(text: str, by_key: Mapping[str, str]) -> tuple[str, ...]:
    parts = [part.strip("()[]. ") for part in re.split(r"[\s,;/&、，]+|\band\b|(?<=\))(?=\()", text)]
    letters = [part.upper() for part in parts if part and part.lower() != "and"]
    if len(letters) == 1 and text.isupper() and text.isalpha() and list(text) == sorted(set(text)):
        letters = list(text)
    if len(letters) < 2 or len(set(letters)) < len(letters) or any(letter not in by_key for letter in letters):
        return ()
    return tuple(by_key[letter] for letter in letters)


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BOX_NAMES = ("bbox_2d", "bbox", "box", "Position", "position")


_LARGEST = 1e9  # pixels
_BOX_TOKENS = re.compile(
    r"(?:<\|object_ref_start\|>[^<]*<\|object_ref_end\|>|<ref>[^<]*</ref>)?\s*"
    r"(?:<\|box_start\|>[^<]*<\|box_end\|>|<box>[^<]*</box>)"
)
"""A reply that is one box in the tokens of Qwen-VL or InternVL."""


def box_in(raw: Any, asked: bool) -> tuple[float, ...] | None:
    """The four numbers of a box: of a list of numbers, or, where a box is asked for, of a text or an object.

    Raises:
        Unusable: if a box is asked for and the answer holds several.
    """
    if isinstance(raw, list | tuple) and len(raw) == 1 and isinstance(raw[0], list | tuple | dict):
        return box_in(raw[0], asked)
    if isinstance(raw, Mapping):
        if "box_2d" in raw:
            raise Unusable(BAD_ANSWER, "box_2d, which some write y first; name it bbox_2d where x is first")
        return next((box_in(raw[name], asked) for name in _BOX_NAMES if name in raw), None)
    if isinstance(raw, list | tuple):
        if asked and len(raw) > 1 and all(isinstance(one, list | tuple | dict) and box_in(one, True) for one in raw):
            raise Unusable(BAD_ANSWER, "several boxes")
        four = len(raw) == 4 and all(isinstance(one, int | float) and not isinstance(one, bool) for one in raw)
        if four and any(abs(one) > _LARGEST for one in raw):
            raise Unusable(BAD_ANSWER, "a number that is no place in an image")
        return tuple(float(one) for one in raw) if four else None
    if isinstance(raw, str) and _BOX_TOKENS.fullmatch(raw.strip()):
        asked = True
    if not asked or not isinstance(raw, str):
        return None
    held = unpacked(unwrapped(raw))
    if not isinstance(held, str):
        return box_in(held, asked)
    if "\\" in held:  # TeX, which writes no boxes
        return None
    if "<loc" in held:
        raise Unusable(BAD_ANSWER, "tokens of places, which PaliGemma writes y first")
    numbers = _NUMBER.findall(held.replace("bbox_2d", ""))
    if len(numbers) > 4 and len(numbers) % 4 == 0:
        raise Unusable(BAD_ANSWER, "several boxes")
    return tuple(float(number) for number in numbers) if len(numbers) == 4 else None
