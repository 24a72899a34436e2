"""vLLM's engine in the process that trains: requests join as they come, and each is answered when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from cof_agent.backends.local.batching import Batcher
from cof_agent.backends.vllm.requests import Reply, Request, engine_prompt, reply_of
from cof_agent.errors import InputError, said

AT_ONCE = 1024
"""Requests that are handed to vLLM, at most. How many of them it works on is its own decision (`max-num-seqs`)."""


class StepLoop:
    """The loop of an engine of vLLM, in a thread of its own. engine: an `LLMEngine`. image_token: of the model."""

    def __init__(self, engine: Any, image_token: int) -> None:
        self._batcher: Batcher[Request, Any] = Batcher(_Steps(engine, image_token))
        self._image_token = image_token

    async def ask(self, request: Request) -> Reply:
        """The reply to a request; from any event loop.

        Raises:
            InputError: if vLLM fails, or reads an image otherwise than the model in training does.
        """
        try:
            output = await self._batcher.submit(request)
        except Exception as error:  # what vLLM raises is not limited
            raise InputError(f"vLLM failed: {said(error)}") from error
        return reply_of(output, request, self._image_token)


class _Steps:
    """An `LLMEngine` as `Batcher` drives it."""

    capacity = AT_ONCE

    def __init__(self, engine: Any, image_token: int) -> None:
        self._engine, self._image_token = engine, image_token
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._next_key = 0
        self._running: set[int] = set()

    def admit(self, request: Request) -> int:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._choose_device()
        key, self._next_key = self._next_key, self._next_key + 1
        params = SamplingParams(**request.sampling, output_kind=RequestOutputKind.FINAL_ONLY)
        (prompt,) = self._engine.renderer.render_cmpl([engine_prompt(request, self._image_token)])
        self._engine.add_request(str(key), prompt, params)
        self._running.add(key)
        return key

    def step(self) -> Mapping[int, Any]:
        """vLLM's outputs of the requests that are done."""
        self._choose_device()
        done = {int(output.request_id): output for output in self._engine.step() if output.finished}
        self._running -= done.keys()
        return done

    def drop(self, key: int) -> None:
        self._engine.abort_request([str(key)])
        self._running.discard(key)

    def reset(self) -> None:
        running, self._running = self._running, set()
        with suppress(Exception):  # an engine that has died, say
            self._engine.abort_request(list(map(str, running)))

    def _choose_device(self) -> None:
        """CUDA's current device is a thread's own."""
        if self._device is not None:
            torch.cuda.set_device(self._device)
