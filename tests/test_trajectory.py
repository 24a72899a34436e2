"""The record and its JSONL store: what is written comes back, what was cut off is repaired, what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import (
    Answer,
    JsonlAppender,
    Malformed,
    Observation,
    Sample,
    StopReason,
    Tokens,
    Trajectory,
    Turn,
    Use,
    Zoom,
    read_jsonl,
    to_json,
    views_of,
)

OVERVIEW = View(Size(2000, 1000), Box(0, 0, 2000, 1000), Size(560, 280))
CROP = View(Size(2000, 1000), Box(0, 0, 100, 100), Size(196, 196))
SAMPLE = Sample("s1", "a b/標識.png", "Which?\nReally?", ("red",), ("red", "blue"), (Box(1, 2.5, 3, 4),), {"seed": 3})
TURNS = (
    Turn(
        "a \u2028 b",
        (Zoom((1, "2", None, True)), Malformed("No.")),
        (Observation(CROP, note="n"), Observation(error="e")),
    ),
    Turn("c", (Answer("red"),), tokens=Tokens(700, 12), seconds=0.25),
)
TRAJECTORY = Trajectory(SAMPLE, OVERVIEW, TURNS, StopReason.ANSWERED, "red", "nano", "1", None, {"max_zooms": 6})

values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
actions = st.one_of(
    st.builds(Zoom, st.lists(st.one_of(values, texts), max_size=5).map(tuple), st.integers(0, 9)),
    st.builds(Use, texts, st.dictionaries(texts, st.one_of(values, texts), max_size=3), st.integers(0, 9)),
    st.builds(Answer, texts),
    st.builds(Malformed, texts),
)
made = st.builds(View, *map(st.just, (CROP.source_size, CROP.region, CROP.shown_size)), texts, st.just((("a", 1),)))
observations = st.one_of(st.builds(Observation, text=texts), st.builds(Observation, made, note=texts))
turns = st.builds(Turn, texts, *(st.lists(some, max_size=3).map(tuple) for some in (actions, observations)))


def store(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def test_a_trajectory_comes_back_equal(tmp_path: Path) -> None:
    path = store(tmp_path / "t.jsonl", to_json(TRAJECTORY).encode(), b"\n\n", to_json(TRAJECTORY).encode(), b"\n")
    assert list(read_jsonl(path, Trajectory)) == [TRAJECTORY, TRAJECTORY]


@given(st.lists(turns, max_size=3).map(tuple), st.sampled_from(StopReason))
@settings(deadline=None)
def test_any_trajectory_is_one_line_and_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, some: tuple[Turn, ...], stop: StopReason
) -> None:
    trajectory = Trajectory(SAMPLE, None, some, stop, error="x")
    line = to_json(trajectory)
    assert "\n" not in line and "\r" not in line
    path = store(tmp_path_factory.getbasetemp() / "any.jsonl", line.encode(), b"\n")
    assert list(read_jsonl(path, Trajectory)) == [trajectory]


def test_what_was_written_before_there_were_more_fields_is_read_still(tmp_path: Path) -> None:
    """A line of version 0.1, which knew neither strategies nor tools, nor what RL adds."""
    old = (
        '{"sample":{"id":"s1","image":"a.png","question":"?","answers":["red"],"choices":[],"boxes":[],"metadata":{}},'
        '"overview":{"source_size":{"width":2000,"height":1000},"region":{"x0":0.0,"y0":0.0,"x1":2000.0,"y1":1000.0},'
        '"shown_size":{"width":560,"height":280}},"turns":[{"text":"c","actions":[{"text":"red","kind":"answer"}],'
        '"observations":[{"view":null,"error":"No.","note":null}],"tokens":{"prompt":7,"completion":2},"seconds":0.5}],'
        '"stop":"answered","answer":"red","policy":"nano","protocol_version":"1","error":null,"settings":{"max_zooms":6}}'
    )
    (read,) = read_jsonl(store(tmp_path / "t.jsonl", old.encode(), b"\n"), Trajectory)
    turn = Turn("c", (Answer("red"),), (Observation(error="No."),), Tokens(7, 2), 0.5)
    sample = Sample("s1", "a.png", "?", ("red",))
    assert read == Trajectory(
        sample, OVERVIEW, (turn,), StopReason.ANSWERED, "red", "nano", "1", settings={"max_zooms": 6}
    )
    assert (read.strategy, read.key, read.rewards, read.step) == ("focus", ("s1", None, None), {}, None)


def test_the_fields_of_rl_come_back_equal(tmp_path: Path) -> None:
    rewards = {"accuracy": 1.0, "pointing": None}
    trained = replace(TRAJECTORY, step=7, rewards=rewards, advantage=-0.5, group="s1@7", play=2, resolution=448)
    assert list(read_jsonl(store(tmp_path / "t.jsonl", to_json(trained).encode()), Trajectory)) == [trained]
    assert trained.key == ("s1", 448, 2)


def test_half_a_surrogate_pair_does_not_stop_a_run(tmp_path: Path) -> None:
    with JsonlAppender(tmp_path / "t.jsonl") as appender:
        appender.append(
            Trajectory(SAMPLE, OVERVIEW, (Turn("a\ud83d", (Answer("\ud83d"),)),), StopReason.ANSWERED, "\ud83d")
        )
    (read,) = read_jsonl(tmp_path / "t.jsonl", Trajectory)
    assert read.answer == "?"


def test_what_the_trajectory_counts() -> None:
    assert TRAJECTORY.views == views_of((OVERVIEW,), TURNS) == (OVERVIEW, CROP)
    assert TRAJECTORY.zooms == 1 and TRAJECTORY.seconds == 0.25
    unopened = Trajectory(SAMPLE, None, (), StopReason.ERROR, error="no such file")
    assert unopened.views == () and unopened.zooms == 0


def test_what_one_of_two_does_not_know_stays_unknown() -> None:
    assert Tokens(1, 2) + Tokens(3, 4) == Tokens(4, 6)
    assert Tokens(None, 2) + Tokens(3, 4) == Tokens(3, 4) + Tokens(None, 2) == Tokens(None, 6)
    assert Tokens(1, None) + Tokens(3, 4) == Tokens(4, None)


def test_the_boxes_of_a_turn_are_those_of_its_zooms() -> None:
    actions = (Malformed("No."), Zoom((1, "2"), 3), Use("turned", {"degrees": 90}), Zoom((), 0))
    assert Turn("", actions).boxes == (((1, "2"), 3), ((), 0))


class TestCutOff:
    line = to_json(SAMPLE).encode()

    def test_a_cut_off_last_line_is_passed_over_and_removed(self, tmp_path: Path) -> None:
        for kept in range(1, len(self.line)):  # wherever it was cut, also in the middle of a character
            path = store(tmp_path / "s.jsonl", self.line, b"\n", self.line[:kept])
            assert list(read_jsonl(path, Sample)) == [SAMPLE], kept
            with JsonlAppender(path) as appender:
                appender.append(SAMPLE)
            assert path.read_bytes() == self.line + b"\n" + self.line + b"\n", kept

    def test_a_line_that_lacks_only_its_break_is_kept(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.jsonl", self.line)
        assert list(read_jsonl(path, Sample)) == [SAMPLE]
        with JsonlAppender(path) as appender:
            appender.append(SAMPLE)
        assert list(read_jsonl(path, Sample)) == [SAMPLE, SAMPLE]

    def test_appending_makes_the_folder_and_goes_on(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "s.jsonl"
        for _ in range(2):
            with JsonlAppender(path) as appender:
                appender.append(SAMPLE)
                assert path.read_bytes().endswith(b"\n")  # each line is on disk at once
        assert list(read_jsonl(path, Sample)) == [SAMPLE, SAMPLE]


class TestBadInput:
    line = to_json(SAMPLE).encode() + b"\n"

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            (b"{nonsense\n", "Invalid JSON"),
            (b'{"id": "x", "image": "y"}\n', "question: Field required"),
            (b'{"id": 3, "image": "y", "question": "q"}\n', "id: Input should be a valid string"),
            (b"[]\n", "no sample"),
            (b'"\xff\xfe"\n', "Invalid JSON"),
        ],
    )
    def test_file_and_line_are_named(self, tmp_path: Path, bad: bytes, words: str) -> None:
        path = store(tmp_path / "s.jsonl", self.line, b"\n", bad, self.line)
        with pytest.raises(InputError) as error:
            list(read_jsonl(path, Sample, strict=True))
        assert str(error.value).startswith(f"{path}, line 3 is no sample: ") and words in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_size_of_nothing_is_named_too(self, tmp_path: Path) -> None:
        line = to_json(TRAJECTORY).replace('"width":196', '"width":0').encode()
        with pytest.raises(InputError, match="line 1 is no trajectory: .*at least 1 x 1"):
            list(read_jsonl(store(tmp_path / "t.jsonl", line, b"\n"), Trajectory))

    def test_a_missing_file_and_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"cannot read .*no\.jsonl: No such file"):
            list(read_jsonl(tmp_path / "no.jsonl", Sample))
        with pytest.raises(InputError, match="cannot read"):
            list(read_jsonl(tmp_path, Sample))


class TestBroken:
    """Lines in the middle of a file that are no records, as a full disk and editors leave them."""

    line = to_json(TRAJECTORY).encode() + b"\n"

    def test_they_are_left_out_and_named_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        glued = self.line[:50] + self.line
        path = store(tmp_path / "t.jsonl", self.line, glued, self.line, b"\0\0\n", self.line)
        for _ in range(2):
            assert list(read_jsonl(path, Trajectory)) == [TRAJECTORY] * 3
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: lines 2, 4 are no trajectories and were left out."
        ]

    def test_one_is_named_alone_and_many_are_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        list(read_jsonl(store(tmp_path / "one.jsonl", self.line, b"x\n"), Trajectory))
        list(read_jsonl(store(tmp_path / "many.jsonl", self.line, b"x\n" * 500), Trajectory))
        assert caplog.records[0].getMessage().endswith("line 2 is no trajectory and was left out.")
        assert "20, 21 and 480 more are no trajectories" in caplog.records[1].getMessage()

    def test_a_file_without_any_record_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="line 1 is no trajectory"):
            list(read_jsonl(store(tmp_path / "t.jsonl", to_json(SAMPLE).encode(), b"\n", b"x\n"), Trajectory))

    @pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400, "1" + "0" * 30])
    @pytest.mark.parametrize("old", ['"x0":0.0', '"prompt":700', '"seconds":0.25', '"max_zooms":6'])
    def test_a_number_that_breaks_arithmetic(self, tmp_path: Path, number: str, old: str) -> None:
        line = to_json(TRAJECTORY)
        assert old in line
        bad = line.replace(old, f"{old.partition(':')[0]}:{number}", 1).encode()
        with pytest.raises(InputError, match="line 1 is no trajectory: "):
            list(read_jsonl(store(tmp_path / "t.jsonl", bad, b"\n"), Trajectory))

    @pytest.mark.parametrize("bad", ["[" * 100_000, '{"a":' * 100_000, '"\\ud83d"'])
    def test_json_that_no_reader_takes(self, tmp_path: Path, bad: str) -> None:
        path = store(tmp_path / "s.jsonl", to_json(SAMPLE).encode(), b"\n", bad.encode(), b"\n")
        with pytest.raises(InputError, match="line 2 is no sample: "):
            list(read_jsonl(path, Sample, strict=True))
        store(path, to_json(SAMPLE).encode(), b"\n", bad.encode())
        with JsonlAppender(path) as appender:
            appender.append(SAMPLE)
        assert len(list(read_jsonl(path, Sample))) >= 2

    def test_what_is_written_can_be_read(self, tmp_path: Path) -> None:
        nan = float("nan")
        strange = replace(
            TRAJECTORY,
            sample=replace(SAMPLE, metadata={"a": [nan, {"b": float("inf")}]}),
            turns=(Turn("", (Answer("1e999 NaN"),), tokens=Tokens(10**400, -1)),),
            advantage=nan,
        )
        (read,) = read_jsonl(store(tmp_path / "t.jsonl", to_json(strange).encode(), b"\n"), Trajectory)
        assert read.sample.metadata == {"a": [None, {"b": None}]} and read.advantage is None
        assert read.turns[0].tokens == Tokens(None, None)


@contextmanager
def room(size: int) -> Iterator[None]:
    """So many bytes a file may have, as on a disk that is full; no longer than the block, for pytest may write to a file, too."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestFullDisk:
    line = to_json(SAMPLE).encode() + b"\n"

    def test_an_append_without_room_leaves_the_file_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "s.jsonl"
        with JsonlAppender(path) as appender:
            appender.append(SAMPLE)
            with (
                room(len(self.line) * 3 // 2),
                pytest.raises(InputError, match=r"cannot write .*s\.jsonl: File too large; make room there, and"),
            ):
                appender.append(SAMPLE)
            assert path.read_bytes() == self.line
            appender.append(SAMPLE)
        assert path.read_bytes() == self.line * 2

    def test_what_is_written_whole_stays_as_it_was(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.json"
        write_atomic(path, "before")
        with room(10), pytest.raises(InputError, match="cannot write .*summary.json: File too large"):
            write_atomic(path, "more than there is room for")
        assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_long_last_line_is_mended_too(tmp_path: Path) -> None:
    whole = replace(SAMPLE, question="q" * 200_000)
    path = store(tmp_path / "s.jsonl", to_json(whole).encode(), b"\n", to_json(whole).encode()[:150_000])
    with JsonlAppender(path) as appender:
        appender.append(whole)
    assert list(read_jsonl(path, Sample)) == [whole, whole]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with JsonlAppender(path) as first:
        with pytest.raises(InputError, match=r"another run is writing to .*t\.jsonl"):
            JsonlAppender(path)
        first.append(SAMPLE)
    with JsonlAppender(path) as second:
        second.append(SAMPLE)
    assert len(list(read_jsonl(path, Sample))) == 2


@pytest.mark.parametrize("write", [lambda path: JsonlAppender(path), lambda path: write_atomic(path, "x")])
class TestNoPlace:
    def test_a_file_in_place_of_a_folder(self, tmp_path: Path, write: Callable[[Path], object]) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot write .*a file stands where a folder is needed"):
            write(tmp_path / "file" / "t.jsonl")
        with pytest.raises(InputError, match="cannot write .*a file stands where a folder is needed"):
            write(tmp_path / "file" / "deep" / "t.jsonl")

    def test_a_folder_in_place_of_a_file(self, tmp_path: Path, write: Callable[[Path], object]) -> None:
        (tmp_path / "t.jsonl").mkdir()
        with pytest.raises(InputError, match="cannot write .*t.jsonl: Is a directory"):
            write(tmp_path / "t.jsonl")

    def test_no_more_files_may_be_open(self, tmp_path: Path, write: Callable[[Path], object]) -> None:
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            with pytest.raises(InputError, match=r"Too many open files; raise the limit of open files \(ulimit -n\)"):
                write(tmp_path / "t.jsonl")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_write_atomic_replaces_whole_files_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "summary.json"
    write_atomic(path, "one")
    write_atomic(path, b"tw\xc3\xb6")
    assert path.read_text(encoding="utf-8") == "twö"
    with pytest.raises(InputError):
        write_atomic(path.parent, "a folder is there")
    assert list(path.parent.iterdir()) == [path] and list(tmp_path.iterdir()) == [path.parent]
    write_atomic(path, '"a\ud800"')  # of a file's name that is no text
    assert json.loads(path.read_text(encoding="utf-8")) == "a\ud800"
    assert path.stat().st_mode & 0o777 == 0o644  # a temporary file is its owner's alone
