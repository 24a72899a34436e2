"""The words of a reply, and what kinds of words there are beside those that name an answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cof_agent.scoring.normalise import folded, number_form, unmarked, unwrapped


@dataclass(frozen=True, slots=True)
class Word:
    """A word in lower case, or a number in one form. before, after: the marks between it and its neighbours, without spaces."""

    text: str
    before: str = ""
    after: str = ""


_WORD = re.compile(r"(?:(?<![^\W_])[+-](?=\d))?[^\W_]+(?:(?<=\d)[.,:/-](?=\d)[^\W_]+)*|[%$€£¥°+#=<>&√]")
_ONE_SIGN = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")  # scripts that put no spaces between words
_SHORTENED = (("won't", "will not"), ("can't", "can not"), ("cannot", "can not"), ("n't", " not"), ("no doubt", ""))
_SPELLINGS = {
    "grey": "gray",
    "colour": "color",
    "coloured": "colored",
    "colours": "colors",
    "centre": "center",
    "tyre": "tire",
    "tyres": "tires",
    "aeroplane": "airplane",
    "aeroplanes": "airplanes",
    "doughnut": "donut",
    "doughnuts": "donuts",
    "pyjamas": "pajamas",
    "aluminium": "aluminum",
}
_CLITIC = re.compile(r"(?<=\w)'(?:s|m|d|ll|re|ve)\b")


def words_of(text: str) -> list[Word]:
    """The words of a reply, out of whatever wraps it."""
    return split(unmarked(unwrapped(folded(text))))


def split(text: str) -> list[Word]:
    """The words of a text that was folded."""
    for short, full in _SHORTENED:
        text = text.replace(short, full)
    text = _ONE_SIGN.sub(r" \1 ", _CLITIC.sub(" ", text))
    found = list(_WORD.finditer(text))
    edges = [0, *(one.end() for one in found)]
    starts = [*(one.start() for one in found), len(text)]
    gaps = [_marks(text[end:start]) for end, start in zip(edges, starts, strict=True)]
    return [Word(_one_form(one[0]), gaps[at], gaps[at + 1]) for at, one in enumerate(found)]


def _one_form(word: str) -> str:
    """A word as it is spelt in the United States, or a number in one form."""
    return _SPELLINGS.get(word) or number_form(word)


def _marks(gap: str) -> str:
    return "".join(sign for sign in gap if sign == "\n" or not sign.isspace())


def stem(word: str) -> str:
    """A word without its plural ending."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATIONS = _set("not no non never neither nor none isnt without wrong incorrect false untrue 不")
"""Words that turn round what their clause says."""

OPEN = _set(
    """or either except than other others else instead opposite versus vs could might may unless unknown unclear unsure if
    anything everything nothing any every whether 或"""
)
"""Words that leave open what is meant, even where the question holds them."""

QUANTIFIERS = _set("any anything every everything all none nothing")

REVISIONS = _set("no wait actually sorry correction rather instead")
"""Words that take back what was said before."""

LOOKING = _set(
    "zooming zoomed looking look inspecting inspection examining examination observing observation analyzing analysis view crop"
)
"""Words of what a model says it did, before it says what it saw: "After zooming in, I see"."""

CONCLUSIONS = _set("so therefore thus hence but")
REASONS = _set("because since due given considering based while although")
COPULAS = _set("is are was were be reads says shows seems appears looks 是")

RELATIONS = _set(
    """left right above below behind front under beneath over than before after inside outside closer nearer farther"""
)
"""Words of questions in which it matters what stands first: "the cat is left of the dog"."""

ORDERED = _set(
    """order sequence first then left right top bottom respectively written write say read text title name called word sign label
    letter"""
)
"""Words of questions that the same things in another order do not answer: what is written has its order."""

FRAME = _set(
    """
    the a an it its this that these those there here is are was were be been being am i we you he she they one ones my our me
    his her their think thinks believe guess say says said saying would will should shall do does did choose chose chosen pick
    picked select selected go going went with option options choice answer answers final correct right true best most more likely
    probably clearly definitely certainly obviously apparently evidently maybe perhaps possibly seems seem appears appear looks
    look like to as of in on at by for from so therefore thus hence then but ok okay sure yes well hmm hm let see letter
    reads read reading written writes spells labeled labelled named called shows shown show visible can image picture photo
    photograph scene color colored number text word words value total count side hand which what and both only
    just really indeed made based wait sorry correction rather overall conclusion summary given question following please must has
    have had located placed positioned situated looking closely ans =
    是 答 案 选 择 项 为 正 确 的 应 该 最 终 我 它 图 中 所 以 因 此
    """
)
"""Words of a sentence that answers, whatever the answer is."""

UNITS = _set(
    """
    m meter meters metre metres km kilometer kilometers kilometre kilometres cm centimeter centimeters centimetre centimetres mm
    millimeter millimeters millimetre millimetres ft foot feet inch inches mile miles yard yards kg kilogram kilograms g gram
    grams lb lbs pound pounds oz ounce ounces t ton tons l liter liters litre litres ml s sec second seconds min minute minutes
    h hr hour hours day days week weeks month months year years mph kph kmh $ dollar dollars usd € euro euros eur £ gbp ¥ yen
    ° degree degrees celsius fahrenheit
    """
)
"""Units that a bare number may be said with."""

CURRENCIES = ("$", "€", "£", "¥")
"""Signs that may stand before a number."""

NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
