"""Reads assistant turns: `parse(text) -> actions`. Never raises: what cannot be read is `Malformed`, with the reason."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import islice, zip_longest
from typing import Any

from cof_agent.geometry import Box, BoxError, CoordinateSystem, read_box
from cof_agent.protocol.boxed import last_boxed
from cof_agent.protocol.calls import Call, calls_in, has_call, untagged_calls
from cof_agent.protocol.dialects import Dialect, ours
from cof_agent.protocol.values import LONGEST, box_of, names_image, spelt, value_in, whole_number
from cof_agent.trajectory import Action, Answer, Malformed, Use, Zoom, is_look


def begins_anew(text: str) -> bool:
    """Whether a text is the start of a turn, rather than the rest of one that was begun."""
    return text.lstrip().startswith("<think>")


def with_opening(text: str) -> str:
    """A turn of a model whose chat template opens the thought, with the tag that opens it: servers return what follows."""
    head, closing, _ = text.partition("</think>")
    return f"<think>\n{text.lstrip()}" if closing and "<think>" not in head else text


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


_THOUGHT_MARKS = (
    ("◁think▷", "<think>"),
    ("◁/think▷", "</think>"),
    ("<|channel>thought", "<think>"),
    ("<channel|>", "</think>"),
)
"""Of Kimi-VL and of Gemma 4, where the server leaves them in the text, and what stands for them here."""


def _with_our_marks(text: str) -> str:
    for theirs, mark in _THOUGHT_MARKS:
        text = text.replace(theirs, mark)
    return text


_THINK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_TAGS = re.compile(r"</?(?:think|tool_call|grounding|answer)>")


def thought(text: str) -> str:
    """What the model wrote as its thought; without think tags, the words before its first tag."""
    text = _with_our_marks(text)
    found = _THINK.search(text)
    return (found[1] if found else _TAGS.split(text, maxsplit=1)[0]).strip()


def after_thought(text: str) -> str:
    """What follows the thought; empty where that does not end."""
    text = _with_our_marks(text)
    _, closing, rest = text.rpartition("</think>")
    return rest if closing else "" if begins_anew(text) else text


def taken_apart(text: str) -> tuple[str, str]:
    """The thought of a turn and its other words; of one that begins no thought, or holds none, all of them."""
    head, closing, rest = text.partition("</think>")
    if begins_anew(head):
        return head.lstrip().removeprefix("<think>").strip(), rest.strip()
    return (head.strip(), rest.strip()) if closing and "<think>" not in head else ("", text)


def without_tags(text: str) -> str:
    """`text` as it may stand inside a tag: on one line, without the tags of any dialect."""
    return " ".join(_TAGS.sub("", text).split())


def well_formed(text: str, tools: Collection[str] = (), dialect: Dialect | None = None) -> bool:
    """Whether a turn has exactly the form of its dialect: one thought, then calls with boxes or one answer, and nothing else.

    tools: as for `parse`.
    """
    spoken = dialect or ours()
    head, closing, rest = text.strip().partition("</think>")
    if closing and head.startswith("<think>"):
        inside = [head.removeprefix("<think>")]
    elif closing or "<think>" in head or spoken.end.thought == "required":
        return False
    else:
        # What stands before the calls is the thought.
        before, tag, calls = head.partition(spoken.call.open)
        inside, rest = [before] if tag else [], tag + calls if tag else head
    said = _parts(rest.strip(), spoken)
    if said is None or any(_TAGS.search(part) for part in (*inside, *said)):
        return False
    actions = parse(text, tools, dialect=spoken)
    tagged = isinstance(actions[-1], Answer) or has_call(rest, spoken.call)
    return tagged and not any(isinstance(action, Malformed) or _has_no_box(action) for action in actions)


def _has_no_box(action: Action) -> bool:
    """Whether an action is a zoom into what is no box, which is refused once it is carried out."""
    try:
        return isinstance(action, Zoom) and not read_box(action.box)
    except BoxError:
        return True


def _parts(rest: str, dialect: Dialect) -> list[str] | None:
    """What stands in the tags of a turn behind its thought, where it is calls alone or one answer alone; else None."""
    opening, closing = dialect.call.open, dialect.call.close
    if rest.endswith(closing) and rest.startswith(opening):
        calls = [call.strip() for call in rest.removesuffix(closing).split(closing)]
        return [call.removeprefix(opening) for call in calls] if all(c.startswith(opening) for c in calls) else None
    way = dialect.end.answer[0]
    if way == "tag":
        whole = rest.startswith("<answer>") and rest.endswith("</answer>")
        return [rest.removeprefix("<answer>").removesuffix("</answer>")] if whole else None
    marked = last_boxed(rest) is not None if way == "boxed" else rest
    return [rest] if marked and not has_call(rest, dialect.call) else None  # it stands between other words


def parse(
    text: str,
    tools: Collection[str] = (),
    system: CoordinateSystem = CoordinateSystem.ABSOLUTE,
    dialect: Dialect | None = None,
) -> tuple[Action, ...]:
    """The actions of one assistant turn, as `read` finds them; never empty, never raises.

    tools: names of the tools that the model has beside the zoom. system: in whose order the reason of a `Malformed` names the
    numbers of a box. dialect: by default ours.
    """
    spoken = dialect or ours()
    return tuple(
        _action(call, tools, system, spoken) if isinstance(call, Call) else call for call in read(text, spoken)
    )


def parse_cut(
    text: str,
    tools: Collection[str] = (),
    system: CoordinateSystem = CoordinateSystem.ABSOLUTE,
    dialect: Dialect | None = None,
) -> tuple[Action, ...]:
    """As `parse`, of a turn that was cut off: a call that more words would change is `Malformed`, since what there is of it may
    read as another one (a box without the last digit of a number)."""
    actions = parse(text, tools, system, dialect)
    for longer in _continued(text, dialect or ours()):
        kept = zip_longest(actions, parse(longer, tools, system, dialect)[: len(actions)])
        actions = tuple(
            one if one == same or not is_look(one) else Malformed("This call was cut off.") for one, same in kept
        )
    return actions


def _continued(text: str, dialect: Dialect) -> list[str]:
    """Ways in which a turn that was cut off may have gone on: in the word it ends with, and by the number of the image."""
    key = dialect.call.image or "image"
    last = text[max(text.rfind("<function="), text.rfind(dialect.call.open), 0) :]
    if f"<parameter={key}>" in last or f"<arg_key>{key}</arg_key>" in last:
        return [f"{text} more"]
    arguments = {
        "<function=": f"\n<parameter={key}>\n999\n</parameter>",
        "<arg_key>": f"\n<arg_key>{key}</arg_key>\n<arg_value>999</arg_value>",
    }
    whole = _BEGUN.sub("", text)
    return [f"{text} more", *(whole + more for mark, more in arguments.items() if mark in text)]


_BEGUN = re.compile(r"<(?:arg_key>[^<]{0,80}|parameter=[^>]{0,80}|parameter)?\Z")
"""The name of an argument that is not whole."""


def read(text: str, dialect: Dialect | None = None) -> tuple[Call | Answer | Malformed, ...]:
    """What one assistant turn does, whatever its tools, in order; never empty, never raises.

    - What stands inside a closed thought is no action, but for the calls of some dialects (`Call.in_thought`); an unclosed
      thought hides only what it holds before the first call or answer tag. A thought whose opening tag is missing starts with
      the text, if an action follows it.
    - Several calls are several actions, or the first or the last one counts (`Call.take` of the dialect). A call that cannot
      be read is `Malformed` in its place. Some dialects read calls without tags (`Call.untagged`), where there are no others.
    - Of more than `MOST_ACTIONS` calls the rest is counted in one `Malformed`.
    - With calls present, an answer in the same turn is not taken: the model has not seen what it asked for. Some
      checkpoints were trained the other way round (`Call.beside_answer`).
    - Without calls, the answer is looked for as the dialect marks it; of several, the last one counts.
    """
    spoken = dialect or ours()
    body = _outside_thought(text, spoken)
    calls = _calls(text, spoken)
    answer = _answer(body, spoken) if not calls or spoken.call.beside_answer == "answer" else None
    if calls and not isinstance(answer, Answer):
        return calls
    return (answer or Malformed("There is neither a tool call nor an answer: write one of them after the thought."),)


def says_nothing(text: str, dialect: Dialect) -> bool:
    """Whether a turn has neither a call, readable or not, nor an answer."""
    return not _calls(text, dialect) and not isinstance(read(text, dialect)[0], Answer)


def is_whole(text: str, dialect: Dialect | None = None) -> bool:
    """Whether a turn that was cut off says all that it has to: more words would not change what it does."""
    return all(read(text, dialect) == read(longer, dialect) for longer in _continued(text, dialect or ours()))


def _calls(text: str, dialect: Dialect) -> tuple[Call | Malformed, ...]:
    """The calls of a turn that count."""
    body = text if dialect.call.in_thought else _outside_thought(text, dialect)
    found = list(islice(calls_in(body, dialect.call), MOST_ACTIONS))
    if not found and dialect.call.untagged and "<answer>" not in body:
        found = untagged_calls(body, dialect.call)
    if dialect.call.take != "all":
        return tuple(found[:1] if dialect.call.take == "first" else found[-1:])
    beyond = sum(1 for _ in calls_in(body, dialect.call)) - MOST_ACTIONS if len(found) == MOST_ACTIONS else 0
    more = (Malformed(f"{beyond} more tool calls of this turn were not read."),) if beyond > 0 else ()
    return (*found, *more)


def _answer(body: str, dialect: Dialect) -> Answer | Malformed | None:
    """The answer in a turn without its thought; None where nothing is marked as one."""
    for way in dialect.end.answer:
        found = _ANSWERS[way](body, dialect)
        if found is not None:
            marked = _MARKED.fullmatch(found)
            said = marked[1].strip() if marked else found
            return Answer(said) if said else Malformed("The answer is empty.")
    return None


def _tagged(body: str, dialect: Dialect) -> str | None:
    _, tag, rest = body.rpartition("<answer>")
    return _TAGS.sub("", rest.partition("</answer>")[0]).strip() if tag else None


def _plain(body: str, dialect: Dialect) -> str | None:
    """The whole turn, where it says anything and calls nothing."""
    text = _TAGS.sub("", body).strip()
    return text if text and not has_call(body, dialect.call) else None


_MARKED = re.compile(r"<\|begin_of_box\|>((?:(?!<\|).)*)<\|end_of_box\|>", re.DOTALL)  # as GLM marks an answer
_ANSWERS = {"tag": _tagged, "boxed": lambda body, dialect: last_boxed(body), "plain": _plain}


def _outside_thought(text: str, dialect: Dialect) -> str:
    """`text` without its closed thoughts and without the tags of thinking that are left over."""
    text = _with_our_marks(text)
    # Not by regular expression: `<think>.*?</think>` takes quadratic time on many opening tags.
    head, closing, tail = text.partition("</think>")
    acts = has_call(tail, dialect.call) or "<answer>" in tail or dialect.end.answer != ("tag",)
    if closing and "<think>" not in head and acts:
        text = tail
    kept, place = [], 0
    for begin, end in closed_thoughts(text):
        kept.append(text[place:begin])
        place = end
    return _THINK_TAG.sub("", "".join([*kept, text[place:]]))


_THINK_TAG = re.compile(r"</?think>")


def closed_thoughts(text: str) -> list[tuple[int, int]]:
    """Where the closed thoughts of a text begin and end, with their tags. A closing tag closes the innermost thought; if closing
    tags are missing, the last one ends the whole."""
    found, depth, begin, end = [], 0, 0, 0
    for tag in _THINK_TAG.finditer(text):
        if tag[0] == "<think>":
            begin = begin if depth else tag.start()
            depth += 1
        elif depth:
            depth, end = depth - 1, tag.end()
            if depth == 0:
                found.append((begin, end))
    return [*found, (begin, end)] if depth and end > begin else found


_NUMBERS = re.compile(r"\s*" + r"\s*,\s*".join([r"(-?\d{1,6}(?:\.\d{1,6})?)"] * 4))


def box_after(text: str, start: int) -> Box | None:
    """The box whose four numbers stand in `text` from `start` on, as after `begin_zoom`; None without one."""
    found = _NUMBERS.match(text, start)
    return Box(*map(float, found.groups())) if found else None


_FOUR = r"\s*,\s*".join([r"(-?\d{1,7}(?:\.\d{1,17})?)"] * 2)
_BOX = re.compile(rf"[\[(]\s*{_FOUR}\s*(?:,|\)\s*,?\s*\(|\]\s*,\s*\[)\s*{_FOUR}\s*[\])]")


def box_in(text: str) -> tuple[float, ...] | None:
    """The first box that a reply names behind its thought, however it is written: in JSON, as a list, as two corners, in box
    tokens."""
    found = _BOX.search(after_thought(text))
    return tuple(map(float, found.groups())) if found else None


def json_in(text: str) -> Any:
    """The JSON object, or list, that a reply has behind its thought, read as leniently as a call; None without one."""
    text = after_thought(text)
    found = value_in(text)
    return value_in(text, "[]") if found is None else found


def _action(call: Call, tools: Collection[str], system: CoordinateSystem, dialect: Dialect) -> Zoom | Use | Malformed:
    arguments, name = call.arguments, call.name
    known = isinstance(name, str) and name in tools
    if not known and name is not None and name not in dialect.call.names and "*" not in dialect.call.names:
        return Malformed(_no_such_tool(tools, dialect))
    image = image_named(arguments, dialect)
    if isinstance(image, Malformed):
        return image
    if known:
        return _use(str(name), arguments, image, dialect)
    if unknown := other_image(arguments, dialect):
        return Malformed(unknown)
    value = next((arguments[key] for key in (dialect.call.box, *_BOX_KEYS) if key in arguments), None)
    if isinstance(value, list) and len(value) > 1 and all(isinstance(part, list) and len(part) == 4 for part in value):
        return Malformed(f"{dialect.call.box} holds {len(value)} boxes: write one call for each.")
    box = box_of(value)
    if box is None:
        return Malformed(f"The tool call has no {dialect.call.box}, a list of four numbers {system.corners}.")
    return Zoom(tuple(_recorded(number) for number in box[:16]), image)


_BOX_KEYS = ("bbox_2d", "bbox", "box_2d")


def _use(name: str, arguments: dict[str, Any], image: int, dialect: Dialect) -> Use | Malformed:
    keys = {dialect.call.image, *_IMAGE_KEYS}
    given = {str(key): value for key, value in arguments.items() if key not in keys}
    if any(isinstance(value, dict | list) or value != _recorded(value, longest=LONGEST) for value in given.values()):
        return Malformed(f"The arguments of {name} must be numbers, words, true or false.")
    return Use(name, given, image)


_IMAGE_KEYS = {"image": 0, "img_idx": 0, "image_idx": 0, "image_index": 0, "target_image": 1}
"""What the number of an image is called in the calls of known checkpoints, each with the number of the first one."""
_OTHER_IMAGE_KEYS = ("index", "source", "observation", "frame", "view", "picture", "crop")
"""What may name an image, too, as `image_id` and its like do, but counting from which number is not known."""


def other_image(arguments: dict[str, Any], dialect: Dialect) -> str | None:
    """Why an argument that seems to name another image than the first is not read; None where there is none."""
    if dialect.call.always_first:
        return None
    known = {spelt(key) for key in (dialect.call.image, dialect.call.box, *_IMAGE_KEYS, *_BOX_KEYS)}
    unknown = next(
        (key for key, value in arguments.items() if value and spelt(key) not in known and may_name_image(key)), None
    )
    wanted = f': name the image as "{dialect.call.image}"' if dialect.call.image else ""
    return unknown and f'"{unknown}" is no argument of the tool{wanted}.'


def may_name_image(key: object) -> bool:
    """Whether the argument of a call with this name may say which image is meant."""
    return spelt(key) in _OTHER_IMAGE_KEYS or names_image(key)


def image_named(arguments: dict[str, Any], dialect: Dialect) -> int | Malformed:
    """The number of the image that a call names, from 0; 0 where it names none, or the dialect knows the first one only."""
    if dialect.call.always_first:
        return 0
    keys = {**_IMAGE_KEYS, **({dialect.call.image: dialect.call.counts_from} if dialect.call.image else {})}
    first = {spelt(key): number for key, number in keys.items()}
    named = {key: value for key, value in arguments.items() if spelt(key) in first and value is not None}
    numbers = {key: _image_number(value, first[spelt(key)], dialect) for key, value in named.items()}
    for key, number in numbers.items():
        if number is None:
            return Malformed(_no_such_image(key, first[spelt(key)], dialect))
    if len(set(numbers.values())) > 1:
        both = " and ".join(f'"{key}"' for key in numbers)
        return Malformed(f"{both} name different images: write one of them.")
    return next((number for number in numbers.values() if number is not None), 0)


def _image_number(value: Any, first: int, dialect: Dialect) -> int | None:
    """The number, from 0, of an image that is named by its number or in the dialect's words; None if it is no such name."""
    call = dialect.call
    if isinstance(value, str) and call.first_called:
        if value.strip() == call.first_called:
            return 0
        head, _, tail = call.later_called.partition("{n}")
        digits = value.strip().removeprefix(head).removesuffix(tail)
        named = head and value.strip() == f"{head}{digits}{tail}" and digits.isdecimal()
        crop = int(digits) - call.counts_from if named else 0
        return crop if 1 <= crop < 10_000 else None
    number = whole_number(value)
    return number - first if number is not None and first <= number < 10_000 else None


def _no_such_image(key: str, first: int, dialect: Dialect) -> str:
    call = dialect.call
    if call.first_called and key == call.image:
        later = call.later_called.replace("{n}", str(1 + call.counts_from))
        return f'"{key}" must be "{call.first_called}", or "{later}" for the first crop and so on.'
    return f'"{key}" must be the number of an image in this conversation, {first} for the first.'


def _no_such_tool(tools: Collection[str], dialect: Dialect) -> str:
    zoom = dialect.call.names[0]
    if not tools:
        return f"There is no such tool; the only one is {zoom}."
    return f"There is no such tool; the tools are {', '.join((zoom, *tools))}."


def _recorded(value: Any, longest: int = 64) -> Any:
    """What a record may hold of a value the model wrote: finite numbers as they are, the rest as short strings."""
    if value is None or (isinstance(value, (bool, int, float)) and abs(value) < 2**53):
        return value
    return str(value)[:longest] if not isinstance(value, int) else "a huge number"
