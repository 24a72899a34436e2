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

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list, gather_object, is_peft_model
from PIL.Image import Image
from trl.generation.vllm_generation import extract_logprobs

from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.reader import Reader
from cof_agent.errors import InputError, said
from cof_agent.policy import PolicyError, Sampling
from rl.rounds import Rounds

REQUESTS_AT_ONCE = 64
"""Sent to a server at the same time, as TRL's client does; its connections are as many."""


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
        _check_sizes(made, image_runs(request.ids, self._image_token))
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
            [
                {
                    "prompt_token_ids": collapsed(request.ids, self._image_token),
                    "multi_modal_data": {"image": request.images},
                }
                for request in requests
            ],
            sampling_params=[SamplingParams(**request.sampling) for request in requests],
            use_tqdm=False,
        )
        for output, request in zip(outputs, requests, strict=True):
            read = image_runs(output.prompt_token_ids, self._image_token)
            _check_sizes(read, image_runs(request.ids, self._image_token))
        logprobs, _ = extract_logprobs(outputs)
        return [
            Reply(list(output.outputs[0].token_ids), _sampled(entry))
            for output, entry in zip(outputs, logprobs, strict=True)
        ]


def _sampled(logprobs: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of each token the log-probability of what was sampled: the only one asked for."""
    return [entry[0] for entry in logprobs]


def _check_sizes(made: Sequence[int], ours: Sequence[int]) -> None:
    if list(made) != list(ours):
        raise InputError(
            f"vLLM makes {list(made)} tokens of images that have {list(ours)}: it resizes them; keep min_pixels, "
            "max_pixels, overview_pixels and zoom_pixels within the limits of the checkpoint's own image processor."
        )


class VLLMPolicy(Reader):
    """A model in training whose turns vLLM writes. Of the model itself only the configuration is used."""

    def __init__(
        self, model: Any, processor: Any, *, longest: int, rounds: Rounds[Request, Reply], **options: Any
    ) -> None:
        super().__init__(model, processor, **options)
        self._longest, self._rounds = longest, rounds

    async def complete(self, prompt: Prompt) -> Generated:
        """The model's next turn.

        Raises:
            PolicyError: if vLLM has no room for it.
        """
        room = self._longest - len(prompt.ids)
        if room < 1:
            raise PolicyError(
                f"the conversation has {len(prompt.ids)} tokens and vLLM takes {self._longest} with the reply; raise "
                "vllm_max_model_length, or the server's --max-model-len.",
                transient=False,
            )
        sampling = replace(prompt.sampling, max_tokens=min(prompt.sampling.max_tokens, room))
        request = request_of(replace(prompt, sampling=sampling), self.stop_ids, self.unspeakable)
        generated = generated_of(await self._rounds.ask(request), self.stop_ids, self.unspeakable)
        if not generated.ids:
            raise PolicyError("vLLM wrote nothing.", transient=False)
        said_stop = bool(sampling.stop) and sampling.stop in self.text(generated.ids)
        return replace(generated, stopped=generated.stopped or said_stop)


def rounds_of(conversations: int) -> Rounds[Request, Reply]:
    """Rounds of requests; those that begin alike stand together, and vLLM reads what they have in common once."""
    return Rounds(conversations, lambda request: (request.ids, request.keys, request.sampling["seed"] or 0))
