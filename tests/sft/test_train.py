"""SFT from trajectories: what is read, measured, left out and trained, and what a run leaves behind."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tqdm.auto import tqdm

from cof_agent.agent import Agent
from cof_agent.backends.families import QWEN2_5_VL, QWEN3_VL
from cof_agent.backends.local.processor import load_processor
from cof_agent.data.export import to_parquet, to_sharegpt
from cof_agent.data.samples import read_samples
from cof_agent.data.source import Source
from cof_agent.data.unusable import Unusable
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.evaluation.metrics import figures as figures_of
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.protocol.published import boxes_in
from cof_agent.scenes import oracle
from cof_agent.training.command import explained
from cof_agent.training.trainer import held_out_of
from cof_agent.trajectory import Malformed, StopReason, Trajectory, Turn, Zoom, read_jsonl, to_json
from sft.collate import IGNORED, AssistantCollator
from sft.conversations.rows import DialogueRows
from sft.dataset import Rows, TrajectoryRows, read_rows
from sft.frame import Frame, reframe
from sft.measure import measure
from tests import processes
from tests.scenes.shared import Scenes

SETTINGS = ZoomSettings(CoordinateSystem.ABSOLUTE, PixelLimits(28, 3136, 123904, 168 * 168))
QWEN25 = Frame(QWEN2_5_VL, 28, 3136, 123904)
QWEN3 = Frame(QWEN3_VL, 32, 4096, 144 * 64 * 64)


@pytest.fixture(scope="module")
def scenes(drawn: Scenes) -> Path:
    return drawn(8, split="train", seed=5)


@pytest.fixture(scope="module")
def examples(scenes: Path) -> list[Trajectory]:
    environment = ZoomEnvironment(SETTINGS)
    samples = read_samples(scenes)
    made = [oracle.play(sample, environment.reset(sample), environment) for sample in samples]
    assert {trajectory.zooms for trajectory in made} >= {0, 1, 2}
    return made


@pytest.fixture(scope="module")
def folder(examples: list[Trajectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `cof collect --export parquet --export sharegpt` leaves it."""
    path = tmp_path_factory.mktemp("collected")
    (path / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in examples))
    to_parquet(examples, path / "train.parquet")
    to_sharegpt(examples, path / "sharegpt")
    return path


def pixels(row: dict[str, Any]) -> list[tuple[tuple[int, int], bytes]]:
    return [(image.size, image.tobytes()) for image in row["images"]]


def read(path: Path, keep: Path, **options: Any) -> Rows:
    return read_rows(Source(str(path), **options), QWEN25, keep_images=keep)


@pytest.mark.parametrize("export", ["train.parquet", "sharegpt", "sharegpt/sharegpt.json"])
def test_trajectories_and_each_export_of_them_are_the_same_rows(
    folder: Path, examples: list[Trajectory], tmp_path: Path, export: str
) -> None:
    ours, table = read_rows(Source(str(folder)), QWEN25), read(folder / export, tmp_path)
    assert isinstance(ours, TrajectoryRows)
    assert isinstance(table, DialogueRows)
    assert len(ours) == len(table) == len(examples)
    environment = ZoomEnvironment(SETTINGS)
    for index, example in enumerate(examples):
        first, second = ours.row(index), table.row(index)
        assert first["messages"] == second["messages"]
        assert pixels(first) == pixels(second)
        shown = [environment.image(example.sample, view) for view in example.views]  # what the agent would be shown
        assert pixels(first) == [(image.size, image.tobytes()) for image in shown]
        assert ours.outline(index) == table.outline(index)
        assert [image.size for image in first["images"]] == [(s.width, s.height) for s in ours.outline(index).sizes]


