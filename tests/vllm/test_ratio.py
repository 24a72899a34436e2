"""A run whose sampler has other weights than its trainer ends, in a sentence, at the first generation that shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cof_agent.trajectory import Trajectory, read_jsonl
from tests.vllm.training import RUN, words


def test_an_engine_that_keeps_its_weights_is_noticed(scenes: Path, tmp_path: Path) -> None:
    run = RUN | {"vllm_mode": "colocate", "freeze_vision": "true", "data": scenes, "output_dir": tmp_path / "run"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.vllm.stale", *words(run)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 2, done.stderr[-4000:]
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("rl.train: the importance ratio of a conversation is ")
    assert "at step 0" not in sentence and "weights reach vLLM after an update" in sentence
    played = list(read_jsonl(tmp_path / "run" / "trajectories.jsonl", Trajectory))
    assert {one.step for one in played} <= {0, 1, 2, 3}  # what ended the run is not recorded as played
