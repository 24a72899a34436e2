"""Sets of three questions in the layouts in which sets are published: words and pictures are our own.

Each writer puts its files into an empty folder and returns what `--data` names. The truth is the same in all: `QUESTIONS`,
`ANSWERS`, and `BOX` where boxes are written.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image, ImageDraw
from pyarrow import parquet

QUESTIONS = ("Which colour has the kite?", "How many boats lie there?", "What does the plate say?")
ANSWERS = ("green", "4", "K-17")
OTHERS = (("red", "blue"), ("2", "7", "9"), ("K-71", "H-17"))
CHOICES = tuple((answer, *others) for answer, others in zip(ANSWERS, OTHERS, strict=True))
BOX = (120.0, 90.0, 180.0, 140.0)
SIZE = (400, 300)

_SYSTEM = "You can look closer.\n<tools>\n{}\n</tools>"
_HOW = "\nThink before you reply. Put the final answer into <answer> tags."


def picture(number: int) -> bytes:
    """A PNG, another for each number."""
    image = Image.new("RGB", SIZE, (40 * number, 90, 160))
    ImageDraw.Draw(image).rectangle(BOX, fill="white")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def text_of(number: int) -> str:
    """A picture in base64."""
    return base64.b64encode(picture(number)).decode()


def held(number: int) -> dict[str, Any]:
    """A picture as `datasets` writes it to Parquet."""
    return {"bytes": picture(number), "path": None}


def pictures(folder: Path, name: str = "photos/{}.png") -> list[str]:
    """Writes the pictures; their paths relative to the folder."""
    names = [name.format(number) for number in range(3)]
    for number, path in enumerate(names):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(number))
    return names


def as_json(path: Path, rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), "utf-8")
    return path


def as_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def as_parquet(path: Path, rows: list[dict[str, Any]], features: dict[str, Any] | None = None) -> Path:
    table = pyarrow.Table.from_pylist(rows)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def as_table(path: Path, rows: list[dict[str, Any]], separator: str) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows(make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    return [make(number) for number in range(3)]


def _asked(number: int) -> dict[str, Any]:
    return {"question": QUESTIONS[number], "answer": ANSWERS[number]}


def _verl(image: Callable[[int], Any], **more: Any) -> list[dict[str, Any]]:
    return rows(
        lambda n: {
            "data_source": "kites",
            "prompt": [
                {"role": "system", "content": _SYSTEM},
                {"role": "user", "content": f"<image>\n{QUESTIONS[n]}{_HOW}"},
            ],
            "images": [image(n)],
            "reward_model": {"ground_truth": ANSWERS[n], "style": "rule"},
            **more,
        }
    )


def _talk(who: str, said: str, turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{who: role, said: text} for role, text in turns]


def _options(number: int, mark: str) -> list[str]:
    return [mark.format("ABCD"[place], text) for place, text in enumerate(CHOICES[number])]


def verl(folder: Path) -> Path:
    return as_parquet(folder / "part_1.parquet", _verl(lambda n: {"bytes": picture(n)}))


def verl_with_the_bare_question(folder: Path) -> Path:
    made = _verl(held)
    for number, row in enumerate(made):
        row["extra_info"] = {"index": number, "question": QUESTIONS[number], "answer": "something else"}
    as_parquet(folder / "data" / "train-00000-of-00001.parquet", made)
    return folder


def verl_with_paths(folder: Path) -> Path:
    names = pictures(folder)
    return as_json(folder / "train.json", _verl(lambda n: {"image": f"./{names[n]}"}))


def easyr1(folder: Path) -> Path:
    feature = {"images": {"feature": {"_type": "Image"}, "_type": "List"}}
    made = rows(lambda n: {"images": [held(n)], "problem": f"<image>{QUESTIONS[n]}", "answer": ANSWERS[n]})
    return as_parquet(folder / "rows.parquet", made, feature)


def reasoned(folder: Path) -> Path:
    """Problems and solutions, the answer within tags, a box, or behind a thought."""
    wrapped = ("<answer> {} </answer>", "So there are \\boxed{{{}}}.", "<think>B?</think><answer>{}</answer>")
    names = pictures(folder)
    made = rows(lambda n: {"image": names[n], "problem": QUESTIONS[n], "solution": wrapped[n].format(ANSWERS[n])})
    return as_lines(folder / "rows.jsonl", made)


def problems_with_paths(folder: Path) -> Path:
    """A folder inside the folder, which the paths begin with."""
    names = pictures(folder, "Kites_train/data/{}.png")
    made = rows(
        lambda n: {
            "images": [names[n]],
            "doc_id": f"d{n}",
            "problem": f"<image>\n{QUESTIONS[n]}",
            "solution": ANSWERS[n],
        }
    )
    as_json(folder / "Kites_train" / "train.json", made)
    return folder / "Kites_train"


def base64_in_lists(folder: Path) -> Path:
    messages = [
        _talk(
            "role", "content", [("system", _SYSTEM), ("user", f"<image>\n{QUESTIONS[n]}\n\n### User Image Path:** /x")]
        )
        for n in range(3)
    ]
    made = rows(
        lambda n: {"messages": messages[n], "images": [text_of(n)], "solution": ANSWERS[n], "question": QUESTIONS[n]}
    )
    return as_parquet(folder / "rows.parquet", made)


def llava(folder: Path) -> Path:
    names = pictures(folder)
    made = rows(
        lambda n: {
            "image": names[n],
            "conversations": _talk("from", "value", [("human", f"<image>\n{QUESTIONS[n]}"), ("gpt", ANSWERS[n])]),
        }
    )
    return as_json(folder / "llava.json", made)


def conversation_as_text(folder: Path) -> Path:
    turns = [("system", "Look."), ("user", f"{QUESTIONS[0]}<image>"), ("assistant", ANSWERS[0])]
    made = rows(
        lambda n: {
            "talk": json.dumps(
                _talk("role", "content", [turns[0], ("user", f"<image>{QUESTIONS[n]}"), ("assistant", ANSWERS[n])])
            ),
            "images": [held(n)],
        }
    )
    return as_parquet(folder / "rows.parquet", made)


def images_inside_messages(folder: Path) -> Path:
    names = pictures(folder)
    made = rows(
        lambda n: {
            "message_list": [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": names[n]}, {"type": "text", "text": QUESTIONS[n]}],
                },
                {"role": "assistant", "content": [{"type": "text", "text": ANSWERS[n]}]},
            ]
        }
    )
    return as_json(folder / "rows.json", made)


def urls_inside_messages(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text_of(n)}"}},
                        {"type": "text", "text": QUESTIONS[n]},
                    ],
                }
            ],
            "answer": ANSWERS[n],
        }
    )
    return as_lines(folder / "rows.jsonl", made)


def record_of_an_agent(folder: Path) -> Path:
    """A call, what came back, the answer: one question about the first image."""
    names = pictures(folder)
    call = '<think>Small.</think>\n<tool_call>\n{"name": "zoom", "arguments": {}}\n</tool_call>'
    made = rows(
        lambda n: {
            "messages": _talk(
                "role",
                "content",
                [
                    ("user", f"<image>Question: {QUESTIONS[n]}"),
                    ("assistant", call),
                    ("tool", "<image>"),
                    ("assistant", f"<think>Seen.</think>\n<answer>{ANSWERS[n]}</answer>"),
                ],
            ),
            "images": [names[n], names[(n + 1) % 3]],
        }
    )
    return as_json(folder / "rows.json", made)


def pairs_about_one_image(folder: Path) -> Path:
    """The Cauldron's form: a list of pairs for each image."""
    made = rows(lambda n: {"images": [held(n)], "texts": [{"user": QUESTIONS[n], "assistant": ANSWERS[n]}]})
    return as_parquet(folder / "rows.parquet", made)


