"""The records of model families against transformers' own models, and a new family that is a record and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)
from transformers.quantizers.quantizers_utils import should_convert_module

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.backends import families
from cof_agent.backends.chat import connect
from cof_agent.backends.checkpoint import load
from cof_agent.backends.families import FAMILIES, QWEN2_5_VL, QWEN3_VL, Family, Markers, Vision
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.local.processor import load_processor
from cof_agent.cli import main as cof
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, PixelLimits, Size, View
from cof_agent.nano import build
from cof_agent.policy import Sampling, ScriptedPolicy
from cof_agent.protocol import Message, write_answer, write_zoom
from cof_agent.teacher.prompted import AskedLocator
from cof_agent.teacher.roles import Errand
from cof_agent.training import memory
from cof_agent.training.models import freeze, lora, quantization_of
from cof_agent.training.resume import train_and_save
from cof_agent.trajectory import Sample, StopReason, Trajectory, Turn, to_json
from rl.rollout import roll_out
from sft.collate import IGNORED, AssistantCollator
from sft.dataset import TrajectoryRows
from sft.frame import frame_of
from sft.settings import Settings, parse
from sft.train import build_trainer
from tests.checkpoints import CHAT_TEMPLATE, published_template

ROOT = Path(__file__).parents[2]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def weightless(folder: Path) -> Any:
    """The model of a checkpoint without memory for weights."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))


