"""Reads assistant turns: `parse(text) -> actions`. Never raises: what cannot be read is `Malformed`, with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from cof_agent.geometry import Box, CoordinateSystem
from cof_agent.protocol.prompt import TOOL_NAME
from cof_agent.trajectory import Action, Answer, Malformed, Use, Zoom


def begins_anew(text: str) -> bool:
    """Whether a text is the start of a turn, rather than the rest of one that was begun."""
    return text.lstrip().startswith("<think>")


MOST_ACTIONS = 64
"""Tool calls of one turn that are read."""
LONGEST_TURN = 100_000
"""Characters of one turn that are kept; a turn of a few thousand tokens has a tenth of it."""


def bounded(text: str) -> str:
    """A turn's text as it is recorded and read: of one beyond `LONGEST_TURN` its beginning, a mark, and its end, where an answer
    stands."""
    if len(text) <= LONGEST_TURN:
        return text
    half = LONGEST_TURN // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


_THINK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_TAGS = re.compile(r"</?(?:think|tool_call|answer)>")


def thought(text: str) -> str:
    """What the model wrote as its thought; without think tags, the words before its first tag."""
    found = _THINK.search(text)
    return (found[1] if found else _TAGS.split(text, maxsplit=1)[0]).strip()


def after_thought(text: str) -> str:
    """What follows the thought; empty where that does not end."""
    _, closing, rest = text.rpartition("</think>")
    return rest if closing else "" if begins_anew(text) else text


def without_tags(text: str) -> str:
    """`text` as it may stand inside a tag: on one line, without the format's own tags."""
    return " ".join(_TAGS.sub("", text).split())


