"""THE wire format: system prompt, tool schema, `render(trajectory) -> messages`, `parse(text) -> actions`.

Tags, prompts and the tool schema stand here and nowhere else; no other file reads model text.
The format is the one published Chain-of-Focus and DeepEyes checkpoints write (arXiv 2505.15436): literal
`<think>`, `<tool_call>` with JSON, `<answer>`; observations come back in a user message as image, then text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent.geometry import Box, CoordinateSystem, View
from cof_agent.region_refs import located
from cof_agent.trajectory import Action, Answer, Malformed, Observation, Sample, Trajectory, Turn, Zoom

PROTOCOL_VERSION = "1"
TOOL_NAME = "image_zoom_in_tool"

Message = dict[str, Any]
"""`{"role": ..., "content": [{"type": "text", "text": ...} | {"type": "image", "view": k}]}`; `view` counts images."""

_BOX_WORDS = {
    CoordinateSystem.ABSOLUTE: "in pixels of that image",
    CoordinateSystem.THOUSAND: "from 0 to 1000 on both axes of that image",
    CoordinateSystem.UNIT: "from 0 to 1 on both axes of that image",
    CoordinateSystem.PADDED: "from 0 to 1 on both axes of the square in whose middle that image lies",
}


def tool_schema(system: CoordinateSystem) -> dict[str, Any]:
    """The zoom tool as an OpenAI function schema, its box described in the model's coordinates."""
    return {
        "type": "function",
        "function": {
            "name": TOOL_NAME,
            "description": "Shows a region of an image again, cut from the full-resolution original.",
            "parameters": {
                "type": "object",
                "properties": {
                    "bbox_2d": {
                        "type": "array",
                        "items": {"type": "number"},
                        "minItems": 4,
                        "maxItems": 4,
                        "description": f"The region as [x1, y1, x2, y2], {_BOX_WORDS[system]}: left, top, right, bottom.",
                    },
                    "image": {
                        "type": "integer",
                        "description": "Which image of this conversation the region refers to; 0, the first, by default.",
                    },
                },
                "required": ["bbox_2d"],
            },
        },
    }


def system_prompt(system: CoordinateSystem) -> str:
    """The default system message; a file can replace it for checkpoints that were trained with their own."""
    return "\n".join(
        (
            "You answer a question about an image. The image may show less detail than the original has.",
            "Think inside <think></think> first. Then either zoom or answer.",
            "To look closer at a region, call the tool in this list:",
            f"<tools>\n{json.dumps(tool_schema(system))}\n</tools>",
            'A call is written as <tool_call>\n{"name": <tool name>, "arguments": <arguments as JSON>}\n</tool_call>',
            "The region then comes back as a new image. When you know the answer, write <answer>your answer</answer>.",
        )
    )


def question_text(sample: Sample) -> str:
    """The question, with its choices as lettered lines."""
    lines = [sample.question, *(f"{letter}. {text}" for letter, text in lettered(sample.choices))]
    return "\n".join(lines)


def lettered(choices: Sequence[str]) -> list[tuple[str, str]]:
    """Choices with the letters they are shown under: A, B, ..., Z, AA, ..."""
    return [(_letter(index), text) for index, text in enumerate(choices)]


def _letter(index: int) -> str:
    head = _letter(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("A") + index % 26)


def opening(sample: Sample, overview: View, *, system: CoordinateSystem, prompt: str | None = None) -> list[Message]:
    """The system message and the user's question under the overview, its regions as words and boxes."""
    question = located(question_text(sample), sample.regions, overview, system)
    return [
        {"role": "system", "content": [_text(system_prompt(system) if prompt is None else prompt)]},
        {"role": "user", "content": [{"type": "image", "view": 0}, _text(question)]},
    ]


def asked(messages: Sequence[Message]) -> str:
    """The text of the question that a conversation was opened with."""
    user = next(message for message in messages if message["role"] == "user")
    return "".join(part["text"] for part in user["content"] if part["type"] == "text")


def observation_message(observations: Sequence[Observation], first_view: int, *, system: CoordinateSystem) -> Message:
    """The user message that answers one assistant turn: for each zoom the crop, then its text; or the error sentence.

    `first_view` is the number that the first crop gets in the conversation.
    """
    content: list[dict[str, Any]] = []
    number = first_view
    for observation in observations:
        if observation.view is None:
            content.append(_text(f"{observation.error}\n"))
            continue
        note = f" {observation.note}" if observation.note else ""
        frame = system.describe(observation.view.shown_size)
        content += [{"type": "image", "view": number}, _text(f"Image {number}, {frame}.{note}\n")]
        number += 1
    content[-1]["text"] = content[-1]["text"].removesuffix("\n")
    return {"role": "user", "content": content}


def render(trajectory: Trajectory, *, system: CoordinateSystem, prompt: str | None = None) -> list[Message]:
    """The whole conversation of a trajectory; image `k` of it is `trajectory.views[k]`."""
    if trajectory.overview is None:
        raise ValueError(f"sample {trajectory.sample.id} was never shown, so there is nothing to render")
    return opening(trajectory.sample, trajectory.overview, system=system, prompt=prompt) + render_turns(
        trajectory.turns, first_view=1, system=system
    )


