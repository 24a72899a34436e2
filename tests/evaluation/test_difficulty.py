"""`cof rollout`: pass rates of several plays, what is kept, and that it is data for RL and for `cof eval`."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from cof_agent import scoring
from cof_agent.cli import main
from cof_agent.data.samples import read_samples
from cof_agent.episodes import episodes
from cof_agent.evaluation.difficulty import chosen, rated
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl, to_json
from tests.scenes.shared import Scenes

HOT = ["--temperature", "2", "--max-tokens", "64"]


@pytest.fixture(scope="module")
def scenes(drawn: Scenes) -> Path:
    return drawn(4)


@pytest.fixture(scope="module")
def played(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that was given no other options than `HOT` and `-n`."""
    output = tmp_path_factory.mktemp("played") / "out"
    assert main(["rollout", "--data", str(scenes), "--plays", "5", "-o", str(output), *HOT]) == 0
    return output


def written(folder: Path) -> dict[str, bytes]:
    lines = [json.loads(line) for line in (folder / "trajectories.jsonl").read_text().splitlines()]
    for line in lines:
        for turn in line["turns"]:
            turn["seconds"] = 0.0
    return {
        "samples": (folder / "samples.jsonl").read_bytes(),
        "trajectories": json.dumps(lines).encode(),
    }


@pytest.mark.slow
def test_what_is_kept_has_the_pass_rate_of_its_plays(scenes: Path, played: Path) -> None:
    right: dict[str, list[bool]] = defaultdict(list)
    texts: dict[str, set[str]] = defaultdict(set)
    for trajectory in read_jsonl(played / "trajectories.jsonl", Trajectory):
        id = trajectory.sample.id
        right[id].append(bool(scoring.accuracy(trajectory)))
        texts[id].add("".join(turn.text for turn in trajectory.turns))
        assert trajectory.play == len(right[id])
    assert {id: len(plays) for id, plays in right.items()} == {sample.id: 5 for sample in read_samples(scenes)}
    assert all(len(different) > 1 for different in texts.values())  # each play has random numbers of its own
    kept = read_samples(played)
    assert {one.id: one.metadata["pass_rate"] for one in kept} == {
        id: sum(plays) / 5 for id, plays in right.items() if 0 < sum(plays) < 5
    }
    originals = {sample.id: sample for sample in read_samples(scenes)}
    for one in kept:
        before = originals[one.id]
        assert one == replace(before, metadata=before.metadata | {"pass_rate": one.metadata["pass_rate"]})


def test_the_table_and_the_summary_count_the_same(
    scenes: Path, played: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["rollout", "--data", str(scenes), "--plays", "5", "-o", str(played), *HOT]) == 0
    )  # nothing is left to play
    shown = capsys.readouterr().out
    summary = json.loads((played / "summary.json").read_text())
    assert sum(summary["right"].values()) == summary["n"] == 4
    assert summary["kept"] == sum(n for right, n in summary["right"].items() if 0 < int(right) < 5) > 0
    assert summary["settings"]["sampling"] == {"max_tokens": 64, "temperature": 2.0, "top_p": 1.0, "seed": 0}
    assert f"kept: {summary['kept']} of 4 samples, pass rate strictly between 0 and 1" in shown
    for right, count in summary["right"].items():
        assert f"│ {right:>5} │ {int(right) / 5:9.3f} │ {count:7} │" in shown


@pytest.mark.slow
def test_an_interrupted_run_ends_as_a_whole_one(scenes: Path, played: Path, tmp_path: Path) -> None:
    lines = (played / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "trajectories.jsonl").write_bytes(b"".join(lines[3:9]) + lines[12][:100])
    (tmp_path / "settings.json").write_bytes((played / "settings.json").read_bytes())
    assert (
        main(["rollout", "--data", str(scenes), "--plays", "5", "-o", str(tmp_path), *HOT, "--concurrency", "3"]) == 0
    )
    assert written(tmp_path) == written(played)


@pytest.mark.slow
def test_other_bounds_and_more_plays_go_on_from_what_is_there(scenes: Path, played: Path, tmp_path: Path) -> None:
    for name in ("trajectories.jsonl", "settings.json"):
        (tmp_path / name).write_bytes((played / name).read_bytes())
    assert main(["rollout", "--data", str(scenes), "--plays", "5", "-o", str(tmp_path), *HOT, "--keep", "0.1,0.5"]) == 0
    rates = [sample.metadata["pass_rate"] for sample in read_samples(played)]
    assert (tmp_path / "samples.jsonl").read_text().count("\n") == sum(0.1 < rate < 0.5 for rate in rates)
    before = set((played / "trajectories.jsonl").read_text().splitlines())
    assert main(["rollout", "--data", str(scenes), "--plays", "6", "-o", str(tmp_path), *HOT]) == 0
    after = (tmp_path / "trajectories.jsonl").read_text().splitlines()
    assert len(after) == 24
    assert before < set(after)


