"""RL plays the agent's own conversations: the same tokens, images and mask as inference and SFT have."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from cof_agent import protocol, scoring
from cof_agent.agent import Agent
from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.local.processor import load_processor
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode, drawn
from cof_agent.errors import InputError
from cof_agent.evaluation.judge import Judge
from cof_agent.geometry import Box, Size, View
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.policy import ScriptedPolicy
from cof_agent.training.trainer import policy_of
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn, read_jsonl, to_json
from rl import rewards
from rl.rollout import Rollout, roll_out
from rl.trainer import _CountsOn, loss_mask, micro_batches
from rl.watch import collapse, unused_crops
from sft.collate import IGNORED, AssistantCollator
from sft.dataset import TrajectoryRows
from sft.frame import Frame
from tests.rl.events import events
from tests.scenes.shared import Scenes
from tests.scripted_teacher import Server


@pytest.fixture(scope="module")
def scenes(drawn: Scenes) -> Path:
    return drawn(8)


@pytest.fixture(scope="module")
def samples(scenes: Path) -> list[Sample]:
    return read_samples(scenes)


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return load(NANO)


def played(
    policy: LocalPolicy, wanted: Sequence[Sample | Episode], *, budget: int = 2048, seed: int = 0, **how: Any
) -> list[Rollout]:
    asked = [one if isinstance(one, Episode) else Episode(one) for one in wanted]
    config = AgentConfig(**{"max_tokens": 96, "temperature": 0.0} | how)
    seeds = [seed + index for index in range(len(asked))]
    return asyncio.run(roll_out(asked, policy, config, ZoomEnvironment(), budget=budget, seeds=seeds))


def test_agent_sft_and_rl_have_the_same_tokens_images_and_mask(policy: LocalPolicy, samples: list[Sample]) -> None:
    rollouts = played(policy, samples)
    assert {rollout.trajectory.zooms for rollout in rollouts} >= {1, 2}
    processor: Any = load_processor(str(WEIGHTS))
    size = processor.image_processor.size
    frame = Frame(policy.family, 28, size["shortest_edge"], size["longest_edge"])
    for rollout in rollouts:
        trajectory = rollout.trajectory
        (agent,) = Agent(policy=policy, max_tokens=96).ask_many([trajectory.sample], progress=False)
        assert [turn.text for turn in agent.turns] == [turn.text for turn in trajectory.turns]
        assert agent.views == trajectory.views
        assert agent.turns[-1].tokens.prompt == trajectory.turns[-1].tokens.prompt  # what the last turn was told
        row = TrajectoryRows([agent], frame).row(0)
        assert [image.tobytes() for image in row["images"]] == [image.tobytes() for image in rollout.images]
        batch = AssistantCollator(processor, policy.family.markers)([row])
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        ours = rollout.prompt + rollout.completion
        assert ids == [*ours, ids[-1]]  # the template ends with a line break
        line_break = ids[-1]
        trained = [label != IGNORED and token != line_break for label, token in zip(labels, ids, strict=True)]
        assert trained[: len(ours)] == [bool(kept) for kept in [0] * len(rollout.prompt) + rollout.mask]


def test_random_numbers_are_a_rollouts_own(policy: LocalPolicy, samples: list[Sample]) -> None:
    same = [samples[0], samples[0], samples[1]]
    first = played(policy, same, temperature=2.0)
    alone = played(policy, same[1:2], temperature=2.0, seed=1)
    assert first[1].completion == alone[0].completion
    assert first[0].completion != first[1].completion


@pytest.mark.parametrize("budget", [8, 60])
def test_the_budget_ends_a_conversation_and_is_never_exceeded(
    policy: LocalPolicy, samples: list[Sample], budget: int
) -> None:
    cut = [rollout for rollout in played(policy, samples, budget=budget) if rollout.exhausted]
    assert cut
    for rollout in cut:
        assert len(rollout.completion) == len(rollout.mask) <= budget
        assert rollout.trajectory.stop is StopReason.TRUNCATED
        assert rollout.trajectory.answer is None
        images = sum(token == policy._image_token_id for token in rollout.prompt + rollout.completion)
        cells = sum(image.width * image.height // 28**2 for image in rollout.images)
        assert images == cells  # a crop that did not fit is not among the images either


def test_a_rollout_whose_image_cannot_be_opened_is_a_failure(policy: LocalPolicy, samples: list[Sample]) -> None:
    gone, whole = played(policy, [replace(samples[0], image="gone.png"), samples[1]])
    assert gone.failure is not None and gone.failure.startswith("cannot open the image gone.png")
    assert not gone.completion and whole.failure is None


@pytest.mark.slow
def test_a_damaged_picture_is_played_in_place_of_by_another(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its conversations say nothing of the model."""
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    damaged, *others = read_samples(data)
    path = Path(damaged.image)
    path.write_bytes(path.read_bytes()[:400])
    arguments: dict[str, Any] = {
        "data": data,
        "per_device_train_batch_size": 8,
        "num_generations": 2,
        "max_completion_length": 100,
        "logging_steps": 1,
        "max_steps": 2,
        "samples": 4,
    }
    run(arguments | {"output_dir": tmp_path / "out"})
    rollouts = list(read_jsonl(tmp_path / "out" / "trajectories.jsonl", Trajectory))
    assert len(rollouts) == 16 and damaged.id not in {one.sample.id for one in rollouts}
    assert f"sample {damaged.id} cannot be played: " in caplog.text
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert [entry["failed"] for entry in log if "failed" in entry] == [1, 1]
    for one in others:
        Path(one.image).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="cannot be played: cannot"):
        run(arguments | {"output_dir": tmp_path / "none"})