def region_before_the_answer(folder: Path) -> Path:
    """Visual-CoT's form."""
    names = pictures(folder)
    made = rows(
        lambda n: {
            "image": [names[n], f"{names[n]}###[120, 90, 180, 140]"],
            "conversations": _talk(
                "from",
                "value",
                [
                    (
                        "human",
                        f"<image>\n{QUESTIONS[n]} Please provide the bounding box coordinate of the region to look at.",
                    ),
                    ("gpt", "[0.3, 0.3, 0.45, 0.467]"),
                    ("human", "<image>"),
                    ("gpt", ANSWERS[n]),
                ],
            ),
        }
    )
    return as_json(folder / "rows.json", made)


def vlmevalkit(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "index": n,
            "image": text_of(n),
            "question": QUESTIONS[n],
            **{letter: (CHOICES[n][place] if place < len(CHOICES[n]) else "") for place, letter in enumerate("ABCD")},
            "answer": "A",
            "category": "kites",
        }
    )
    return as_table(folder / "Kites.tsv", made, "\t")


def comma_separated(folder: Path) -> Path:
    names = pictures(folder)
    return as_table(folder / "rows.csv", rows(lambda n: {"img_path": names[n], **_asked(n)}), ",")


def choices_in_lines(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "image": picture(n),
            "text": "\n".join([QUESTIONS[n], *_options(n, "({}) {}"), "Answer with the option's letter directly."]),
            "label": "A",
        }
    )
    return as_parquet(folder / "rows.parquet", made)


def choices_in_a_row(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "image": picture(n),
            "query": f"{QUESTIONS[n]}\nOptions: {', '.join(_options(n, '{}: {}'))}",
            "response": "(A)",
        }
    )
    return as_parquet(folder / "rows.parquet", made)


def choices_with_marks(folder: Path) -> Path:
    names = pictures(folder)
    made = rows(
        lambda n: {
            "Image": names[n],
            "Text": QUESTIONS[n],
            "Answer choices": _options(n, "({}) {}"),
            "Ground truth": "A",
        }
    )
    return as_json(folder / "rows.json", made)


