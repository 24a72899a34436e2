"""Runs a checkpoint of a known family in this process, through transformers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cof_agent.backends.local.batching import Batcher
from cof_agent.backends.local.decode import Decoder, Generated, Prompt
from cof_agent.backends.local.layers import is_known
from cof_agent.backends.local.memory import Picture
from cof_agent.backends.local.processor import prepare_images
from cof_agent.backends.local.reader import ReadingPolicy
from cof_agent.backends.local.stock import StockDecoder
from cof_agent.policy import PolicyError

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

CAPACITY = 32
"""Conversations that are generated for at once, unless asked for otherwise."""


class LocalPolicy(ReadingPolicy):
    """A checkpoint in memory, shared by any number of concurrent callers: their tokens are generated together.

    Greedy is the default, without the repetition penalty that some checkpoints' generation configs ask for. With a
    seed, the random numbers of a message depend on nothing but that seed. The logits do not depend, to rounding (about
    1e-6 of their size in float32), on who else is being answered or on what was read before, so that a greedy or
    seeded text can only differ between two runs where two tokens are tied that closely.

    capacity: conversations that are generated for at once. folder: where the checkpoint lies, if it is one on this machine.
    `model` is the checkpoint itself. The rest is `Reader`'s.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str,
        max_pixels: int | None = None,
        zoom_pixels: int | None = None,
        capacity: int = CAPACITY,
        folder: Path | None = None,
    ) -> None:
        super().__init__(model, processor, name=name, max_pixels=max_pixels, zoom_pixels=zoom_pixels)
        self.model, self.folder = model, folder
        own = is_known(model.config)
        if not own:
            _log.warning(
                "The layers of %s (%s) are not known to our engine: transformers answers one conversation at a time, and reads "
                "each turn from its start.",
                name,
                model.config.model_type,
            )
        kind = Decoder if own else StockDecoder
        self._decoder = kind(model, self.stop_ids, list(self.unspeakable), capacity=capacity, text=self.text)
        self._batcher: Batcher[Prompt, Generated] = Batcher(self._decoder)

    async def complete(self, prompt: Prompt) -> Generated:
        """The token ids that follow those of `prompt`; stops after the end of the turn.

        Raises:
            PolicyError: if the device has not enough memory for the conversation.
        """
        try:
            return await self._batcher.submit(prompt)
        except torch.OutOfMemoryError:
            raise PolicyError(
                f"{self.name} ran out of memory at {len(prompt.ids)} tokens; lower --overview-pixels or the concurrency."
            ) from None

    def features(self, images: Sequence[Image]) -> list[Tensor]:
        """What the vision tower makes of each image, [image tokens, width of the language model], row by row. From any
        thread; kept for the conversations about these images.

        Raises:
            PolicyError: if the device has not enough memory for them.
            ValueError: if an image is not of a size that the model takes as it is.
        """
        pictures = [self._picture(image) for image in prepare_images(images, self.limits)]
        try:
            return self._decoder.features(pictures)
        except torch.OutOfMemoryError:
            raise PolicyError(f"{self.name} ran out of memory at an image; lower --overview-pixels.") from None

    def embeddings(self, text: str) -> Tensor:
        """The input embeddings of a text's tokens, [tokens, width of the language model]. From any thread."""
        return self._decoder.embeddings(self.ids(text))

    def forget(self) -> None:
        """Drops what was read in earlier conversations, which costs time and changes no text: for fair measurements."""
        self._decoder.forget()

    def _picture(self, image: Image) -> Picture:
        picture = super()._picture(image)
        if not self._decoder.knows(picture):
            _ = picture.patches  # now, in the caller's thread, rather than in the one that everybody waits for
        return picture
