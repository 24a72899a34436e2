"""Our own server where torchvision is installed, as it is beside vLLM."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from cof_agent.backends.load import load
from cof_agent.policy import Sampling
from cof_agent.protocol import Message
from tests.ports import free_port
from tests.vllm.server import running


def test_a_checkpoint_is_served(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model, port = str(checkpoint("qwen2_5_vl")), free_port()
    command = [sys.executable, "-m", "cof_agent.backends.serve", model, "--device", "cpu", "--port", str(port)]
    question: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]
    with running(command, port, tmp_path / "log.txt") as url:
        served = load(f"openai:{model}", base_url=f"{url}/v1")
        there = asyncio.run(served.generate(question, [], Sampling(max_tokens=4)))
    here = asyncio.run(load(model, device="cpu").generate(question, [], Sampling(max_tokens=4)))
    assert there == here
