"""Real parts for tests: tiny random checkpoints of each family, and drawn pictures."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

# Models this small get slower with more threads, and far slower where several processes test at once. Read by torch's import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every machine and in every run.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The frame that the stock templates of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share."""

# A shell that starts the tests in the background lets them ignore interrupts, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


CORE = ("geometry", "image", "trajectory", "environment", "region_refs", "policy", "scoring", "episodes", "tools")
"""What a question passes between the image and its score; `pytest -m core` tests it, and the protocol, in seconds."""


def _is_core(path: Path) -> bool:
    file = path.relative_to(Path(__file__).parent)
    return file.parts[0] == "protocol" or file.as_posix() in {f"test_{name}.py" for name in CORE}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m core`, the imports of the other tests would take longer than the tests that are wanted."""
    wanted = config.option.markexpr != "core" or collection_path.is_dir() or _is_core(collection_path)
    return None if wanted else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of the core by where they stand."""
    for item in items:
        if _is_core(item.path) and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.core)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny random checkpoint by `model_type`, made once."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            _write(family, made[family])
        return made[family]

    return make


def _write(family: str, directory: Path) -> None:
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    from cof_agent.nano import build

    torch.set_num_threads(1)
    if family == "qwen2_5_vl":
        build.random_start(0, directory, CHAT_TEMPLATE)
        return
    tokenizer = build.build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    base = build.build_config(tokenizer)
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 3, 3]},
        "initializer_range": 0.1,
    }
    ids = {
        name: getattr(base, name)
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    torch.manual_seed(0)
    model: Any
    vision: dict[str, Any]
    if family == "qwen2_vl":
        patch = 14
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids))
    else:
        patch = 16
        vision = {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
        }
        text["head_dim"] = 16
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    limits = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 144 * (2 * patch) ** 2}
    Qwen2VLImageProcessorPil(patch_size=patch, size=limits).save_pretrained(directory)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 800 x 600 pixels with some shapes in it."""
    image = Image.new("RGB", (800, 600), "navy")
    draw = ImageDraw.Draw(image)
    for index in range(40):
        x, y = 20 * index % 760, 53 * index % 560
        draw.ellipse((x, y, x + 30, y + 20), fill=(6 * index, 255 - 5 * index, 90))
    path = tmp_path_factory.mktemp("pictures") / "shapes.png"
    image.save(path)
    return path


@pytest.fixture
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The paths in configurations are relative to the root; ZeRO-3 is known to the whole process, and forgotten here."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")  # accelerate's plugin sets it, for the whole process
    yield
    unset_hf_deepspeed_config()


@pytest.fixture(scope="session")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano's configuration, tokenizer and processor without its weights."""
    from cof_agent.nano import WEIGHTS

    path = tmp_path_factory.mktemp("weightless")
    for file in Path(WEIGHTS).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, path)
    return path
