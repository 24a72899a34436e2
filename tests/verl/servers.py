"""A server of verl, as its load balancer knows one, that says the script of `conversations`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verl.workers.rollout.replica import TokenOutput

from cof_agent.backends.local.processor import load_processor
from cof_agent.data.samples import read_samples
from cof_agent.nano import WEIGHTS
from tests.verl.conversations import LOGPROB, next_turn, scripts


class Scripted:
    """Says the script; asked for what vLLM takes."""

    def __init__(self, folder: str) -> None:
        processor: Any = load_processor(str(WEIGHTS))
        self._tokenizer, self._told = processor.tokenizer, scripts(read_samples(Path(folder)))
        self._asked: dict[str, int] = {}

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: list[Any],
        video_data: None,
    ) -> TokenOutput:
        check_params(sampling_params)
        ids = next_turn(self._tokenizer, self._told, prompt_ids, sampling_params["max_tokens"])
        return TokenOutput(token_ids=ids, log_probs=[LOGPROB] * len(ids), extra_fields={"global_steps": 1})


def check_params(given: dict[str, Any]) -> None:
    """vLLM's `SamplingParams` is given these by name; verl takes `logprobs` and `max_tokens` out first."""
    names = {
        "n",
        "temperature",
        "top_p",
        "top_k",
        "repetition_penalty",
        "logprobs",
        "max_tokens",
        "seed",
        "stop_token_ids",
        "logit_bias",
    }
    if set(given) != names:
        raise ValueError(f"unexpected sampling parameters: {sorted(set(given) ^ names)}")
