"""Every shipped configuration is understood, and `--dry_run true` says what a run would do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from transformers import AutoConfig
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, PixelLimits
from cof_agent.nano import WEIGHTS
from cof_agent.training import memory, stacks
from cof_agent.training.memory import ADAPTERS, ENDS, LANGUAGE, Part, Sharding
from cof_agent.training.plan import Steps
from cof_agent.trajectory import Sample, StopReason, Trajectory, Turn, to_json
from sft import plan
from sft.settings import Settings, parse
from sft.train import main

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "sft" / "configs").glob("*.yaml"))
# Those of `accelerate`, and of `sft.papers.gpt4roi`, whose own tests read it, are for others to understand.
RUNS = [path for path in CONFIGS if not {"distributed_type", "stage"} & set(yaml.safe_load(path.read_text()))]
pytestmark = pytest.mark.usefixtures("at_the_root")
DEEPSPEED = sorted((ROOT / "sft" / "configs" / "deepspeed").glob("*.json"))


@pytest.fixture(scope="module")
def folder(picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trajectories of one zoom, as `cof collect` leaves them."""
    environment = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE, PixelLimits(28, 3136, 224 * 224, 112 * 112)))
    zoom, answer = protocol.write_zoom("Too small.", Box(28, 28, 84, 84)), protocol.write_answer("I see it.", "round")
    lines = []
    for number in range(6):
        sample = Sample(str(number), str(picture), "What shape is it?", ("round",))
        overview = environment.reset(sample)
        seen = tuple(environment.step(protocol.parse(zoom), [overview]))
        turns = (Turn(zoom, protocol.parse(zoom), seen), Turn(answer, protocol.parse(answer)))
        made = Trajectory(
            sample, overview, turns, StopReason.ANSWERED, "round", settings=environment.settings.to_dict()
        )
        lines.append(to_json(made) + "\n")
    path = tmp_path_factory.mktemp("collected")
    (path / "trajectories.jsonl").write_text("".join(lines))
    return path


def settings_of(*options: str) -> Settings:
    return parse(["--use_cpu", "true", "--data", "none", "--model_name_or_path", "nano", *options])


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_config_is_understood(path: Path) -> None:
    settings = parse(["--config", str(path), "--use_cpu", "true"])
    given = yaml.safe_load(path.read_text())
    assert settings.max_length == given.get("max_length", 1024)
    assert settings.training.learning_rate == given["learning_rate"]
    assert is_deepspeed_zero3_enabled() == (given.get("deepspeed") == "sft/configs/deepspeed/zero3.json")


def test_the_papers_recipe() -> None:
    settings = parse(["--config", "sft/configs/qwen2.5-vl-7b-lora.yaml", "--use_cpu", "true"])
    training, run = settings.training, settings.run
    assert (settings.model.lora_r, run.freeze_vision, run.freeze_projector) == (32, True, False)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 2)
    assert (training.learning_rate, training.num_train_epochs) == (1e-5, 3)
    assert (training.lr_scheduler_type, training.get_warmup_steps(500)) == ("cosine", 50)
    assert (run.min_pixels, run.max_pixels) == (112**2, 3840**2)


@pytest.mark.parametrize("path", DEEPSPEED, ids=lambda path: path.stem)
def test_a_deepspeed_config_is_valid(path: Path) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    filled = {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0,
    }
    given = json.loads(path.read_text())
    for kind in ("bf16", "fp16"):
        given[kind]["enabled"] = kind == "bf16"
    given |= {name: filled[name] for name, value in given.items() if value == "auto"}
    given["zero_optimization"] = {name: v for name, v in given["zero_optimization"].items() if v != "auto"}
    assert DeepSpeedConfig(given).zero_config.stage == (2 if path.stem == "zero2" else 3)


def test_the_fsdp_config_is_accelerates() -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.config.config_args import load_config_from_file

    given = load_config_from_file("sft/configs/fsdp2.yaml").fsdp_config
    plain = {name.removeprefix("fsdp_"): value for name, value in given.items()}
    plain["fsdp_version"], plain["cpu_offload"] = plain.pop("version"), plain.pop("offload_params")
    plugin = FullyShardedDataParallelPlugin(**plain)
    assert plugin.fsdp_version == 2
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)  # else the trainer writes no model
    settings = parse(
        ["--config", "sft/configs/qwen2.5-vl-7b-lora.yaml", "--use_cpu", "true", "--deepspeed", ""]
    )  # as the comment in the file says
    assert settings.training.deepspeed_plugin is None


ALL = [Part(LANGUAGE, 1000, 1000, 2000, 2000)]
"""A thousand weights in bfloat16, all trained."""
LORA = [Part(LANGUAGE, 1000, 0, 2000, 0), Part(ADAPTERS, 100, 100, 400, 400)]
"""The same, frozen, with a hundred float32 weights beside them."""
FOUR_BIT = [Part(LANGUAGE, 1000, 0, 500, 0), Part(ADAPTERS, 100, 100, 200, 200)]


