"""The importance ratio by hand, and the sentence that ends a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cof_agent.errors import InputError
from rl.ratio import Correction, Ratios, check, ratios_of

NAN = math.nan


def scored(difference: list[list[float]]) -> dict[str, Any]:
    """Two conversations of four tokens: the second is shorter, and of the first one token was shown."""
    sampled = torch.full((2, 4), -1.0)
    return {
        "old_per_token_logps": sampled + torch.tensor(difference),
        "sampling_per_token_logps": sampled,
        "completion_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "tool_mask": torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]]),
    }


def test_ratios_by_hand() -> None:
    output = scored([[0.1, 9.0, -0.3, 0.0], [0.5, NAN, 7.0, 7.0]])
    whole = [math.exp(-0.2), math.exp(0.5)]
    for mode, least, most, clipped in (
        ("sequence_mask", None, 3.0, 0),
        ("sequence_truncate", None, 1.5, 1 / 4),  # the second conversation, of whose tokens one is unknown
        ("token_truncate", 0.9, 1.5, 2 / 4),
        ("token_mask", None, 1.5, 1 / 4),
    ):
        bounds = Correction(mode, -math.inf if least is None else least, most)
        found = ratios_of(output, bounds, lambda vector: vector)
        assert found.conversation == pytest.approx(sum(whole) / 2)
        assert found.token == pytest.approx(math.exp((0.1 - 0.3 + 0.0 + 0.5) / 4))
        assert found.clipped == pytest.approx(clipped), mode


def test_processes_count_together() -> None:
    output, other = scored([[0.0] * 4] * 2), scored([[math.log(2)] * 4, [math.log(2), NAN, 0, 0]])
    bounds = Correction("token_mask", -math.inf, 1.5)
    vectors: list[torch.Tensor] = []
    ratios_of(other, bounds, lambda vector: vectors.append(vector) or vector)  # type: ignore[func-returns-value]
    found = ratios_of(output, bounds, lambda vector: torch.cat([vector, *vectors]))
    assert found.conversation == pytest.approx((1 + 1 + 8 + 2) / 4)
    assert found.token == pytest.approx(2 ** (4 / 9))
    assert found.clipped == pytest.approx(4 / 9)


def test_a_ratio_outside_the_band_ends_the_run() -> None:
    check(Ratios(1.015, 0.9, 0.0), "float32", 0)
    check(Ratios(0.8, 0.985, 0.0), "bfloat16", 3)
    with pytest.raises(
        InputError, match="of a conversation is 0.770 at step 0, not within 0.98 to 1.02.* Look at the prec"
    ):
        check(Ratios(0.77, 0.99, 0.0), "float32", 0)
    with pytest.raises(
        InputError, match="of a token is 0.970 at step 3.* Look at whether weights reach vLLM.* of LoRA too"
    ):
        check(Ratios(1.0, 0.97, 0.0), "bfloat16", 3)
    with pytest.raises(InputError, match="is nan"):
        check(Ratios(NAN, NAN, 0.0), "bfloat16", 0)
