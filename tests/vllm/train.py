"""`rl.train`, whose weights reach a server without NCCL, and which prints each entry of its log:
`python -m tests.vllm.train [--key value ...]`."""

from __future__ import annotations

import json
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from cof_agent.training.command import explained
from rl.train import main
from tests.vllm.cpu_plugin.vllm_on_cpu import send_over_the_store
from tests.vllm.training import ENTRY


class Told(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        print(f"\n{ENTRY}{json.dumps(logs)}", flush=True)


if __name__ == "__main__":
    DEFAULT_CALLBACKS.append(Told)
    send_over_the_store()
    explained("rl.train", main)
