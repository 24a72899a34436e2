"""Whole conversations of the agent whose turns are compared with transformers' own `generate`, token for token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.policy import ScriptedPolicy
from cof_agent.trajectory import Trajectory


def played(
    policy: Any, config: AgentConfig, script: Sequence[str], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Trajectory, list[tuple[Any, Any, str]]]:
    """A conversation that goes on by the script; and messages, images and the policy's own greedy words of each turn, which it
    writes with what it read in the turns before."""
    asked: list[tuple[Any, Any, str]] = []
    words = iter(script)

    async def speak(messages: Any, images: Any, sampling: Any) -> Any:
        found = await policy.generate(messages, images, sampling)
        asked.append((list(messages), list(images), found.text))
        return replace(found, text=next(words), truncated=False)

    speaker = ScriptedPolicy([], coordinates=policy.coordinates, limits=policy.limits)
    monkeypatch.setattr(speaker, "generate", speak)
    return Agent(config, policy=speaker).ask(picture, "What is there?"), asked


def stock_text(model: Any, policy: Any, messages: Any, images: Any, tokens: int) -> str:
    """What `generate` says to a conversation, greedily."""
    inputs = policy._processor(text=[policy.render(messages)], images=images, return_tensors="pt")
    with torch.inference_mode():
        new = model.generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=sorted(policy.stop_ids),
            suppress_tokens=list(policy.unspeakable),
        )
    return str(policy.opened + policy.text(new[0, inputs["input_ids"].shape[1] :].tolist()))
