"""Tool calls in a turn, in every way in which models write them: JSON in tags, XML parameters, arguments alone in a tag."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from cof_agent.protocol.dialects import Call as Syntax
from cof_agent.protocol.values import LONGEST, arguments_at, box_of, names_image, objects_in, value_at, value_in
from cof_agent.trajectory import Malformed


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it was written, unchecked; `name` is None where the call names no tool."""

    name: Any
    arguments: dict[str, Any]


def has_call(text: str, syntax: Syntax) -> bool:
    """Whether a text without its thought holds the start of a call."""
    return syntax.open in text or "<function=" in text


def calls_in(text: str, syntax: Syntax) -> Iterator[Call | Malformed]:
    """The calls in a text without its thought, in order; one that cannot be read is `Malformed` in its place."""
    for _, _, found in placed_calls(text, syntax):
        yield from found


def placed_calls(text: str, syntax: Syntax) -> Iterator[tuple[int, int, list[Call | Malformed]]]:
    """The same, with the places where the tags around them begin and end."""
    for match in _tags(syntax.open, syntax.close).finditer(text):
        yield match.start(), match.end(), _inside(match[1] if match[1] is not None else match[0], syntax)


@lru_cache(maxsize=32)
def _tags(opening: str, closing: str) -> re.Pattern[str]:
    """A call from its opening tag to the closing one, the next opening one, or the end; or a bare XML function."""
    start, end = re.escape(opening), re.escape(closing)
    return re.compile(rf"{start}(.*?)(?:{end}|(?={start})|\Z)|<function=.*?(?:</function>|\Z)", re.DOTALL)


def _inside(raw: str, syntax: Syntax) -> list[Call | Malformed]:
    """The calls between one pair of tags."""
    if len(raw) > LONGEST:
        return [Malformed(f"The tool call is longer than {LONGEST:,} characters.")]
    if "<function=" in raw:
        return [*_xml(raw)]
    if "<arg_key>" in raw:
        return [_pairs(raw)]
    values = objects_in(raw)
    if syntax.bare and not any(isinstance(value, dict) for value in values):
        box = box_of(raw)
        return [Malformed(_form(syntax)) if box is None else Call(None, {syntax.box: box})]
    if not any(isinstance(value, dict) for value in values):
        return [Malformed(_form(syntax))]
    return [call_of(value, syntax) if isinstance(value, dict) else Malformed(_form(syntax)) for value in values]


def untagged_calls(text: str, syntax: Syntax) -> list[Call | Malformed]:
    """The calls in a text that has no tags of a call: the JSON of each, alone or between words. A call in the form of another
    model is one that cannot be read."""
    values = (value_at(text, at.start()) for at in islice(_OBJECT.finditer(text), _MOST_OBJECTS))
    found = [call_of(value, syntax) for value in values if _is_call(value, syntax)] or [*_spoken(text, syntax)]
    if found:
        return found
    if foreign := _foreign(syntax.names).search(text):
        return [Malformed(f"A call is not marked by {foreign[0].strip()} here. {_form(syntax)}")]
    return [Malformed(_form(syntax))] if _names_tool(text, syntax) else []


def _names_tool(text: str, syntax: Syntax) -> bool:
    """Whether a text is one JSON value, in a fence or not, that names the tool and holds a box: as LangChain, the tools of
    ChatGPT and others write a call."""
    body = _FENCE.sub("", text).strip()
    whole = body[:1] in ("{", "[") and body[-1:] in ("}", "]") and bool(objects_in(body))
    return whole and bool(_quoted(syntax.names).search(body)) and bool(_quoted((syntax.box,)).search(body))


_FENCE = re.compile(r"\A\s*```\w*|```\s*\Z")


@lru_cache(maxsize=32)
def _quoted(names: tuple[str, ...]) -> re.Pattern[str]:
    """A name as a key or a value of JSON, also within a namespace."""
    return re.compile(rf"""["'](?:functions\.)?(?:{_any_of(names)})["']""")


def _any_of(names: tuple[str, ...]) -> str:
    return "|".join(re.escape(name) for name in names)


def _spoken(text: str, syntax: Syntax) -> Iterator[Call]:
    """The calls that are a tool's name with its arguments in brackets, as Gemma writes them: `name(bbox_2d=[...])` in Python's
    words, or `name{bbox_2d:[...]}`; each alone on its lines, since a sentence may speak of the tool."""
    if not any(name in text for name in syntax.names):
        return
    for match in islice(_named(syntax.names).finditer(text), _MOST_OBJECTS):
        arguments, end = arguments_at(text, match.end() - 1)
        if arguments is not None and _NOTHING_MORE.match(text, end):
            yield Call(match[1], arguments)


