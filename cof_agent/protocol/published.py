"""What the texts of published conversations hold beside words: boxes, calls and results of tools, code with its output.

Nothing is imposed on such a text. Boxes are found so that they can follow their image to another size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cof_agent.protocol.apart import put_together
from cof_agent.protocol.calls import Call, call_of, calls_in
from cof_agent.protocol.dialects import ours
from cof_agent.protocol.parse import image_named, may_name_image, other_image
from cof_agent.protocol.values import objects_around

_NUMBER = r"(-?\d{1,6}(?:\.\d{1,17})?)"
_GAP = r"\s{0,60}"  # of lists over several lines; a bound keeps long blank texts fast
_COMMA = f"{_GAP},{_GAP}"
_FOUR = re.compile(
    rf"(?<![\w.\-])(?P<open>(?:[\[(]{_GAP}){{0,3}}){_NUMBER}{_COMMA}{_NUMBER}(?:(?P<pair>{_GAP}[\])]{_COMMA}[\[(]{_GAP})|{_COMMA})"
    rf"{_NUMBER}{_COMMA}{_NUMBER}(?!\.?\d)"
    rf"(?(pair){_GAP}[\])](?!{_COMMA}[\[(]{_GAP}-?[\d.]{{1,24}}{_COMMA}-?[\d.]{{1,24}}{_GAP}[\])])"  # a third point: a polygon
    rf"|(?:{_GAP}[\])]|(?!{_COMMA}-?\d)))"
)
"""Four numbers, `1, 2, 3, 4` or `(1, 2), (3, 4)`, in brackets or without."""
_SIDES = re.compile(
    _COMMA.join(
        rf"""\\?["']{axis}_?(?:{end})\\?["']{_GAP}:{_GAP}{_NUMBER}"""
        for axis, end in (("x", "min|1|0"), ("y", "min|1|0"), ("x", "max|2|1"), ("y", "max|2|1"))
    )
)
_KEY = r"""\\?["'](?:bbox\w*|box\w*|bounding_box\w*|region)\\?["']\s*:\s*"""
_TAG = r"(?:<(?:box|bbox|parameter=bbox\w*)>|<arg_key>bbox\w*</arg_key>\s*<arg_value>)"
_LEADS_TO_BOX = re.compile(rf"""(?:{_KEY}(?:\\?["'])?|{_TAG})\s*\Z""", re.IGNORECASE)
_QUOTE = r"""(?:\\?["'])"""
_APART = rf"{_QUOTE}?(?:{_COMMA}|\s{{1,60}}){_QUOTE}?"
_WITHIN = rf"(?:[\[(\])\s]|{_QUOTE}){{0,9}}+"  # brackets and quotes before and behind numbers
_KEYED = re.compile(
    rf"(?:{_KEY}(?:[\[(]|{_QUOTE})|{_TAG}){_WITHIN}"
    rf"{_APART.join([_NUMBER] * 4)}"
    rf"(?=\s{{0,20}}(?:[\])]|{_QUOTE}|</)){_WITHIN}(?!,?{_WITHIN}[-+.\d])",
    re.IGNORECASE,
)
"""The same behind the key or the tag of a box, also with quotes around each number, or blanks between them."""
_KEYED_NUMBERS = re.compile(rf"(?:{_KEY}|{_TAG}){_WITHIN}([-+.]{{0,2}}\d[-+\d.,;e\s\[\]()]*)", re.IGNORECASE)
_CLOSES = re.compile(r"""\s{0,20}(?:\\?["']|</)""")  # what four numbers without brackets stand in
_BETWEEN = re.compile(r"[\s,\[\]()]{0,60}")
_FROM_ONE = re.compile(r"""\\?["']target_image\\?["']\s*:\s*(?:\\?["'])?(\d{1,4})""")
_FROM_NOUGHT = re.compile(
    r"""\\?["'](?:image|img_idx|image_idx|image_index)\\?["']\s*:\s*(?:\\?["'])?(\d{1,4})"""
    r"""|\\?["']source\\?["']\s*:\s*\\?["']observation_(\d{1,4})\\?["']"""
)
_SOURCE = re.compile(r"(?:original_image|observation_(\d{1,4}))")  # of Mini-o3
_LOOK_BACK = 60  # characters in which the key of a box stands
_AROUND = 2_000  # characters on either side in which the call around a box stands
_LEVELS = 4  # objects within each other that are looked at for the image of a box

