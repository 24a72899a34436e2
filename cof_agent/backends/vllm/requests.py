"""A turn as vLLM is asked for it, and its reply, whatever carries them: an engine in this process, or a server.

Images go as they are shown, with their token ids: vLLM then resizes nothing, and has to count as many tokens of each as we do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from PIL.Image import Image

from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.errors import InputError
from cof_agent.policy import Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """A turn that is asked for; can be sent to another process.

    ids: each image's token as often as the image has merged patches. keys: name the pixels of `images`.
    sampling: fields of vLLM's `SamplingParams`.
    """

    ids: list[int]
    images: list[Image]
    keys: tuple[bytes, ...]
    sampling: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """Token ids as vLLM wrote them, a stop token included; and the log-probability of each, None for one it could not tell."""

    ids: list[int]
    logprobs: list[float | None]


def request_of(prompt: Prompt, stop_ids: Collection[int], unspeakable: Collection[int]) -> Request:
    """A prompt as a request."""
    pictures = prompt.pictures
    return Request(
        prompt.ids,
        [picture.image for picture in pictures],
        tuple(picture.key for picture in pictures),
        sampling_params(prompt.sampling, stop_ids, unspeakable),
    )


def sampling_params(sampling: Sampling, stop_ids: Collection[int], unspeakable: Collection[int]) -> dict[str, Any]:
    """Fields of vLLM's `SamplingParams`, as JSON values; one reply, with the log-probabilities of its own tokens only."""
    return {
        "n": 1,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop_token_ids": sorted(stop_ids),
        "logit_bias": dict.fromkeys(unspeakable, -100.0),  # the least that vLLM takes; see `generated_of`
        "logprobs": 0,
        **({"stop": [sampling.stop], "include_stop_str_in_output": True} if sampling.stop else {}),
    }


def generated_of(reply: Reply, stop_ids: Collection[int], unspeakable: Collection[int]) -> Generated:
    """A reply as the transcript takes it: cut before the first token that stands for part of an image, should there be one."""
    end = next((index for index, token in enumerate(reply.ids) if token in unspeakable), len(reply.ids))
    ids = reply.ids[:end]
    return Generated(ids, bool(ids) and ids[-1] in stop_ids, reply.logprobs[:end])


def image_runs(ids: Sequence[int], image_token: int) -> list[int]:
    """The length of each run of image tokens."""
    return [len(list(run)) for token, run in groupby(ids) if token == image_token]


def collapsed(ids: Sequence[int], image_token: int) -> list[int]:
    """Each run of image tokens as one, from which vLLM makes as many as the image has merged patches."""
    found: list[int] = []
    for token, run in groupby(ids):
        found += [token] if token == image_token else run
    return found


def engine_prompt(request: Request, image_token: int) -> dict[str, Any]:
    """A request's conversation as an engine in this process takes it."""
    return {
        "prompt_token_ids": collapsed(request.ids, image_token),
        "multi_modal_data": {"image": request.images},
    }


def check_sizes(made: Sequence[int], ours: Sequence[int]) -> None:
    """Refuses a prompt of whose images vLLM makes other numbers of tokens than we do.

    Raises:
        InputError: if not.
    """
    if list(made) != list(ours):
        raise InputError(
            f"vLLM makes {list(made)} tokens of images that have {list(ours)}: it resizes them; keep min_pixels, "
            "max_pixels, overview_pixels and zoom_pixels within the limits of the checkpoint's own image processor."
        )


def reply_of(output: Any, request: Request, image_token: int) -> Reply:
    """What vLLM's `RequestOutput` says.

    Raises:
        InputError: if it has other tokens for an image than the request.
    """
    check_sizes(image_runs(output.prompt_token_ids, image_token), image_runs(request.ids, image_token))
    (written,) = output.outputs
    ids = list(written.token_ids)
    told = [chances[token].logprob for token, chances in zip(ids, written.logprobs, strict=True)]
    return Reply(ids, [None if math.isnan(value) else value for value in told])
