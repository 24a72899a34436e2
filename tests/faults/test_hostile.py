"""Texts, rows and files of people who mean harm: no call raises, hangs, or reads what lies elsewhere."""

from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent import protocol
from cof_agent.data.answers import understood, unwrapped
from cof_agent.data.choices import split_choices
from cof_agent.data.questions import common_instruction, images_named_in, named_marks, parse, without_marks
from cof_agent.data.region_sets.read import plain_pickle
from cof_agent.data.samples import read
from cof_agent.errors import InputError
from cof_agent.image import open_source
from cof_agent.protocol import dialects
from cof_agent.protocol.dialects import described, ours, words
from cof_agent.protocol.dialects.read import from_plain, to_plain
from cof_agent.trajectory import Malformed, Sample, StopReason, Trajectory
from cof_agent.viewer.images import MOST_OPENED, limit_of
from tests.computing import timed
from tests.dialects import spoken

HUGE = f"0x{'f' * 3900}"


@pytest.mark.parametrize("name", dialects.names())
@pytest.mark.parametrize(
    "arguments",
    [
        '{"bbox_2d": [...]}',
        '{"bbox_2d": {1, 2, 3, 4}}',
        '{"bbox_2d": b"1"}',
        '{"bbox_2d": [1j, 2, 3, 4]}',
        f'{{"bbox_2d": [({HUGE},), 1, 2, 3]}}',
        f"{{{HUGE}: 1}}",
        f'{{"label": {HUGE}}}',
    ],
)
def test_values_of_python_that_are_no_json(name: str, arguments: str) -> None:
    dialect = spoken(name)
    call = f'{dialect.call.open}{{"name": "image_zoom_in_tool", "arguments": {arguments}}}{dialect.call.close}'
    for text in (f"<think>t</think>{call}", call):
        for action in protocol.parse(text, dialect=dialect):
            assert isinstance(action, Malformed)
        json.dumps(protocol.in_parts(text, thought=True).calls)


LONG: dict[str, Any] = {
    "header": lambda n: split_choices("What? options" + "\n" * n + "x\n(A) a\n(B) b"),
    "hint": lambda n: parse("Hint: x" + "\n" * n + " y"),
    "please": lambda n: parse("Hint: " + "please " * n + "\nQuestion: q"),
    "appendix": lambda n: parse("a # b" + "\n" * n + " y"),
    "marks": lambda n: without_marks("<img>" * n),
    "marks in words": lambda n: named_marks("in <image> " * n),
    "a name of an image": lambda n: images_named_in("<img>a" + " " * n),
    "cases": lambda n: common_instruction([f"{k} answer " + "if " * n for k in "abc"]),
    "lines": lambda n: common_instruction([k + "\n" * n + "answer" for k in "abc"]),
    "a tag": lambda n: unwrapped("<answer>a" + " " * n + "b"),
    "a letter": lambda n: understood("(A" + " " * n + "x", {"A": f"A{' ' * n}x", "B": "b"}),
    "a number": lambda n: named_marks(f"is <image_{'9' * n}> red?"),
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_row_takes_no_long_time(name: str) -> None:
    def act() -> None:
        with contextlib.suppress(ValueError):  # no such choice
            LONG[name](20_000)

    _, seconds = timed(act, 0.5)
    assert seconds <= 0.5  # what took quadratic time took seconds, and cubic time hours


@pytest.mark.parametrize(
    "row", [{"choices": f"[{HUGE}, 2]"}, {"bbox": f"[{HUGE}, 2, 3, 4]"}, {"image": "file://[::1/a.png"}]
)
def test_a_row_ends_no_reading(row: dict[str, Any], tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    good = {"image": "a.png", "question": "What?", "answer": "red"}
    rows = [good | row, good]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    found = read(str(tmp_path / "rows.jsonl"))
    assert len(found.samples) + len(found.tally.left_out) == 2 and found.samples


class TestElsewhere:
    def test_words_outside_the_clone(self, tmp_path: Path) -> None:
        (tmp_path / "clone").mkdir()
        (tmp_path / "secret.py").write_text('KEY = "k"')
        plain = to_plain(described("deepeyes"))
        for file in ("../secret.py", str(tmp_path / "secret.py")):
            plain["words"] = {"system": {"file": file, "name": "KEY"}, "suffix": "s"}
            with pytest.raises(InputError, match="lies outside"):
                words.fetch(from_plain(plain, "it"), tmp_path / "clone", {})

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "../x"},
            {"name": "/tmp/x"},
            {"temperature": float("nan")},
            {"end": {"tokens": -5}},
            {"end": {"zooms": 10**22}},
        ],
    )
    def test_dialects_beyond_all_bounds(self, change: dict[str, Any]) -> None:
        with pytest.raises(InputError, match="is no dialect"):
            from_plain(to_plain(ours()) | change, "it")

    def test_files_that_a_card_names_outside(self, tmp_path: Path) -> None:
        (tmp_path / "private.jsonl").write_text(
            json.dumps({"image": "a.png", "question": "Mine?", "answer": "yes"}) + "\n"
        )
        Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
        folder = tmp_path / "set"
        folder.mkdir()
        for path in ("../private.jsonl", str(tmp_path / "private.jsonl"), "a**", "../**"):
            entry = json.dumps([{"split": "train", "path": path}])
            (folder / "README.md").write_text(f"---\nconfigs: [{{config_name: default, data_files: {entry}}}]\n---\n")
            with pytest.raises(InputError, match="holds no samples"):
                read(str(folder))


def test_a_pickle_that_would_take_all_memory(tmp_path: Path) -> None:
    (tmp_path / "refs.p").write_bytes(b"\x80\x02]r" + (60_000_000).to_bytes(4, "little") + b".")
    with pytest.raises(InputError, match="numbers more values"):
        plain_pickle(tmp_path / "refs.p")
    (tmp_path / "good.p").write_bytes(pickle.dumps([{"a": [1, "b"]}] * 3))
    assert len(plain_pickle(tmp_path / "good.p")) == 3


def test_formats_with_another_image_inside_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.ico")
    with pytest.raises(InputError, match="ICO files are not opened"):
        open_source(tmp_path / "a.ico")


def test_a_record_does_not_say_how_much_is_decoded_for_a_page() -> None:
    made = Trajectory(
        Sample("a", "a.png", "?"), None, (), StopReason.ERROR, None, settings={"max_source_pixels": 10**12}
    )
    assert limit_of([made]) == MOST_OPENED