_RESULT = re.compile(r"<(sandbox_output|tool_response|execution_result|interpreter|observation)>")
_SIZE = re.compile(r"(?<![\d.])(\d{1,5})(\s*[x×*]\s*)(\d{1,5})(?![\d.])")


@dataclass(frozen=True, slots=True)
class TextBox:
    """Four numbers of a text that are a box. spans: where each number stands. image: the number of the image that the box lies
    in, from 0; the first where the text does not say, None where it names one in a way that `parse` refuses."""

    numbers: tuple[float, float, float, float]
    spans: tuple[tuple[int, int], ...]
    image: int | None = 0


def boxes_in(text: str) -> list[TextBox]:
    """The boxes of a text: four numbers under a key such as `bbox_2d` or within `<box>`, the numbers of `x1` to `y2`, and numbers
    in brackets that are all that the text or an `<answer>` is."""
    plain = [one for one, is_box in _fours(text) if is_box]
    found = {_spans(one)[0]: one for one in (*_KEYED.finditer(text), *_SIDES.finditer(text), *plain)}
    return [_box(found[first], text) for first in sorted(found)]


def loose_lists(text: str) -> int:
    """How many lists of four numbers a text has that may be anything, and keys of boxes whose numbers cannot be read."""
    boxes = {box.spans[0][0] for box in boxes_in(text)}
    unread = [one.span(1) for one in _KEYED_NUMBERS.finditer(text) if one.start(1) not in boxes]
    lists = [_spans(one)[0][0] for one, is_box in _fours(text) if not is_box and (one["open"] or _is_all(one, text))]
    others = [one for one in lists if one not in boxes and not any(start <= one < end for start, end in unread)]
    return len(unread) + len(others)


def _spans(one: re.Match[str]) -> list[tuple[int, int]]:
    """Where each of four numbers stands."""
    return [one.span(group) for group in range(1, one.re.groups + 1) if group not in one.re.groupindex.values()]


def _fours(text: str) -> Iterator[tuple[re.Match[str], bool]]:
    """Four numbers each, and whether they are a box."""
    if "," not in text:
        return
    last: re.Match[str] | None = None  # the box before, which others in its list follow
    for one in _FOUR.finditer(text):
        before = text[max(0, one.start() - _LOOK_BACK) : one.start()]
        is_box = bool(_LEADS_TO_BOX.search(before)) and (one["open"] != "" or bool(_CLOSES.match(text, one.end())))
        if one["open"] and not is_box:
            is_box = _is_all(one, text) or (one["open"][0] == "[" and before.rstrip().endswith("<answer>"))
            is_box |= last is not None and _follows(last, one, text)
        last = one if is_box else None
        yield one, is_box


def _follows(last: re.Match[str], one: re.Match[str], text: str) -> bool:
    """Whether a box is the next in a list of boxes of the same form."""
    alike = (last["pair"] is None) == (one["pair"] is None)
    return alike and _BETWEEN.fullmatch(text, last.end(), one.start()) is not None


def _is_all(one: re.Match[str], text: str) -> bool:
    """Whether numbers are all that a text or its answer is; without brackets they may be what was counted or read."""
    before, after = text[: one.start()].rstrip(), text[one.end() :].lstrip(" \t\r\n)].")
    return not (before or after) or (before.endswith("<answer>") and after.startswith("</answer>"))


def _box(one: re.Match[str], text: str) -> TextBox:
    spans = _spans(one)
    x0, y0, x1, y1 = (float(text[start:end]) for start, end in spans)
    return TextBox((x0, y0, x1, y1), tuple(spans), _image_of(spans[0][0], text))


def _image_of(place: int, text: str) -> int | None:
    """The image that the call around a box names: as `parse` reads it, or as patterns find it where nothing can be read."""
    calls = [*_calls_around(place, text)]
    if not calls:
        return _image_found(place, text)
    named = (given for given in calls if any(value is not None and may_name_image(key) for key, value in given.items()))
    return next(map(_image_in, named), 0)


def _calls_around(place: int, text: str) -> Iterator[dict[str, Any]]:
    """The arguments of the calls around a place, and the objects, from the innermost on."""
    tagged = [*calls_in(_tags_around(place, text), ours().call)]
    objects = (call_of(value, ours().call) for value in islice(objects_around(text, place), _LEVELS))
    for call in (*(tagged if len(tagged) == 1 else ()), *objects):
        if isinstance(call, Call):
            yield call.arguments


