"""Turns of RL conversations written by vLLM: each at its own pace, or in rounds where several GPUs share an engine.

Weights are sent by all processes together. Servers are asked by each process for itself (`rl.engines.servers`). An engine that is
shared by several GPUs is run by all of them together: `rl.engines.rounds`.

Requests are built here rather than by TRL's `VLLMGeneration.generate`, which has one length and no seed for all of them, in
server mode cuts the replies up as if each process had asked for as many, and in colocate mode hands vLLM image tokens that
vLLM multiplies once more. Private to TRL 1.16, and used here: of `VLLMGeneration` the attributes `mode`, `model`, `llm`,
`vllm_client`, `server_timeout`, `tensor_parallel_size`, `tp_group`, `enable_sleep_mode`, `_llm_weights_sleeping`, and the
method `sync_weights`. What `rl.engines.fleet` uses stands there.

A seed is a request's own, but vLLM draws other numbers from it than transformers does, and on another batch its logits, and
with them now and then a token, may differ: a resumed run plays alike, not the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate.utils import broadcast_object_list, gather_object, is_peft_model

from cof_agent.backends.vllm.policy import Ask
from cof_agent.backends.vllm.requests import Reply, Request, engine_prompt, reply_of
from cof_agent.errors import InputError
from rl.engines.fleet import Fleet
from rl.engines.rounds import Rounds
from rl.engines.servers import Gone, Servers
from rl.engines.stepping import StepLoop

_log = logging.getLogger(__name__)

T = TypeVar("T")
Conversations = Callable[[Ask, Callable[[], None]], Coroutine[Any, Any, T]]
"""What plays a process's conversations, given whom to ask, and what to call as each of them ends."""

REPLAYS = 4
"""Times that what servers lost is played again in one rollout."""
SENDINGS = 3
"""Times that weights are sent, should all servers be lost meanwhile."""


class Engine(Protocol):
    """What answers a round. Called from the main thread."""

    longest: int
    """Tokens of prompt and reply together, at most."""
    precision: str
    """The data type in which it computes, such as float32."""

    def take_weights(self) -> None:
        """Takes over the weights in training, and drops what it has kept of older ones. Every process calls it."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Ready for rounds, with the weights that were sent last. Every process enters it."""

    def play(self, count: int, conversations: Conversations[T]) -> T:
        """What this process's conversations come to; so many there are. Every process calls it.

        Raises:
            InputError: if vLLM fails, or reads an image otherwise than the model in training does.
        """


def engine_of(
    generation: Any, accelerator: Any, image_token: int, precision: str, urls: Sequence[str] = ()
) -> Server | Colocated:
    """The engine of TRL's `VLLMGeneration`; every process makes one.

    precision: the data type in which the model is trained. urls: of all servers, by default TRL's own.

    Raises:
        InputError: if the engine has another one: it would sample from other probabilities than the trainer reckons with.
    """
    engine: Server | Colocated
    if generation.mode == "server":
        engine = Server(generation, accelerator, image_token, urls)
    else:
        engine = Colocated(generation, accelerator, image_token)
    if engine.precision != precision:
        raise InputError(
            f"vLLM computes in {engine.precision}, and this run trains in {precision}; serve the run with rl.serve, or "
            f"give vLLM --dtype {precision}."
        )
    return engine


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """What a process's conversations came to. value: None if the servers were lost on the way, or `error` ends the run. lost: why
    they were lost."""

    value: T | None = None
    error: InputError | None = None
    lost: str | None = None