def choices_by_key(folder: Path) -> Path:
    names = pictures(folder)
    made = rows(
        lambda n: {
            "image_path": names[n],
            "Q": QUESTIONS[n],
            "A": f"A. {ANSWERS[n]}",
            "options": dict(zip("ABCD", CHOICES[n], strict=False)),
        }
    )
    return as_json(folder / "rows.json", {"annotations": made, "info": {"year": 2026}})


def choices_in_a_text(folder: Path) -> Path:
    made = rows(
        lambda n: {"image": held(n), "question": QUESTIONS[n], "choices": repr(list(CHOICES[n])), "answer": "[A]"}
    )
    return as_parquet(folder / "rows.parquet", made)


def number_of_the_choice(folder: Path) -> Path:
    """Counted from 0: one is the first."""
    names = pictures(folder)
    places = (0, 1, 2)
    made = rows(
        lambda n: {
            "image": names[n],
            "question": QUESTIONS[n],
            "choices": [*OTHERS[n][: places[n]], ANSWERS[n], *OTHERS[n][places[n] :]],
            "answer": places[n],
        }
    )
    return as_lines(folder / "rows.jsonl", made)


def classes(folder: Path) -> Path:
    features = {"label": {"_type": "ClassLabel", "names": list(ANSWERS)}}
    made = rows(lambda n: {"image": held(n), "question": QUESTIONS[n], "label": n})
    return as_parquet(folder / "rows.parquet", made, features)


def ten_people(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "image": held(n),
            "question": QUESTIONS[n],
            "answers": [{"answer": ANSWERS[n], "answer_id": person} for person in range(10)],
        }
    )
    return as_parquet(folder / "rows.parquet", made)


def numbered_images(folder: Path) -> Path:
    made = rows(lambda n: {"image_1": held(n), "image_2": None, **_asked(n)})
    return as_parquet(folder / "val.parquet", made)


def image_beside_its_path(folder: Path) -> Path:
    made = rows(lambda n: {"image": f"lost/{n}.png", "decoded_image": held(n), "crop_image": held(2 - n), **_asked(n)})
    return as_parquet(folder / "rows.parquet", made)


def corners(folder: Path) -> Path:
    names = pictures(folder)
    return as_json(folder / "rows.json", rows(lambda n: {"image": names[n], **_asked(n), "bboxes": [list(BOX)]}))


def fractions(folder: Path) -> Path:
    x0, y0, x1, y1 = BOX
    box = [x0 / SIZE[0], y0 / SIZE[1], x1 / SIZE[0], y1 / SIZE[1]]
    names = pictures(folder)
    return as_json(folder / "rows.json", rows(lambda n: {"image": names[n], **_asked(n), "bbox": box}))


def width_and_height(folder: Path) -> Path:
    """In COCO's form, whose other columns stand beside the box."""
    x0, y0, x1, y1 = BOX
    names = pictures(folder)
    made = rows(lambda n: {"file_name": names[n], "iscrowd": 0, **_asked(n), "bbox": [x0, y0, x1 - x0, y1 - y0]})
    return as_json(folder / "rows.json", made)


def saved_to_disk(folder: Path) -> Path:
    import datasets

    made = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows(lambda n: {"image": held(n), **_asked(n)}))})
    made.save_to_disk(folder / "saved")
    return folder / "saved"


def under_another_name(folder: Path) -> Path:
    as_parquet(folder / "rows.data", rows(lambda n: {"image": held(n), **_asked(n)}))
    return folder


def splits(folder: Path) -> Path:
    """The training split is read where none is named."""
    wrong = rows(lambda n: {"image": held(n), "question": "Wrong?", "answer": "wrong"})
    as_parquet(folder / "data" / "test-00000-of-00001.parquet", wrong)
    as_parquet(folder / "data" / "train-00000-of-00001.parquet", rows(lambda n: {"image": held(n), **_asked(n)}))
    as_lines(folder / "raw.jsonl", [{"question": "Wrong?", "answer": "wrong"}])
    return folder


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    write.__name__: write
    for write in (
        *(verl, verl_with_the_bare_question, verl_with_paths, easyr1, reasoned, problems_with_paths, base64_in_lists),
        *(llava, conversation_as_text, images_inside_messages, urls_inside_messages, record_of_an_agent),
        *(pairs_about_one_image, region_before_the_answer, vlmevalkit, comma_separated, choices_in_lines),
        *(choices_in_a_row, choices_with_marks, choices_by_key, choices_in_a_text, number_of_the_choice, classes),
        *(ten_people, numbered_images, image_beside_its_path, corners, fractions, width_and_height),
        *(saved_to_disk, under_another_name, splits),
    )
}
WITH_CHOICES = {
    *(
        "vlmevalkit",
        "choices_in_lines",
        "choices_in_a_row",
        "choices_with_marks",
        "choices_by_key",
        "choices_in_a_text",
    ),
    "number_of_the_choice",
}
WITH_BOXES = {"region_before_the_answer", "corners", "fractions", "width_and_height"}