@pytest.mark.parametrize(
    ("found", "said"), [("good", "returned 'good'"), ([1.0], "returned \\[1.0\\]"), (math.inf, "returned inf")]
)
def test_a_reward_of_another_kind_is_named(trajectories: list[Trajectory], found: Any, said: str) -> None:
    reward = rewards.scored(lambda _: found, "mine")
    with pytest.raises(InputError, match=f"the reward mine {said}; it takes one trajectory"):
        reward(trajectory=trajectories[:1])


def test_nan_is_no_score(trajectories: list[Trajectory]) -> None:
    assert rewards.scored(lambda _: math.nan, "mine")(trajectory=trajectories[:1]) == [None]


def test_a_resumed_run_begins_generations_where_it_would_have() -> None:
    """TRL counts micro-batches from 0 in each process; a third step may lie within a generation for two."""
    trainer: Any = SimpleNamespace(_step=0)
    args = SimpleNamespace(gradient_accumulation_steps=2, steps_per_generation=2, num_iterations=1, output_dir="run")
    state = SimpleNamespace(global_step=3)
    _CountsOn(trainer).on_train_begin(args, state, None, train_dataloader=range(8))
    assert trainer._step == 6
    args.num_iterations = 2
    with pytest.raises(InputError, match="the checkpoint of step 3 in run was written between updates"):
        _CountsOn(trainer).on_train_begin(args, state, None, train_dataloader=range(8))


def test_results_of_another_command_are_not_overwritten(scenes: Path, tmp_path: Path) -> None:
    results = tmp_path / "trajectories.jsonl"
    results.write_text("{}\n")
    with pytest.raises(InputError, match="was written by another command; name another output_dir"):
        run({"data": scenes, "output_dir": tmp_path})
    assert results.read_text() == "{}\n"


def test_rollouts_of_nano_about_other_pictures_are_marked(
    policy: LocalPolicy, samples: list[Sample], picture: Path
) -> None:
    own = Sample("own", str(picture), "Is it red?", ("no",))
    trained = policy_of(policy.model, load_processor(str(WEIGHTS)), AgentConfig(), LocalPolicy)
    for one, marks in ((policy, [False, True]), (trained, [False, True])):
        rollouts = played(one, [samples[0], own], max_tokens=2)
        assert [rollout.trajectory.warning is not None for rollout in rollouts] == marks, one.name
    trained.name = "another model"
    assert played(trained, [own], max_tokens=2)[0].trajectory.warning is None


