"""What `cof merge` writes gives the same figures behind our `transformers serve` as in this process. tests/vllm has vLLM and the
stock command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.merged import evaluated, merged
from tests.ports import free_port
from tests.scenes.shared import Scenes
from tests.vllm.server import running


@pytest.mark.slow
def test_a_merged_checkpoint_is_served(drawn: Scenes, tmp_path: Path) -> None:
    drawn(4, into=tmp_path / "scenes")
    whole, port = merged(tmp_path / "scenes", tmp_path), free_port()
    here = evaluated(tmp_path / "scenes", tmp_path / "here", "--model", str(whole))
    assert {record["dialect"] for record in here[1]} == {"wide"}
    command = [sys.executable, "-m", "cof_agent.backends.serve", str(whole), "--host", "127.0.0.1", "--port", str(port)]
    with running([*command, "--device", "cpu"], port, tmp_path / "log.txt") as url:
        model = ("--model", f"openai:{whole}", "--base-url", f"{url}/v1")
        assert evaluated(tmp_path / "scenes", tmp_path / "there", *model) == here
