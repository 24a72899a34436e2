"""Every shipped configuration of RL is understood, and `--dry_run true` says what a run would do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from cof_agent import protocol
from cof_agent.backends.checkpoint import load
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import episodes
from cof_agent.errors import InputError
from cof_agent.geometry import PixelLimits
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.training import memory, stacks
from cof_agent.training import plan as shared
from cof_agent.training.memory import ADAPTERS, LANGUAGE, Part, Row, Sharding
from cof_agent.trajectory import Sample, to_json
from rl import plan, serve
from rl.settings import Settings, parse
from rl.train import build_trainer, main
from tests.pairs import pair

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "rl" / "configs").glob("*.yaml"))
PAPER = ("qwen2.5-vl-7b-8gpu", "qwen2.5-vl-7b-2node-server")
pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.fixture(scope="module")
def data(picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples, no two of whose questions are of the same length."""
    folder = tmp_path_factory.mktemp("samples")
    asked = [Sample(str(n), str(picture), f"What shape is it?{' Look.' * n}", ("round",)) for n in range(10)]
    (folder / "samples.jsonl").write_text("".join(to_json(sample) + "\n" for sample in asked))
    return folder


def configured(name: str, *options: str) -> Settings:
    return parse(["--config", f"rl/configs/{name}.yaml", "--use_cpu", "true", *options])


def settings_of(*options: str) -> Settings:
    return parse(["--use_cpu", "true", "--data", "none", "--model_name_or_path", "nano", *options])


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_config_is_understood(path: Path) -> None:
    settings, given = configured(path.stem), yaml.safe_load(path.read_text())
    for name, value in given.items():
        holder: Any = next(one for one in (settings.run, settings.model, settings.training) if hasattr(one, name))
        if name not in ("model_name_or_path", "deepspeed", "report_to"):  # these are resolved
            found = getattr(holder, name)
            assert getattr(found, "value", found) == value, name
    assert is_deepspeed_zero3_enabled() == (given.get("deepspeed") == "sft/configs/deepspeed/zero3.json")
    assert len(settings.run.rewards) == len(settings.training.reward_weights)


def test_what_a_config_shows_in_comments_can_be_used(tmp_path: Path) -> None:
    text = (ROOT / "rl" / "configs" / f"{PAPER[0]}.yaml").read_text()
    shown = yaml.safe_load("\n".join(re.findall(r"^# (\w+: .+)$", text, re.MULTILINE)))
    assert {"beta", "epsilon_high", "importance_sampling_level", "loss_type", "mask_truncated_completions"} < set(shown)
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(yaml.safe_load(text) | shown))
    settings = parse(["--config", str(changed), "--use_cpu", "true"])
    for name, value in shown.items():
        found = getattr(settings.run if hasattr(settings.run, name) else settings.training, name)
        assert getattr(found, "value", found) == value, name


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipe(name: str) -> None:
    settings = configured(name)
    training, run = settings.training, settings.run
    rollouts = 8 * training.per_device_train_batch_size * training.gradient_accumulation_steps
    assert (rollouts, training.num_generations) == (64 * 6, 6)
    assert training.steps_per_generation == training.gradient_accumulation_steps
    assert (training.learning_rate, training.beta, training.temperature) == (1e-6, 0.001, 1.0)
    assert (run.agent_config().zooms + 1, run.agent_config().turn_tokens) == (4, 512)


def test_a_server_is_told_what_its_run_says() -> None:
    own = ["--vllm_options", "enforce-eager", "data-parallel-size=2"]
    settings = configured(PAPER[1], "--vllm_server_port", "8123", "--model_name_or_path", "outputs/other", *own)
    command = serve.command_of(settings, "10.0.0.7")
    assert command[command.index("serve") + 1] == "outputs/other"
    given = {"--host=10.0.0.7", "--port=8123", "--tensor-parallel-size=4", "--max-model-len=8192", "--dtype=bfloat16"}
    given |= {"--gpu-memory-utilization=0.9", "--enforce-eager", "--data-parallel-size=2"}
    assert given <= set(command)
    assert '--mm-processor-kwargs={"max_pixels": 1003520}' in command
    assert "--host=127.0.0.1" in serve.command_of(settings)
    assert "--mm-processor-cache-gb=4" in command  # one process trains
    with serve.training_with(8):
        settings = configured(PAPER[1])
    assert "--mm-processor-cache-gb=16" in serve.command_of(
        settings
    )  # 384 conversations of 1,756,160 pixels, 24 bytes each
    with pytest.raises(InputError, match="asks for no server"):
        serve.command_of(configured(PAPER[0]))


def test_an_engine_takes_whatever_size_the_agent_shows() -> None:
    for options, most in (
        (["--overview_pixels", "1003520"], 1003520),
        (["--overview_pixels", "50176", "--zoom_pixels", "100352"], 100352),
        (["--overview_pixels", "50176", "--resolutions", "224,448"], 448 * 448),
    ):
        settings = settings_of("--use_vllm", "true", "--vllm_mode", "server", *options)
        assert f'--mm-processor-kwargs={{"max_pixels": {most}}}' in serve.command_of(settings)