def test_the_agent_is_played_as_it_is_configured(policy: LocalPolicy, samples: list[Sample]) -> None:
    zoomed = next(one.trajectory for one in played(policy, samples) if one.trajectory.zooms == 2)
    (wide,) = played(policy, [zoomed.sample], enlarge=3.0, max_zooms=4)
    assert wide.trajectory.settings["enlarge"] == 3.0 and wide.trajectory.settings["max_zooms"] == 4
    assert wide.trajectory.turns[0].text == zoomed.turns[0].text
    assert wide.trajectory.views[1].region.area > 2 * zoomed.views[1].region.area
    (looked,) = played(policy, [zoomed.sample], strategy="direct")
    assert looked.trajectory.strategy == "direct" and looked.trajectory.zooms == 0


@pytest.mark.parametrize("strategy", ["always-zoom", "grid", "regions", "tree"])
def test_a_strategy_that_writes_turns_of_its_own_is_refused(
    policy: LocalPolicy, samples: list[Sample], strategy: str
) -> None:
    with pytest.raises(InputError, match=f"the strategy {strategy} writes turns of its own"):
        played(policy, samples[:1], strategy=strategy)


@pytest.mark.parametrize(
    ("correct", "direct", "formed", "some", "paper", "released"),
    [
        (True, True, True, True, 1.0, 1.0),
        (True, False, True, False, 1.0, 1.0),
        (True, False, True, True, 0.8, 0.8),
        (False, True, True, True, 0.1, 0.1),
        (False, True, False, False, 0.0, 0.0),
        (False, False, True, False, 0.1, 0.5),
        (False, False, False, True, 0.0, 0.5),
    ],
)
def test_adaptive_rewards(correct: bool, direct: bool, formed: bool, some: bool, paper: float, released: float) -> None:
    one, looked = rewards.Outcome(correct, int(not direct), formed, not direct), rewards.Outcome(some, 0, True, False)
    assert rewards.adaptive_paper(one, [one, looked]) == pytest.approx(paper)
    assert rewards.adaptive_released(one, [one, looked]) == pytest.approx(released)


def test_the_released_reward_counts_zooms_that_were_refused() -> None:
    refused, zoomed = rewards.Outcome(True, 0, True, True), rewards.Outcome(True, 1, True, True)
    group = [refused, zoomed, replaced := refused._replace(correct=False)]
    assert [rewards.adaptive_released(one, group) for one in group] == [1.0, 1.0, 0.5]
    assert rewards.adaptive_paper(replaced, group) == pytest.approx(0.1)


def test_a_reward_that_is_missing_is_neither_good_nor_bad() -> None:
    nan = math.nan
    found = rewards.neutral(torch.tensor([[nan, 1.0], [1.0, 1.0], [0.0, 1.0], [nan, 0.0], [nan, 1.0], [nan, 2.0]]), 3)
    assert found[:3].tolist() == [[0.5, 1.0], [1.0, 1.0], [0.0, 1.0]]
    assert found[3:, 0].isnan().all() and found[3:, 1].tolist() == [0.0, 1.0, 2.0]
    alone = rewards.neutral(torch.tensor([[1.0], [0.0], [nan]]), 3)  # TRL leaves a rollout out that has none at all
    assert alone[:2, 0].tolist() == [1.0, 0.0] and alone[2].isnan()


def test_the_last_update_of_an_epoch_may_be_shorter() -> None:
    assert [micro_batches(updates, 6, 4) for updates in range(5)] == [0, 4, 6, 10, 12]
    assert [micro_batches(updates, 8, 4) for updates in range(4)] == [0, 4, 8, 12]


def test_a_zoom_costs_less_the_harder_the_question_is() -> None:
    right, wrong = rewards.Outcome(True, 2, True, True), rewards.Outcome(False, 3, True, True)
    assert rewards.zoom_cost_by_success(right, [right, right]) == -2.0
    assert rewards.zoom_cost_by_success(right, [right, wrong, wrong, wrong]) == -0.5
    assert rewards.zoom_cost_by_success(wrong, [right, wrong]) == 0.0


def test_a_sample_can_have_a_resolution_of_its_own(policy: LocalPolicy, samples: list[Sample]) -> None:
    sized = drawn(samples[:4], (224, 672), 0)
    found = played(policy, sized)
    shown = [one.trajectory.overview.shown_size.long_side for one in found if one.trajectory.overview]
    assert set(shown) == {224, 672}
    assert shown == [episode.resolution for episode in sized] == [one.trajectory.resolution for one in found]


