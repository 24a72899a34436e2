"""What vLLM is told in either mode, beside what TRL tells it: the precision, limits on images, and a run's own `vllm_options`.

An option is written as that of `vllm serve` without its dashes: `enforce-eager`, `max-num-seqs=64`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cof_agent.backends.vllm.options import as_keywords
from rl.settings import RunConfig, Settings

if TYPE_CHECKING:
    import torch
    from trl import GRPOConfig


def precision_of(training: GRPOConfig, weights: torch.dtype) -> str:
    """The data type in which a model with these weights is trained, by the name that vLLM has for it.

    An engine of another type samples from other probabilities: in bfloat16 beside nano's training in float32, those of single
    tokens were off by up to a quarter.
    """
    if training.bf16 or training.fp16:
        return "bfloat16" if training.bf16 else "float16"
    return str(weights).removeprefix("torch.")


def options_of(settings: Settings, precision: str) -> list[str]:
    """The options of a run's engine."""
    limits = {"limit-mm-per-prompt": {"video": 0}} | _image_limits(settings.run)
    told = [f"{name}={json.dumps(value)}" for name, value in limits.items()]
    return [f"dtype={precision}", *told, *settings.run.vllm_options]


def _image_limits(run: RunConfig) -> dict[str, Any]:
    """At its start vLLM tries the largest image that it may be given: minutes at a checkpoint's own limit of 12 megapixels."""
    overview, crop = shown_areas(run)
    if overview is None:
        return {}
    return {"mm-processor-kwargs": {"max_pixels": max(overview, crop or 0)}}


def shown_areas(run: RunConfig) -> tuple[int | None, int | None]:
    """The largest areas of an overview and of a crop that the agent shows, in shown pixels; None where the checkpoint says it."""
    overview, crop = run.agent_config().areas
    given = [area for area in (overview, run.max_pixels) if area]
    most = [min(given)] if given else []
    return max([*most, *(side**2 for side in run.resolutions)], default=None), crop


@contextmanager
def colocated_with(options: Sequence[str]) -> Iterator[None]:
    """Within, TRL makes its colocated engine with these options; it has no settings for them. A server has its own."""
    from trl.generation import vllm_generation

    llm = getattr(vllm_generation, "LLM", None)  # where there is no vLLM, a server may still be asked in tests
    if llm is None:
        yield
        return
    vllm_generation.LLM = lambda **given: llm(**given | as_keywords(options))
    try:
        yield
    finally:
        vllm_generation.LLM = llm