@pytest.mark.slow
def test_boxes_of_an_export_are_what_the_export_says(examples: list[Trajectory], tmp_path: Path) -> None:
    theirs = [reframe(example, QWEN3, ZoomEnvironment()) for example in examples]
    to_parquet(theirs, tmp_path / "thousand.parquet")
    to_sharegpt(theirs, tmp_path / "thousand")
    wanted = [row["messages"] for row in map(TrajectoryRows(theirs, QWEN3).row, range(len(theirs)))]
    for name in ("thousand.parquet", "thousand"):
        rows = read_rows(Source(str(tmp_path / name)), QWEN3, keep_images=tmp_path / "kept")
        assert [rows.row(index)["messages"] for index in range(len(rows))] == wanted
    to_parquet(examples, tmp_path / "absolute.parquet")
    rows = read_rows(Source(str(tmp_path / "absolute.parquet")), QWEN3, keep_images=tmp_path / "kept")
    compared = 0
    for index, example in enumerate(examples):
        replies = [one["content"][0]["text"] for one in rows.row(index)["messages"] if one["role"] == "assistant"]
        for reply, turn in zip(replies, example.turns, strict=True):
            for box, action in zip(boxes_in(reply), turn.actions, strict=False):
                assert isinstance(action, Zoom) and box.image is not None
                size = example.views[box.image].shown_size  # which the export holds, and all numbers are shares of
                sides = (size.width, size.height) * 2
                shares = [number * 1000 / side for number, side in zip(action.box, sides, strict=True)]
                assert box.numbers == pytest.approx(shares, abs=0.51)
                compared += 1
    assert compared >= len([one for one in examples if one.zooms])


def test_data_with_columns_and_images_of_its_own(folder: Path, examples: list[Trajectory], tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / "train.parquet")
    renamed = tmp_path / "own.parquet"
    parquet.write_table(table.rename_columns([f"my_{name}" for name in table.column_names]), renamed)
    rows = read(renamed, tmp_path / "kept", column=["messages=my_messages", "images=my_images"], samples=2)
    ours = read_rows(Source(str(folder)), QWEN25)
    assert len(rows) == 2
    assert pixels(rows.row(1)) == pixels(ours.row(1))

    image = Path(examples[0].sample.image)
    moved = replace(examples[0], sample=replace(examples[0].sample, image=image.name))
    (tmp_path / "moved.jsonl").write_text(to_json(moved) + "\n")
    placed = read_rows(Source(str(tmp_path / "moved.jsonl"), images=str(image.parent)), QWEN25)
    assert pixels(placed.row(0)) == pixels(ours.row(0))


def test_measures_are_what_the_collator_makes(folder: Path, checkpoint: Callable[[str], Path]) -> None:
    processor: Any = load_processor(str(checkpoint("qwen2_5_vl")))
    rows = read_rows(Source(str(folder)), QWEN25)
    measured = measure(rows, processor, QWEN25, None)
    assert len(measured.kept) == len(rows)
    for one in measured.kept:
        batch = AssistantCollator(processor, QWEN2_5_VL.markers)([rows.row(one.index)])
        assert batch["input_ids"].shape[1] == one.tokens
        assert (batch["input_ids"] == processor.image_token_id).sum() == one.image_tokens
        assert (batch["labels"] != IGNORED).sum() == one.trained
        assert len(batch["image_grid_thw"]) == one.images


def test_a_trajectory_of_one_family_teaches_another(examples: list[Trajectory]) -> None:
    environment = ZoomEnvironment()
    for example in examples:
        there = reframe(example, QWEN3, environment)
        assert [view.shown_size.width % 32 for view in there.views] == [0] * len(example.views)
        assert len(there.views) == len(example.views)
        for old, new in zip(example.views, there.views, strict=True):
            assert old.region.intersection(new.region) > 0.8 * max(old.region.area, new.region.area)
        for turn in there.turns:
            for action in turn.actions:
                if isinstance(action, Zoom):
                    assert all(0 <= value <= 1000 for value in action.box)
        settings = ZoomSettings(QWEN3.system, PixelLimits(**there.settings["limits"]))
        agent = ZoomEnvironment(settings)  # the agent of that family sees the same after the same words
        seen = [agent.reset(example.sample)]
        for turn in there.turns:
            found = agent.step(turn.actions, seen)
            assert found == turn.observations
            seen += [one.view for one in found if one.view is not None]
        back = reframe(there, QWEN25, environment)
        for old, new in zip(example.views, back.views, strict=True):
            assert all(abs(first - second) <= 16 for first, second in zip(old.region, new.region, strict=True))


def test_a_trajectory_of_the_same_frame_is_not_touched(examples: list[Trajectory]) -> None:
    assert all(reframe(example, QWEN25, ZoomEnvironment()) is example for example in examples)