@lru_cache(maxsize=32)
def _named(names: tuple[str, ...]) -> re.Pattern[str]:
    """A tool's name at the start of a line, behind the marks that some models put before it."""
    return re.compile(rf"^[^\S\n]*(?:<\|tool_call>)?(?:call:|\[|print\()?({_any_of(names)})\s*[({{]", re.MULTILINE)


_NOTHING_MORE = re.compile(r"[\])]?(?:<tool_call\|>|```|[;\s])*(?:$|\Z)", re.MULTILINE)


def _is_call(value: Any, syntax: Syntax) -> bool:
    """Whether a JSON value is a call, rather than an answer that is JSON."""
    inner = value.get("function", value) if isinstance(value, dict) else None
    name = _name(inner) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(name, str):
        return False
    return name in syntax.names or "arguments" in inner or "parameters" in inner


_OBJECT = re.compile(r"""\{(?=\s*["']?(?:name|type|function|tool|tool_name|arguments|parameters)["']?\s*:)""")
_MOST_OBJECTS = 64  # of one text that are looked at
_FOREIGN = (
    r"<\|tool_calls?(?:_section)?_begin\|>|<｜tool▁calls?▁begin｜>|\[TOOL_CALLS\]|<\|python_tag\|>|<function_call>|<tool_code>"
    r"|```tool_code|<\|tool_call>|<invoke name=|<｜DSML｜|<arg_key>|<\|START_ACTION\|>"
)


@lru_cache(maxsize=32)
def _foreign(names: tuple[str, ...]) -> re.Pattern[str]:
    """The mark of another model's call: a token, the tool's name as a tag, or the line of an action."""
    known = _any_of(names)
    return re.compile(rf"{_FOREIGN}|<(?:{known})>|^[^\S\n]*\**Action\**:\**\s*(?:{known})\b", re.MULTILINE)


_XML = "The tool call is not of the form <function=name><parameter=argument>value</parameter></function>."


def _form(syntax: Syntax) -> str:
    if syntax.form == "xml":
        return _XML
    if syntax.bare:
        return f'The call is not JSON of the form {{"{syntax.box}": [...]}}.'
    return f'The tool call is not JSON of the form {{"name": ..., "arguments": {{"{syntax.box}": [...]}}}}.'


def call_of(value: dict[str, Any], syntax: Syntax) -> Call | Malformed:
    """A call that was written as JSON; OpenAI's wrapper around a function is taken off."""
    if isinstance(value.get("function"), dict):
        value = value["function"]
    arguments = value.get("arguments", value.get("parameters", value))
    if isinstance(arguments, str):
        arguments = value_in(arguments)
    if not isinstance(arguments, dict):
        return Malformed("The tool call has no arguments.")
    name = _name(value)
    if arguments is not value:  # the number of the image may stand beside the arguments
        arguments = {key: one for key, one in value.items() if names_image(key)} | arguments
    return Call(name if not syntax.bare or isinstance(name, str) else None, arguments)


def _name(value: dict[str, Any]) -> Any:
    return next((value[key] for key in ("name", "function", "tool", "tool_name") if key in value), None)


_FUNCTION = re.compile(r"<function=([^>\n]{1,200})>(.*?)(?:</function>|(?=<function=)|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]{1,200})>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)


def _xml(raw: str) -> Iterator[Call | Malformed]:
    """Calls as Qwen3.5 and Qwen3-Coder write them."""
    found = False
    for function in _FUNCTION.finditer(raw):
        found = True
        yield Call(function[1].strip(), {p[1].strip(): _argument(p[2]) for p in _PARAMETER.finditer(function[2])})
    if not found:
        yield Malformed(_XML)


_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|\Z)", re.DOTALL)


def _pairs(raw: str) -> Call:
    """A call as GLM-4.5 and later write it: the name, then keys and values."""
    return Call(raw.partition("<arg_key>")[0].strip(), {p[1].strip(): _argument(p[2]) for p in _PAIR.finditer(raw)})


def _argument(text: str) -> Any:
    """The value of an XML argument: JSON where it is a list, an object or a number, else its text."""
    text = text.strip()
    if text[:1] in "[{" and text[:1]:
        value = value_in(text, "[]" if text[0] == "[" else "{}")
        return text if value is None else value
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else text
