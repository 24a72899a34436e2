"""Tests with verl itself, on a CPU: `bash scripts/verl_cpu.sh`, then `.venv-verl/bin/python -m pytest tests/verl`.

In another environment they are skipped.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests here where they cannot run."""
    skipped = pytest.mark.skip(reason="needs .venv-verl/: bash scripts/verl_cpu.sh makes it")
    for item in items:
        if HERE in item.path.parents and find_spec("verl") is None:
            item.add_marker(skipped)