def test_what_cannot_be_rewritten_is_unfit(examples: list[Trajectory]) -> None:
    zoomed = next(example for example in examples if example.zooms)
    turn = replace(zoomed.turns[0], text="Look there. " + zoomed.turns[0].text)
    with pytest.raises(Unusable, match="not one thought and one action"):
        reframe(replace(zoomed, turns=(turn, *zoomed.turns[1:])), QWEN3, ZoomEnvironment())


def left_out(rows: Rows, processor: Any, frame: Frame = QWEN25, most: int | None = None) -> str:
    measured = measure(rows, processor, frame, most)
    assert not measured.kept
    (one,) = measured.left_out
    return f"{one.reason}: {one.detail}"


def test_trajectories_that_are_no_examples_are_left_out_with_the_reason(
    examples: list[Trajectory], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    processor = load_processor(str(checkpoint("qwen2_5_vl")))
    one = examples[0]
    cases = {
        "trajectory with a wrong answer: nothing of the kind": replace(one, answer="nothing of the kind"),
        "trajectory without an answer: max_zooms": replace(one, stop=StopReason.MAX_ZOOMS, answer=None),
        "trajectory that was rejected: no-truth": replace(one, error="no-truth"),
    }
    garbage = Turn("<think>hm</think><zoom>somewhere</zoom>", (Malformed("neither a call nor an answer"),))
    cases["trajectory with a malformed turn: "] = replace(one, turns=(garbage, *one.turns))
    for reason, trajectory in cases.items():
        assert left_out(TrajectoryRows([trajectory], QWEN25), processor) == reason
    gone = replace(one, sample=replace(one.sample, image="gone.png"))
    assert "cannot open the image gone.png" in left_out(TrajectoryRows([gone], QWEN25), processor)
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(one.sample.image).read_bytes()[:-5000])
    damaged = replace(one, sample=replace(one.sample, image=str(cut)))
    assert left_out(TrajectoryRows([damaged], QWEN25), processor).startswith("damaged image: cannot decode")
    assert "more than 40" in left_out(TrajectoryRows([one], QWEN25), processor, most=40)


