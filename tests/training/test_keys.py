"""The keys of a training: they may be written in several ways, and unknown ones are refused before TRL is imported."""

from __future__ import annotations

import ast
import inspect
import shlex
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]
from transformers import Trainer, TrainingArguments
from trl import GRPOConfig, GRPOTrainer, ModelConfig, SFTConfig, SFTTrainer

import rl.settings
import sft.settings
from cof_agent.config import AgentConfig
from cof_agent.data.source import Source
from cof_agent.errors import InputError
from cof_agent.nano import WEIGHTS
from cof_agent.training import keys
from cof_agent.training.settings import RunConfig
from sft.papers import gpt4roi

BASE = ["--use-cpu", "true", "--model", "nano", "--data", "none"]


@pytest.mark.parametrize(
    "kind", [SFTConfig, GRPOConfig, ModelConfig, TrainingArguments], ids=lambda kind: kind.__name__
)
def test_the_sources_tell_the_fields_of_a_configuration(kind: type[Any]) -> None:
    assert set(keys.fields_of(kind.__name__)) == {one.name for one in fields(kind) if one.init}


def test_one_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("rewards: accuracy\nreward_weights: 1.0\ntools: tests.tools:turned\neval_strategy: 'no'\n")
    found = rl.settings.parse(["--config", str(path), *BASE, "--report-to", "none"])
    assert found.run.rewards == ["accuracy"] and found.training.reward_weights == [1.0]
    assert list(found.run.tools) == ["tests.tools:turned"]


def test_an_evaluation_needs_no_batch_of_whole_groups(tmp_path: Path) -> None:
    """Its questions are answered once, whatever TRL's own evaluation would generate."""
    more = ["--eval-data", "tests", "--eval-strategy", "steps", "--eval-steps", "5", "--report-to", "none"]
    rl.settings.parse([*BASE, *more, "--num-generations", "6", "--per-device-train-batch-size", "6"])


@pytest.mark.parametrize("module", [sft.settings, rl.settings, gpt4roi], ids=lambda module: module.__name__)
def test_our_keys_are_none_of_trls(module: Any) -> None:
    ours = {one.name for one in fields(module.RunConfig)}
    theirs = {one.name for kind in (SFTConfig, GRPOConfig, ModelConfig) for one in fields(kind)}
    assert not ours & theirs
    assert not set(keys.ALIASES) & (ours | theirs)


def test_the_agent_is_described_as_everywhere() -> None:
    described = {one.name for one in fields(AgentConfig)} & {one.name for one in fields(RunConfig)}
    assert {one.name for one in fields(AgentConfig)} - described == {
        *("model", "base_url", "coordinates", "device", "dtype", "attn", "vllm_options"),  # the model in training
        *("retry_seconds", "image_folder", "jpeg", "reasoning"),  # of a served model
        "crop",  # `eval_blank` is the control
        *("temperature", "top_p", "seed"),  # TRL's
    }
    assert {one.name for one in fields(Source)} <= {one.name for one in fields(RunConfig)}


@pytest.mark.parametrize(
    ("parse", "strategy"), [(sft.settings.parse, "always-zoom"), (rl.settings.parse, "focus")], ids=["sft", "rl"]
)
def test_training_has_the_agents_options(parse: Any, strategy: str, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Look closely.")
    given = (
        f"--enlarge 3 --max-zooms 4 --min-side 56 --zoom-scale 1.5 --max-tokens 99 --strategy {strategy} --timeout 5"
    )
    given += f" --overview-pixels 50176 --zoom_pixels 12544 --system-prompt {tmp_path}/system.txt --resolutions 224,448"
    settings = parse([*BASE, *given.split(), "-o", str(tmp_path), "--attn", "sdpa"])
    assert settings.run.agent_config() == AgentConfig(
        enlarge=3,
        max_zooms=4,
        min_side=56,
        zoom_scale=1.5,
        max_tokens=99,
        strategy=strategy,
        timeout=5,
        overview_pixels=50176,
        zoom_pixels=12544,
        system_prompt="Look closely.",
    )
    assert settings.run.resolutions == (224, 448)
    assert (settings.training.output_dir, settings.model.attn_implementation) == (str(tmp_path), "sdpa")


def test_a_configuration_may_use_the_same_names(tmp_path: Path) -> None:
    wanted = {"model": "nano", "data": "none", "max-zooms": 2, "output": str(tmp_path), "resolutions": "224,448"}
    wanted |= {"column": ["question=query", "answer=solution"], "use-cpu": True, "learning-rate": 0.5}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(wanted))
    settings = rl.settings.parse(["--config", str(path), "--max_zooms=3"])
    assert (settings.run.max_zooms, settings.run.resolutions) == (3, (224, 448))
    assert (settings.training.learning_rate, settings.training.output_dir) == (0.5, str(tmp_path))
    assert settings.run.columns == {"question": "query", "answer": "solution"}