def linear(module: nn.Module, prefix: str) -> list[str]:
    """The paths of the linear layers in a part of a model."""
    return [f"{prefix}.{name}" for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def settings_of(model: Path, output: Path, **options: Any) -> Settings:
    given = {"data": "unused", "model_name_or_path": model, "output_dir": output, "use_cpu": "true", **options}
    return parse([text for name, value in given.items() for text in (f"--{name}", str(value))])


@pytest.fixture(scope="module")
def sample(picture: Path) -> Sample:
    return Sample("shapes", str(picture), "What is there?", ("7",))


class TestRecords:
    def test_are_data_that_need_no_model(self) -> None:
        code = "import sys, cof_agent.backends.families; print({'torch', 'transformers'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"

    def test_no_model_type_stands_for_two_families(self) -> None:
        listed = [name for family in FAMILIES for name in family.model_types]
        assert len(set(listed)) == len(listed)

    @each_family
    def test_grid_and_class_are_transformers_own(self, family: Family) -> None:
        for model_type in family.model_types:
            config = AutoConfig.for_model(model_type)
            assert families.of(config) is family
            assert type(config) in AutoModelForImageTextToText._model_mapping
            vision = config.vision_config
            assert (family.vision.patch, family.vision.merge) == (vision.patch_size, vision.spatial_merge_size)
            assert getattr(vision, family.modules.tower_width) > 0

    @each_family
    def test_modules_are_where_the_record_says(self, checkpoint: Callable[[str], Path], family: Family) -> None:
        modules = family.modules
        for model_type in family.model_types:
            model = weightless(checkpoint(model_type))
            tower, language = (model.get_submodule(path) for path in (modules.tower, modules.language))
            assert len(tower.get_submodule(modules.blocks)) == model.config.vision_config.depth
            assert sum(1 for _ in tower.get_submodule(modules.patches).parameters()) > 0
            assert language.get_submodule(modules.embeddings) is model.get_input_embeddings()
            assert model.get_submodule(modules.head) is model.get_output_embeddings()
            names = [name for name, _ in model.named_modules()]
            for projector in modules.projectors(model.config.vision_config):
                assert sum(name.endswith(projector) for name in names) == 1

    @each_family
    def test_every_parameter_is_in_the_part_that_holds_it(
        self, checkpoint: Callable[[str], Path], family: Family
    ) -> None:
        modules = family.modules
        for model_type in family.model_types:
            model = weightless(checkpoint(model_type))
            projectors = modules.projectors(model.config.vision_config)
            for name, _ in model.named_parameters():
                if name.startswith(f"{modules.tower}."):
                    inside = any(f".{projector}." in name for projector in projectors)
                    expected = memory.PROJECTOR if inside else memory.TOWER
                else:
                    ends = name.startswith((f"{modules.head}.", f"{modules.language}.{modules.embeddings}."))
                    expected = memory.ENDS if ends else memory.LANGUAGE
                for prefix in ("", "base_model.model."):
                    assert memory.part_name(prefix + name, modules) == expected, name

    @each_family
    def test_lora_takes_all_linear_layers_and_no_name_is_idle(
        self, checkpoint: Callable[[str], Path], family: Family, tmp_path: Path
    ) -> None:
        modules = family.modules
        for model_type in family.model_types:
            model = weightless(checkpoint(model_type))
            language = linear(model.get_submodule(modules.language), modules.language)
            language = [name for name in language if ".indexer." not in name]  # no gradient reaches it
            blocks = f"{modules.tower}.{modules.blocks}"
            tower = linear(model.get_submodule(blocks), blocks)
            for layers, kinds in ((language, modules.language_linear), (tower, modules.tower_linear)):
                assert all(any(layer.endswith(f".{kind}") for layer in layers) for kind in kinds)
            settings = settings_of(checkpoint(model_type), tmp_path, use_peft="true")
            adapted = get_peft_model(model, lora(settings, model.config)).get_base_model()
            found = {name.partition(".lora_A")[0] for name, _ in adapted.named_parameters() if ".lora_A" in name}
            assert found == {*language, *tower}

    @each_family
    def test_the_tower_and_the_projector_are_frozen_apart(
        self, checkpoint: Callable[[str], Path], family: Family, tmp_path: Path
    ) -> None:
        folder = checkpoint(family.model_types[0])
        for options, part in (
            ({"freeze_vision": "true", "freeze_projector": "false"}, memory.TOWER),
            ({"freeze_vision": "false", "freeze_projector": "true"}, memory.PROJECTOR),
        ):
            model = weightless(folder)
            freeze(model, settings_of(folder, tmp_path, **options))
            frozen = {
                memory.part_name(name, family.modules)
                for name, one in model.named_parameters()
                if not one.requires_grad
            }
            assert frozen == {part}

    @each_family
    def test_four_bits_leave_the_tower_and_the_head_alone(
        self, checkpoint: Callable[[str], Path], family: Family, tmp_path: Path
    ) -> None:
        folder, language = checkpoint(family.model_types[0]), family.modules.language
        model = weightless(folder)
        found = quantization_of(settings_of(folder, tmp_path, use_peft="true", load_in_4bit="true"), family)
        names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        changed = [name for name in names if should_convert_module(name, found.llm_int8_skip_modules)]
        assert changed == linear(model.get_submodule(language), language)

    @each_family
    def test_markers_are_single_tokens_in_the_frame_of_published_templates(
        self, checkpoint: Callable[[str], Path], family: Family
    ) -> None:
        markers = family.markers
        processor: Any = load_processor(str(checkpoint(family.model_types[0])))
        for field in fields(Markers):
            mark = getattr(markers, field.name)
            assert processor.tokenizer.convert_ids_to_tokens(processor.tokenizer.encode(mark)) == [mark]
        assert (processor.image_token, processor.video_token) == (markers.image, markers.video)
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Question?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Words."}]},
        ]
        for name in ("qwen2_5_vl", "qwen3_vl", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8"):
            text = processor.apply_chat_template(messages, chat_template=published_template(name), tokenize=False)
            assert f"{markers.before_image}{markers.image}{markers.after_image}Question?{markers.ending}" in text
            head, _, words = text.rpartition(markers.assistant)
            assert head and words.removeprefix("<think>\n\n</think>\n\n") == f"Words.{markers.ending}"

    def test_their_names_and_tokens_stand_nowhere_else(self) -> None:
        marks = {getattr(family.markers, field.name) for family in FAMILIES for field in fields(Markers)}
        types = {f'"{name}"' for family in FAMILIES for name in (*family.model_types, *family.served_as)}
        code = [path for room in ("cof_agent", "sft", "rl", "scripts") for path in (ROOT / room).rglob("*.py")]
        assert len(code) > 100
        for path in code:
            if path.name != "families.py":
                text = path.read_text("utf-8")
                assert not [name for name in marks | types if name in text], path


class TestLookups:
    def test_another_model_is_refused_in_a_sentence(self) -> None:
        config = AutoConfig.for_model("llava", name_or_path="some/llava")
        with pytest.raises(InputError) as refused:
            families.of(config)
        assert str(refused.value) == (
            "some/llava is a llava model; a local model must be of the Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3-VL-MoE, Qwen3.5, "
            "Qwen3.5-MoE or Qwen4-Exp family. To ask another one, serve it: --model openai:NAME --base-url URL."
        )

    def test_a_served_model_is_known_by_its_name_however_it_is_written(self) -> None:
        for family in FAMILIES:
            for name in (family.name, family.name.upper().replace("-", "_"), f"acme/{family.name}-7B-finetuned"):
                assert families.served(name) == family.vision
        for name in (
            "qwen",
            "gpt-5",
            "",
            "Qwen-VL-Max",
            "Qwen3-8B",
            "gemma-3n-E4B-it",
            "LLaVA-OneVision-1.5-8B",
            "google/paligemma-3b-pt-448",
            "Qwen3-VL-8B-distill-Qwen2.5-VL-72B",
            "Kimi-K2.5",
        ):
            assert families.served(name) is None

    def test_the_last_part_of_a_path_that_names_a_family_tells_it(self) -> None:
        for path, family in (
            ("/data/qwen2.5-vl-exp/Qwen3-VL-8B-Instruct", QWEN3_VL),
            ("/mnt/qwen2_vl_finetune/output/qwen2_5_vl_7b", QWEN2_5_VL),
            ("/data/gemma3/Qwen3-VL-8B-distill/checkpoint-500", QWEN3_VL),
        ):
            assert families.served(path) == family.vision
        assert families.thoughts("/data/qwen3.5-runs/Qwen2.5-VL-7B") == (False, False)

    def test_a_size_is_no_version_of_gemma(self) -> None:
        for name in ("medgemma-4b-it", "medgemma-1.5-4b-it", "translategemma-4b-it", "gemma-3-4b-it", "gemma3:4b"):
            assert families.served(name) == families.served("gemma-3-27b-it"), name
        assert families.served("gemma-4-31b-it") != families.served("gemma-3-27b-it")

    def test_published_names(self) -> None:
        expected = {
            CoordinateSystem.ABSOLUTE: (
                *("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen25-VL", "XiaomiMiMo/MiMo-VL-7B-RL-2508"),
                "xintongzhang/CoF-sft-model-7b",
            ),
            CoordinateSystem.THOUSAND: (
                *("Qwen/Qwen3.5-9B", "qwen3_6-27b", "Qwen3p8-VL", "Qwen/Qwen3.5-35B-A3B-FP8"),
                *("Qwen/Qwen3-VL-30B-A3B-Instruct", "zai-org/GLM-4.6V-Flash", "THUDM/GLM-4.1V-9B-Thinking"),
                *("OpenGVLab/InternVL3_5-8B-HF", "qwen2-vl-7b"),
            ),
            CoordinateSystem.THOUSAND_YX: ("google/gemma-3-27b-it", "gemma-4-31b-it", "google/medgemma-4b-it"),
            CoordinateSystem.UNIT: ("llava-hf/llava-onevision-qwen2-7b-ov-hf",),
        }
        for coordinates, names in expected.items():
            for name in names:
                vision = families.served(name)
                assert vision is not None and vision.coordinates is coordinates, name

    def test_limits(self) -> None:
        vision = Vision(CoordinateSystem.THOUSAND, patch=16)
        cell = 32 * 32
        assert vision.limits() == PixelLimits(32, 4 * cell, 1280 * cell, 320 * cell)
        assert vision.limits(100 * cell) == PixelLimits(32, 4 * cell, 100 * cell, 25 * cell)
        assert vision.limits(8 * cell, 2 * cell) == PixelLimits(32, 2 * cell, 8 * cell, 2 * cell)
        assert vision.limits(own=(9, 50 * cell)) == PixelLimits(32, 9, 50 * cell, 50 * cell // 4)
        assert vision.limits(own=(9, 5000 * cell)).max_pixels == 1280 * cell
        for given in ((cell - 1, None), (None, cell - 1)):
            with pytest.raises(
                InputError, match=f"must be at least {cell}, one cell of 32 x 32 pixels, not {cell - 1}"
            ):
                vision.limits(*given)


class TestYFirst:
    """A family whose boxes are written y first, through the agent and the teacher."""

    def played(self, sample: Sample, system: CoordinateSystem, *script: str) -> Any:
        heard: list[Sequence[Message]] = []

        def speak(messages: Sequence[Message]) -> str:
            heard.append(messages)
            return script[len(heard) - 1]

        policy = ScriptedPolicy(speak, coordinates=system)
        return asyncio.run(Agent(policy=policy).play(Episode(sample))), heard

    def test_the_agent_cuts_the_same_region(self, sample: Sample) -> None:
        box, answer = Box(100, 200, 300, 600), write_answer("There.", "7")
        x_first, _ = self.played(sample, CoordinateSystem.THOUSAND, write_zoom("Closer.", box), answer)
        swapped = Box(box.y0, box.x0, box.y1, box.x1)
        y_first, heard = self.played(sample, CoordinateSystem.THOUSAND_YX, write_zoom("Closer.", swapped), answer)
        assert y_first.views == x_first.views and y_first.answer == "7"
        prompt = heard[0][0]["content"][0]["text"]
        assert "The region as [y1, x1, y2, x2], from 0 to 1000 on both axes of that image: top, left" in prompt
        assert "[x1, y1, x2, y2]" not in prompt

    def test_an_error_names_the_numbers_in_its_order(self, sample: Sample) -> None:
        call = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {}}</tool_call>'
        for system, order in (
            (CoordinateSystem.THOUSAND_YX, "[y1, x1, y2, x2]"),
            (CoordinateSystem.UNIT, "[x1, y1, x2, y2]"),
        ):
            trajectory, _ = self.played(sample, system, call, write_answer("There.", "7"))
            (observation,) = trajectory.turns[0].observations
            assert observation.error == f"The tool call has no bbox_2d, a list of four numbers {order}."

    def test_the_teachers_locator_reads_it(self, sample: Sample) -> None:
        asked: list[str] = []

        def find(messages: Sequence[Message]) -> str:
            asked.append(protocol.asked(messages))
            return '{"bbox_2d": [0, 250, 500, 750]}'

        policy = ScriptedPolicy(find, coordinates=CoordinateSystem.THOUSAND_YX)
        view = View(Size(800, 600), Box(0, 0, 800, 600), Size(280, 196))
        errand = Errand(sample, ZoomEnvironment())
        found = asyncio.run(AskedLocator(policy).locate(errand, view, "the patch"))
        assert found == Box(200, 0, 600, 300)
        assert '{"bbox_2d": [y1, x1, y2, x2]}, from 0 to 1000 on both axes.' in asked[0]


class LookalikeConfig(Qwen3VLConfig):
    model_type = "lookalike_vl"


class LookalikeModel(Qwen3VLModel):
    """Qwen3-VL whose vision tower has another name."""

    config_class = LookalikeConfig

    def __init__(self, config: LookalikeConfig) -> None:
        super().__init__(config)
        self.vision_tower = self._modules.pop("visual")

    @property
    def visual(self) -> Any:
        return self.vision_tower


class LookalikeForConditionalGeneration(Qwen3VLForConditionalGeneration):
    config_class = LookalikeConfig

    def __init__(self, config: LookalikeConfig) -> None:
        super().__init__(config)
        self.model = LookalikeModel(config)
        self.post_init()


AutoConfig.register(LookalikeConfig.model_type, LookalikeConfig)
AutoModelForImageTextToText.register(LookalikeConfig, LookalikeForConditionalGeneration)

LOOKALIKE = Family(
    "Lookalike-VL",
    model_types=(LookalikeConfig.model_type,),
    served_as=("lookalikevl",),
    vision=Vision(CoordinateSystem.THOUSAND_YX, patch=12),
    markers=Markers(
        image="<image>",
        video="<video>",
        before_image="<see>",
        after_image="</see>",
        start_of_turn="<turn>",
        end_of_turn="<over>",
        end_of_text="<end>",
    ),
    modules=replace(families.QWEN3_VL.modules, tower="model.vision_tower"),
)
"""All that the code is told of the new family."""


def renamed(text: str) -> str:
    """A text with the new family's tokens in place of Qwen's."""
    for field in fields(Markers):
        text = text.replace(getattr(families.QWEN3_VL.markers, field.name), getattr(LOOKALIKE.markers, field.name))
    return text


def write_lookalike(folder: Path) -> None:
    """A tiny random checkpoint of the new family."""
    mark, patch = LOOKALIKE.markers, LOOKALIKE.vision.patch
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(renamed(build.build_tokenizer().backend_tokenizer.to_str())),
        eos_token=mark.end_of_text,
        pad_token=mark.end_of_text,
        clean_up_tokenization_spaces=False,
        chat_template=renamed(CHAT_TEMPLATE),
    )
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 3, 3]},
        "initializer_range": 0.1,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0],
        "patch_size": patch,
    }
    names = {
        "image": mark.image,
        "video": mark.video,
        "vision_start": mark.before_image,
        "vision_end": mark.after_image,
    }
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    torch.manual_seed(0)
    model = LookalikeForConditionalGeneration(LookalikeConfig(text_config=text, vision_config=vision, **ids))
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    cell = (2 * patch) ** 2
    Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 4 * cell, "longest_edge": 144 * cell}
    ).save_pretrained(folder)


