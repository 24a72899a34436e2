"""How far two short texts agree: as quantities within a tolerance, and by their edit distance."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

TOLERANCE = Decimal("0.05")  # of the true value: the relaxed accuracy of ChartQA (Masry et al., arXiv 2203.10244)
MOST_DISTANCE = 0.5  # from which two texts have nothing in common: ST-VQA's (Biten et al., arXiv 1905.13648)

_LONGEST = 60  # characters of a text that is still taken for a number with its unit
_DIGITS = 28  # that `Decimal` computes with
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<currency>[$€£¥]?)\s*"
    r"(?P<number>(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|0|[1-9]\d*)(?:\.\d+)?|\.\d+)"
    r"\s*(?P<scale>(?:thousand|million|billion|trillion)\b)?(?![\d.,])\s*(?P<unit>\D*)",
    re.ASCII,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SIGNS = {"percent": "%", "per cent": "%", "dollar": "$", "euro": "€"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit, "" for none. `exact`: it is a whole number and no percentage, so a count, a year or a sign
    that was read, of which nothing near it is right."""

    value: Decimal
    unit: str
    exact: bool


def quantity(text: str) -> Quantity | None:
    """The one number that `text` is, with its unit; None if it is anything else, as a date, a range or a label ("07") is.

    A comma or a space is a separator of thousands and nothing else; "1.5 million" is written out.
    """
    text = unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-").casefold().strip().rstrip(".")
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return None
    plain = found["number"].replace(",", "").replace(" ", "")
    if len(plain) > _DIGITS:
        return None
    value = Decimal(found["sign"] + plain).scaleb(_SCALES.get(found["scale"], 0))
    unit = found["currency"] + _unit(found["unit"])
    return Quantity(value, unit, exact=unit != "%" and not found["scale"] and "." not in plain)


def _unit(text: str) -> str:
    text = text.strip(" .")
    singular = text[:-1] if len(text) > 2 and text.endswith("s") else text
    return _SIGNS.get(singular, singular)


def close(said: Quantity, true: Quantity) -> bool:
    """Whether `said` is within `TOLERANCE` of `true`, or equal to it where that is exact. A unit that only one of them
    has is passed over, as far as it is no percentage: 57 %, 57 and 0.57 may all mean the same."""
    if said.unit and true.unit and said.unit != true.unit:
        return False
    readings = [said.value]
    if (said.unit == "%") != (true.unit == "%"):
        readings.append(said.value.scaleb(-2 if said.unit == "%" else 2))
    allowed = 0 if true.exact else TOLERANCE * abs(true.value)
    return any(abs(value - true.value) <= allowed for value in readings)


def similarity(said: str, true: str) -> float:
    """1 minus the edit distance as a share of the longer text, and 0 from `MOST_DISTANCE` on: what ANLS is the mean of.
    Case and the width of spaces do not matter."""
    first, second = (" ".join(text.casefold().split()) for text in (said, true))
    longest = max(len(first), len(second))
    if not longest:
        return 1.0
    if abs(len(first) - len(second)) >= MOST_DISTANCE * longest:  # the distance is no less: nothing to compute
        return 0.0
    share = levenshtein(first, second) / longest
    return 1 - share if share < MOST_DISTANCE else 0.0


def levenshtein(first: str, second: str) -> int:
    """The least number of characters to insert, delete or replace that makes one text the other."""
    row = list(range(len(second) + 1))
    for number, character in enumerate(first, 1):
        above, row = row, [number]
        for column, other in enumerate(second, 1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (character != other)))
    return row[-1]


_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0", "a": "", "an": "", "the": ""}


def plain_words(text: str) -> str:
    """A short text as VQA's evaluation compares it: lower case, without punctuation (but for that within numbers) and
    articles, small numbers as digits. Its list of contractions is left out: an apostrophe counts for nothing here."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    text = re.sub(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)", " ", text)
    return " ".join(plain for word in text.split() if (plain := _WORDS.get(word, word)))
