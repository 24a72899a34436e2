"""Numbers with their units: what a text says, and whether two of them are the same or near."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal, InvalidOperation

from cof_agent.scoring.normalise import folded, one_notation
from cof_agent.scoring.words import CURRENCIES, MEASURES, UNIT_NAMES, stem

TOLERANCE = Decimal("0.05")  # of the true value: the relaxed accuracy of ChartQA (Masry et al., arXiv 2203.10244)

_LONGEST = 60  # characters of a text that is still taken for a number with its unit
_DIGITS = 28  # that `Decimal` computes with
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<currency>us ?\$|[$€£¥]|(?:usd|eur|gbp) ?|)\s*"
    r"(?P<number>(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|0|[1-9]\d*)(?:\.\d+)?|\.\d+)"
    r"\s*(?P<scale>(?:thousand|million|billion|trillion)\b)?(?![\d.,])\s*(?P<unit>\D*)",
    re.ASCII,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_UNITS = {name: names[0] for names in UNIT_NAMES for name in names}
_FRACTION = re.compile(r"([+-]?[1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit, "" for none. `exact`: it is a whole number and no percentage, so a count, a year or a sign
    that was read, of which nothing near it is right."""

    value: Decimal
    unit: str
    exact: bool

    @property
    def is_measure(self) -> bool:
        """Whether the unit is one of measures, which may be left out: 5 of "5 km", and not of "5 Main Street"."""
        parts = [part for part in re.split(r"[\s/]+", self.unit) if part]
        return bool(parts) and all(part in MEASURES or part in _UNITS for part in parts)

    def rounds_to(self, true: Quantity) -> bool:
        """Whether the number is `true` once it is rounded to as many decimal places, or cut where that is a whole number."""
        if self.unit and true.unit and self.unit != true.unit:
            return False
        rounding = ROUND_DOWN if true.value == true.value.to_integral_value() and true.exact else ROUND_HALF_EVEN
        try:
            return self.value.quantize(true.value, rounding) == true.value
        except InvalidOperation:  # more digits than are computed with
            return False


def quantity(text: str) -> Quantity | None:
    """The one number that `text` is, with its unit; None if it is anything else, as a date, a range or a label ("07", "12A") is.

    A comma or a space is a separator of thousands and nothing else; "1.5 million" is written out.
    """
    text = one_notation(folded(text)).strip().rstrip(".")
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return None
    plain = found["number"].replace(",", "").replace(" ", "")
    if len(plain) > _DIGITS:
        return None
    value = Decimal(found["sign"] + plain).scaleb(_SCALES.get(found["scale"], 0))
    currency, unit = _unit(found["currency"].replace(" ", "")), _unit(found["unit"])
    whole = unit if currency in ("", unit) else currency + unit
    made = Quantity(value, whole, exact=whole != "%" and not found["scale"] and "." not in plain)
    attached = found["unit"].strip("\"'") and not text[: found.start("unit")].endswith(" ")
    return None if attached and not made.is_measure and whole not in CURRENCIES else made


def fraction(text: str) -> Quantity | None:
    """The number that a fraction is; None for any other text, and for 4/2, which is more likely a date or a page."""
    found = _FRACTION.fullmatch(text)
    if found is None or int(found[1]) % int(found[2]) == 0:
        return None
    return Quantity(Decimal(found[1]) / Decimal(found[2]), "", exact=True)


def _unit(text: str) -> str:
    text = " ".join(text.strip(" .").split())
    if text in _UNITS or text in MEASURES or "/" in text:
        return _UNITS.get(text, text)
    singular = stem(text)
    return _UNITS.get(singular, singular)


def same(said: Quantity, true: Quantity, *, bare: bool = True) -> bool:
    """Whether both are equal. Only the truth may have a unit that the other lacks, and without `bare` one of measure; 57 % and
    0.57 are equal."""
    if (
        said.unit == true.unit
        or (true.unit.startswith("°") and said.unit == "°")
        or (not said.unit and (bare or true.is_measure))
    ):
        return said.value == true.value or (true.unit == "%" and not said.unit and said.value == true.value.scaleb(-2))
    return said.unit == "%" and not true.unit and not true.exact and said.value.scaleb(-2) == true.value


def close_as_written(said: Quantity, true: Quantity) -> bool:
    """Whether `said` is within `TOLERANCE` of `true`, whole numbers too. A percentage is the number divided by 100; other units
    are passed over where only one has them."""
    first, second = (one.value.scaleb(-2) if one.unit == "%" else one.value for one in (said, true))
    units = {said.unit, true.unit} - {"", "%"}
    return len(units) < 2 and abs(first - second) <= TOLERANCE * abs(second)


def close(said: Quantity, true: Quantity) -> bool:
    """Whether `said` is within `TOLERANCE` of `true`, or equal to it where that is exact.

    A unit that only one of them has is passed over, as far as it is no percentage: 57 %, 57 and 0.57 may all mean the same.
    """
    if said.unit and true.unit and said.unit != true.unit:
        return False
    readings = [said.value]
    if (said.unit == "%") != (true.unit == "%"):
        readings.append(said.value.scaleb(-2 if said.unit == "%" else 2))
    allowed = 0 if true.exact else TOLERANCE * abs(true.value)
    return any(abs(value - true.value) <= allowed for value in readings)