class TestANewFamily:
    """A record is all that it takes, where a model works as the known ones do: nothing of it stands in the code."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        folder = tmp_path_factory.mktemp("lookalike")
        write_lookalike(folder)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(families, "FAMILIES", (*FAMILIES, LOOKALIKE))
            yield folder

    @pytest.fixture(scope="class")
    def policy(self, folder: Path) -> LocalPolicy:
        return load(folder, device="cpu", dtype="float32")

    def test_it_is_loaded_and_served_by_its_record(self, policy: LocalPolicy) -> None:
        assert (policy.family, policy.coordinates, policy.limits.grid) == (LOOKALIKE, CoordinateSystem.THOUSAND_YX, 24)
        served = connect("acme/Lookalike-VL-8B", base_url="http://127.0.0.1:1/v1")
        assert (served.coordinates, served.limits) == (policy.coordinates, LOOKALIKE.vision.limits())

    def test_it_generates_what_transformers_does(self, folder: Path, policy: LocalPolicy, sample: Sample) -> None:
        environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
        overview = environment.reset(sample)
        messages, images = (
            protocol.opening(sample, overview, system=policy.coordinates),
            [environment.image(sample, overview)],
        )
        found = asyncio.run(policy.generate(messages, images, Sampling(max_tokens=12)))
        stock: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        processor: Any = load_processor(str(folder))
        inputs = processor(text=[policy.render(messages)], images=images, return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        new = stock.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=sorted(policy.stop_ids))[
            0, length:
        ]
        assert (found.text, found.tokens.prompt) == (policy.text(new.tolist()), length)
        assert processor.tokenizer.convert_tokens_to_ids(LOOKALIKE.markers.end_of_turn) in policy.stop_ids

    def test_agent_training_row_and_rollout_have_the_same_tokens(
        self, folder: Path, policy: LocalPolicy, sample: Sample, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoken = [write_zoom("Closer.", Box(100, 200, 300, 600)), write_answer("There.", "7")]
        tokenizer = (processor := load_processor(str(folder))).tokenizer
        said: list[Prompt] = []

        async def complete(prompt: Prompt) -> Generated:
            said.append(prompt)
            text = spoken[len(said) - 1] + LOOKALIKE.markers.end_of_turn
            return Generated(tokenizer.encode(text, add_special_tokens=False), True)

        monkeypatch.setattr(policy, "complete", complete)
        played = roll_out([Episode(sample)], policy, AgentConfig(), ZoomEnvironment(), budget=900, seeds=[0])
        (rollout,) = asyncio.run(played)
        assert rollout.trajectory.answer == "7" and rollout.trajectory.zooms == 1
        frame = frame_of(policy.model.config, processor)
        row = TrajectoryRows([rollout.trajectory], frame).row(0)
        batch = AssistantCollator(processor, frame.family.markers)([row])
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0]
        line_break = tokenizer.encode("\n", add_special_tokens=False)
        assert ids == [*rollout.prompt, *rollout.completion, *line_break]
        assert tokenizer.decode(labels[labels != IGNORED]) == "".join(f"{text}<over>\n" for text in spoken)

    def test_it_is_trained_with_lora_and_merged(self, folder: Path, sample: Sample, tmp_path: Path) -> None:
        other = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE, PixelLimits(28, 3136, 224 * 224, 112 * 112)))
        overview, texts = other.reset(sample), [write_zoom("Closer.", Box(28, 28, 84, 56)), write_answer("There.", "7")]
        zoom, answer = (protocol.parse(text) for text in texts)
        turns = (Turn(texts[0], zoom, tuple(other.step(zoom, [overview]))), Turn(texts[1], answer))
        played = Trajectory(sample, overview, turns, StopReason.ANSWERED, "7", settings=other.settings.to_dict())
        (tmp_path / "trajectories.jsonl").write_text(to_json(played) + "\n")
        output, merged = tmp_path / "run", tmp_path / "merged"
        settings = settings_of(folder, output, data=tmp_path, max_steps=1, use_peft="true", bf16="false")
        trainer = build_trainer(settings)
        train_and_save(trainer, settings)
        weights = load_file(output / "adapter_model.safetensors")
        trained = ("vision_tower.blocks", "language_model", "vision_tower.merger", "deepstack_merger_list.0")
        assert all(any(f"{part}." in name for name in weights) for part in trained)
        assert cof(["merge", str(output), "-o", str(merged)]) == 0
        assert load(merged, device="cpu").family is LOOKALIKE
        parts = {part.name for part in memory.parts_of(trainer.model.config, settings, memory.sharding_of(settings))}
        assert parts == {memory.TOWER, memory.PROJECTOR, memory.LANGUAGE, memory.ENDS, memory.ADAPTERS}