class Server:
    """vLLM servers, which each process asks for its own conversations; the main process sends the weights for all."""

    def __init__(self, generation: Any, accelerator: Any, image_token: int, urls: Sequence[str]) -> None:
        self._generation, self._accelerator, self._image_token = generation, accelerator, image_token
        if accelerator.is_main_process:
            first = generation.vllm_client
            generation.vllm_client = Fleet(
                first, urls or [first.base_url], accelerator.device, generation.server_timeout
            )
        config = self._by_main(lambda fleet: fleet.config)
        self.longest: int = config["max_model_len"]
        self.precision: str = config["dtype"].removeprefix("torch.")
        self._urls: list[str] = []
        self._version = ""

    def take_weights(self) -> None:
        for _ in range(SENDINGS):
            self._by_main(lambda fleet: fleet.meet())
            self._generation.sync_weights()  # which drops keys and values, but no features of images
            self._urls, self._version = self._by_main(lambda fleet: fleet.finish())
            if self._urls:
                return
        self._by_main(lambda fleet: fleet.give_up())

    @contextmanager
    def awake(self) -> Iterator[None]:
        yield

    def play(self, count: int, conversations: Conversations[T]) -> T:
        return self.settled(self.attempt(conversations), conversations)

    def attempt(self, conversations: Conversations[T]) -> Attempt[T]:
        """Plays the conversations of this process without the others; in any thread. See `settled`."""
        return asyncio.run(self._attempt(conversations))

    async def _attempt(self, conversations: Conversations[T]) -> Attempt[T]:
        servers = Servers(self._urls, self._version, self._image_token, self._accelerator.process_index)
        try:
            value = await conversations(servers.ask, lambda: None)
        except InputError as error:
            return Attempt(error=error)
        except Gone as error:
            return Attempt(lost=str(error))
        if await servers.unchanged():
            return Attempt(value)
        return Attempt(lost="a vLLM server does not say that it has the weights that it was sent")

    def settled(self, attempt: Attempt[T], conversations: Conversations[T]) -> T:
        """What an attempt came to, once that of every process is whole. Where one is not, the servers are waited for and sent
        the weights again, and what is missing is played again. Every process calls it.

        Raises:
            InputError: that of any process; or if servers are lost each time, as by a request that none can answer.
        """
        for replay in range(REPLAYS + 1):
            for error in gather_object([attempt.error]):
                if error is not None:
                    raise error
            lost = [one for one in gather_object([attempt.lost]) if one is not None]
            if not lost:
                assert attempt.value is not None
                return attempt.value
            if replay < REPLAYS:
                _log.warning("Conversations are played again: %s.", lost[0])
                self.take_weights()
                if attempt.lost is not None:
                    attempt = self.attempt(conversations)
        raise InputError(f"a rollout was played {REPLAYS + 1} times, and servers were lost each time: {lost[0]}.")

    def _by_main(self, call: Callable[[Fleet], Any]) -> Any:
        """What the main process is told, in all of them; what it raises is raised in all, so that none is left waiting."""
        told: list[Any] = [None]
        if self._accelerator.is_main_process:
            try:
                told = [call(self._generation.vllm_client)]
            except InputError as error:
                told = [error]
        found = broadcast_object_list(told)[0]
        if isinstance(found, InputError):
            raise found
        return found


class Colocated:
    """vLLM in the processes that train; each asks its own, or those of a tensor-parallel group theirs together."""

    def __init__(self, generation: Any, accelerator: Any, image_token: int) -> None:
        self._generation, self._accelerator, self._image_token = generation, accelerator, image_token
        self._loop = StepLoop(generation.llm.llm_engine, image_token)
        config = generation.llm.llm_engine.model_config
        self.longest: int = config.max_model_len
        self.precision = str(config.dtype).removeprefix("torch.")

    def take_weights(self) -> None:
        self._generation.sync_weights()  # which drops keys and values, but no features of images
        self._generation.llm.llm_engine.reset_encoder_cache()

    @contextmanager
    def awake(self) -> Iterator[None]:
        generation = self._generation
        if not generation.enable_sleep_mode:
            yield
            return
        if generation._llm_weights_sleeping:  # they are not kept
            self.take_weights()
        generation.llm.wake_up(tags=["kv_cache"])
        try:
            yield
        finally:
            generation.llm.sleep(level=2)
            generation._llm_weights_sleeping = True

    def play(self, count: int, conversations: Conversations[T]) -> T:
        if self._generation.tensor_parallel_size == 1:  # nothing is done together
            return asyncio.run(conversations(self._loop.ask, lambda: None))
        rounds = rounds_of(count)
        return rounds.play(lambda: conversations(rounds.ask, rounds.leave), self._answer)

    def _answer(self, requests: Sequence[Request]) -> list[Reply] | None:
        """The replies to this process's requests; None once no process has any. Every process calls it at each round."""
        group = self._generation.tensor_parallel_size
        if not any(gather_object([len(requests)])):
            return None
        if is_peft_model(self._generation.model):  # as in TRL's `generate`: else vLLM may hang; a barrier of all groups
            torch.distributed.barrier(device_ids=[self._accelerator.local_process_index])
        everyone: list[list[Request]] = [[]] * group
        torch.distributed.all_gather_object(everyone, list(requests), group=self._generation.tp_group)
        first = sum(len(part) for part in everyone[: torch.distributed.get_rank(self._generation.tp_group)])
        together = [request for part in everyone for request in part]
        return self._replies(together)[first : first + len(requests)] if together else []

    def _replies(self, requests: Sequence[Request]) -> list[Reply]:
        from vllm import SamplingParams

        outputs = self._generation.llm.generate(
            [engine_prompt(request, self._image_token) for request in requests],
            sampling_params=[SamplingParams(**request.sampling) for request in requests],
            use_tqdm=False,
        )
        return [reply_of(*pair, self._image_token) for pair in zip(outputs, requests, strict=True)]


def rounds_of(conversations: int) -> Rounds[Request, Reply]:
    """Rounds of requests; those that begin alike stand together, and vLLM reads what they have in common once."""
    return Rounds(conversations, lambda request: (request.ids, request.keys, request.sampling["seed"] or 0))