def test_what_the_run_decides_is_no_option_of_vllm() -> None:
    for option in ("dtype=bfloat16", "max_model_len=100"):
        with pytest.raises(InputError, match="vllm_options: leave"):
            settings_of("--vllm_options", option)


def test_dropout_in_adapters_is_refused() -> None:
    with pytest.raises(InputError, match="played without dropout.* set lora_dropout to 0, not 0.05"):
        settings_of("--use_peft", "true")


def test_an_engine_computes_as_the_training_does() -> None:
    for options, wanted in (
        (["--bf16", "false"], "float32"),
        (["--bf16", "true"], "bfloat16"),
        (["--bf16", "false", "--dtype", "bfloat16"], "bfloat16"),
        (["--bf16", "false", "--dtype", "auto"], "bfloat16"),  # nano's own
    ):
        settings = settings_of("--use_vllm", "true", "--vllm_mode", "server", *options)
        assert f"--dtype={wanted}" in serve.command_of(settings)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, shared.Steps(8, 2, 4)),
        ({"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2}, shared.Steps(4, 8, 16)),
        ({"per_device_train_batch_size": 8, "max_steps": 3}, shared.Steps(8, 2, 3)),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 1}, shared.Steps(24, 1, 2)),
    ],
)
def test_steps_are_counted_as_the_trainer_counts_them(
    options: dict[str, int], expected: shared.Steps, data: Path, tmp_path: Path
) -> None:
    fixed = {"data": data, "output_dir": tmp_path, "num_train_epochs": 2, "num_generations": 2, "bf16": "false"}
    settings = settings_of(*(text for name, value in (fixed | options).items() for text in (f"--{name}", str(value))))
    assert plan.steps_of(settings.training, 10) == expected
    trainer = build_trainer(settings)
    *_, total = trainer.set_initial_training_values(settings.training, trainer.get_train_dataloader())
    assert total == expected.total