def _tags_around(place: int, text: str) -> str:
    """The call in XML around a place, without what stands around it; empty where there is none."""
    for opening, closing in (("<function=", "</function>"), ("<tool_call>", "</tool_call>")):
        begin = text.rfind(opening, max(0, place - _AROUND), place)
        end = text.find(closing, place, place + _AROUND)
        if 0 <= begin < end and closing not in text[begin:place]:
            return text[begin : end + len(closing)]
    return ""


def _image_in(arguments: dict[str, Any]) -> int | None:
    """The image that the arguments of a call name: `target_image` counts from 1, all others from 0."""
    if by_source := _SOURCE.fullmatch(str(arguments.get("source"))):
        return int(by_source[1] or 0)
    image = image_named(arguments, ours())
    return image if isinstance(image, int) and not other_image(arguments, ours()) else None


def _image_found(place: int, text: str) -> int:
    """The same in JSON that cannot be read."""
    for around in _objects_around(place, text):
        if found := _FROM_ONE.search(around):
            return max(0, int(found[1]) - 1)
        if found := _FROM_NOUGHT.search(around):
            return int(found[1] or found[2])
    return 0


def _objects_around(place: int, text: str) -> Iterator[str]:
    """The objects around a place from the innermost on, each without those inside it."""
    before, after = text[max(0, place - _AROUND) : place], text[place : place + _AROUND]
    begins, ends = _levels(before[::-1], "}", "{"), _levels(after, "{", "}")
    for head, tail in zip(begins, ends, strict=False):
        yield f"{head[::-1]} {tail}"


def _levels(text: str, opening: str, closing: str) -> Iterator[str]:
    """What stands in each object that ends in a text, read from within, without the objects inside it."""
    depth, levels, said = 0, 0, ""
    for sign in text:
        depth += (sign == opening) - (sign == closing)
        if depth < 0:
            yield said
            depth, levels, said = 0, levels + 1, ""
            if levels == _LEVELS:
                return
        elif depth == 0 and sign != closing:
            said += sign


def with_boxes(text: str, move: Callable[[TextBox], Sequence[float]]) -> str:
    """The text with each box's numbers as `move` gives them, written with as many decimals as before."""
    pieces, place = [], 0
    for box in boxes_in(text):
        for (start, end), value in zip(box.spans, move(box), strict=True):
            decimals = len(text[start:end].partition(".")[2])
            pieces += [text[place:start], f"{value:.{decimals}f}" if decimals else str(round(value))]
            place = end
    return "".join([*pieces, text[place:]])


def with_sizes(text: str, sizes: dict[tuple[int, int], tuple[int, int]]) -> str:
    """The text with each `WIDTH x HEIGHT` that is a key of `sizes` replaced."""

    def replaced(found: re.Match[str]) -> str:
        width, height = sizes.get((int(found[1]), int(found[3])), (found[1], found[3]))
        return f"{width}{found[2]}{height}"

    return _SIZE.sub(replaced, text)


def holds_results(reply: str) -> bool:
    """Whether a reply holds what a tool brought, or goes on to the answer behind code, as if both had been written at once."""
    return _RESULT.search(reply) is not None or "<answer>" in reply.partition("</code>")[2]


def called(text: str, thought: str, calls: Sequence[Any]) -> str:
    """A reply whose thought and calls a set keeps apart from its text, each call an object with `name` and `arguments`, or one
    that holds it as `function`. A thought that the text has already is not written again.

    Raises:
        ValueError: if a call names no function.
    """
    thought = "" if "<think>" in text else thought
    return put_together(thought, text, [_call(call) for call in calls]) if thought or calls else text


def _call(call: Any) -> tuple[str, str]:
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise ValueError("a call without the name of a function")
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, dict):  # in a table, each call has the columns of all others
        arguments = {name: value for name, value in arguments.items() if value is not None}
    return inner["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


RESULT = ("<tool_response>\n", "\n</tool_response>")
"""What stands around a tool's result in a user's turn, as the templates of the Qwen family write the role `tool`."""


def is_marked_result(text: str) -> bool:
    """Whether a text has marks of a result already."""
    return "<tool_response>" in text