def test_what_was_cut_off_can_be_forgiven(policy: LocalPolicy, samples: list[Sample]) -> None:
    short, whole = played(policy, samples[:1], budget=8)[0], played(policy, samples[:1])[0]
    assert 1 in short.mask
    assert loss_mask(short, False) == short.mask
    assert set(loss_mask(short, True)) == {0} and len(loss_mask(short, True)) == len(short.completion)
    assert loss_mask(whole, True) == whole.mask
    used_up = replace(whole, trajectory=replace(whole.trajectory, stop=StopReason.MAX_ZOOMS))
    assert set(loss_mask(used_up, True)) == {0} and loss_mask(used_up, False) == whole.mask


def test_a_tool_that_is_no_longer_used_is_noticed() -> None:
    fallen = [{"zooms/mean": 1.5}] * 10 + [{"loss": 1.0}] + [{"zooms/mean": 0.1}] * 10
    found = collapse(fallen)
    assert found is not None
    assert "fell from 1.50 to 0.10" in found[1]
    assert collapse(fallen[:-3]) is None  # too short to tell
    assert collapse([{"zooms/mean": 0.0}] * 30) is None  # it never zoomed
    assert unused_crops({"eval_crop_gain": 0.4}) is None
    assert unused_crops({"eval_accuracy": 0.4}) is None
    assert (unused_crops({"eval_crop_gain": -0.1}) or ("",))[0] == "unused"


@pytest.fixture(scope="module")
def trajectories(policy: LocalPolicy, samples: list[Sample]) -> list[Trajectory]:
    return [rollout.trajectory for rollout in played(policy, samples)]


def test_rewards_are_those_of_the_evaluation(trajectories: list[Trajectory]) -> None:
    accuracy, form, overlap = (rewards.by_name(name, 1) for name in ("accuracy", "format", "box_iou"))
    assert accuracy(trajectory=trajectories) == [float(bool(scoring.accuracy(one))) for one in trajectories]
    assert form(trajectory=trajectories) == [float(scoring.well_formed(one)) for one in trajectories]
    unknown = replace(trajectories[0], sample=replace(trajectories[0].sample, answers=(), boxes=()))
    assert accuracy(trajectory=[unknown]) == [None]
    assert overlap(trajectory=[unknown]) == [None]
    zoomed = [one for one in trajectories if one.zooms and one.sample.boxes]
    overlaps = overlap(trajectory=zoomed)
    assert all(value is not None and 0 < value <= 1 for value in overlaps)
    assert rewards.by_name("zoom_cost", 1)(trajectory=zoomed) == [-one.zooms for one in zoomed]
    right, wrong = (replace(zoomed[0], answer=answer) for answer in (zoomed[0].sample.answers[0], "none of them"))
    assert rewards.by_name("zoom_cost_if_right", 1)(trajectory=[right, wrong]) == [-right.zooms, 0]


def test_a_box_within_a_crop_is_compared_where_it_lies_in_the_source() -> None:
    size, shown = Size(1000, 1000), Size(100, 100)
    whole, crop, inner = Box(0, 0, 1000, 1000), Box(200, 200, 400, 400), Box(200, 200, 300, 300)

    def zoom(box: Box, image: int, region: Box) -> Turn:
        text = protocol.write_zoom("Closer.", box, image)
        seen = Observation(view=View(size, region, shown))
        return Turn(text, protocol.parse(text), (seen,), Tokens(1, 1), 0.0)

    turns = (zoom(Box(20, 20, 40, 40), 0, crop), zoom(Box(0, 0, 50, 50), 1, inner))
    sample = Sample("one", "one.png", "?", boxes=(inner, Box(900, 900, 1000, 1000)))
    played = Trajectory(sample, View(size, whole, shown), turns, StopReason.MAX_ZOOMS, settings={"system": "absolute"})
    assert rewards.by_name("box_iou", 1)(trajectory=[played]) == [pytest.approx((1 + 0) / 2)]
    without = replace(played, turns=turns[:1])
    assert rewards.by_name("box_iou", 1)(trajectory=[without]) == [pytest.approx(0.25 / 2)]