def test_the_longest_prompt_is_what_the_agent_is_asked(data: Path, tmp_path: Path) -> None:
    policy, samples = load(NANO), [*read_samples(data), pair(tmp_path)]
    settings = ZoomSettings(policy.coordinates, policy.limits)
    environment, asked = ZoomEnvironment(settings), []
    for sample in samples:
        overviews = environment.overviews(sample)
        messages = protocol.opening(sample, *overviews, system=settings.system)
        images = [environment.image(sample, view) for view in overviews]
        asked.append(len(policy.read(policy.render(messages), images)[0]))
    assert len(set(asked)) > 1
    found = plan.longest_prompt(episodes(samples), policy._processor, settings)
    assert found == plan.Prompt(max(asked), sum(view.shown_size.area for view in overviews) // 28**2)
    wordy = plan.longest_prompt(episodes(samples), policy._processor, settings, "Look closely. " * 400)
    assert wordy.tokens > found.tokens


def test_the_longest_conversation_and_what_cuts_it_off() -> None:
    limits = PixelLimits(28, 3136, 100 * 28 * 28, 25 * 28 * 28)
    options = ["--max_zooms", "2", "--max_tokens", "50", "--use_vllm", "true", "--max_completion_length"]
    wide, tight = settings_of(*options, "200"), settings_of(*options, "199", "--vllm_max_model_length", "328")
    longest = plan.conversation_of(wide, plan.Prompt(130, 100), limits)
    assert longest == plan.Conversation(330, 150, 200)
    assert plan.warnings(wide, longest, limits) == []
    turns, length = plan.warnings(tight, plan.conversation_of(tight, plan.Prompt(130, 100), limits), limits)
    assert "may need 200 tokens, more than max_completion_length 199" in turns
    assert "vllm_max_model_length 328 is less" in length
    assert plan.conversation_of(settings_of(*options, "20"), plan.Prompt(9, 9), limits).image_tokens == 29


def test_a_run_warns_of_trls_length_which_holds_no_crops(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = (
        "turns and crops may need [0-9,]+ tokens, more than max_completion_length 512, which then ends .*; raise it"
    )
    for options, said in (([], True), (["--max_completion_length", "500"], False), (["--max_zooms", "0"], False)):
        caplog.clear()
        fixed = ["--data", str(data), "--output_dir", str(tmp_path), "--bf16", "false", "--max_tokens", "99"]
        build_trainer(settings_of(*fixed, *options))
        assert bool(re.search(sentence, caplog.text)) == ("which then ends" in caplog.text) == said, options


ALL = [Part(LANGUAGE, 1000, 1000, 2000, 2000)]
LORA = [Part(LANGUAGE, 1000, 0, 2000, 0), Part(ADAPTERS, 100, 100, 400, 400)]


def model_of(parts: list[Part], sharding: Sharding) -> shared.Model:
    from transformers import AutoConfig

    return shared.Model(AutoConfig.from_pretrained(WEIGHTS), parts, sharding)


def test_the_reference_model_by_hand() -> None:
    bf16 = ("--dtype", "bfloat16")
    kl, no_kl, lora = (
        settings_of(*bf16, "--beta", beta, *rest)
        for beta, *rest in (["0.1"], ["0"], ["0.1", "--use_peft", "--lora_dropout", "0"])
    )
    assert [row.bytes for row in plan.reference(kl, model_of(ALL, Sharding()))] == [2000]
    assert [row.bytes for row in plan.reference(kl, model_of(ALL, Sharding("DeepSpeed", 3, 4, True)))] == [500]
    assert [row.bytes for row in plan.reference(kl, model_of(ALL, Sharding("DeepSpeed", 2, 4, True)))] == [2000]
    assert plan.reference(no_kl, model_of(ALL, Sharding())) == plan.reference(lora, model_of(LORA, Sharding())) == []


def test_what_is_shared_of_images_by_hand() -> None:
    config = model_of(ALL, Sharding()).config  # nano's: one level, towers of 4 patches a token
    frozen = [
        "--freeze_vision",
        "true",
        "--per_device_train_batch_size",
        "8",
        "--num_generations",
        "4",
        "--dtype",
        "bfloat16",
    ]
    prompt, longest = plan.Prompt(130, 100), plan.Conversation(330, 150, 200)
    cells = 2 * 100 + 8 * 50
    outputs, states = 2 * config.text_config.hidden_size, 2 * 4 * config.vision_config.hidden_size
    for options, expected in (
        (["--freeze_projector", "true"], cells * outputs),
        ([], cells * states),
        (["--vision_cache", "0.0001"], 0.0001 * 2**30),
    ):
        (row,) = plan.shared_vision(settings_of(*frozen, *options), config, prompt, longest)
        assert row.bytes == expected
    assert plan.shared_vision(settings_of(*frozen, "--vision_cache", "0"), config, prompt, longest) == []
    assert plan.shared_vision(settings_of(), config, prompt, longest) == []


def test_memory_in_play_by_hand() -> None:
    longest = plan.Conversation(10, 4, 6)
    held = [Row("weights", "", 2400), Row("gradients", "", 400), Row("optimiser", "", 800), Row("pixels", "", 9)]
    found = memory.Estimate(held, [], [], True, 0)
    stack = stacks.language_stack(model_of(ALL, Sharding()).config)
    value = 10 * stack.layers * 2 * stack.keys  # of one conversation
    colocated = settings_of("--use_vllm", "true", "--vllm_tensor_parallel_size", "2")
    rows = plan.playing(colocated, model_of(LORA, Sharding()), longest, found)
    assert [row.bytes for row in rows] == [3200, 1000, value, 4200 + value]  # adapters are merged
    rows = plan.playing(settings_of("--num_generations", "8"), model_of(LORA, Sharding()), longest, found)
    room = value * 138 // 10  # of 10 tokens and 128 new ones
    assert [row.bytes for row in rows] == [3200, 8 * 2 * room, 8 * 2 * value, 3200 + 16 * (room + value)]
    sharded = model_of(ALL, Sharding("DeepSpeed", 3, 4, True))
    rows = plan.playing(settings_of("--per_device_train_batch_size", "64"), sharded, longest, found)
    assert [row.bytes for row in rows] == [3200, 2000, 64 * room, 64 * value, 5200 + 64 * (room + value)]


def dry(capsys: pytest.CaptureFixture[str], config: str, **overrides: Any) -> str:
    given = {"use_cpu": "true", "dry_run": "true"} | overrides
    main(["--config", f"rl/configs/{config}.yaml", *(t for name, v in given.items() for t in (f"--{name}", str(v)))])
    return capsys.readouterr().out


def test_a_dry_run_of_nano(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, before = tmp_path / "run", sorted(data.rglob("*"))
    printed = dry(capsys, "nano", data=data, output_dir=output)
    for text in (
        "3,640,576",
        "10 with a known answer",
        "rollouts a step",
        "125: 125.00 epochs of 1",
        "8, each played 8 times",
    ):
        assert text in printed, text
    assert "transformers plays" in printed and "What is left of a GPU" not in printed
    assert not output.exists() and sorted(data.rglob("*")) == before


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            PAPER[0],
            (
                "DeepSpeed stage 3",
                plan.REFERENCE,
                plan.VISION,
                "keeps it while the model is trained",
                "What is left of a GPU",
            ),
        ),
        (PAPER[1], ("DeepSpeed stage 3", plan.REFERENCE, "A vLLM server plays")),
        ("qwen2.5-vl-3b-lora-1gpu", (ADAPTERS, "gives its weights and caches back", "What is left of a GPU")),
    ],
)
def test_a_dry_run_loads_no_weights(
    config: str, said: tuple[str, ...], data: Path, weightless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {"data": data, "model_name_or_path": weightless, "output_dir": weightless / "run"}
    plain = " ".join(dry(capsys, config, **overrides, gradient_accumulation_steps=6).split())
    for text in said:
        assert text in plain, text


def test_a_dry_run_under_fsdp_ends_as_the_run_would(
    data: Path, weightless: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="under FSDP the agent cannot play"):
        dry(capsys, "nano", data=data, model_name_or_path=weightless)
