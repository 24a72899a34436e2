"""Texts, images and token ids of a model of a known family, whatever generates."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from cof_agent.backends import families
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.memory import Picture
from cof_agent.backends.local.processor import prepare_images
from cof_agent.backends.local.template import opened, templated
from cof_agent.errors import InputError, first_sentence
from cof_agent.geometry import PixelLimits
from cof_agent.policy import CONTEXT, Completion, PolicyError, Sampling, begun
from cof_agent.trajectory import Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.protocol import Message


def unreadable(checkpoint: str, error: Exception) -> InputError:
    """What to say of a checkpoint that transformers' loaders could not read."""
    reason = first_sentence(error)
    if not Path(checkpoint).is_dir():
        reason = f"there is no such directory here, and as a model of the hub it cannot be loaded ({reason})"
    return InputError(f"cannot load the model {checkpoint}: {reason}.")


class Reader:
    """The reading and writing of one model; safe to use from several threads.

    name: how the policy is called in the record. max_pixels: area limit of the overview in shown pixels, by default the
    checkpoint's own, but at most the family's `overview_cells`. zoom_pixels: that of a crop, a quarter of it by default.
    `opened`: what the chat template writes of each turn of the assistant before the model goes on (`template.opened`).
    `stop_ids` end a turn. `unspeakable`: tokens that stand for part of an image or video, or a region; one that
    the model had written itself would have none.

    Raises:
        InputError: if a limit is smaller than one cell, or the model is of an unknown family.
    """

    def __init__(
        self, model: Any, processor: Any, *, name: str, max_pixels: int | None = None, zoom_pixels: int | None = None
    ) -> None:
        config = model.config
        self.name = name
        self.family = families.of(config)
        self.coordinates = self.family.vision.coordinates
        self.limits = limits_of(config, processor, max_pixels, zoom_pixels)
        self.stop_ids = _stop_ids(model, processor.tokenizer, self.family)
        region = getattr(config, "region_config", None)
        slots = (region["token_id"],) if region else ()
        self.unspeakable = (config.image_token_id, config.video_token_id, *slots)
        self._processor = processor
        self.opened = opened(processor, self.family.markers)
        self._tokenizer = processor.tokenizer
        self._image_token_id = config.image_token_id
        self._context = getattr(config.get_text_config(), "max_position_embeddings", None)
        self._tokenizing = threading.Lock()  # tokenizers refuse to be called from two threads at once

    def text(self, ids: Sequence[int]) -> str:
        """What token ids say, without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def render(self, messages: Sequence[Message], *, answering: bool = True) -> str:
        """The text of a conversation by the model's own template; `answering`: up to where the next turn begins, or to
        where the last message, if it is the assistant's, goes on."""
        beginning = begun(messages) if answering else ""
        if beginning:
            return self.render(messages[:-1]).removesuffix(self.opened) + beginning
        return templated(self._processor, messages, answering=answering)

    def turn(self, messages: Sequence[Message], ids: Sequence[int]) -> str:
        """The words of the assistant's next turn, of which the model wrote `ids`: with what was begun of it."""
        return (begun(messages) or self.opened) + self.text(ids)

    def read(self, text: str, images: Sequence[Image]) -> tuple[list[int], list[Picture]]:
        """Token ids of a rendered text, each image token as often as its image has merged patches; and the images.

        Raises:
            PolicyError: if a message holds the text of the image token.
            ValueError: if an image is not of a size that the model takes as it is.
        """
        pictures = [self._picture(image) for image in prepare_images(images, self.limits)]
        return self._expanded(self.ids(text), pictures), pictures

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        with self._tokenizing:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _expanded(self, ids: list[int], pictures: list[Picture]) -> list[int]:
        """Each image token as often as its image has merged patches."""
        if ids.count(self._image_token_id) != len(pictures):
            raise PolicyError(
                f"a message holds the text {self._processor.image_token}, which stands for an image; remove it.",
                transient=False,
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
        return Picture(key, grid, image, process)


class ReadingPolicy(Reader, ABC):
    """A policy that reads and writes its model's tokens itself."""

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message; stops at the family's end of a turn. Token counts include image tokens and the stop token.

        Raises:
            PolicyError: if a message holds the text of the image token, the conversation is longer than the model reads (its
                text begins with `CONTEXT`), or as `complete`.
            ValueError: if an image is not of a size that the model takes as it is.
        """
        prompt = await asyncio.to_thread(self._prompt, messages, images, sampling)
        generated = await self.complete(prompt)
        told = (generated.logprobs or []) if sampling.logprobs else []
        known = [value for value in told if value is not None]
        return Completion(
            self.turn(messages, generated.ids),
            Tokens(len(prompt.ids), len(generated.ids)),
            truncated=not generated.stopped,
            logprob=fmean(known) if known and len(known) == len(told) else None,
        )

    @abstractmethod
    async def complete(self, prompt: Prompt) -> Generated:
        """The token ids that follow those of `prompt`; stops after the end of the turn.

        Raises:
            PolicyError: if there are none.
        """

    def _prompt(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Prompt:
        ids, pictures = self.read(self.render(messages), images)
        if self._context is None:
            return Prompt(ids, pictures, sampling)
        if (left := self._context - len(ids)) < 1:
            raise PolicyError(
                f"{CONTEXT} the conversation has {len(ids):,} tokens, but {self.name} reads at most {self._context:,}; ask in "
                "fewer words, show less of the images, or allow fewer zooms.",
                transient=False,
            )
        return Prompt(ids, pictures, replace(sampling, max_tokens=min(sampling.max_tokens, left)))


def _stop_ids(model: Any, tokenizer: Any, family: families.Family) -> set[int]:
    ends = model.generation_config.eos_token_id
    found = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    found.add(tokenizer.convert_tokens_to_ids(family.markers.end_of_turn))
    return {token for token in found if token is not None}


def limits_of(config: Any, processor: Any, max_pixels: int | None, zoom_pixels: int | None) -> PixelLimits:
    """What the policy of a checkpoint of this configuration is shown (see `Reader`).

    Raises:
        InputError: if an area is smaller than one cell, or the model is of an unknown family.
    """
    size, own = processor.image_processor.size, config.vision_config
    if size["shortest_edge"] is None or size["longest_edge"] is None:
        raise InputError(
            "the preprocessor configuration of the model does not say its least and largest area of an image."
        )
    vision = replace(families.of(config).vision, patch=own.patch_size, merge=own.spatial_merge_size)
    return vision.limits(max_pixels, zoom_pixels, own=(size["shortest_edge"], size["longest_edge"]))