def test_every_reward_scores_or_says_that_it_cannot(
    policy: LocalPolicy, samples: list[Sample], trajectories: list[Trajectory]
) -> None:
    judge = Judge(ScriptedPolicy(["no"]))
    unknown = replace(samples[0], answers=(), choices=(), boxes=())
    choosing = replace(samples[0], answers=("B",), choices=("9.5", "10.5 %"))
    counting = replace(samples[0], answers=("7",))
    trajectories = trajectories + [one.trajectory for one in played(policy, [unknown, choosing, counting])]
    of_their_own = {"format", "zoom_cost"}  # need no truth
    for name in rewards.NAMES:
        reward = rewards.by_name(name, 1, judge)
        found = reward(trajectory=trajectories, prompts=[], completions=[], log_metric=lambda name, value: None)
        assert reward.__name__ == name
        assert len(found) == len(trajectories)
        assert all(value is None or isinstance(value, float) for value in found)
        assert (found[-3] is None) == (name not in of_their_own)
        assert any(value is not None for value in found)
    assert rewards.by_name("choice", 1)(trajectory=trajectories[-2:])[1] is None
    assert rewards.by_name("number", 1)(trajectory=trajectories[-1:]) == [0.0]
    exact = rewards.by_name("accuracy", 1)(trajectory=trajectories[:-3])
    assert rewards.by_name("judge", 1, judge)(trajectory=trajectories[:-3]) == exact
    assert 1.0 in exact


def test_a_group_is_judged_together(trajectories: list[Trajectory]) -> None:
    right = [one for one in trajectories if scoring.accuracy(one)]
    direct = next(one for one in right if one.zooms == 0)
    zoomed = next(one for one in right if one.zooms)
    reward = rewards.by_name("adaptive_paper", 2)
    assert reward(trajectory=[direct, zoomed, zoomed, zoomed]) == pytest.approx([1.0, 0.8, 1.0, 1.0])
    with pytest.raises(KeyError):
        rewards.by_name("none", 2)


def test_what_could_not_be_scored_adds_nothing_to_the_total() -> None:
    assert rewards.total([1.0, None, 0.5], [1.0, 3.0, 2.0]) == 2.0
    assert rewards.total([None, None], [1.0, 1.0]) is None
    assert rewards.total([0.0, None], [1.0, 1.0]) == 0.0


def test_rollouts_that_will_be_played_again_are_forgotten(trajectories: list[Trajectory], tmp_path: Path) -> None:
    from rl.record import forget_after

    one = trajectories[0]
    path = tmp_path / "trajectories.jsonl"
    path.write_text("".join(to_json(replace(one, step=step)) + "\n" for step in range(5)))
    forget_after(path, 3)
    assert [kept.step for kept in read_jsonl(path, Trajectory)] == [0, 1, 2]
    forget_after(tmp_path / "none.jsonl", 3)


