"""Runs a checkpoint of the Qwen2-VL, Qwen2.5-VL or Qwen3-VL family in this process, through transformers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from cof_agent.backends.cpu import speed_up_vision
from cof_agent.backends.decode import Decoder, Generated, Prompt
from cof_agent.backends.memory import Picture
from cof_agent.backends.processor import load_processor, prepare_images
from cof_agent.batching import Batcher
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.policy import Completion, PixelLimits, PolicyError, Sampling
from cof_agent.trajectory import Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.protocol import Message

FAMILIES = {
    "qwen2_vl": CoordinateSystem.THOUSAND,
    "qwen2_5_vl": CoordinateSystem.ABSOLUTE,
    "qwen3_vl": CoordinateSystem.THOUSAND,
}
"""What the boxes of each supported `model_type` mean."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

OVERVIEW_CELLS = 1280
"""The overview has at most this many grid cells (image tokens), unless asked for otherwise."""


class LocalPolicy:
    """A checkpoint in memory, shared by any number of concurrent callers: their tokens are generated together.

    Greedy is the default, without the repetition penalty that some checkpoints' generation configs ask for. With a
    seed, the random numbers of a message depend on nothing but that seed. The logits do not depend, to rounding (about
    1e-6 of their size in float32), on who else is being answered or on what was read before, so that a greedy or
    seeded text can only differ between two runs where two tokens are tied that closely.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str,
        coordinates: CoordinateSystem,
        limits: PixelLimits,
        capacity: int = 32,
    ) -> None:
        self.name = name
        self.coordinates = coordinates
        self.limits = limits
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_token_id = model.config.image_token_id
        self._tokenizing = threading.Lock()  # tokenizers refuse to be called from two threads at once
        self._decoder = Decoder(model, _stop_ids(model, processor.tokenizer), capacity=capacity)
        self._batcher: Batcher[Prompt, Generated] = Batcher(self._decoder)

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message; stops at `<|im_end|>`. Token counts include image tokens and the stop token.

        Raises:
            InputError: if a message holds the text of the image token.
            PolicyError: if the device has not enough memory for the conversation.
            ValueError: if an image is not of a size that the model takes as it is.
        """
        prompt = await asyncio.to_thread(self._prompt, messages, images, sampling)
        generated = await self.complete(prompt)
        return Completion(
            self.text(generated.ids),
            Tokens(len(prompt.ids), len(generated.ids)),
            truncated=not generated.stopped,
        )

    async def complete(self, prompt: Prompt) -> Generated:
        """The token ids that follow those of `prompt`; stops after the end of the turn.

        Raises:
            PolicyError: if the device has not enough memory for the conversation.
        """
        try:
            return await self._batcher.submit(prompt)
        except torch.OutOfMemoryError:
            raise PolicyError(
                f"{self.name} ran out of memory at {len(prompt.ids)} tokens; lower --max-pixels or the concurrency."
            ) from None

    def text(self, ids: Sequence[int]) -> str:
        """What token ids say, without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def forget(self) -> None:
        """Drops what was read in earlier conversations, which costs time and changes no text: for fair measurements."""
        self._decoder.forget()

    def _prompt(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Prompt:
        ids, pictures = self.read(self.render(messages), images)
        return Prompt(ids, pictures, sampling)

    def render(self, messages: Sequence[Message], *, answering: bool = True) -> str:
        """The text of a conversation by the model's own template; `answering`: up to where the next turn begins."""
        text: str = self._processor.apply_chat_template(
            _template_messages(messages), tokenize=False, add_generation_prompt=answering
        )
        return text

    def read(self, text: str, images: Sequence[Image]) -> tuple[list[int], list[Picture]]:
        """Token ids of a rendered text, each image token as often as its image has merged patches; and the images.

        Raises:
            InputError: if a message holds the text of the image token.
            ValueError: if an image is not of a size that the model takes as it is.
        """
        pictures = [self._picture(image) for image in prepare_images(images, self.limits)]
        with self._tokenizing:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        return self._expanded(ids, pictures), pictures

    def _expanded(self, ids: list[int], pictures: list[Picture]) -> list[int]:
        """Each image token as often as its image has merged patches."""
        if ids.count(self._image_token_id) != len(pictures):
            raise InputError(
                f"a message holds the text {self._processor.image_token}, which stands for an image; remove it."
            )
        cells = iter(prod(picture.grid) // self._processor.image_processor.merge_size**2 for picture in pictures)
        expanded: list[int] = []
        for token in ids:
            expanded += [token] * next(cells) if token == self._image_token_id else [token]
        return expanded

    def _picture(self, image: Image) -> Picture:
        patch = self._processor.image_processor.patch_size
        grid = (1, image.height // patch, image.width // patch)

        def process() -> torch.Tensor:
            # Without resizing, whatever limits the checkpoint's own configuration has: the size is already right.
            found = self._processor.image_processor(images=[image], do_resize=False, return_tensors="pt")
            if tuple(found["image_grid_thw"][0].tolist()) != grid:
                raise ValueError(f"the processor made {found['image_grid_thw']} patches of an image of {image.size}")
            patches: torch.Tensor = found["pixel_values"]
            return patches

        key = hashlib.blake2b(image.tobytes(), digest_size=16, key=f"{image.size}{image.mode}".encode()).digest()
        picture = Picture(key, grid, process)
        if not self._decoder.knows(picture):
            _ = picture.patches  # now, in the caller's thread, rather than in the one that everybody waits for
        return picture


def _template_messages(messages: Sequence[Message]) -> list[Message]:
    """Content as chat templates know it: which image is meant is said by the order."""
    return [
        {
            "role": message["role"],
            "content": [{"type": "image"} if part["type"] == "image" else part for part in message["content"]],
        }
        for message in messages
    ]


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    found = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    found.add(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return {token for token in found if token is not None}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs, and in which precision."""

    device: str
    dtype: torch.dtype


def place(device: str | None = None, dtype: str | None = None) -> Placement:
    """The device and precision to use: what is asked for, else the best there is.

    CUDA in bfloat16; a CPU in float32, or in bfloat16 where its instructions have it.

    Raises:
        InputError: for a name that torch does not know, or a device that is not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"there is no device {device!r} here; leave it out to use what there is.") from None
    if dtype is None:
        return Placement(device, torch.bfloat16 if kind == "cuda" or _cpu_has_bfloat16(kind) else torch.float32)
    chosen = getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise InputError(f"{dtype!r} is no precision of torch; use bfloat16, float16 or float32.")
    return Placement(device, chosen)


def _cpu_has_bfloat16(kind: str) -> bool:
    found = torch.cpu.get_capabilities()
    return kind == "cpu" and bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def load(
    model: str | Path,
    *,
    name: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    max_pixels: int | None = None,
    zoom_pixels: int | None = None,
    capacity: int = 32,
) -> LocalPolicy:
    """Loads `nano`, or a checkpoint from a directory or the hub.

    nano runs in float32 unless `dtype` says otherwise: in bfloat16 its answers would depend on who else is answered.

    name: how the policy is called in the record, by default as `model`.
    max_pixels: area limit of the overview in shown pixels, by default the checkpoint's own, but at most
    `OVERVIEW_CELLS` cells. zoom_pixels: that of a crop, a quarter of it by default. capacity: conversations that are
    generated for at once.

    Raises:
        InputError: if there is no such checkpoint, it cannot be read, or it is of another family.
    """
    where = str(model)
    if where == NANO:
        where, name, dtype = str(WEIGHTS), name or NANO, dtype or "float32"
    if not (where and Path(where).is_dir()) and not _HUB_ID.fullmatch(where):
        raise InputError(
            f"there is no model directory {where}, and a model of the hub is named like Qwen/Qwen2.5-VL-7B-Instruct."
        )
    placement = place(device, dtype)
    try:
        config = AutoConfig.from_pretrained(where)
        if config.model_type not in FAMILIES:
            raise InputError(
                f"{where} is a {config.model_type} model; a local model must be of the Qwen2-VL, Qwen2.5-VL or "
                "Qwen3-VL family."
            )
        processor: Any = load_processor(where)
        weights: Any = AutoModelForImageTextToText.from_pretrained(where, config=config, dtype=placement.dtype)
    except InputError:
        raise
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        logging.getLogger(__name__).debug("loading %s failed", where, exc_info=True)
        raise InputError(f"cannot load the model {where}: {_first_sentence(error)}") from None
    if torch.device(placement.device).type == "cpu":
        speed_up_vision(weights)
    return around(
        weights.to(placement.device).eval(),
        processor,
        name=name or where,
        max_pixels=max_pixels,
        zoom_pixels=zoom_pixels,
        capacity=capacity,
    )


def around(
    model: Any,
    processor: Any,
    *,
    name: str,
    max_pixels: int | None = None,
    zoom_pixels: int | None = None,
    capacity: int = 32,
) -> LocalPolicy:
    """A policy of a model that is in memory already, as while it is trained; for the rest see `load`."""
    config = model.config
    limits = _limits(
        processor, config.vision_config.patch_size * config.vision_config.spatial_merge_size, max_pixels, zoom_pixels
    )
    coordinates = FAMILIES[config.model_type]
    return LocalPolicy(model, processor, name=name, coordinates=coordinates, limits=limits, capacity=capacity)


def _limits(processor: Any, grid: int, max_pixels: int | None, zoom_pixels: int | None) -> PixelLimits:
    size = processor.image_processor.size
    cell = grid * grid
    largest = max_pixels or min(size["longest_edge"], OVERVIEW_CELLS * cell)
    for name, value in (("max-pixels", largest), ("zoom-pixels", zoom_pixels or cell)):
        if value < cell:
            raise InputError(f"--{name} must be at least {cell}, one cell of {grid} x {grid} pixels, not {value}.")
    crop = zoom_pixels or max(largest // 4, cell)
    return PixelLimits(grid, min(size["shortest_edge"], largest, crop), largest, crop)


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".")[:300] + "."
