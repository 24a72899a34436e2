"""Sets of three questions in rarer forms: other names, values inside values, other files. The truth is that of `layouts`."""

from __future__ import annotations

import bz2
import gzip
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.layouts import (
    ANSWERS,
    BOX,
    CHOICES,
    OTHERS,
    QUESTIONS,
    as_json,
    as_lines,
    as_parquet,
    held,
    picture,
    pictures,
    rows,
    text_of,
)

Write = Callable[[Path], Path]


def _asked(number: int) -> dict[str, Any]:
    return {"question": QUESTIONS[number], "answer": ANSWERS[number]}


def _by_path(**more: Callable[[int], Any]) -> Write:
    """A JSON list whose rows name their images and have these columns more, or others."""

    def write(folder: Path) -> Path:
        names = pictures(folder)
        made = rows(lambda n: {"image": names[n], **_asked(n), **{name: make(n) for name, make in more.items()}})
        return as_json(folder / "rows.json", made)

    return write


def _in_rows(features: dict[str, Any] | None = None, **columns: Callable[[int], Any]) -> Write:
    """A Parquet file whose rows hold their images and have these columns."""

    def write(folder: Path) -> Path:
        made = rows(lambda n: {"image": held(n), **{name: make(n) for name, make in columns.items()}})
        return as_parquet(folder / "rows.parquet", made, features)

    return write


def _user(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"<image>{QUESTIONS[number]}"}]


def _assistant(number: int) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": ANSWERS[number]}]


def _placed(number: int) -> list[str]:
    """The choices, the right one at its number's place."""
    return [*OTHERS[number][:number], ANSWERS[number], *OTHERS[number][number:]]


def _lines(number: int, mark: str, keys: str = "ABCD") -> str:
    return "\n".join(mark.format(keys[place], text) for place, text in enumerate(CHOICES[number]))


def _classes(**inside: Any) -> dict[str, Any]:
    return {"_type": "ClassLabel", "names": list(ANSWERS)} | inside


# Values inside values --------------------------------------------------------------------------------------------------------


def conversation_inside(folder: Path) -> Path:
    names = pictures(folder)
    made = rows(
        lambda n: {"custom_id": f"c{n}", "body": {"messages": [*_user(n), *_assistant(n)], "images": [names[n]]}}
    )
    return as_lines(folder / "rows.jsonl", made)


def two_objects_down(folder: Path) -> Path:
    names = pictures(folder)
    made = rows(lambda n: {"uid": f"u{n}", "payload": {"qa": _asked(n), "media": {"image": names[n]}}})
    return as_json(folder / "rows.json", made)


def columns_as_json_texts(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "prompt": json.dumps(_user(n)),
            "images": [held(n)],
            "reward_model": json.dumps({"ground_truth": ANSWERS[n], "style": "rule"}),
            "extra_info": json.dumps({"index": n}),
        }
    )
    return as_parquet(folder / "rows.parquet", made)


def rows_of_the_hubs_viewer(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "row_idx": n,
            "row": {**_asked(n), "image": {"src": f"data:image/png;base64,{text_of(n)}", "height": 300, "width": 400}},
            "truncated_cells": [],
        }
    )
    return as_json(folder / "rows.json", {"features": [{"name": "question", "idx": 0}], "rows": made})


def prompts_with_completions(folder: Path) -> Path:
    made = rows(lambda n: {"prompt": _user(n), "completion": _assistant(n), "images": [held(n)]})
    return as_parquet(folder / "rows.parquet", made)


def preferences(folder: Path) -> Path:
    names = pictures(folder)
    wrong = [{"role": "assistant", "content": "wrong"}]
    made = rows(
        lambda n: {"rejected": [*_user(n), *wrong], "chosen": [*_user(n), *_assistant(n)], "images": [names[n]]}
    )
    return as_lines(folder / "rows.jsonl", made)


def source_of_an_image(folder: Path) -> Path:
    made = rows(
        lambda n: {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": text_of(n)}},
                        {"type": "input_text", "text": QUESTIONS[n]},
                    ],
                },
                *_assistant(n),
            ]
        }
    )
    return as_json(folder / "rows.json", made)


def questions_and_annotations(folder: Path) -> Path:
    """VQA's form: two lists with the same ids, the images by theirs."""
    pictures(folder, "val/{}.jpg")
    asked = rows(lambda n: {"question_id": 50 + n, "image_id": n, "question": QUESTIONS[n]})
    answered = rows(
        lambda n: {"question_id": 50 + n, "answers": [{"answer": ANSWERS[n], "answer_id": p} for p in range(10)]}
    )
    return as_json(folder / "rows.json", {"info": {}, "questions": asked, "annotations": answered[::-1]})


def questions_of_each_image(folder: Path) -> Path:
    pictures(folder, "VG/{}.jpg")
    made = rows(lambda n: {"id": n, "qas": [{**_asked(n), "image_id": n, "qa_id": 70 + n}]})
    return as_json(folder / "rows.json", made)