def well_formed(text: str, tools: Collection[str] = ()) -> bool:
    """Whether a turn has exactly the format: one thought, then calls that parse or one answer, and nothing else.

    tools: as for `parse`.
    """
    head, closing, rest = text.strip().partition("</think>")
    rest = rest.strip()
    if not (head.startswith("<think>") and closing):
        return False
    inside = [head.removeprefix("<think>")]
    if rest.startswith("<answer>") and rest.endswith("</answer>"):
        inside.append(rest.removeprefix("<answer>").removesuffix("</answer>"))
    elif rest.endswith("</tool_call>"):
        calls = [call.strip() for call in rest.removesuffix("</tool_call>").split("</tool_call>")]
        if not all(call.startswith("<tool_call>") for call in calls):
            return False
        inside += [call.removeprefix("<tool_call>") for call in calls]
    else:
        return False
    if any(_TAGS.search(part) for part in inside):
        return False
    return not any(isinstance(action, Malformed) for action in parse(text, tools))


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it was written, unchecked; `name` is None where the call names no tool."""

    name: Any
    arguments: dict[str, Any]


def parse(
    text: str, tools: Collection[str] = (), system: CoordinateSystem = CoordinateSystem.ABSOLUTE
) -> tuple[Action, ...]:
    """The actions of one assistant turn, as `read` finds them; never empty, never raises.

    tools: names of the tools that the model has beside the zoom. system: in whose order the reason of a `Malformed` names the
    numbers of a box.
    """
    return tuple(_action(call, tools, system) if isinstance(call, Call) else call for call in read(text))


def read(text: str) -> tuple[Call | Answer | Malformed, ...]:
    """What one assistant turn does, whatever its tools, in order; never empty, never raises.

    - What stands inside a closed thought is no action; an unclosed thought hides only what it holds before the
      first call or answer tag. A thought whose opening tag is missing starts with the text, if an action follows it.
    - Several calls are several actions. A call that cannot be read is `Malformed` in its place.
    - Of more than `MOST_ACTIONS` calls the rest is counted in one `Malformed`.
    - With calls present, an answer in the same turn is not taken: the model has not seen what it asked for.
    - Without calls, the text of the last `<answer>` counts, up to its closing tag or the end; tags inside it go.
    """
    body = _outside_thought(text)
    raw = _CALL.findall(body)
    if raw:
        beyond = len(raw) - MOST_ACTIONS
        more = (Malformed(f"{beyond} more tool calls of this turn were not read."),) if beyond > 0 else ()
        return (*map(_read_call, raw[:MOST_ACTIONS]), *more)
    _, tag, rest = body.rpartition("<answer>")
    if tag:
        answer = _TAGS.sub("", rest.partition("</answer>")[0]).strip()
        return (Answer(answer) if answer else Malformed("The answer is empty."),)
    return (Malformed("There is neither a tool call nor an answer: write one of them after the thought."),)


def _outside_thought(text: str) -> str:
    """`text` without its closed thoughts and without the tags of thinking that are left over."""
    # Not by regular expression: `<think>.*?</think>` takes quadratic time on many opening tags.
    head, closing, tail = text.partition("</think>")
    if closing and "<think>" not in head and ("<tool_call>" in tail or "<answer>" in tail):
        text = tail
    first, *pieces = text.split("<think>")
    kept, unclosed = [first], []
    for piece in pieces:
        unclosed.append(piece)
        _, closing, after = piece.partition("</think>")
        if closing:
            kept.append(after)
            unclosed = []
    return "".join(kept + unclosed).replace("</think>", "")


_NUMBERS = re.compile(r"\s*" + r"\s*,\s*".join([r"(-?\d{1,6}(?:\.\d{1,6})?)"] * 4))


def box_after(text: str, start: int) -> Box | None:
    """The box whose four numbers stand in `text` from `start` on, as after `begin_zoom`; None without one."""
    found = _NUMBERS.match(text, start)
    return Box(*map(float, found.groups())) if found else None


def json_in(text: str) -> Any:
    """The JSON object, or list, that stands somewhere in `text`, read as leniently as a call; None without one."""
    text = text.partition("</think>")[2] or text
    found = _lenient_json(text)
    return _lenient_json(text, "[]") if found is None else found


def _read_call(raw: str) -> Call | Malformed:
    value = _lenient_json(raw)
    if not isinstance(value, dict):
        return Malformed('The tool call is not JSON of the form {"name": ..., "arguments": {"bbox_2d": [...]}}.')
    arguments = value.get("arguments", value.get("parameters", value))
    if isinstance(arguments, str):
        arguments = _lenient_json(arguments)
    if not isinstance(arguments, dict):
        return Malformed("The tool call has no arguments.")
    return Call(value.get("name"), arguments)


def _action(call: Call, tools: Collection[str], system: CoordinateSystem) -> Zoom | Use | Malformed:
    arguments, name = call.arguments, call.name
    known = isinstance(name, str) and name in tools
    if not known and name not in (None, TOOL_NAME):
        return Malformed(_no_such_tool(tools))
    image = _image_named(arguments)
    if isinstance(image, Malformed):
        return image
    if known:
        given = {str(key): value for key, value in arguments.items() if key not in IMAGE_KEYS}
        if any(isinstance(value, dict | list) or value != _plain(value, longest=_MAX_CALL) for value in given.values()):
            return Malformed(f"The arguments of {name} must be numbers, words, true or false.")
        return Use(name, given, image)
    box = arguments.get("bbox_2d", arguments.get("bbox"))
    if not isinstance(box, list):
        return Malformed(f"The tool call has no bbox_2d, a list of four numbers {system.corners}.")
    return Zoom(tuple(_plain(number) for number in box[:16]), image)


IMAGE_KEYS = ("image", "img_idx")
"""What the number of an image is called in a call: by us, and in the zoom tool of Qwen3-VL. Both count from 0."""


def _image_named(arguments: dict[str, Any]) -> int | Malformed:
    """The number of the image that a call names; 0 where it names none."""
    named = [(key, arguments[key]) for key in IMAGE_KEYS if key in arguments]
    for key, image in named:
        if isinstance(image, bool) or not isinstance(image, int) or not 0 <= image < 10_000:
            return Malformed(f'"{key}" must be the number of an image in this conversation, 0 for the first.')
    if len({image for _, image in named}) > 1:
        return Malformed('"image" and "img_idx" name different images: write one of them.')
    return named[0][1] if named else 0


def _no_such_tool(tools: Collection[str]) -> str:
    if not tools:
        return f"There is no such tool; the only one is {TOOL_NAME}."
    return f"There is no such tool; the tools are {', '.join((TOOL_NAME, *tools))}."


def _plain(value: Any, longest: int = 64) -> Any:
    """What a record may hold of a value the model wrote: finite numbers as they are, the rest as short strings."""
    if value is None or (isinstance(value, (bool, int, float)) and abs(value) < 2**53):
        return value
    return str(value)[:longest] if not isinstance(value, int) else "a huge number"


_MAX_CALL = 4_000  # characters; a real call has about 100


def _lenient_json(raw: str, brackets: str = "{}") -> Any:
    """JSON as models write it: comments, trailing commas and single quotes are forgiven. None if unreadable.

    Taken is what stands from the first of the opening `brackets` to the last of the closing ones."""
    raw = raw.strip()
    if len(raw) > _MAX_CALL:
        return None
    start, end = raw.find(brackets[0]), raw.rfind(brackets[1])
    if start < 0 or end < start:
        return None
    strict = raw[start : end + 1]
    for candidate in (strict, _repair(strict)):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return None


# What is never closed runs to the end, so that no part of the text is scanned twice.
_PIECES = re.compile(
    r"""("(?:\\.?|[^"\\])*(?:"|\Z))|'((?:\\.?|[^'\\])*)(?:'|\Z)|(//[^\n]*|/\*.*?(?:\*/|\Z)|\#[^\n]*)|,(?=\s*[}\]])""",
    re.DOTALL,
)


def _repair(text: str) -> str:
    """Single-quoted strings become double-quoted; comments and trailing commas go. Strings are left as they are."""

    def fix(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1]
        return json.dumps(match[2].replace("\\'", "'")) if match[2] is not None else ""

    without_comments = _PIECES.sub(fix, text)
    return _PIECES.sub(fix, without_comments)  # a comma can become trailing once a comment behind it is gone
