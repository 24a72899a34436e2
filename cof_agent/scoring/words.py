"""The words of a reply, and what kinds of words there are beside those that name an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from cof_agent.scoring.normalise import folded, number_form, one_notation, unmarked, unwrapped


@dataclass(frozen=True, slots=True)
class Word:
    """A word in lower case, or a number in one form. before, after: the marks between it and its neighbours, without spaces."""

    text: str
    before: str = ""
    after: str = ""


_WORD = re.compile(
    r"(?:(?<![^\W_])[+-](?=\d))?[^\W_]+(?:(?<=\d)[.,:/-](?=\d)[^\W_]+)*|[%$€£¥°+#=<>&√≥≤≠≈]"
    r"|(?:(?<=\b[a-z])|(?<=\bab))-(?=[.,;!?)\"']|\s*\Z)"  # a grade, or a group of blood
)
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
_COPULA = (
    (re.compile(r"\b(it|that|this|there|here|he|she|what|who|where)'s\b"), r"\1 is"),
    (re.compile(r"\b(they|we|you)'re\b"), r"\1 are"),
    (re.compile(r"\bi'm\b"), "i am"),
)
_CLITIC = re.compile(r"(?<=\w)'(?:s|m|d|ll|re|ve)\b")


def words_of(text: str) -> list[Word]:
    """The words of a reply, out of whatever wraps it."""
    return list(_words_of(text))


@lru_cache(1024)
def _words_of(text: str) -> list[Word]:
    return split(one_notation(unmarked(unwrapped(folded(text)))))


def split(text: str) -> list[Word]:
    """The words of a text that was folded."""
    for short, full in _SHORTENED:
        text = text.replace(short, full)
    for short_form, full in _COPULA:
        text = short_form.sub(full, text)
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


_IRREGULAR = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "policemen": "policeman",
    "firemen": "fireman",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "knives": "knife",
    "leaves": "leaf",
    "shelves": "shelf",
    "loaves": "loaf",
    "wolves": "wolf",
    "scarves": "scarf",
}
_SIBILANTS = ("se", "xe", "ze", "che", "she")


def stem(word: str) -> str:
    """A word without its plural ending: one form of "bus" and "buses", "house" and "houses", "city" and "cities"."""
    word = _IRREGULAR.get(word, word)
    singular = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
    if len(singular) > 4 and singular.endswith("ie"):
        return singular[:-2] + "y"
    return singular[:-1] if len(singular) > 3 and singular.endswith(_SIBILANTS) else singular


def sought(words: Sequence[str]) -> set[str]:
    """The words of a question without those behind "the", which are where it looks and not what for: "in the image". Who asks for
    writing asks for text."""
    found = {word for before, word in pairwise(("", *words)) if before not in ("the", "this")}
    return (
        found | {"text"} if {"writing", "written", "read", "letters", "letter", "word", "words"} & set(words) else found
    )


def refuses(words: Sequence[str], asked: Sequence[str]) -> bool:
    """Whether a statement without content is a refusal, and no denial: "I cannot answer this", "I see no image"."""
    known = sought(asked)
    if not REFUSING.isdisjoint(set(words) - known):
        return True
    bare = [word for word in words if word not in ("a", "an", "the", "this", "any", "no")]
    places = ("in", "of", "on", "at", "from", "by", "throughout", "across")
    if any(word in (PICTURES | {"text"}) - known and before not in places for before, word in pairwise(("", *bare))):
        return True
    return "can" in words and "can" not in asked and not {"any", "it", "one", "them", "that"} & set(words)


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

AUXILIARIES = _set("is are was were do does did has have had can could will would should am")
PERSONS = _set("person man woman child")

REFUSING = _set("answer say let choose pick select sorry option choice question")
"""Words that make a statement without content a refusal, "I cannot answer this question", and no denial as "It does not"."""

PICTURES = _set("image picture photo photograph")
NOT_GIVEN = PICTURES | _set("answer option choice text question information idea way")
"""What a reply says it has none of, which is no answer of no: "no answer", "There is no image"."""

LIKELY = _set("likely probably certainly definitely obviously clearly evidently apparently")

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

ASKS_FOR_TEXT = re.compile(
    r"\bwhat (?:does|do|did) [^?]*\b(?:say|read)\b(?! the)|\bwhat (?:is|are|was|were) (?:[^?]* )?(?:written|printed)\b"
    r"|\bwhat (?:is|are|was|were) the (?:text|words?|title|name|caption|letters?)\b"
    r"|\b(?:what|which) (?:text|words?|letters?|title|name)\b|\bread the\b|\btranscribe\b",
    re.IGNORECASE,
)
"""A question for what is written, of which every word counts."""

ASKS_FOR_LABEL = re.compile(
    r"\b(?:names?|named|called|says?|reads?|written|plate|address|street|dates?|titles?|text|labels?|words?|signs?|films?|movies?"
    r"|month|day)\b",
    re.IGNORECASE,
)
"""A question whose answer may begin with a number that is nothing without the rest: "12 Main Street", "4 July"."""

SPEECH = _set(
    """is are was were be has have had contains says say said reads read reading written writes spells shows shown show labeled
    labelled named called think thinks believe guess see seems appears appear probably likely maybe perhaps possibly text
    word words letters answer answers ans = 是 答"""
)
"""Words of a sentence about what is written, which is no part of it: "I think it is", "The sign says"."""

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

MEASURES = UNITS | _set(
    """inches watts watt amps amp ohms ohm volts volt decibels decibel db joules joule kj calories calorie bpm iu rupees rupee
    yuan rmb won nights night points point stars star pm am mg nm sq square cubic per fl hp w kw kwh v mah mb gb tb px dpi
    hz khz mhz ghz cal kcal psi rpm mins hrs secs kilo kilos knots knot carat carats cent cents c f ° %"""
)
"""Words of a unit that may be left out of a number."""

UNIT_NAMES: tuple[tuple[str, ...], ...] = (
    ("%", "percent", "per cent"),
    ("$", "dollar", "dollars", "usd", "us$", "us dollar", "us dollars"),
    ("€", "euro", "euros", "eur"),
    ("£", "gbp"),
    ("km/h", "kmh", "kph", "km per hour", "kilometers per hour"),
    ("mph", "miles per hour"),
    ("m", "meter", "meters", "metre", "metres"),
    ("km", "kilometer", "kilometers", "kilometre", "kilometres"),
    ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    ("kg", "kilogram", "kilograms"),
    ("g", "gram", "grams"),
    ("ft", "foot", "feet"),
    ("lb", "lbs", "pound", "pounds"),
    ("h", "hr", "hrs", "hour", "hours"),
    ("min", "mins", "minute", "minutes"),
    ("s", "sec", "secs", "second", "seconds"),
    ("°c", "° c", "degrees celsius", "degree celsius", "celsius", "degrees c", "c"),
    ("°f", "° f", "degrees fahrenheit", "degree fahrenheit", "fahrenheit", "degrees f", "f"),
    ("°", "degree", "degrees"),
)
"""Names of the same unit, the one that stands for all of them first."""

CURRENCIES = ("$", "€", "£", "¥")
NUMBER_SIGNS = (*CURRENCIES, "#")
"""Signs that may stand before a number."""

NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
