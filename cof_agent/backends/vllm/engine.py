"""vLLM's engine in this process, asked from any thread: requests join as they come, and each is answered when it is done."""

from __future__ import annotations

import asyncio
import atexit
import threading
from itertools import count
from typing import Any

from cof_agent.backends.vllm.requests import Reply, Request, engine_prompt, reply_of
from cof_agent.errors import InputError, said
from cof_agent.policy import PolicyError


class VLLMEngine:
    """vLLM's `AsyncLLM`, whose event loop has a thread of its own. image_token: of the model.

    A caller that is cancelled takes its request out of the engine.
    """

    def __init__(self, engine: Any, image_token: int) -> None:
        self._engine, self._image_token = engine, image_token
        self._names = map(str, count())
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        atexit.register(self._close)

    async def ask(self, request: Request) -> Reply:
        """The reply to a request; from any event loop.

        Raises:
            PolicyError: if vLLM does not take the request.
            InputError: if the engine has died, or reads an image otherwise than we do.
        """
        work = asyncio.run_coroutine_threadsafe(self._output(request), self._loop)
        try:
            output = await asyncio.wrap_future(work)
        except Exception as error:  # what vLLM raises is not limited
            if self._engine.errored:
                raise InputError(f"vLLM's engine has died: {said(error)}") from error
            raise PolicyError(f"vLLM cannot answer: {said(error)}", transient=False) from error
        return reply_of(output, request, self._image_token)

    async def _output(self, request: Request) -> Any:
        """vLLM's `RequestOutput`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self._engine
        (prompt,) = await engine.renderer.render_cmpl_async([engine_prompt(request, self._image_token)])
        params = SamplingParams(**request.sampling, output_kind=RequestOutputKind.FINAL_ONLY)
        return await anext(engine.generate(prompt, params, next(self._names)))

    def _close(self) -> None:
        """Ends vLLM's task that waits for outputs before the engine's process: it would report its end as a failure."""
        asyncio.run_coroutine_threadsafe(self._stop_waiting(), self._loop).result()
        self._engine.shutdown()
        self._engine.shutdown = lambda: None  # its finalizer calls this again, when vLLM's modules may be gone

    async def _stop_waiting(self) -> None:
        waiting = self._engine.output_handler
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait([waiting])