@pytest.mark.parametrize(
    ("parts", "sharding", "weights", "gradients", "optimizer", "gathered", "offloaded"),
    [
        (LORA, Sharding(), 2400, 400, 800, 0, 0),
        (LORA, Sharding(processes=4), 2400, 400, 800, 0, 0),
        (FOUR_BIT, Sharding(), 700, 200, 400, 0, 0),
        (ALL, Sharding("DeepSpeed", 0, 4, master=True), 2000, 2000, 12000, 0, 0),
        (ALL, Sharding("DeepSpeed", 2, 4, master=True), 2000, 500, 3000, 0, 0),
        (ALL, Sharding("DeepSpeed", 3, 4, master=True, gathered=100), 500, 500, 3000, 200, 0),
        (ALL, Sharding("DeepSpeed", 2, 4, True, False, True), 2000, 0, 0, 0, 3500),
        (ALL, Sharding("DeepSpeed", 3, 4, True, True, True, 5000), 0, 0, 0, 2000, 4000),
        (ALL, Sharding("FSDP", 3, 4, gathered=250), 500, 500, 1000, 500, 0),
    ],
)
def test_memory_by_hand(
    parts: list[Part],
    sharding: Sharding,
    weights: float,
    gradients: float,
    optimizer: float,
    gathered: float,
    offloaded: float,
) -> None:
    assert memory.memory(parts, sharding) == memory.Memory(weights, gradients, optimizer, gathered, offloaded)


def test_what_a_deepspeed_config_asks_for() -> None:
    given = {path.stem: json.loads(path.read_text()) | {"bf16": {"enabled": True}} for path in DEEPSPEED}
    found = {name: memory.deepspeed_sharding(config, 8) for name, config in given.items()}
    assert found["zero2"] == Sharding("DeepSpeed", 2, 8, master=True)
    assert found["zero3"] == Sharding("DeepSpeed", 3, 8, master=True, gathered=10**9)
    assert found["zero3_offload"] == Sharding("DeepSpeed", 3, 8, True, True, True, 10**9)


def test_activations_and_loss_by_hand() -> None:
    stack = stacks.Stack(layers=2, hidden=10, keys=4, inner=20)
    layer = 3 * (31 * 10 + 4 * 4 + 9 * 20)
    assert stacks.activations(stack, 3, checkpointed=False) == 2 * layer == 3036
    assert stacks.activations(stack, 3, checkpointed=True) == 2 * 3 * 2 * 10 + layer == 1638
    assert stacks.activations(stack, 3, checkpointed=True, wide=True) == 2 * 1638
    hybrid = replace(stack, more=(5, 7), states=(100,))
    assert stacks.activations(hybrid, 3, checkpointed=False) == 3036 + 3 * 12 and hybrid.caching == 1
    assert stacks.activations(hybrid, 3, checkpointed=True) == 1638 + 3 * 7
    assert memory.loss(5000, 10, 40000, head_trained=False) == 2 * 4096 * 32768 + 4 * 5000 * 10
    assert memory.loss(100, 10, 500, head_trained=True) == 2 * 100 * 500 + 4 * 100 * 10 + 4 * 500 * 10


def test_tiles_are_trls() -> None:
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
    from trl.trainer import utils

    assert (memory.TOKEN_TILE, memory.VOCABULARY_TILE) == (TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)


