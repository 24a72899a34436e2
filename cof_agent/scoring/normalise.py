"""One form for texts that mean the same: case, spaces, typographic signs, number format, and the marks around an answer."""

from __future__ import annotations

import re
import unicodedata

from cof_agent.protocol.boxed import last_boxed

_SIGNS = str.maketrans(
    dict.fromkeys("\u2212\ufe63\uff0d\u2010\u2011\u2012\u2013\u2014\u2015", "-")
    | dict.fromkeys("\u2018\u2019\u201b\u2032\u02bc\u00b4", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f\u2033", '"')
    | dict.fromkeys("\u3002\uff61", ".")
    | dict.fromkeys("\u3001\uff64", ",")
    | dict.fromkeys("\u3010\u3014", "[")
    | dict.fromkeys("\u3011\u3015", "]")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad")
)
_POINT = re.compile(r"(?<![\w.,)])\.(?=\d)")
"""That of a number without a 0 before it."""
_POWER = re.compile("(?<=\\d)[\u207b\u207a]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?)"
)
_NOTATIONS = (
    (re.compile(rf"\b({_MONTH}\.? \d{{1,2}})(?:st|nd|rd|th)\b"), r"\1"),
    (re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th) (?:of )?({_MONTH})\b"), r"\2 \1"),
    (re.compile(rf"\b(\d{{1,2}}) ({_MONTH})\b(?=,? \d{{4}}\b|\.?\Z)"), r"\2 \1"),
    (re.compile(r"(?<=\d)\s?([ap])(?:m\b|\. ?m\b(?:\.(?=\W|\Z))?)"), r" \1m"),
    (re.compile(r"(?<!\d )(?<!\w)(?:minus|negative) (?=\d)"), "-"),
)
"""Ways to write the day of a date, the time of a clock and a negative number, and the one form of each."""
_AROUND = " .,;:!?\"'`()[]"


def folded(text: str) -> str:
    """`text` in lower case with plain letters, quotes, dashes and full stops, 0.5 for .5 and 10^2 for 10²; spaces and line
    breaks stay."""
    text = _POWER.sub(lambda found: "^" + found[0], text)
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_SIGNS)
    return _POINT.sub("0.", plain)


def one_notation(text: str) -> str:
    """A text that was `folded`, with dates, times and negative numbers in one form: "july 4", "9 am", "-5"."""
    for pattern, form in _NOTATIONS:
        text = pattern.sub(form, text)
    return text


def normalise(text: str) -> str:
    """The form in which texts are compared: folded, unwrapped, no marks around it, single spaces, numbers in one form.

    A text of nothing but marks stays, so that "!" is not "?".
    """
    text = one_notation(" ".join(unwrapped(folded(text)).split()))
    for _ in range(4):  # quotes within Markdown within quotes
        inner = _inner(text)
        if inner == text:
            break
        text = inner
    return number_form(text)


def _inner(text: str) -> str:
    for mark in ("***", "**", "*", "__", "_", "$$", "$", "~~"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            return text[len(mark) : -len(mark)].strip()
    return text.strip(_AROUND) or text


_WHOLE = re.compile(r"[+-]?(?:[1-9]\d*|[1-9]\d{0,2}(?:,\d{3})+)", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:,\d{3})+)\.\d+", re.ASCII)


def number_form(text: str) -> str:
    """A number without separators of thousands, a plus or zeros behind its point; any other text as it is.

    A comma counts only where it separates thousands. Leading zeros stay: a label "07" is not the number 7.
    """
    if _DECIMAL.fullmatch(text):
        return text.replace(",", "").rstrip("0").rstrip(".").lstrip("+")
    return text.replace(",", "").lstrip("+") if _WHOLE.fullmatch(text) else text


_TEX = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_TEX_SPACES = re.compile(r"\\(?:left|right)(?![a-z])|\\[,;!]")
_TEX_DEGREES = re.compile(r"\s*(?:\^\s*\{\s*\\circ\s*\}|\^\s*\\circ|\\degree)(?![a-z])")
_TERM = r"\s*(?:\{([^{}]*)\}|(\d|(?<=\s)[a-z]))"  # one digit or letter needs no braces
_TEX_ROOT = re.compile(r"\\sqrt" + _TERM)
_TEX_FRACTION = re.compile(r"\\[dt]?frac" + _TERM + _TERM)
_TEX_POWER = re.compile(r"\^\{([+-]?\w+)\}")
_TEX_MATHS = re.compile(r"(?<![\\$\w])\$(?=[^\s$])([^$\n]{0,199}[^\s$])\$(?![\d$])|(?<![\\$\w])\$([^\s$])\$(?![\d$])")
_HEADING = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]+|[-*\u2022][ \t]+)", re.MULTILINE)

_TAG = re.compile(r"</?[a-z|][^<>]{0,40}>")
_STARS = re.compile(r"\*+")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)\*{1,2}(?=\d)")


def unwrapped(text: str) -> str:
    """The answer in a text that was `folded`: the last that a tag, a box of GLM or `\\boxed{}` holds, without signs of TeX.

    Takes time in proportion to the length of the text, whatever it holds.
    """
    text = text.rpartition("</think>")[2] or text
    text = _last_between(text, "<answer>", "</answer>")
    text = _last_between(text, "<|begin_of_box|>", "<|end_of_box|>")
    held = last_boxed(text)
    text = text if held is None else held
    if "\\" in text:
        text = _TEX.sub(r"\1", text.replace("\\%", "%").replace("\\$", "$"))
        text = re.sub(r"\\[()\[\]]", " ", _formula(text))
    text = _TEX_POWER.sub(r"^\1", text)
    return _TEX_MATHS.sub(lambda found: found[1] or found[2], text).strip() if "$" in text else text.strip()


def _formula(text: str) -> str:
    """Fractions, roots and degrees of TeX as they are typed on a line."""
    text = _TEX_DEGREES.sub("°", _TEX_SPACES.sub("", text))
    text = re.sub(r"(?<=\d)(?=\\[dt]?frac)", " ", text)  # three and a half
    text = _TEX_ROOT.sub(lambda found: "√" + _in_brackets(found[1] or found[2] or ""), text)
    return _TEX_FRACTION.sub(_on_a_line, text)


def _on_a_line(found: re.Match[str]) -> str:
    above, below = found[1] or found[2] or "", found[3] or found[4] or ""
    return f"{_in_brackets(above)}/{_in_brackets(below)}"


def _in_brackets(term: str) -> str:
    return term.strip() if re.fullmatch(r"\s*[√-]?[\w.]+\s*", term) else f"({term.strip()})"


def unmarked(text: str) -> str:
    """A text that was `folded`, without the signs of Markdown and HTML."""
    text = _TAG.sub(" ", _HEADING.sub("", text)).replace("__", "").replace("`", "")
    return text if _is_product(text) else text.replace("*", "")


def _is_product(text: str) -> bool:
    """Whether the stars of a text are signs between numbers, as in 2*3 or 2**3, and no marks around words."""
    runs = [found[0] for found in _STARS.finditer(text)]
    between = len(_BETWEEN_DIGITS.findall(text))
    return bool(runs) and len(runs) == between and (len(runs) == 1 or set(runs) == {"*"})


def _last_between(text: str, opening: str, closing: str) -> str:
    before, found, rest = text.rpartition(opening)
    if not found:
        return text.replace(closing, "")
    inside = rest.partition(closing)[0]
    return inside if inside.strip() else before
