"""What vLLM is asked for a turn, and how its reply is read."""

from __future__ import annotations

import asyncio
import json

import pytest
from transformers import AutoConfig, GenerationConfig

from cof_agent.backends.local.decode import Generated
from cof_agent.backends.local.processor import load_processor
from cof_agent.backends.vllm.load import _Described
from cof_agent.backends.vllm.policy import VLLMPolicy
from cof_agent.backends.vllm.requests import Reply, Request, collapsed, generated_of, image_runs, sampling_params
from cof_agent.nano import WEIGHTS
from cof_agent.policy import Sampling

PAD = 9


def test_each_run_of_image_tokens_becomes_one() -> None:
    ids = [1, PAD, PAD, PAD, 2, PAD, 3, 3, PAD, PAD]
    assert collapsed(ids, PAD) == [1, PAD, 2, PAD, 3, 3, PAD]
    assert image_runs(ids, PAD) == [3, 1, 2]
    assert collapsed([4, 4], PAD) == [4, 4]


def test_a_request_samples_as_its_conversation_does() -> None:
    asked = sampling_params(Sampling(7, 0.8, 0.9, 11), {5, 3}, (PAD, 8))
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"], asked["seed"]) == (7, 0.8, 0.9, 11)
    assert asked["stop_token_ids"] == [3, 5]
    assert asked["logit_bias"] == {PAD: -100.0, 8: -100.0}
    assert json.loads(json.dumps(asked))["logprobs"] == 0


@pytest.mark.parametrize(
    ("ids", "kept", "stopped"),
    [([1, 2, 5], 3, True), ([1, 2], 2, False), ([1, PAD, 2, 5], 1, False), ([PAD, 5], 0, False), ([], 0, False)],
)
def test_a_reply_stops_or_is_cut(ids: list[int], kept: int, stopped: bool) -> None:
    reply = Reply(ids, [-float(token) for token in ids])
    assert generated_of(reply, {5}, (PAD,)) == Generated(ids[:kept], stopped, reply.logprobs[:kept])


def test_a_token_without_a_probability_is_no_certain_one() -> None:
    """vLLM may have none for a token: then the turn has none."""
    config = AutoConfig.from_pretrained(WEIGHTS)
    model = _Described(config, GenerationConfig.from_pretrained(WEIGHTS))
    asked = [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}]
    for reply, mean in ((Reply([40, 41], [-1.0, -3.0]), -2.0), (Reply([40, 41], [-1.0, None]), None)):

        async def ask(request: Request, reply: Reply = reply) -> Reply:
            return reply

        policy = VLLMPolicy(model, load_processor(str(WEIGHTS), config), longest=999, ask=ask, name="nano")
        found = asyncio.run(policy.generate(asked, [], Sampling(logprobs=True)))
        assert found.logprob == mean
