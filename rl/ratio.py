"""Whether the trainer gives what vLLM sampled the probabilities that vLLM gave it: the importance ratio, which is 1 but for
rounding.

A loss whose samples come from another model than the trainer reckons with looks like any other loss. So the ratio of each
generation is compared with a band, and a run outside of it ends.

In float32 it is the ratio of whole conversations that counts, as in TRL's correction: the product over the tokens that the
model wrote. In 16 bit the two sides round differently, each token by about 0.01, which over some hundred tokens adds up to a
factor of its own. There the ratio of one token counts, in the geometric mean. Its logarithm is minus the divergence of the two
models for a token (KL), which rounding hardly adds to, while other weights or lost images do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cof_agent.errors import InputError

BAND = (0.98, 1.02)


@dataclass(frozen=True, slots=True)
class Ratios:
    """Of a generation, over all processes. conversation: the mean over conversations of the product over their tokens. token:
    the geometric mean over all tokens. clipped: share of tokens that the correction clips or leaves out."""

    conversation: float
    token: float
    clipped: float


@dataclass(frozen=True, slots=True)
class Correction:
    """What TRL's correction does with ratios: its mode, and the bounds beyond which it clips them or leaves them out."""

    mode: str
    least: float
    most: float

    @classmethod
    def of(cls, training: Any) -> Correction:
        least, most = training.vllm_importance_sampling_clip_min, training.vllm_importance_sampling_clip_max
        return cls(
            training.vllm_importance_sampling_mode,
            -math.inf if least is None else least,
            math.inf if most is None else most,
        )

    def reaches(self, logarithms: Tensor) -> Tensor:
        """1 for each token that it clips or leaves out; logarithms: of the ratios, [conversations, tokens], 0 elsewhere."""
        ratios = logarithms.exp() if self.mode.startswith("token") else logarithms.sum(1, keepdim=True).exp()
        return ((ratios < self.least) | (ratios > self.most)).expand_as(logarithms)


def ratios_of(output: dict[str, Any], correction: Correction, gather: Callable[[Tensor], Tensor]) -> Ratios:
    """The ratios of a generation that TRL has scored; gather: joins vectors of all processes.

    A token whose probability vLLM could not tell is left out.
    """
    wrote = output["completion_mask"].bool() & output["tool_mask"].bool()
    difference = output["old_per_token_logps"] - output["sampling_per_token_logps"]
    known = wrote & ~difference.isnan()
    logarithms = difference.masked_fill(~known, 0.0).double()
    sums = [logarithms.sum(1).exp().sum(), logarithms.sum(), (correction.reaches(logarithms) & known).sum()]
    counts = [torch.tensor(len(known), device=known.device), known.sum()]
    vector = torch.stack([one.double() for one in (*sums, *counts)])
    products, logs, clipped, conversations, tokens = gather(vector).view(-1, len(vector)).sum(0).tolist()
    tokens = max(tokens, 1)
    return Ratios(products / conversations, math.exp(logs / tokens), clipped / tokens)


def check(found: Ratios, precision: str, step: int) -> None:
    """Ends a run whose ratio is outside of the band.

    precision: the data type of both sides, such as float32. step: whose conversations these are.

    Raises:
        InputError: if it is.
    """
    exact = precision == "float32"
    value, what = (found.conversation, "a conversation") if exact else (found.token, "a token")
    if BAND[0] <= value <= BAND[1]:
        return
    raise InputError(
        f"the importance ratio of {what} is {value:.3f} at step {step}, not within {BAND[0]} to {BAND[1]}: vLLM does not sample "
        f"from the model in training. {_to_look_at(step)}"
    )


def _to_look_at(step: int) -> str:
    first = (
        "Look at the precision of both sides (dtype, bf16), at the server's model, chat template and image limits, and at "
        "logprobs-mode, which must be processed_logprobs."
    )
    later = "Look at whether weights reach vLLM after an update, those of LoRA too, and at the learning rate."
    return first if step == 0 else f"{later} {first}"