def test_columns_are_given_one_by_one_or_together() -> None:
    for given in (["--column", "a=b", "--column", "c=d"], ["--column", "a=b", "c=d"]):
        assert keys.given(given) == {"column": ["a=b", "c=d"]}
    assert keys.given(["--seed", "1", "--seed", "-2"]) == {"seed": ["-2"]}
    with pytest.raises(InputError, match="--rewards is given twice; give all its values at once"):
        keys.given(["--rewards", "accuracy", "--rewards", "format"])


@pytest.mark.parametrize(
    ("arguments", "config", "sentence"),
    [
        ([], None, "say what to train: --config FILE.yaml"),
        (["nano.yaml"], None, "there is no place for nano.yaml"),
        (["--config"], None, "--config needs the path"),
        (["--model", "nano"], None, "say what to train on: --data"),
        (["--data", "x"], None, "say which model to train: --model"),
        (["--learning_rat", "1"], None, "there is no setting learning_rat; did you mean learning_rate?"),
        (["--turn-tokens", "1"], None, "there is no setting turn_tokens"),
        (["--lora-rank", "8"], None, "there is no setting lora_rank; did you mean lora_r?"),
        (["--dataset-name", "x"], None, "there is no setting dataset_name; did you mean data?"),
        (["--do-eval", "true"], None, "do_eval would do nothing here: set eval_strategy"),
        (["--eval-packing", "true"], None, "eval_packing would do nothing here: rows are never packed"),
        (
            ["--remove-unused-columns", "true"],
            None,
            "remove_unused_columns would do nothing here: all columns are kept",
        ),
        (
            ["--bf16-full-eval", "true"],
            None,
            "bf16_full_eval would do nothing here: the agent answers as precisely",
        ),
        (["--lora-task-type", "SEQ_CLS"], None, "lora_task_type would do nothing here: an adapter is always one of a"),
        ([], "learning-rat: 1", "there is no setting learning_rat; did you mean learning_rate?"),
        ([], "- a\n- b", "must be keys with values"),
        ([], "a: [", "is no YAML"),
        (["--max-zooms", "-1"], None, "max_zooms must be 0 or more"),
        (["--strategy", "spiral"], None, "there is no strategy 'spiral'"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], config: str | None, sentence: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "run.yaml").write_text(config)
        arguments = ["--config", str(tmp_path / "run.yaml")]
    elif sentence.startswith(("max_zooms", "there is no strategy")):
        arguments = [*BASE, *arguments]
    with pytest.raises(InputError) as caught:
        sft.settings.parse(arguments)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_an_evaluation_that_is_not_trls_are_refused() -> None:
    """What only its own loop reads."""
    reads: dict[str, set[str]] = {}
    for trainer in (Trainer, GRPOTrainer, SFTTrainer):
        for function in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(trainer)))):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("args"):
                        reads.setdefault(node.attr, set()).add(function.name)
    settings = keys.fields_of("GRPOConfig").keys() | keys.fields_of("SFTConfig").keys()
    unread = {name for name in settings & reads.keys() if reads[name] <= {"evaluation_loop", "prediction_step"}}
    assert "eval_accumulation_steps" in unread and unread - {"torch_compile"} <= set(keys.INSTEAD)


def test_local_places_are_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    for model, data in (("outputs/typo", "x/y"), ("nano", "outputs/typo"), ("nano", "owner/set.parquet")):
        with pytest.raises(InputError, match="there is no"):
            keys.check_places({"model_name_or_path": model, "data": data})
    keys.check_places({"model_name_or_path": "owner/model", "data": "owner/set"})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("max_tokens: [512]", "max_tokens must be a whole number, not [512]."),
        ("max_zooms: six", "max_zooms must be a whole number, not 'six'."),
        ("max_steps: 1.5", "max_steps must be a whole number, not 1.5."),
        ("learning_rate: [1]", "learning_rate must be a number, not [1]."),
        ("freeze_vision: 3", "freeze_vision must be true or false, not 3."),
        ("freeze_vision: maybe", "freeze_vision must be true or false, not 'maybe'."),
        ("timeout: []", "timeout must be a number, not []."),
        ("overview_pixels: {a: 1}", "overview_pixels must be a whole number, not {'a': 1}."),
        ("dialect: 5", "dialect must be a text, not 5."),
        ("tools: 5", "tools must be a text or a list, not 5."),
        ("reward_weights: [a, b]", "reward_weights must be a number or a list, not ['a', 'b']."),
        ("reward_weights: heavy", "reward_weights must be a number or a list, not 'heavy'."),
        ("seed: 1\nseed: 2", "seed twice; keep one of them."),
        ("model: nano\nmodel_name_or_path: nano", "model_name_or_path twice; keep one of them."),
    ],
)
def test_a_value_of_another_type_is_told_with_its_file(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError) as error:
        keys.check(keys.given(["--config", str(path), *BASE]), rl.settings.RunConfig, "GRPOConfig")
    assert str(error.value).startswith(f"the config {path}") and str(error.value).endswith(sentence)


