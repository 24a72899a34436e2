"""Sets of three conversations in the layouts in which sets for SFT are published: words and pictures are our own.

Each writer puts its files into an empty folder and returns what `--data` names. Pictures are 640 x 420 pixels and are shown to
nano at 420 x 280; `BOX` is in pixels of the file, `MOVED` in those that nano sees.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.layouts import ANSWERS, QUESTIONS, as_json, as_lines, as_parquet

BOX, MOVED = [100, 100, 300, 240], [66, 67, 197, 160]
_SIZE, _CROP = (640, 420), (400, 280)
_TOOLS = "You can look closer.\n# Tools\n<tools>\n{}\n</tools>"
_CODE = "<think>I cut it.</think>\n<code>\n```python\nimage.crop((100, 100, 300, 240))\n```\n</code>"
_TEXT = {"dtype": "string", "_type": "Value"}
_IMAGES = {"feature": {"_type": "Image"}, "_type": "List"}


def _picture(number: int, size: tuple[int, int] = _SIZE) -> bytes:
    from io import BytesIO

    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, (40 * number, 90, 160))
    ImageDraw.Draw(image).rectangle(BOX, fill="white")
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _files(folder: Path) -> None:
    (folder / "images").mkdir()
    for number in range(3):
        (folder / f"images/{number}.png").write_bytes(_picture(number))
        (folder / f"images/{number}_crop.png").write_bytes(_picture(number, _CROP))


def _both(number: int) -> list[str]:
    return [f"images/{number}.png", f"images/{number}_crop.png"]


def _call(box: list[int], more: str = "", name: str = "image_zoom_in_tool") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"bbox_2d": {box}{more}}}}}\n</tool_call>'


def _answer(number: int) -> str:
    return f"<think>Now I see it.</think>\n<answer>{ANSWERS[number]}</answer>"


def _messages(*said: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in said]


def _turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": value} for role, value in said]


def chain_of_focus(folder: Path) -> Path:
    _files(folder)
    made = [
        {
            "messages": _messages(
                ("system", _TOOLS),
                ("user", f"<image>Question: {QUESTIONS[n]}\nThink first."),
                ("assistant", _call(BOX)),
                ("user", "<image>\nThink first."),
                ("assistant", _answer(n)),
            ),
            "images": _both(n),
        }
        for n in range(3)
    ]
    return as_json(folder / "sft.json", made)


def deep_eyes_v2(folder: Path) -> Path:
    _files(folder)
    made = [
        {
            "messages": _messages(
                ("user", f"<image>{QUESTIONS[n]}"),
                ("assistant", _CODE),
                ("user", "Code execution result:\n<image>"),
                ("assistant", _answer(n)),
            ),
            "images": _both(n),
        }
        for n in range(3)
    ]
    as_json(folder / "sft_part_0.json", made)
    return folder


_GROUNDING = (
    '<think>I look.</think><grounding>{"bbox_2d": [0.15, 0.2, 0.5, 0.6], "source": "original_image"}</grounding>'
)


def _grounded(number: int) -> list[dict[str, str]]:
    return _turns(
        ("system", "Look closer with <grounding>."),
        ("human", f"<image>\n{QUESTIONS[number]}"),
        ("gpt", _GROUNDING),
        ("human", "Observation 1:\n<image>.\nGo on."),
        ("gpt", _answer(number)),
    )


def mini_o3(folder: Path) -> Path:
    held = [{"bytes": _picture(n), "path": None} for n in range(3)]
    made = [
        {
            "images": [held[n], held[n]],
            "image_names": ["original", "observation_1"],
            "conversations": json.dumps(_grounded(n)),
        }
        for n in range(3)
    ]
    features = {"images": _IMAGES, "image_names": {"feature": _TEXT, "_type": "List"}, "conversations": _TEXT}
    as_parquet(folder / "data" / "train-00000-of-00001.parquet", made, features)
    return folder


def mini_o3_converted(folder: Path) -> Path:
    _files(folder)
    return as_json(folder / "rows.json", [{"conversations": _grounded(n), "images": _both(n)} for n in range(3)])


def pixel_reasoner(folder: Path) -> Path:
    _files(folder)

    def shown(path: str, text: str) -> list[dict[str, str]]:
        return [{"type": "image", "image": path}, {"type": "text", "text": text}]

    made = [
        {
            "message_list": _messages(
                ("user", shown(f"images/{n}.png", QUESTIONS[n])),
                ("assistant", [{"type": "text", "text": _call(BOX, ', "target_image": 1', "crop_image")}]),
                ("user", shown(f"images/{n}_crop.png", "(Image Size: 400x280)")),
                ("assistant", [{"type": "text", "text": _answer(n)}]),
            ),
            "qid": f"q{n}",
        }
        for n in range(3)
    ]
    return as_json(folder / "release.json", made)


def tree_vgr(folder: Path) -> Path:
    _files(folder)
    made = [
        {
            "messages": _messages(
                ("user", f"<image>{QUESTIONS[n]}"), ("assistant", f"<think>It is <box>{BOX}</box>.</think>{ANSWERS[n]}")
            ),
            "images": [f"images/{n}.png"],
        }
        for n in range(3)
    ]
    return as_json(folder / "rows.json", made)


def visual_cot(folder: Path) -> Path:
    _files(folder)
    made = [
        {
            "image": [f"images/{n}.png", f"images/{n}.png###{BOX}"],
            "conversations": _turns(
                ("human", f"<image>\n{QUESTIONS[n]} Please provide the bounding box."),
                ("gpt", "[0.156,0.238,0.469,0.571]"),
                ("human", "<image>"),
                ("gpt", ANSWERS[n]),
            ),
        }
        for n in range(3)
    ]
    return as_json(folder / "rows.json", made)


def llava_cot(folder: Path) -> Path:
    _files(folder)
    made = [
        {
            "id": f"x{n}",
            "image": f"images/{n}.png",
            "conversations": _turns(("human", QUESTIONS[n]), ("gpt", _answer(n))),
        }
        for n in range(3)
    ]
    return as_lines(folder / "train.jsonl", made)


def tools_of_openai(folder: Path) -> Path:
    _files(folder)
    made = []
    for n in range(3):
        call = {"type": "function", "function": {"name": "zoom", "arguments": json.dumps({"bbox_2d": BOX})}}
        messages = _messages(("system", _TOOLS), ("user", f"<image>{QUESTIONS[n]}"), ("assistant", "I look."))
        messages[-1]["tool_calls"] = [call]
        messages += _messages(("tool", "<image>"), ("assistant", _answer(n)))
        made.append({"messages": messages, "images": _both(n)})
    return as_lines(folder / "rows.jsonl", made)


def thyme(folder: Path) -> Path:
    """Which cannot be trained on: code and its results in one turn."""
    from base64 import b64encode

    trace = (
        "<think>I cut.\n<code>\nprint(1)\n</code>\n<sandbox_output><image></sandbox_output></think>\n<answer>x</answer>"
    )
    images = [b64encode(_picture(n)).decode() for n in range(2)]
    made = [{"image": images, "question": f"<image>\n{QUESTIONS[n]}", "response": trace} for n in range(3)]
    return as_parquet(folder / "2round-00000-of-00001.parquet", made)


LAYOUTS: tuple[Callable[[Path], Path], ...] = (
    chain_of_focus,
    deep_eyes_v2,
    mini_o3,
    mini_o3_converted,
    pixel_reasoner,
    tree_vgr,
    visual_cot,
    llava_cot,
    tools_of_openai,
)


def _replies(*first: str) -> list[list[str]]:
    return [[*first, _answer(n)] for n in range(3)]


REPLIES: dict[str, list[list[str]]] = {
    "chain_of_focus": _replies(_call(MOVED)),
    "deep_eyes_v2": _replies(_CODE),
    "mini_o3": _replies(_GROUNDING),
    "mini_o3_converted": _replies(_GROUNDING),
    "pixel_reasoner": _replies(_call(MOVED, ', "target_image": 1', "crop_image")),
    "tree_vgr": [[f"<think>It is <box>{MOVED}</box>.</think>{answer}"] for answer in ANSWERS],
    "visual_cot": [["[0.156,0.238,0.469,0.571]", answer] for answer in ANSWERS],
    "llava_cot": _replies(),
    "tools_of_openai": _replies(f"I look.\n{_call(MOVED, name='zoom')}"),
}
"""What an assistant says in each row, as nano is taught it."""
