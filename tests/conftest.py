"""Real parts for tests: tiny random checkpoints of each family, and drawn pictures."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

from tests.checkpoints import write_checkpoint
from tests.scenes.shared import Scenes

# Models this small get slower with more threads, and far slower where several processes test at once. Read by torch's import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every machine and in every run.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("fixed")

# A shell that starts the tests in the background lets them ignore interrupts, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


CORE = ("geometry", "trajectory", "environment", "region_refs", "policy", "episodes", "tools")
"""What a question passes between the image and its score; `pytest -m core` tests it, and the rooms image, protocol and scoring,
in seconds."""


def _is_core(path: Path) -> bool:
    file = path.relative_to(Path(__file__).parent)
    return file.parts[0] in ("image", "protocol", "scoring") or file.as_posix() in {f"test_{name}.py" for name in CORE}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m core`, the imports of the other tests would take longer than the tests that are wanted."""
    wanted = config.option.markexpr != "core" or collection_path.is_dir() or _is_core(collection_path)
    return None if wanted else True


LONG = (
    *(
        "server/test_load.py",
        "training/test_gpu_configs.py",
        "faults/test_kills.py",
        "rl/test_rl.py",
        "sft/test_train.py",
    ),
    *("rl/test_processes.py", "faults/test_servers.py", "server/test_page.py", "teacher/test_collect.py"),
    *(
        "nano/test_nano.py",
        "scripts/test_tour.py",
        "rl/test_reference.py",
        "rl/test_padding.py",
        "sft/test_even_steps.py",
    ),
    *("vllm/test_interruptions.py", "vllm/test_training.py", "vllm/test_served.py", "vllm/test_shapes.py"),
)
"""Files that take long begin, so that none of them runs alone in the end: with pytest-xdist a file is one process's work."""


def _place(path: Path) -> int:
    file = path.relative_to(Path(__file__).parent).as_posix()
    return LONG.index(file) if file in LONG else len(LONG)


# Half of the time of collecting goes to looking for garbage among all that torch and transformers make as they are imported.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Without this, pytest-xdist would begin with the files that have most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files first, and marks the tests of the core by where they stand."""
    items.sort(key=lambda item: _place(item.path))
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
            write_checkpoint(family, made[family])
        return made[family]

    return make


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Folders of scenes, whose pictures are drawn once."""
    return Scenes(tmp_path_factory)


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