# Files --------------------------------------------------------------------------------------------------------------------------


def _text_table(name: str, encoding: str, separator: str) -> Write:
    def write(folder: Path) -> Path:
        names = pictures(folder)
        lines = [separator.join(("Image Path", "Question Text", "Correct Answer"))]
        lines += [separator.join((names[n], QUESTIONS[n], ANSWERS[n])) for n in range(3)]
        (folder / name).write_bytes("\r\n".join([*lines, ""]).encode(encoding))
        return folder

    return write


def gzipped_lines(folder: Path) -> Path:
    names = pictures(folder)
    text = "".join(json.dumps({"image": names[n], **_asked(n)}) + "\n" for n in range(3))
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def folder_of_images(folder: Path) -> Path:
    """What `datasets` calls an image folder: `metadata.jsonl` beside the images."""
    pictures(folder, "train/{}.png")
    as_lines(folder / "train" / "metadata.jsonl", rows(lambda n: {"file_name": f"{n}.png", **_asked(n)}))
    return folder


def file_for_each_image(folder: Path) -> Path:
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(number))
        as_json(folder / f"{number}.json", _asked(number))
    return folder


def in_shards(folder: Path) -> Path:
    made = rows(lambda n: {"image": held(n), **_asked(n)})
    as_parquet(folder / "data-00000-of-00002.parquet", made[:2])
    as_parquet(folder / "data-00001-of-00002.parquet", made[2:])
    return folder


def cache_of_the_hub(folder: Path) -> Path:
    """Each file is there twice: under its name, which is a link, and under its hash."""
    here = folder / "datasets--owner--name"
    as_parquet(here / "blobs" / "0f9c", rows(lambda n: {"image": held(n), **_asked(n)}))
    (here / "snapshots" / "ab12").mkdir(parents=True)
    (here / "snapshots" / "ab12" / "rows.parquet").symlink_to("../../blobs/0f9c")
    return here


def saved_in_splits(folder: Path) -> Path:
    import datasets

    def split(mark: str) -> Any:
        return datasets.Dataset.from_list(
            rows(lambda n: {"image": held(n), "question": QUESTIONS[n] + mark, "answer": ANSWERS[n]})
        )

    made = {"validation": split(" (validation)"), "train": split(""), "test": split(" (test)")}
    datasets.DatasetDict(made).save_to_disk(folder / "saved")
    return folder / "saved"


