"""Every command that goes on after an interruption is killed at random moments, and ends with the result of an undisturbed run.

`python scripts/campaign.py --kills 100` kills more often.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.kills import CASES, faults, prepare

KILLS = {"scenes": 2, "eval": 2, "rollout": 2, "collect": 2, "sft": 1, "rl": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_killed_command_goes_on_to_the_same_result(name: str, data: Path, tmp_path: Path) -> None:
    assert list(faults(name, data, tmp_path, KILLS[name], random.Random(name))) == []
