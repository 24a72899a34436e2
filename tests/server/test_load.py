"""A minute of many clients, slow and vanishing ones among them (`load.py`; by hand for longer)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.server.load import put_under_load


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the server's memory is read from /proc")
def test_nobody_is_stuck_and_nothing_is_left(tmp_path: Path) -> None:
    load = put_under_load(60, tmp_path)
    assert load.problems() == []
