"""`rl.train`, whose weights reach a server without NCCL: `python -m tests.vllm.train [--key value ...]`."""

from __future__ import annotations

from cof_agent.training.command import explained
from rl.train import main
from tests.vllm.cpu_plugin.vllm_on_cpu import send_over_the_store

if __name__ == "__main__":
    send_over_the_store()
    explained("rl.train", main)
