"""RL plays rows as verl and EasyR1 have them; held-out samples are read as the data is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cof_agent.training.trainer import held_out_of
from cof_agent.trajectory import Trajectory, read_jsonl
from rl.settings import parse
from rl.train import main
from tests.data import layouts

pytest.importorskip("pyarrow")


def given(**settings: Any) -> list[str]:
    plain = {"model_name_or_path": "nano", "use_cpu": "true", "report_to": "none"} | settings
    return [text for name, value in plain.items() for text in (f"--{name}", str(value))]


def test_held_out_samples_are_read_with_the_columns_of_the_data(tmp_path: Path) -> None:
    names = layouts.pictures(tmp_path)
    rows = layouts.rows(
        lambda n: {
            "image": names[n],
            "ask": layouts.QUESTIONS[n],
            "tell": layouts.ANSWERS[n],
            "bbox": [0.3, 0.3, 0.2, 0.2],
        }
    )
    spec = layouts.as_lines(tmp_path / "rows.jsonl", rows)
    asked = given(data=spec, eval_data=spec, eval_strategy="steps", output_dir=tmp_path / "run", boxes="unit-xywh")
    wanted = held_out_of(parse([*asked, "--column", "question=ask", "--column", "answer=tell"]))
    assert wanted is not None
    samples = [one.sample for one in wanted]
    assert [sample.question for sample in samples] == list(layouts.QUESTIONS)
    assert [sample.answers for sample in samples] == [(answer,) for answer in layouts.ANSWERS]
    assert [list(sample.boxes[0]) for sample in samples] == [[120, 90, 200, 150]] * 3


@pytest.mark.slow
def test_a_step_on_published_rows(tmp_path: Path) -> None:
    """Those of verl, whose prompts and images stand in Parquet; `test_layouts.py` reads every layout."""
    spec = layouts.LAYOUTS["verl"](tmp_path)
    small = {"max_tokens": 24, "max_completion_length": 200, "num_generations": 2, "per_device_train_batch_size": 2}
    main(given(data=spec, output_dir=tmp_path / "run", max_steps=1, threads=2, bf16="false", seed=3, **small))
    (file,) = (tmp_path / "run").rglob("trajectories.jsonl")
    played = list(read_jsonl(file, Trajectory))
    assert len(played) == 2 and {one.sample.question for one in played} <= set(layouts.QUESTIONS)
    assert all(Path(one.sample.image).is_relative_to(tmp_path / "run") for one in played)
    state = json.loads((tmp_path / "run" / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["global_step"] == 1