VARIANTS: dict[str, Write] = {
    write.__name__: write
    for write in (
        *(conversation_inside, two_objects_down, columns_as_json_texts, rows_of_the_hubs_viewer),
        *(prompts_with_completions, preferences, source_of_an_image),
        *(questions_and_annotations, questions_of_each_image, gzipped_lines, folder_of_images, file_for_each_image),
        *(in_shards, cache_of_the_hub, saved_in_splits),
    )
} | {
    "comma_utf_16": _text_table("x.csv", "utf-16", ","),
    "semicolon_bom": _text_table("x.csv", "utf-8-sig", ";"),
    "class_in_a_list": _in_rows(
        {"answers": {"feature": _classes(), "_type": "List"}}, question=QUESTIONS.__getitem__, answers=lambda n: [n]
    ),
    "class_in_an_object": _in_rows(
        {"qa": {"answer": _classes()}}, qa=lambda n: {"question": QUESTIONS[n], "answer": n}
    ),
    "no_bytes_but_a_path": lambda folder: _written(folder, lambda name: [{"bytes": None, "path": name}]),
    "backslashes": lambda folder: _written(folder, lambda name: ".\\" + name.replace("/", "\\")),
    "no_suffix": lambda folder: _written(folder, lambda name: name.removesuffix(".png")),
    "named_images": lambda folder: _written(folder, lambda name: {"image_1": name}),
    "local_copy_of_a_url": lambda folder: _written(
        folder, lambda name: None, image_url="http://0.0.0.0/x.png", local_image="{}"
    ),
    "text_beside_a_long_answer": _by_path(
        answer=lambda n: f"So it is {ANSWERS[n]}, I think.", final_answer=ANSWERS.__getitem__
    ),
    "pairs_as_a_text": _in_rows(qa_pairs=lambda n: str([_asked(n)])),
    "gold": _by_path(answer=lambda n: None, gold=ANSWERS.__getitem__),
}
CHOSEN: dict[str, Write] = {
    "lower_keys": _by_path(options=lambda n: dict(zip("abcd", CHOICES[n], strict=False)), answer=lambda n: "a"),
    "counted_from_1": _by_path(choices=_placed, answer=lambda n: n + 1),
    "letter_and_text": _by_path(
        options=lambda n: list(CHOICES[n]), answer=lambda n: {"letter": "A", "text": ANSWERS[n]}
    ),
    "columns_that_pandas_left_empty": _by_path(
        A=lambda n: CHOICES[n][0],
        B=lambda n: CHOICES[n][1],
        C=lambda n: CHOICES[n][2],
        D=lambda n: (*CHOICES[n], "nan")[3],
        hint=lambda n: "nan",
        answer=lambda n: None,
        correct=lambda n: "a",
    ),
    "name_of_the_choices_column": _by_path(
        option1=lambda n: _placed(n)[0],
        option2=lambda n: _placed(n)[1],
        option3=lambda n: _placed(n)[2],
        option4=lambda n: (*_placed(n), None)[3],
        answer=lambda n: f"option{n + 1}",
    ),
    "stems": _by_path(
        question=lambda n: {
            "stem": QUESTIONS[n],
            "choices": [{"text": text, "label": key} for text, key in zip(CHOICES[n], "ABCD", strict=False)],
        },
        answer=lambda n: None,
        answerKey=lambda n: "A",
    ),
    "right_by_flag": _by_path(
        options=lambda n: [{"text": text, "is_correct": text == ANSWERS[n]} for text in _placed(n)],
        answer=lambda n: None,
    ),
    "right_by_labels": _by_path(
        targets=lambda n: {"choices": _placed(n), "labels": [int(text == ANSWERS[n]) for text in _placed(n)]},
        answer=lambda n: None,
    ),
    "numbered_in_the_question": _by_path(
        question=lambda n: f"{QUESTIONS[n]}\n{_lines(n, '{}. {}', '1234')}", answer=lambda n: "1"
    ),
    "numbered_in_a_text": _by_path(options=lambda n: _lines(n, "{}. {}", "1234"), answer=lambda n: 1),
    "lower_letters_in_the_question": _by_path(
        question=lambda n: f"{QUESTIONS[n]}\n{_lines(n, '{}) {}', 'abcd')}", answer=lambda n: "a"
    ),
    "in_a_text_with_semicolons": _by_path(
        option=lambda n: _lines(n, "{}. {};").replace("\n", " "), answer=lambda n: "A"
    ),
}
_X0, _Y0, _X1, _Y1 = BOX
BOXED: dict[str, Write] = {
    "numbers_with_commas": _by_path(bbox=lambda n: "120, 90, 180, 140"),
    "numbers_within_tags": _by_path(bbox=lambda n: "<|box_start|>(120,90),(180,140)<|box_end|>"),
    "two_points": _by_path(bbox=lambda n: [[_X0, _Y0], [_X1, _Y1]]),
    "polygon": _by_path(polygon=lambda n: [[_X0, _Y0], [_X1, _Y0], [_X1, _Y1]]),
    "flat_outlines": _by_path(points=lambda n: [[_X0, _Y0, _X1, _Y0, _X1, _Y1, _X0, _Y1]]),
    "edges_in_columns": _by_path(xmin=lambda n: _X0, ymin=lambda n: _Y0, xmax=lambda n: _X1, ymax=lambda n: _Y1),
    "box_as_json": _by_path(bbox=lambda n: json.dumps([list(BOX)])),
}


def _written(folder: Path, image: Callable[[str], Any], **more: str) -> Path:
    names = pictures(folder)
    made = rows(
        lambda n: {"image": image(names[n]), **{key: text.format(names[n]) for key, text in more.items()}, **_asked(n)}
    )
    return as_json(folder / "rows.json", made)


def _packed_images(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "images.zip", "w") as file:
        file.writestr("photos/0.png", picture(0))
    as_json(folder / "rows.json", rows(lambda n: {"image": f"photos/{n}.png", **_asked(n)}))
    return folder


def _packed_rows(folder: Path) -> Path:
    tarfile.open(folder / "0000.tar", "w").close()
    (folder / "rows.jsonl.bz2").write_bytes(bz2.compress(b"{}\n"))
    return folder


def _pointers(folder: Path) -> Path:
    names = pictures(folder)
    for name in names:
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "utf-8")
    return as_json(folder / "rows.json", rows(lambda n: {"image": names[n], **_asked(n)}))


REFUSED: dict[str, tuple[Write, str]] = {
    "packed images": (_packed_images, r"3 image file not found.*images may be in images\.zip"),
    "packed rows": (_packed_rows, r"holds no samples.*unpack 0000\.tar, rows\.jsonl\.bz2\."),
    "pointers of Git LFS": (_pointers, r"3 not an image.*pointer of Git LFS"),
    "paths of the author's machine": (
        _by_path(image=lambda n: f"C:\\sets\\photos\\{n}.png"),
        r"3 image file not found.*--images DIR",
    ),
    "images as Python prints them": (_by_path(image=lambda n: "<PIL.Image size=4x3>"), r"3 image file not found"),
    "placeholders": (
        _by_path(question=lambda n: "Where is <ref-object>?", answer=lambda n: "<bbox>"),
        r"3 placeholder",
    ),
    "only wrong choices": (_by_path(choices=lambda n: list(OTHERS[n])), r"3 answer is none of the choices"),
    "videos": (_by_path(image=lambda n: "walk.mp4"), r"3 video"),
}
"""Writers of sets that cannot be read, and what is said of each."""
