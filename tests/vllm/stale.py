"""`rl.train` with a vLLM that keeps its first weights: `python -m tests.vllm.stale [--key value ...]`."""

from __future__ import annotations

from trl.generation.vllm_generation import VLLMGeneration

from cof_agent.training.command import explained
from rl.train import main

if __name__ == "__main__":
    send, sent = VLLMGeneration.sync_weights, list[object]()

    def once(generation: VLLMGeneration) -> None:
        if not sent:
            sent.append(send(generation))

    VLLMGeneration.sync_weights = once
    explained("rl.train", main)