@pytest.mark.parametrize("value", ["1e-4", "0.5", "3"])
def test_a_number_may_be_a_text(value: str, tmp_path: Path) -> None:
    """YAML takes 1e-4 for one."""
    path = tmp_path / "a.yaml"
    path.write_text(
        f"learning_rate: {value}\neval_strategy: no\nuse_cpu: 'true'\nmax_steps: 100.0\nlora_alpha: 16.0\nsplit: 2014\n"
        "reward_weights: [1, 0.5]\n"
    )
    keys.check(keys.given(["--config", str(path), *BASE]), rl.settings.RunConfig, "GRPOConfig")


def test_the_best_checkpoint_is_chosen_by_a_figure_that_is_measured() -> None:
    asked = [*BASE, "--eval-data", "tests", "--eval-strategy", "steps", "--save-steps", "500", "--report-to", "none"]
    for given, sentence in (
        (["--load-best-model-at-end", "true"], "needs metric_for_best_model: one of accuracy"),
        (["--metric-for-best-model", "acuracy"], "did you mean accuracy"),
        (["--metric-for-best-model", "loss"], "metric_for_best_model"),
        (["--metric-for-best-model", "crop_gain"], "needs eval_blank"),
    ):
        with pytest.raises(InputError, match=sentence):
            sft.settings.parse([*asked, *given])
    for metric, more in (("eval_accuracy", True), ("malformed", False), ("zooms", False)):
        assert sft.settings.parse([*asked, "--metric-for-best-model", metric]).training.greater_is_better is more
    own = ["--metric-for-best-model", "zooms", "--greater-is-better", "true"]
    assert sft.settings.parse([*asked, *own]).training.greater_is_better is True


@pytest.mark.parametrize("parse", [sft.settings.parse, rl.settings.parse], ids=["sft", "rl"])
def test_a_run_is_not_published_with_its_data(parse: Any, tmp_path: Path) -> None:
    """The sentence tells a command that uploads the model and nothing else."""
    asked = [*BASE, "--report-to", "none", "-o", str(tmp_path / "a run")]
    with pytest.raises(
        InputError, match="push_to_hub: leave it out, since it publishes the whole output_dir"
    ) as caught:
        parse([*asked, "--push-to-hub", "true"])
    parse([*asked, "--push-to-hub", "false"])
    words = shlex.split(str(caught.value).partition("give: ")[2].removesuffix("."))
    assert words[:5] == ["hf", "upload", "REPO", str(tmp_path / "a run"), "."]
    include, exclude = (
        [words[at + 1] for at, word in enumerate(words) if word == f"--{kind}clude"] for kind in ("in", "ex")
    )
    model = {
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "adapter_model.safetensors",
        "dialect.yaml",
    }
    model |= {path.name for path in WEIGHTS.iterdir()} | {"adapter_config.json", "processor_config.json"}
    private = {"run.json", "trajectories.jsonl", "left_out.jsonl", "eval/step-5.jsonl", "judge/0.jsonl", "images/a.png"}
    private |= {"trainer_state.json", "training_args.bin", "checkpoint-5/config.json", "checkpoint-5/model.safetensors"}
    uploaded = filter_repo_objects(sorted(model | private), allow_patterns=include, ignore_patterns=exclude)
    assert set(uploaded) == model


def test_held_out_samples_that_are_never_asked_about_are_refused() -> None:
    with pytest.raises(InputError, match="eval_data does nothing without eval_strategy"):
        rl.settings.parse([*BASE, "--eval-data", "tests", "--report-to", "none"])
    with pytest.raises(InputError, match="samples must be at least 0, not -5"):
        rl.settings.parse([*BASE, "--samples", "-5", "--report-to", "none"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_machine_without_a_gpu_can_plan_for_one() -> None:
    given = ["--config", "rl/configs/qwen2.5-vl-7b-8gpu.yaml", "--data", "tests"]
    with pytest.raises(InputError, match="there is no GPU here"):
        rl.settings.parse(given)
    for asked in (["--dry_run", "true"], ["--dry-run"], ["--dry_run=True"]):
        assert rl.settings.parse([*given, *asked]).training.use_cpu
    with pytest.raises(InputError, match="there is no GPU here"):
        rl.settings.parse([*given, "--dry_run", "false"])