def run(arguments: dict[str, Any]) -> None:
    from sft.train import main

    given = {"use_cpu": "true", "report_to": "none"} | arguments
    main([text for key, value in given.items() for text in (f"--{key}", str(value))])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rat": 1}, "no setting learning_rat; did you mean learning_rate"),
        ({"config": "nowhere.yaml"}, "cannot read the config nowhere.yaml"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ({"data": "nowhere.jsonl"}, "there is no file or folder nowhere.jsonl"),
        ({"data": ""}, "say what to train on"),
        ({"model_name_or_path": "nowhere"}, "there is no model directory nowhere"),
        ({"eval_strategy": "steps"}, "eval_strategy needs samples"),
        ({"packing": "true"}, "packing and padding_free"),
        ({"eval_on_start": "true"}, "eval_on_start needs eval_strategy"),
        ({"model_revision": "v2"}, "model_revision: download v2 first"),
        ({"trust_remote_code": "true"}, "trust_remote_code: a checkpoint's own code is never run"),
        ({"resume_from_checkpoint": "run/checkpoint-5"}, "resume_from_checkpoint: leave it out"),
        ({"chat_template_path": "x.jinja"}, "chat_template_path would do nothing here: put the template"),
        ({"data": "curriculum"}, "how many rows"),
        ({"push_to_hub": "true"}, "push_to_hub: leave it out"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    arguments = {"model_name_or_path": "nano", "data": str(folder), "output_dir": str(tmp_path / "run"), "samples": 0}
    with pytest.raises(InputError, match=sentence) as caught:
        run(arguments | changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", ["false", "true"])
def test_rows_that_fill_no_batch_are_refused_before_weights_are_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: str
) -> None:
    monkeypatch.setattr("sft.train.load_model", None)
    arguments = {"model_name_or_path": "nano", "data": folder, "output_dir": tmp_path / "run", "samples": 3}
    with pytest.raises(InputError, match=r"leaves out all of the 3 rows, which fill no batch of 8 \("):
        run(arguments | {"dataloader_drop_last": "true", "dry_run": dry})


def test_a_training_without_a_step_writes_no_model(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(InputError, match=f"nothing was trained, so that no model is written to {output}: "):
        run(SHORT | {"data": folder, "samples": 3, "num_train_epochs": 0, "max_steps": -1, "output_dir": output})
    assert not {"finished.json", "model.safetensors"} & {path.name for path in output.iterdir()}


def test_an_unknown_column_and_an_adapter_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = tmp_path / "set.parquet"
    parquet.write_table(arrow.table({"messages": ["x"], "pictures": ["y"]}), path)
    with pytest.raises(
        InputError, match="1 no conversation, of 1 rows; .*no conversation .messages, pictures.; name its column"
    ):
        run({"model_name_or_path": "nano", "data": path, "output_dir": tmp_path / "run"})
    with pytest.raises(InputError, match="there is no column 'choices' to map; the names are messages, images, system"):
        read_rows(Source(str(path), column=["choices=messages"]), QWEN25)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="is an adapter; fold it into its model first: cof merge"):
        run({"model_name_or_path": adapter, "data": folder, "output_dir": tmp_path / "run"})


SHORT: dict[str, Any] = {
    "model_name_or_path": "nano",
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "logging_steps": 1,
    "threads": 1,
    "bf16": "false",
    "gradient_checkpointing": "false",
}


def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nowhere" / "run.json"
    with pytest.raises(SystemExit) as ended:
        explained("sft.train", lambda: print(path.read_text()))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"\nsft.train: {path}: No such file or directory.\n"


def test_the_sentence_of_a_data_worker_comes_without_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from torch.utils.data import DataLoader, Dataset

    class Gone(Dataset[int]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            raise InputError("the image a.png is gone.")

    with pytest.raises(SystemExit):
        explained("sft.train", lambda: print(list(DataLoader(Gone(), num_workers=1))))
    assert capsys.readouterr().err.strip() == "sft.train: the image a.png is gone."


def test_warnings_are_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    def warn() -> None:
        for _ in tqdm(range(2)):
            logging.getLogger("cof_agent.somewhere").warning("Look out.")

    explained("sft.train", warn)
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert lines.count("Look out.") == 2


def losses(output: Path) -> list[float]:
    checkpoints = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    state = json.loads((checkpoints[-1] / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


@pytest.mark.slow
def test_training_is_looked_at_by_the_agent_and_leaves_a_whole_folder(
    folder: Path, scenes: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    evaluation = {"eval_data": scenes, "eval_samples": 3, "eval_strategy": "steps", "eval_steps": 2}
    best = {"metric_for_best_model": "accuracy", "save_steps": 2}
    run(
        SHORT
        | evaluation
        | best
        | {"data": folder, "output_dir": output, "max_steps": 4, "lr_scheduler_type": "linear"}
    )
    assert len(losses(output)) == 4
    assert len((output / "eval" / "step-4.jsonl").read_text().splitlines()) == 3
    state = json.loads((output / "checkpoint-4" / "trainer_state.json").read_text())
    found = [entry for entry in state["log_history"] if "eval_accuracy" in entry]
    assert [entry["step"] for entry in found] == [2, 4]
    assert {"eval_zooms", "eval_malformed", "eval_answered"} <= set(found[0])
    assert state["best_metric"] == max(entry["eval_accuracy"] for entry in found)
    recorded = json.loads((output / "run.json").read_text())
    assert recorded["run"]["data"] == str(folder)
    card = (output / "README.md").read_text()
    assert "8 samples" in card
    assert "| 4 | " in card
    from cof_agent.backends.checkpoint import load

    assert load(output).coordinates is CoordinateSystem.ABSOLUTE
    assert json.loads((output / "preprocessor_config.json").read_text())["processor_class"] == "Qwen2_5_VLProcessor"


@pytest.mark.slow
def test_the_agent_in_training_is_the_agent(folder: Path, scenes: Path, tmp_path: Path) -> None:
    """The same answers, views, settings and figures as `Agent.ask_many` gives with the same configuration."""
    from sft.settings import parse
    from sft.train import build_trainer

    asked = {"eval_data": scenes, "eval_samples": 4, "eval_strategy": "steps", "resolutions": 300}
    asked |= {"max_zooms": 1, "zoom_pixels": 84 * 84, "max_tokens": 64}
    settings = parse(command(SHORT | asked | {"data": folder, "output_dir": tmp_path, "samples": 2})[2:])
    metrics = build_trainer(settings).evaluate()
    config, wanted = settings.run.agent_config(), held_out_of(settings)
    assert (config.max_zooms, config.zoom_pixels, config.max_tokens) == (1, 84 * 84, 64)
    assert wanted is not None and [one.resolution for one in wanted] == [300] * 4
    expected = Agent(config).ask_many(wanted, progress=False)
    found = list(read_jsonl(tmp_path / "eval" / "step-0.jsonl", Trajectory))
    assert list(map(alike, found)) == list(map(alike, expected))
    assert {one.zooms for one in found} == {0, 1}
    figures = figures_of(expected)
    assert metrics == {
        "eval_accuracy": figures["accuracy"],
        "eval_zooms": figures["mean_zooms"],
        "eval_malformed": figures["malformed_rate"],
        "eval_answered": figures["stop_reasons"].get("answered", 0) / 4,
    }


def alike(trajectory: Trajectory) -> Trajectory:
    """The trajectory without the name of its model and the time that it took."""
    return replace(trajectory, policy="", turns=tuple(replace(turn, seconds=0.0) for turn in trajectory.turns))


def command(arguments: dict[str, Any]) -> list[str]:
    given = {"use_cpu": "true", "report_to": "none"} | arguments
    return ["-m", "sft.train", *(text for key, value in given.items() for text in (f"--{key}", str(value)))]


def quiet() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore"}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"dtype": "bfloat16", "bf16": "true", "freeze_vision": "true"}])
def test_a_killed_run_goes_on_with_the_same_losses(folder: Path, tmp_path: Path, more: dict[str, str]) -> None:
    arguments = SHORT | more | {"data": folder, "max_steps": 6, "save_steps": 2}
    run(arguments | {"output_dir": tmp_path / "whole"})
    started = command(arguments | {"output_dir": tmp_path / "killed"})
    process = subprocess.Popen(
        [sys.executable, *started], env=quiet(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "killed" / "checkpoint-2" / "trainer_state.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    half = tmp_path / "killed" / "checkpoint-99"  # as a kill in the middle of saving leaves it
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    run(arguments | {"output_dir": tmp_path / "killed"})
    shutil.rmtree(half)
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)
    assert len(losses(tmp_path / "whole")) == 6
    counts = [json.loads((tmp_path / name / "trainer_state.json").read_text()) for name in ("killed", "whole")]
    assert len({state["log_history"][-2]["num_tokens"] for state in counts}) == 1
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    for name, weights in ours.items():  # what is trained in float32 beside a frozen tower is not rounded on the way
        assert torch.allclose(weights, theirs[name], rtol=0, atol=1e-6), name


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_no_half_checkpoint(folder: Path, tmp_path: Path) -> None:
    arguments = SHORT | {"data": folder, "max_steps": 2, "save_steps": 1, "output_dir": tmp_path / "run"}
    limited = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "sys.argv = ['sft.train', *sys.argv[1:]]\n"
        "runpy.run_module('sft.train', run_name='__main__')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", limited, *command(arguments)[2:]], env=quiet(), capture_output=True, text=True
    )
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("sft.train: cannot write the checkpoint")
    assert "File too large" in last
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_two_processes_train_as_one_does(folder: Path, scenes: Path, tmp_path: Path, kind: str) -> None:
    """DDP, ZeRO-2 and ZeRO-3: the same losses to 1e-3 for eight steps; with LoRA the two ends of these."""
    steps = {"max_steps": 8, "save_steps": 8, "learning_rate": 1e-4}
    adapter = {"use_peft": "true", "lora_r": 8, "lora_dropout": 0.0, "freeze_vision": "true"} if kind == "lora" else {}
    arguments = SHORT | steps | adapter | {"data": folder}
    run(arguments | {"per_device_train_batch_size": 4, "output_dir": tmp_path / "one"})
    expected = losses(tmp_path / "one")
    assert len(expected) == 8
    ways: dict[str, dict[str, Any]] = {
        "ddp": {},
        **{f"zero{k}": {"deepspeed": f"sft/configs/deepspeed/zero{k}.json"} for k in (2, 3)},
    }
    if kind == "lora":
        del ways["zero2"]
    for name, way in ways.items():
        # The agent looks at it too, three samples on two processes, and leaves the training as it was.
        looked: dict[str, Any] = {}
        if name == "zero3":
            looked = {"eval_data": scenes, "eval_samples": 3, "eval_strategy": "steps", "eval_steps": 4}
        given = command(arguments | way | looked | {"output_dir": tmp_path / name})[2:]
        processes.train("sft.train", given, 2, tmp_path / name)
        assert losses(tmp_path / name) == pytest.approx(expected, abs=1e-3), name
    assert len((tmp_path / "zero3" / "eval" / "step-8.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_sharded_model_that_was_killed_before_it_was_saved_trains_no_further(
    folder: Path, tmp_path: Path, stage: int
) -> None:
    output = tmp_path / "run"
    way = {"deepspeed": f"sft/configs/deepspeed/zero{stage}.json", "output_dir": output}
    given = command(SHORT | way | {"data": folder, "max_steps": 1, "save_steps": 1})[2:]
    processes.train("sft.train", given, 1, tmp_path / "first")
    weights = (output / "model.safetensors").read_bytes()
    (output / "finished.json").unlink()
    (output / "model.safetensors").unlink()
    processes.train("sft.train", given, 1, tmp_path / "second")
    assert (output / "model.safetensors").read_bytes() == weights
    assert not (output / "checkpoint-2").exists() and len(losses(output)) == 1


@pytest.mark.parametrize("checkpointing", [pytest.param("false", marks=pytest.mark.slow), "true"])
def test_a_frozen_tower_is_not_differentiated_and_what_is_trained_is_float32(
    folder: Path, tmp_path: Path, checkpointing: str
) -> None:
    import torch

    from sft.settings import parse
    from sft.train import build_trainer

    arguments = SHORT | {"data": folder, "output_dir": tmp_path, "use_peft": "true", "freeze_vision": "true"}
    arguments |= {"dtype": "bfloat16", "bf16": "true", "gradient_checkpointing": checkpointing, "samples": 2}
    trainer = build_trainer(parse(command(arguments)[2:]))
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    tower = trainer.model.get_base_model().model.visual
    seen: list[bool] = []
    tower.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.autocast("cpu", torch.bfloat16):
        trainer.compute_loss(trainer.model, batch).backward()
    assert seen
    assert not any(seen)
    merger = next(parameter for name, parameter in tower.merger.named_parameters() if parameter.requires_grad)
    assert merger.grad is not None


@pytest.mark.slow
def test_a_step_whose_gradient_is_not_finite_is_left_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    from sft.settings import parse
    from sft.train import build_trainer

    arguments = SHORT | {"data": folder, "output_dir": tmp_path / "run", "max_steps": 3, "save_strategy": "no"}
    trainer = build_trainer(parse(command(arguments)[2:]))
    weight, seen = trainer.model.model.language_model.layers[0].mlp.up_proj.weight, []

    def spoilt(gradient: Any) -> Any:
        seen.append(weight.detach().clone())
        return gradient * math.nan if len(seen) == 2 else gradient

    weight.register_hook(spoilt)
    trainer.train()
    assert "the gradient of step 2 is not finite" in caplog.text and caplog.text.count("not finite") == 1
    assert (seen[2] == seen[1]).all() and (weight != seen[2]).any()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # the one known to bring this about


@pytest.mark.slow
def test_a_finished_training_says_so_and_trains_no_further(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    arguments = SHORT | {"data": folder, "samples": 4, "max_steps": 1, "save_steps": 1, "output_dir": output}
    run(arguments)
    weights = (output / "model.safetensors").read_bytes()
    capsys.readouterr()
    with pytest.raises(InputError, match="learning_rate was 0.0001, and is 0.5"):
        run(arguments | {"learning_rate": 0.5})
    run(arguments)
    assert f"finished already: {output} holds the model of step 1." in capsys.readouterr().out
    (output / "finished.json").unlink()  # as a kill between the last checkpoint and the model leaves it
    (output / "model.safetensors").unlink()
    run(arguments)
    assert (output / "model.safetensors").read_bytes() == weights
    assert not (output / "checkpoint-2").exists() and len(losses(output)) == 1
    run(arguments | {"max_steps": 2})
    assert len(losses(output)) == 2