def test_other_questions_do_not_take_a_folder_over(
    scenes: Path, played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "others.jsonl"
    others.write_text("".join(to_json(replace(one, id=f"other-{one.id}")) + "\n" for one in read_samples(scenes)))
    before = written(played)
    assert main(["rollout", "--data", str(others), "--plays", "5", "-o", str(played), *HOT]) == 2
    assert "trajectories of other questions" in capsys.readouterr().err
    assert written(played) == before


def test_what_is_kept_is_data_of_rl_and_of_an_evaluation(played: Path, tmp_path: Path) -> None:
    from rl.settings import parse
    from rl.train import build_trainer

    options = {"model_name_or_path": "nano", "data": played, "output_dir": tmp_path / "run", "report_to": "none"}
    options |= {"use_cpu": "true", "bf16": "false", "per_device_train_batch_size": 2, "num_generations": 2}
    trainer = build_trainer(parse([text for key, value in options.items() for text in (f"--{key}", str(value))]))
    assert len(trainer.train_dataset) == len(read_samples(played))
    assert main(["eval", "--data", str(played), "-o", str(tmp_path / "eval"), "--samples", "1"]) == 0
    (trajectory,) = read_jsonl(tmp_path / "eval" / "trajectories.jsonl", Trajectory)
    assert trajectory.overview is not None


def test_a_play_that_failed_says_nothing_of_its_sample() -> None:
    samples = [Sample("a", "a.png", "?", ("yes",)), Sample("a#1", "b.png", "?", ("yes",))]
    ends = ["yes", "no", None, "yes"]
    plays = [
        Trajectory(one.sample, None, (), StopReason.ANSWERED if end else StopReason.ERROR, answer=end, play=one.play)
        for one, end in zip(episodes(samples, plays=2), ends, strict=True)
    ]
    assert [play.key for play in plays] == [("a", None, 1), ("a", None, 2), ("a#1", None, 1), ("a#1", None, 2)]
    first, second = rated(samples, plays, 2)
    assert (first.rate, second.rate) == (0.5, None)
    assert [sample.id for sample in chosen([first, second], 0, 1)] == ["a"]
    assert chosen([first], 0.5, 1) == chosen([first], 0, 0.5) == []  # strictly between


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "{scenes}", "-o", "{scenes}"], "use another output folder"),
        (["--data", "{scenes}/samples.jsonl", "-o", "{scenes}"], "use another output folder"),
        (["--data", "{mute}", "-o", "{scenes}"], "use another output folder"),
        (["--data", "{mute}", "-o", "{folder}/out"], "has a known answer"),
        (["--data", "{twice}", "-o", "{folder}/out"], "two samples have the id 'a'"),
        (["--data", "{scenes}", "-o", "{folder}/out", "--keep", "0.5"], "--keep must be LOW,HIGH"),
        (["--data", "{scenes}", "-o", "{folder}/out", "--keep", "0.5,0.5"], "--keep must be LOW,HIGH"),
        (["--data", "{scenes}", "-o", "{folder}/out", "--column", "x"], "--column must be NAME=COLUMN"),
        (["--data", "nowhere", "-o", "{folder}/out"], "no file or folder nowhere"),
        (["--data", "{scenes}", "-o", "{played}", "--temperature", "0.5"], "temperature was 2.0 and is now 0.5"),
        (["--data", "{scenes}", "-o", "{played}", "--seed", "1", *HOT], "seed was 0 and is now 1"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str],
    words: str,
    scenes: Path,
    played: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mute = Sample("a", str(next((scenes / "images").iterdir())), "?")
    names = {"scenes": scenes, "played": played, "folder": tmp_path, "mute": tmp_path / "mute", "twice": tmp_path / "t"}
    for name, some in (("mute", [mute]), ("twice", [replace(mute, answers=("yes",))] * 2)):
        names[name].mkdir()
        (names[name] / "samples.jsonl").write_text("".join(to_json(sample) + "\n" for sample in some))
    before = (scenes / "samples.jsonl").read_bytes(), written(played)
    capsys.readouterr()
    assert main(["rollout", *(option.format(**names) for option in options)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and words in said[0]
    assert not (tmp_path / "out").exists()
    assert ((scenes / "samples.jsonl").read_bytes(), written(played)) == before


def test_a_temperature_of_zero_is_wrong_usage() -> None:
    assert main(["rollout", "--data", "x", "-o", "y", "--temperature", "0"]) == 2
