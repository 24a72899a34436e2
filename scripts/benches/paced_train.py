"""`rl.train` whose weights go nowhere, for a paced server: `python -m benches.paced_train --key value ...`.

Prints for each step when it ended, in seconds from the start, and what the trainer measured of it, as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

from transformers import TrainerCallback
from trl.generation import vllm_client

from rl import ratio
from rl.settings import parse
from rl.train import build_trainer


class Steps(TrainerCallback):
    def __init__(self) -> None:
        self._began = time.perf_counter()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            told = {name: value for name, value in logs.items() if name.startswith(("seconds/", "ahead/", "sampling/"))}
            print("STEP " + json.dumps({"at": time.perf_counter() - self._began, **told}), flush=True)


def _meet(client: Any, device: Any = None) -> None:
    client.communicator = SimpleNamespace(group=SimpleNamespace())


if __name__ == "__main__":
    vllm_client.VLLMClient.init_communicator = _meet
    vllm_client.packed_nccl_broadcast_producer = lambda iterator, **_: deque(iterator, maxlen=0)
    ratio.check = lambda *_: None  # what a paced server writes is not nano's
    trainer = build_trainer(parse(sys.argv[1:]))
    trainer.add_callback(Steps())
    trainer.train()