def render_turns(turns: Iterable[Turn], *, first_view: int, system: CoordinateSystem) -> list[Message]:
    """Assistant messages, literal, and the user messages with what each turn was shown."""
    messages: list[Message] = []
    for turn in turns:
        messages.append(assistant(turn.text))
        if turn.observations:
            messages.append(observation_message(turn.observations, first_view, system=system))
            first_view += sum(observation.view is not None for observation in turn.observations)
    return messages


def assistant(text: str) -> Message:
    """An assistant message, literal."""
    return {"role": "assistant", "content": [_text(text)]}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def write_zoom(thought: str, box: Box, image: int = 0) -> str:
    """A well-formed assistant turn that zooms; `box` in the model's coordinates, whole numbers without a point."""
    return f"<think>{thought}</think>\n{_zoom_call(box, image)}"


def write_zooms(thought: str, boxes: Sequence[Box]) -> str:
    """The same with several zooms into the overview."""
    return f"<think>{thought}</think>\n" + "\n".join(_zoom_call(box) for box in boxes)


def _zoom_call(box: Box, image: int = 0) -> str:
    arguments: dict[str, Any] = {"bbox_2d": [int(v) if float(v).is_integer() else round(v, 3) for v in box]}
    if image:
        arguments["image"] = image
    call = json.dumps({"name": TOOL_NAME, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


THOUGHT, CALL, ANSWER = "<think>{}</think>", "<tool_call>{}</tool_call>", "<answer>{}</answer>"
"""How a thought, a call and an answer are marked, for prompts that explain it."""


def write_answer(thought: str, answer: str) -> str:
    """A well-formed assistant turn that answers."""
    return f"<think>{thought}</think>\n<answer>{answer}</answer>"


def begin_zoom(thought: str) -> str:
    """The beginning of a turn that zooms, up to the first number of its box."""
    return write_zoom(thought, Box(0, 0, 0, 0)).rpartition("[")[0] + "["


def begin_answer(thought: str) -> str:
    """The beginning of a turn that answers, up to the answer."""
    return write_answer(thought, "").removesuffix("</answer>")


def begins_anew(text: str) -> bool:
    """Whether a text is the start of a turn, rather than the rest of one that was begun."""
    return text.lstrip().startswith("<think>")


_THINK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_TAGS = re.compile(r"</?(?:think|tool_call|answer)>")


def thought(text: str) -> str:
    """What the model wrote as its thought; without think tags, the words before its first tag."""
    found = _THINK.search(text)
    return (found[1] if found else _TAGS.split(text, maxsplit=1)[0]).strip()


def without_tags(text: str) -> str:
    """`text` as it may stand inside a tag: on one line, without the format's own tags."""
    return " ".join(_TAGS.sub("", text).split())


def well_formed(text: str) -> bool:
    """Whether a turn has exactly the format: one thought, then calls that parse or one answer, and nothing else."""
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
    return not any(isinstance(action, Malformed) for action in parse(text))


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it was written, unchecked; `name` is None where the call names no tool."""

    name: Any
    arguments: dict[str, Any]


def parse(text: str) -> tuple[Action, ...]:
    """The actions of one assistant turn that has the zoom tool, as `read` finds them; never empty, never raises."""
    return tuple(_as_zoom(action) if isinstance(action, Call) else action for action in read(text))


def read(text: str) -> tuple[Call | Answer | Malformed, ...]:
    """What one assistant turn does, whatever its tools, in order; never empty, never raises.

    - What stands inside a closed thought is no action; an unclosed thought hides only what it holds before the
      first call or answer tag. A thought whose opening tag is missing starts with the text, if an action follows it.
    - Several calls are several actions. A call that cannot be read is `Malformed` in its place.
    - With calls present, an answer in the same turn is not taken: the model has not seen what it asked for.
    - Without calls, the text of the last `<answer>` counts, up to its closing tag or the end; tags inside it go.
    """
    body = _outside_thought(text)
    calls = [_read_call(raw) for raw in _CALL.findall(body)]
    if calls:
        return tuple(calls)
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


def _as_zoom(call: Call) -> Zoom | Malformed:
    arguments = call.arguments
    if call.name not in (None, TOOL_NAME):
        return Malformed(f"There is no such tool; the only one is {TOOL_NAME}.")
    box = arguments.get("bbox_2d", arguments.get("bbox"))
    if not isinstance(box, list):
        return Malformed("The tool call has no bbox_2d, a list of four numbers [x1, y1, x2, y2].")
    image = arguments.get("image", 0)
    if isinstance(image, bool) or not isinstance(image, int) or not 0 <= image < 10_000:
        return Malformed('"image" must be the number of an image in this conversation, 0 for the first.')
    return Zoom(tuple(_plain(number) for number in box[:16]), image)


def _plain(value: Any) -> Any:
    """What a record may hold of a value the model wrote: finite numbers as they are, the rest as short strings."""
    if value is None or (isinstance(value, (bool, int, float)) and abs(value) < 2**53):
        return value
    return str(value)[:64] if not isinstance(value, int) else "a huge number"


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
