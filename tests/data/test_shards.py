"""`cof eval` in parts and several times over: the parts together are the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cof_agent.backends.fingerprint import fingerprint
from cof_agent.cli import main
from cof_agent.data import shards
from cof_agent.data.shards import Shard
from cof_agent.errors import InputError
from cof_agent.trajectory import JsonlAppender, Key, Sample, StopReason, Trajectory, Turn, read_jsonl

Run = Callable[..., int]


@pytest.fixture
def run(checkpoint: Callable[[str], Path], picture: Path, tmp_path: Path) -> Run:
    """`cof eval` of a tiny checkpoint on five questions, into the folder of this name."""
    rows = [
        {"id": str(k), "image": str(picture), "question": f"What is {k}?", "answers": ["it"], "category": f"c{k % 2}"}
        for k in range(5)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["eval", "--data", str(tmp_path), "--model", str(checkpoint("qwen2_5_vl")), "--max-tokens", "6"]

    def once(folder: str, *options: str) -> int:
        return main([*command, "-o", str(tmp_path / folder), *options])

    return once


def played(folder: Path) -> list[Trajectory]:
    """The trajectories without their times."""

    def timeless(turn: Turn) -> Turn:
        return replace(turn, seconds=0.0)

    found = read_jsonl(folder / "trajectories.jsonl", Trajectory)
    return [replace(one, turns=tuple(map(timeless, one.turns))) for one in found]


def summary(folder: Path) -> dict[str, Any]:
    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: timeless(part) for name, part in value.items() if name not in ("seconds", "command")}
        return value

    found: dict[str, Any] = timeless(json.loads((folder / "summary.json").read_text()))
    return found


@pytest.mark.slow
def test_the_parts_together_are_the_whole(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--resolutions", "112,224"]
    assert run("whole", *options) == 0
    assert run("again", *options) == 0
    assert played(tmp_path / "again") == played(tmp_path / "whole")
    assert summary(tmp_path / "again") == summary(tmp_path / "whole")
    capsys.readouterr()
    for number, left in ((3, 8), (1, 4)):
        assert run("parts", "--shard", f"{number}/3", *options) == 0
        assert f"{left} questions are left, of other shards." in capsys.readouterr().out
        assert not (tmp_path / "parts" / "trajectories.jsonl").exists()
    assert run("parts", "--shard", "2/3", *options) == 0
    assert played(tmp_path / "parts") == played(tmp_path / "whole")
    assert summary(tmp_path / "parts") == summary(tmp_path / "whole")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert run("launched", *options) == 0
    assert played(tmp_path / "launched") == played(tmp_path / "whole")


def trajectory(id: str) -> Trajectory:
    return Trajectory(Sample(id, "a.png", "What?"), None, (), StopReason.ERROR, error="none")


def ids(found: dict[Key, Trajectory]) -> list[str]:
    return sorted(id for id, *_ in found)


def append(output: Path, shard: Shard, *ids: str) -> None:
    with shards.part(output, shard) as path, JsonlAppender(path) as appender:
        for id in ids:
            appender.append(trajectory(id))


def test_every_shard_sums_up_what_all_have(tmp_path: Path) -> None:
    first, second = Shard(1, 2), Shard(2, 2)
    append(tmp_path, first, "a", "c")
    append(tmp_path, Shard(1, 3), "of another set")
    assert shards.sum_up(tmp_path, first, ids) == ["a", "c"]
    append(tmp_path, second, "b")
    assert shards.sum_up(tmp_path, second, ids) == ["a", "b", "c"]
    assert {path.name for path in tmp_path.glob("*1-of-*2*")} == {"shard-0001-of-0002.jsonl", "shard-0001-of-0002.done"}


def test_a_shard_that_was_overtaken_sums_up_again(tmp_path: Path) -> None:
    """The second shard ends between the reading and the writing of the first: the last result must not lack it."""
    first, second, results = Shard(1, 2), Shard(2, 2), tmp_path / "results"
    append(tmp_path, first, "a")

    def write(found: dict[Key, Trajectory]) -> list[str]:
        results.write_text(",".join(ids(found)))
        return ids(found)

    def slowly(found: dict[Key, Trajectory]) -> list[str]:
        if ids(found) == ["a"]:
            append(tmp_path, second, "b")
            shards.sum_up(tmp_path, second, write)
        return write(found)

    assert shards.sum_up(tmp_path, first, slowly) == ["a", "b"]
    assert results.read_text() == "a,b"


def test_an_interrupted_shard_has_not_finished(tmp_path: Path) -> None:
    shard = Shard(1, 1)
    append(tmp_path, shard, "a")
    with pytest.raises(KeyboardInterrupt), shards.part(tmp_path, shard) as path:
        assert path.exists()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0001-of-0001.jsonl"]


def test_several_runs_are_drawn_apart_and_told_together(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("out", "--plays", "3", "--seed", "1") == 0
    found = played(tmp_path / "out")
    assert [(one.sample.id, one.play) for one in found[:4]] == [("0", 1), ("0", 2), ("0", 3), ("1", 1)]
    assert len({one.turns[0].text for one in found}) > len(found) / 2
    told = summary(tmp_path / "out")
    assert {name: row["n"] for name, row in told["by_play"].items()} == {"1": 5, "2": 5, "3": 5}
    assert told["plays"] == {"mean_accuracy": 0.0, "sd_accuracy": 0.0}
    assert run("greedy", "--plays", "3") == 2
    assert "--plays needs answers that are drawn" in capsys.readouterr().err


def test_the_summary_names_the_weights(run: Run, tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    assert run("out") == 0
    named = summary(tmp_path / "out")["weights"]
    assert named == fingerprint(str(checkpoint("qwen2_5_vl"))) != fingerprint("nano")
    assert named.startswith("sha256:") and len(named) == 7 + 16
    (tmp_path / "w").mkdir()
    assert fingerprint(str(tmp_path / "w")) is None
    found = []
    for content in (b"one", b"two", b"one"):
        (tmp_path / "w" / "model.safetensors").write_bytes(content)
        found.append(fingerprint(str(tmp_path / "w")))
    assert found[0] == found[2] != found[1]
    assert fingerprint("nobody/nothing") is None


@pytest.mark.slow
def test_parts_of_other_questions_are_not_put_together(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--samples", "4"]
    assert run("parts", "--shard", "1/2", *options) == 0
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    changed = [{**one, "answers": ["another"]} for one in samples]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(one) + "\n" for one in changed))
    assert run("parts", "--shard", "2/2", *options, "--data", str(tmp_path / "other.jsonl")) == 2
    assert (
        "parts holds a trajectory of another sample '0': its answers differs; use another folder."
        in capsys.readouterr().err
    )
    assert run("parts", "--shard", "2/2", *options) == 0


def test_parts_that_are_none(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("out", "--shard", "6/6") == 2
    assert "there are only 5 samples, so part 6 of 6 has none." in capsys.readouterr().err
    assert shards.parse("3/8") == Shard(3, 8)
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(InputError, match="--shard must be I/N"):
            shards.parse(text)
