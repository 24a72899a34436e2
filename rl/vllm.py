"""Turns of RL conversations written by vLLM: a round at a time, in which every process takes part, until none has a request.

What conversations need differs between processes, but weights are sent, a server is asked, and an engine that is shared by
several GPUs is run by all of them together. See `rl.rounds` for how a process's conversations are brought together.

Requests are built here rather than by TRL's `VLLMGeneration.generate`, which has one length and no seed for all of them, in
server mode cuts the replies up as if each process had asked for as many, and in colocate mode hands vLLM image tokens that
vLLM multiplies once more. Private to TRL 1.16, and used here: of `VLLMGeneration` the attributes `mode`, `model`, `llm`,
`vllm_client`, `tensor_parallel_size`, `tp_group`, `enable_sleep_mode`, `_llm_weights_sleeping`, and the methods
`sync_weights` and `_place_features`; `VLLMClient`'s `image_features`, `generate`, `get_server_info`, `session` and `base_url`;
`extract_logprobs`.

A seed is a request's own, but vLLM draws other numbers from it than transformers does, and on another batch its logits, and
with them now and then a token, may differ: a resumed run plays alike, not the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list, gather_object, is_peft_model
from trl.generation.vllm_generation import extract_logprobs

from cof_agent.backends.vllm.requests import Reply, Request, check_sizes, engine_prompt, image_runs
from cof_agent.errors import InputError, said
from rl.rounds import Rounds

REQUESTS_AT_ONCE = 64
"""Sent to a server at the same time, as TRL's client does; its connections are as many."""


class Engine(Protocol):
    """What answers a round. Called from the main thread."""

    longest: int
    """Tokens of prompt and reply together, at most."""
    precision: str
    """The number type in which it computes, such as float32."""

    def take_weights(self) -> None:
        """Takes over the weights in training, and drops what it has kept of older ones. Every process calls it."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Ready for rounds, with the weights that were sent last. Every process enters it."""

    def answer(self, requests: Sequence[Request]) -> list[Reply] | None:
        """The replies to this process's requests; None once no process has any. Every process calls it at each round.

        Raises:
            InputError: if vLLM fails, or reads an image otherwise than the model in training does.
        """


def engine_of(generation: Any, accelerator: Any, image_token: int, precision: str) -> Engine:
    """The engine of TRL's `VLLMGeneration`; every process makes one.

    precision: the number type in which the model is trained.

    Raises:
        InputError: if the engine has another one: it would sample from other probabilities than the trainer reckons with.
    """
    kind = Server if generation.mode == "server" else Colocated
    engine = kind(generation, accelerator, image_token)
    if engine.precision != precision:
        raise InputError(
            f"vLLM computes in {engine.precision}, and this run trains in {precision}; serve the run with rl.serve, or "
            f"give vLLM --dtype {precision}."
        )
    return engine


class Server:
    """A vLLM server, which the main process asks for all."""

    def __init__(self, generation: Any, accelerator: Any, image_token: int) -> None:
        self._generation, self._accelerator, self._image_token = generation, accelerator, image_token
        told = [generation.vllm_client.get_server_info()["model_config"] if accelerator.is_main_process else None]
        config = broadcast_object_list(told)[0]
        self.longest: int = config["max_model_len"]
        self.precision: str = config["dtype"].removeprefix("torch.")

    def take_weights(self) -> None:
        self._generation.sync_weights()  # which drops keys and values, but no features of images
        if self._accelerator.is_main_process:
            client = self._generation.vllm_client
            client.session.post(f"{client.base_url}/reset_encoder_cache").raise_for_status()

    @contextmanager
    def awake(self) -> Iterator[None]:
        yield

    def answer(self, requests: Sequence[Request]) -> list[Reply] | None:
        everyone: list[list[Request]] = gather_object([list(requests)])
        if not any(everyone):
            return None
        outcome: list[Any] = [None]
        if self._accelerator.is_main_process:
            outcome = [self._outcome([request for part in everyone for request in part])]
        found = broadcast_object_list(outcome)[0]
        if isinstance(found, InputError):  # by then told to all, none of whom is left waiting
            raise found
        first = sum(len(part) for part in everyone[: self._accelerator.process_index])
        replies: list[Reply] = found[first : first + len(requests)]
        return replies

    def _outcome(self, requests: list[Request]) -> list[Reply] | InputError:
        try:
            return self._replies(requests)
        except InputError as error:
            return error
        except Exception as error:  # TRL's client raises anything, plain `Exception` included
            return InputError(f"the vLLM server failed: {said(error)}")

    def _replies(self, requests: list[Request]) -> list[Reply]:
        images = {request.keys: request.images for request in requests}  # the rollouts of a group begin with the same
        features = dict(zip(images, self._generation.vllm_client.image_features(list(images.values())), strict=True))
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(lambda request: self._reply(request, features[request.keys]), requests))

    def _reply(self, request: Request, features: Any) -> Reply:
        """The server's features of the images go with our own token ids, so they must be as long."""
        made = [] if features is None else [place["length"] for place in features["mm_placeholders"]["image"]]
        check_sizes(made, image_runs(request.ids, self._image_token))
        placed = self._generation._place_features(features, request.ids)
        found = self._generation.vllm_client.generate(
            [request.ids], features=[placed], generation_kwargs=request.sampling
        )
        return Reply(found["completion_ids"][0], _sampled(found["logprobs"][0]))


class Colocated:
    """vLLM in the processes that train; each asks its own, or those of a tensor-parallel group theirs together."""

    def __init__(self, generation: Any, accelerator: Any, image_token: int) -> None:
        self._generation, self._accelerator, self._image_token = generation, accelerator, image_token
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

    def answer(self, requests: Sequence[Request]) -> list[Reply] | None:
        group = self._generation.tensor_parallel_size
        if group == 1:  # nothing is done together
            return self._replies(requests) if requests else None
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
        for output, request in zip(outputs, requests, strict=True):
            read = image_runs(output.prompt_token_ids, self._image_token)
            check_sizes(read, image_runs(request.ids, self._image_token))
        logprobs, _ = extract_logprobs(outputs)
        return [
            Reply(list(output.outputs[0].token_ids), _sampled(entry))
            for output, entry in zip(outputs, logprobs, strict=True)
        ]


def _sampled(logprobs: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of each token the log-probability of what was sampled: the only one asked for."""
    return [entry[0] for entry in logprobs]


def rounds_of(conversations: int) -> Rounds[Request, Reply]:
    """Rounds of requests; those that begin alike stand together, and vLLM reads what they have in common once."""
    return Rounds(conversations, lambda request: (request.ids, request.keys, request.sampling["seed"] or 0))
