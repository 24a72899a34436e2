"""Each recipe for a published set says what it would do with a set in that layout, offline and without weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from rl.train import main as rl
from sft.train import main as sft
from tests.data import layouts
from tests.sft import talks

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("at_the_root")

Write = Callable[[Path], Path]

RL: dict[str, Write] = {
    "chain-of-focus-7b": layouts.verl_with_paths,
    "deepeyes-47k-7b": layouts.verl,
    "visualprobe-7b": layouts.problems_with_paths,
    "virl39k-7b": layouts.reasoned,
}
SFT: dict[str, Write] = {"chain-of-focus-7b-lora": talks.chain_of_focus, "mini-o3-coldstart-7b": talks.mini_o3}


def dry(run: Callable[[list[str]], None], config: str, **overrides: object) -> None:
    given = {"use_cpu": "true", "dry_run": "true"} | overrides
    run(["--config", config, *(text for name, value in given.items() for text in (f"--{name}", str(value)))])


def test_a_recipe_of_rl_plays_its_set(weightless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, write in RL.items():
        (tmp_path / name).mkdir()
        spec = write(tmp_path / name)
        plays = yaml.safe_load(Path(f"rl/configs/{name}.yaml").read_text())["num_generations"]
        few = {"gradient_accumulation_steps": plays // 2, "steps_per_generation": plays // 2}  # two prompts at a time
        dry(rl, f"rl/configs/{name}.yaml", data=spec, model_name_or_path=weightless, output_dir=tmp_path / "run", **few)
        said = " ".join(capsys.readouterr().out.split())
        assert "3 with a known answer" in said and "DeepSpeed stage 3" in said, name
        assert not (tmp_path / "run").exists(), name
        assert "may need" not in said and "is less than" not in said, name  # a conversation is not cut off


def test_a_recipe_of_sft_trains_on_its_set(
    weightless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, write in SFT.items():
        (tmp_path / name).mkdir()
        spec = write(tmp_path / name)
        few = {"min_pixels": 784, "max_pixels": 78400}
        dry(
            sft,
            f"sft/configs/{name}.yaml",
            data=spec,
            model_name_or_path=weightless,
            output_dir=tmp_path / "run",
            **few,
        )
        said = " ".join(capsys.readouterr().out.split())
        assert "DeepSpeed stage 3" in said and not (tmp_path / "run").exists(), name
        assert "samples │ 3" in said, name
