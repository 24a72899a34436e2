"""Every command that goes on after an interruption is killed at random moments, and ends with the result of an undisturbed run.

`python scripts/campaign.py --kills 100` kills more often.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.kills import faults, prepare

KILLS = {"scenes": 2, "eval": 2, "rl": 1}
"""How often. A campaign kills the others too. `cof rollout` goes on as `cof eval` does; `cof collect` and `cof sft` are killed in
`test_collect.py` and `test_train.py`."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_a_killed_command_goes_on_to_the_same_result(name: str, data: Path, tmp_path: Path) -> None:
    assert list(faults(name, data, tmp_path, KILLS[name], random.Random(name))) == []
