"""The drawn image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.viewer.drawn import draw_field


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return draw_field(tmp_path / "scene.png")