def saved_bytes(model: Any, tokens: int) -> int:
    """What autograd keeps of a pass through the language model, weights apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = tensor
        return tensor

    base = model.get_base_model()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedded = base.get_input_embeddings()(torch.arange(tokens)[None] % 400)
        base.model.language_model(inputs_embeds=embedded, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def test_activations_are_about_what_autograd_saves() -> None:
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    from cof_agent.training.models import lora

    model = AutoModelForImageTextToText.from_pretrained(WEIGHTS, dtype=torch.bfloat16)
    settings = settings_of("--use_peft", "true", "--freeze_vision", "true", "--freeze_projector", "true")
    adapted = get_peft_model(model, lora(settings, model.config), autocast_adapter_dtype=False)
    found = saved_bytes(adapted.train(), 256)
    assert stacks.activations(stacks.language_stack(model.config), 256, checkpointed=False) == pytest.approx(
        found, rel=1 / 3
    )


def test_activations_of_linear_attention_are_what_autograd_saves() -> None:
    """In the shapes of real layers, one of each kind, by the implementation of transformers."""
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    from cof_agent.training.models import lora

    text = {
        **{"hidden_size": 512, "intermediate_size": 1024, "vocab_size": 500, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": ["linear_attention", "full_attention"]},
        **{"linear_num_key_heads": 4, "linear_num_value_heads": 8},
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 512}
    config = AutoConfig.for_model("qwen3_5", text_config=text, vision_config=vision)
    model = AutoModelForImageTextToText.from_config(config).to(torch.bfloat16)
    settings = settings_of("--use_peft", "true", "--freeze_vision", "true", "--freeze_projector", "true")
    adapted = get_peft_model(model, lora(settings, config), autocast_adapter_dtype=False)
    found = saved_bytes(adapted.train(), 256)
    assert stacks.activations(stacks.language_stack(config), 256, checkpointed=False) == pytest.approx(
        found, rel=1 / 10
    )


@pytest.mark.parametrize(
    ("samples", "batch", "processes", "accumulation", "expected"),
    [(10, 2, 2, 2, Steps(8, 2, 6)), (8, 8, 1, 1, Steps(8, 1, 3)), (5400, 2, 8, 2, Steps(32, 169, 507))],
)
def test_steps(samples: int, batch: int, processes: int, accumulation: int, expected: Steps) -> None:
    training = SimpleNamespace(
        per_device_train_batch_size=batch,
        world_size=processes,
        gradient_accumulation_steps=accumulation,
        dataloader_drop_last=False,
        max_steps=-1,
        num_train_epochs=3,
    )
    assert plan.steps_of(training, samples) == expected


def parts_of(settings: Settings) -> dict[str, Part]:

    parts = memory.parts_of(AutoConfig.from_pretrained(WEIGHTS), settings, memory.sharding_of(settings))
    return {part.name: part for part in parts}


def test_parts_are_held_as_trained() -> None:
    whole = parts_of(settings_of())
    assert sum(part.weights for part in whole.values()) == sum(part.trained for part in whole.values()) == 3_640_576
    assert whole[ENDS].bytes == 4 * whole[ENDS].weights  # nano's head is its embedding, counted once
    frozen = parts_of(settings_of("--freeze_vision", "true", "--freeze_projector", "true", "--dtype", "bfloat16"))
    assert [name for name, part in frozen.items() if part.trained == 0] == [memory.TOWER, memory.PROJECTOR]
    assert frozen[LANGUAGE].trained_bytes == 4 * frozen[LANGUAGE].trained  # the trainer widens it
    assert memory.rounded_away(list(frozen.values()), Sharding()) == []
    narrow = parts_of(settings_of("--freeze_vision", "true", "--dtype", "bfloat16", "--bf16", "false"))
    assert memory.rounded_away([narrow[LANGUAGE], narrow[ENDS]], Sharding()) == [LANGUAGE, ENDS]


def test_parts_under_lora_and_in_four_bit() -> None:
    options = ("--use_peft", "true", "--lora_r", "8", "--freeze_vision", "true", "--dtype", "bfloat16")
    adapted = parts_of(settings_of(*options))
    assert adapted[ADAPTERS].trained_bytes == 4 * adapted[ADAPTERS].trained > 0
    assert adapted[memory.PROJECTOR].weights == 2 * adapted[memory.PROJECTOR].trained
    settings = settings_of(*options, "--deepspeed", "sft/configs/deepspeed/zero3.json")
    zero3 = parts_of(settings)
    assert zero3[ADAPTERS].trained_bytes == 2 * adapted[ADAPTERS].trained
    assert is_deepspeed_zero3_enabled()  # as before the model was built
    four = parts_of(settings_of(*options, "--freeze_projector", "true", "--load_in_4bit", "true"))
    assert four[ENDS].bytes == 2 * four[ENDS].weights
    assert 0.5 * four[LANGUAGE].weights < four[LANGUAGE].bytes < 0.51 * four[LANGUAGE].weights


def test_a_dry_run_of_nano(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    given = {"model_name_or_path": "nano", "data": folder, "use_cpu": "true", "dry_run": "true", "output_dir": output}
    before = sorted(folder.rglob("*"))
    main([text for name, value in given.items() for text in (f"--{name}", str(value))])
    printed = capsys.readouterr().out
    for text in ("3,640,576", "vision tower", "samples a step", "3: 3.00 epochs of 1", "estimate", "AdamW", "GiB"):
        assert text in printed, text
    assert "Warning" not in printed
    assert not output.exists() and sorted(folder.rglob("*")) == before


def test_a_dry_run_loads_no_weights(folder: Path, weightless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"model_name_or_path": weightless, "data": folder, "use_cpu": "true", "dry_run": "true"}
    given |= {"min_pixels": 784, "output_dir": weightless / "run"}
    options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    main(["--config", "sft/configs/qwen2.5-vl-7b-lora.yaml", *options])
    printed = capsys.readouterr().out
    for text in (ADAPTERS, "PEFT keeps the projector twice", "DeepSpeed stage 3", "gathered", "max_length"):
        assert text in printed, text


def test_of_the_curriculum_a_few_rows_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--config", "sft/configs/nano.yaml", "--model_name_or_path", "nano", "--dry_run", "true"])
    printed = capsys.readouterr().out
    assert "80,000" in printed and "about" in printed
    assert "activations, vision" not in printed  # the tower is frozen


def test_lora_on_nothing_is_said_in_a_sentence(folder: Path) -> None:
    options = ["--use_peft", "true", "--lora_target_modules", "none_such", "--data", str(folder), "--dry_run", "true"]
    with pytest.raises(InputError, match="LoRA cannot be put on the model: No modules were targeted"):
        main(["--model_name_or_path", "nano", "--use_cpu", "true", *options])