def test_samples_of_a_dataset_are_read_as_elsewhere(
    picture: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Columns by name, and images that rows hold themselves in the output folder."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    from rl.settings import parse
    from rl.train import episodes_of

    rows = {"picture": [{"bytes": picture.read_bytes()}] * 8, "ask": ["What?"] * 8, "truth": ["red"] * 8}
    parquet.write_table(arrow.table(rows), tmp_path / "set.parquet")
    columns = ["--column", "image=picture", "--column", "question=ask", "--column", "answer=truth"]
    given = ["--data", str(tmp_path / "set.parquet"), "-o", str(tmp_path / "out"), *columns, "--num-generations", "8"]
    settings = parse(["--model", NANO, "--use-cpu", "true", "--bf16", "false", *given])
    wanted = episodes_of(settings, tmp_path / "out")
    assert len(wanted) == 8
    assert "nano can only answer" in caplog.text  # it is asked about pictures that are no scenes
    assert {Path(one.sample.image).parent for one in wanted} == {tmp_path / "out" / "images"}
    assert Path(wanted[0].sample.image).read_bytes() == picture.read_bytes()


SERVED = {"use_vllm": "true", "vllm_mode": "server"}


def run(arguments: dict[str, Any]) -> None:
    """Values of several words are lists."""
    from rl.train import main

    fixed = {"use_cpu": "true", "report_to": "none", "bf16": "false", "gradient_checkpointing": "false", "threads": 1}
    given = fixed | {"model_name_or_path": NANO} | arguments
    main([text for key, value in given.items() for text in (f"--{key}", *str(value).split())])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rewards": "beauty"}, "there is no reward beauty; the rewards are accuracy"),
        ({"rewards": "judge"}, "the reward judge needs one"),
        ({"judge": "openai:some-model"}, "openai:some-model has nothing to judge"),
        ({"rewards": "judge", "judge": "nano", "judge_timeout": 0}, "judge_timeout must be above 0"),
        ({"rewards": "judge", "judge": "nano", "judge_concurrency": 0}, "judge_concurrency at least 1"),
        ({"rewards": "judge", "judge": "nobody:model"}, "there is no provider nobody"),
        ({"rewards": "judge", "judge": "nowhere"}, "there is no model directory nowhere"),
        ({"use_vllm": "true"}, "use_vllm needs vLLM, which is not installed"),
        ({"top_k": 5}, "leave top_k"),
        ({"generation_kwargs": '{"top_k": 5}'}, "generation_kwargs would do nothing here: set temperature, top_p"),
        ({"ds3_gather_for_generation": "false"}, "ds3_gather_for_generation: the agent always plays"),
        ({"reward_weights": 1.0}, "reward_weights must be one for each of accuracy, format; there are 1"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"max_completion_length": "none"}, "max_completion_length must be at least 1, not None"),
        ({"max_completion_length": 0}, "max_completion_length must be at least 1, not 0"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy must be random"),
        ({"num_iterations": 2, "save_steps": 25}, "save_steps must be a multiple of 2, with"),
        ({"top_p": 1.5}, "top_p above 0 and at most 1"),
        ({"report_to": "wandbb"}, "report_to: there is no tracker wandbb; did you mean wandb?"),
        ({"report_to": "clearml"}, "report_to: clearml is not installed here: pip install 'clearml'"),
        ({"trajectory_steps": -1}, "trajectory_steps must be at least 0, not -1"),
        ({"trajectory_steps": 5}, "set report_to to tensorboard or trackio or wandb"),
        ({"redraws": -1}, "redraws must be at least 0, not -1"),
        ({"ahead": 2}, "ahead must be 0 or 1, not 2"),
        ({"ahead": 1}, "ahead: 1 needs servers that play meanwhile"),
        (SERVED | {"ahead": 1, "num_iterations": 2}, "ahead: 1 plays for one update at a time"),
        (SERVED | {"ahead": 1, "vllm_importance_sampling_correction": "false"}, "ahead: 1 plays with older weights"),
        ({"vllm_server_hosts": "a:1 b:2"}, "vllm_server_hosts are asked only with use_vllm"),
        (SERVED | {"vllm_server_hosts": "a"}, "vllm_server_hosts: a is not HOST:PORT"),
        (SERVED | {"vllm_server_hosts": "a:1 a:1"}, "the same server is named twice"),
        (SERVED | {"vllm_server_hosts": "a:1", "vllm_server_base_url": "http://b"}, "not both"),
        ({"max_zooms": -1}, "max_zooms must be 0 or more"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1"),
        (
            {"samples": 3, "per_device_train_batch_size": 32},
            "has 3 samples with a known answer, but 4 are played at once",
        ),
        ({"data": "nowhere"}, "there is no file or folder nowhere"),
        ({"num_generation": 4}, "no setting num_generation; did you mean num_generations"),
        ({"resolutions": 0}, "invalid Resolutions value: '0'"),
    ],
)
def test_bad_input_is_one_sentence(scenes: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        run({"data": scenes, "output_dir": tmp_path / "run"} | changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_rollouts_are_recorded_with_step_rewards_advantage_and_group(
    trajectories: list[Trajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRL writes rewards, advantages and means too: into tables of completions and into its log. Started again, the run says
    that it has finished."""
    import pyarrow.parquet as parquet

    zoomed = next(one.sample for one in trajectories if one.zooms)
    boxless = replace(next(one.sample for one in trajectories if not one.zooms), boxes=())
    (tmp_path / "samples.jsonl").write_text("".join(to_json(one) + "\n" for one in (zoomed, boxless)))
    arguments = {
        "data": tmp_path,
        "output_dir": tmp_path / "run",
        "rewards": "accuracy box_iou",
        "reward_weights": "1 0.5",
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "num_generations": 3,
        "max_completion_length": 400,
        "max_steps": 2,
        "learning_rate": 0,
        "temperature": 1.5,
        "logging_steps": 1,
        "save_steps": 2,
        "log_completions": "true",
        "report_to": "tensorboard",
        "trajectory_steps": 2,
    }
    run(arguments)
    head, *lines = re.findall(r"^(?:step|\d/2) .*", capsys.readouterr().out.replace("\n ", "\n"), re.MULTILINE)
    assert head.split()[:5] == ["step", "left", "reward", "accuracy", "box_iou"]
    assert [line.split()[0] for line in lines] == ["1/2", "2/2"]
    found = list(read_jsonl(tmp_path / "run" / "trajectories.jsonl", Trajectory))
    assert [one.step for one in found] == [0] * 6 + [1] * 6
    groups: dict[str, list[Trajectory]] = {}
    for one in found:
        groups.setdefault(one.group or "", []).append(one)
        right = float(bool(scoring.accuracy(one)))
        assert one.rewards == pytest.approx({"accuracy": right, "box_iou": rewards.box_iou(one)})
    assert {len(group) for group in groups.values()} == {3} and len(groups) == 4 and "" not in groups
    assert all(len({(one.sample.id, one.step) for one in group}) == 1 for group in groups.values())
    assert {one.sample.id for one in found if one.rewards["box_iou"] is None} == {boxless.id}
    assert any(one.rewards["box_iou"] for one in found) and any(one.advantage for one in found)
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    for step in (0, 1):
        mine = [one for one in found if one.step == step]
        table = parquet.read_table(tmp_path / "run" / "completions" / f"completions_{step + 1:05d}.parquet").to_pydict()
        assert table["advantage"] == [one.advantage for one in mine]
        for name in ("accuracy", "box_iou"):
            scored = [value for one in mine if (value := one.rewards[name]) is not None]
            assert table[name] == [one.rewards[name] for one in mine]
            assert state["log_history"][step][f"rewards/{name}/mean"] == pytest.approx(fmean(scored))
    for group in groups.values():
        sums = [sum(w * (one.rewards[name] or 0) for name, w in (("accuracy", 1), ("box_iou", 0.5))) for one in group]
        advantages = [(one - fmean(sums)) / (stdev(sums) + 1e-4) for one in sums]
        assert [one.advantage for one in group] == pytest.approx(advantages, abs=1e-4)
    texts = [
        value for _, tag, value in events(tmp_path / "run") if tag.startswith("rollouts/") and isinstance(value, str)
    ]
    assert texts and all("step: 2, group 1-0-" in one for one in texts)
    capsys.readouterr()
    with pytest.raises(InputError, match='model_name_or_path was .*, and is "nowhere"'):
        run(arguments | {"model_name_or_path": "nowhere"})
    run(arguments)
    assert f"finished already: {tmp_path / 'run'} holds the model of step 2." in capsys.readouterr().out
    assert list(read_jsonl(tmp_path / "run" / "trajectories.jsonl", Trajectory)) == found


@pytest.mark.slow
def test_training_goes_on_with_the_same_rollouts(scenes: Path, tmp_path: Path) -> None:
    arguments = {
        "data": scenes,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 200,
        "max_tokens": 64,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "temperature": 1.5,
        "logging_steps": 1,
        "save_steps": 1,
        "max_steps": 2,
    }
    run(arguments | {"output_dir": tmp_path / "whole"})
    run(arguments | {"output_dir": tmp_path / "halves", "max_steps": 1})
    run(arguments | {"output_dir": tmp_path / "halves"})
    whole, halves = (
        list(read_jsonl(tmp_path / name / "trajectories.jsonl", Trajectory)) for name in ("whole", "halves")
    )
    assert [one.turns[0].text for one in whole] == [one.turns[0].text for one in halves]
    assert [(one.step, one.group) for one in whole] == [(step, f"{step}-0-0") for step in range(2) for _ in range(4)]
    assert [(one.step, one.group, one.rewards) for one in whole] == [
        (one.step, one.group, one.rewards) for one in halves
    ]
    state = json.loads((tmp_path / "whole" / "checkpoint-2" / "trainer_state.json").read_text())
    assert {"accuracy", "zooms/mean", "malformed", "seconds/rollout"} <= set(state["log_history"][0])
    assert any(entry.get("grad_norm") for entry in state["log_history"])
    assert torch.isfinite(torch.tensor([entry["loss"] for entry in state["log_history"] if "loss" in entry])).all()


@pytest.mark.slow
def test_steps_differ_equal_groups_are_played_with_other_samples_and_crops_are_checked(
    scenes: Path, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {
        "data": scenes,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 400,
        "logging_steps": 1,
        "save_steps": 2,
        "max_steps": 2,
        "learning_rate": 0,
    }

    def rollouts(name: str) -> list[Trajectory]:
        return list(read_jsonl(tmp_path / name / "trajectories.jsonl", Trajectory))

    run(arguments | {"output_dir": tmp_path / "one", "samples": 2, "temperature": 2.0})
    texts = [one.turns[0].text for one in rollouts("one")]
    assert len(texts) == 16
    assert len(set(texts)) > 12  # the same samples in both steps, which draw other numbers
    control = {"eval_data": scenes, "eval_samples": 8, "eval_strategy": "steps", "eval_steps": 2, "eval_blank": "true"}
    ids = {}
    for redraws, more in ((0, {}), (1, control)):
        name = f"redraws-{redraws}"
        run(arguments | more | {"output_dir": tmp_path / name, "temperature": 0.001, "redraws": redraws})
        ids[redraws] = [one.sample.id for one in rollouts(name)]
        assert len(ids[redraws]) == 16
        assert all(len(set(ids[redraws][start : start + 4])) == 1 for start in range(0, 16, 4))
    assert ids[0] != ids[1]  # without chance all groups are equal
    state = json.loads((tmp_path / "redraws-1" / "checkpoint-2" / "trainer_state.json").read_text())
    (evaluation,) = [entry for entry in state["log_history"] if "eval_accuracy" in entry]
    assert evaluation["eval_crop_gain"] > 0.3
    assert "loss" not in evaluation and "reward" not in evaluation


@pytest.mark.slow
def test_a_served_judge_scores_and_its_verdicts_are_kept(scenes: Path, tmp_path: Path) -> None:
    arguments = {
        "data": scenes,
        "output_dir": tmp_path,
        "rewards": "judge",
        "judge": "openai:some-judge",
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 150,
        "max_tokens": 48,
        "learning_rate": 0.0,
        "temperature": 2.0,
        "logging_steps": 1,
        "save_steps": 1,
    }
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        arguments["judge_base_url"] = server.url
        run(arguments | {"max_steps": 1})
        run(arguments | {"max_steps": 2})
        server.shutdown()
        asked = sum(server.seen.values())
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    log = [entry for entry in state["log_history"] if "rewards/judge/mean" in entry]
    assert [entry["judge/failures"] for entry in log] == [0, 0]
    assert len((tmp_path / "judge" / "0.jsonl").read_text().splitlines()) == asked > 0
    played = list(read_jsonl(tmp_path / "trajectories.jsonl", Trajectory))
    for step, entry in enumerate(
        log
    ):  # the server knows no synonym in these scenes, so that only exact matches are right
        mine = [one for one in played if one.step == step]
        exact = [value for one in mine if (value := scoring.accuracy(one)) is not None]
        assert entry["rewards/judge/mean"] == pytest.approx(sum(exact) / len(exact))


def test_under_zero3_a_judge_is_served(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    config = Path(__file__).parents[2] / "sft" / "configs" / "deepspeed" / "zero3.json"
    arguments = {"data": scenes, "output_dir": tmp_path / "run", "rewards": "judge", "deepspeed": config}
    try:
        with pytest.raises(InputError, match="under ZeRO-3 the judge nano would be divided"):
            run(arguments | {"judge": "nano"})
    finally:
        unset_hf_deepspeed_config()
