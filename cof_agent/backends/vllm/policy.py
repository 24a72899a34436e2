"""Runs a model through vLLM, by token ids: the reading and writing is ours, as for a checkpoint in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.reader import ReadingPolicy
from cof_agent.backends.vllm.requests import Reply, Request, generated_of, request_of
from cof_agent.policy import NoRoom, PolicyError

Ask = Callable[[Request], Awaitable[Reply]]


class VLLMPolicy(ReadingPolicy):
    """A model whose turns vLLM writes. Of the model itself only the configuration is used.

    longest: tokens of prompt and reply together, at most. ask: the reply to a request.
    """

    def __init__(self, model: Any, processor: Any, *, longest: int, ask: Ask, **options: Any) -> None:
        super().__init__(model, processor, **options)
        self._longest, self._ask = longest, ask

    async def complete(self, prompt: Prompt) -> Generated:
        """The model's next turn.

        Raises:
            NoRoom: if it is longer than vLLM takes.
            PolicyError: if vLLM wrote nothing.
        """
        room = self._longest - len(prompt.ids)
        if room < 1:
            raise NoRoom(
                f"the conversation has {len(prompt.ids)} tokens and vLLM takes {self._longest} with the reply; raise "
                "its max-model-len (in RL vllm_max_model_length)."
            )
        sampling = replace(prompt.sampling, max_tokens=min(prompt.sampling.max_tokens, room))
        request = request_of(replace(prompt, sampling=sampling), self.stop_ids, self.unspeakable)
        generated = generated_of(await self._ask(request), self.stop_ids, self.unspeakable)
        if not generated.ids:
            raise PolicyError("vLLM wrote nothing.", transient=False)
        said_stop = bool(sampling.stop) and sampling.stop in self.text(generated.ids)
        return replace(generated, stopped=generated.stopped or said_stop)
