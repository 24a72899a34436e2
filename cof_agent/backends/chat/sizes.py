"""Whether a server shows the model images at the size at which they were sent, by the tokens that it counts for a prompt."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.protocol import Message

_PIXELS = (CoordinateSystem.ABSOLUTE, CoordinateSystem.SOURCE, CoordinateSystem.UNIT_OR_PIXELS)
_AROUND_IMAGE, _AROUND_MESSAGE, _OF_TEMPLATE = (
    8,
    16,
    1024,
)  # tokens at most, of markers, roles, and a template's own words

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SizeCheck:
    """Compares the first count that a server tells. where: the server, for sentences. grid: side of an image token in shown
    pixels. system: of the boxes; those in pixels are misread if the sizes differ. phrases: whether a token may span words.
    wrong: the sentence, once the sizes differ. dropped: whether it was said that a later prompt lacks images."""

    where: str
    grid: int
    system: CoordinateSystem
    phrases: bool = False
    wrong: str = ""
    done: bool = False
    dropped: bool = False

    def ask(self) -> None:
        """Before each question.

        Raises:
            InputError: if boxes in pixels would be misread.
        """
        if self.wrong and self.system in _PIXELS:
            raise InputError(self.wrong)

    def told(self, messages: Sequence[Message], images: Sequence[Image], tokens: int | None) -> None:
        """After each reply. tokens: of its prompt, as the server counts them.

        Raises:
            InputError: as `ask`.
        """
        if self.done:
            self._told_again(images, tokens)
        if self.done or not images or tokens is None:
            return
        least, most = _text_tokens(messages)
        least = 1 if self.phrases else least
        if tokens < least:  # no count of this prompt
            return
        cells = self._cells(images)
        self.done = True
        if cells + least <= tokens <= cells + most + _AROUND_IMAGE * len(images):
            return
        self.wrong = self._sentence(cells, tokens, smaller=tokens < cells + least)
        self.ask()
        _log.warning("%s", self.wrong)

    def _told_again(self, images: Sequence[Image], tokens: int | None) -> None:
        """Warns once where a later prompt cannot hold its images any more."""
        if not self.dropped and self.lacks_images(images, tokens):
            self.dropped = True
            _log.warning(
                "%s counts %s tokens for a conversation whose images alone have %s: it drops earlier turns, which the model no "
                "longer sees. Give it a longer context.",
                *(self.where, f"{tokens:,}", f"{self._cells(images):,}"),
            )

    def lacks_images(self, images: Sequence[Image], tokens: int | None) -> bool:
        """Whether a prompt that was counted like this cannot hold all of these images, where the server keeps their sizes."""
        return self.done and not self.wrong and tokens is not None and tokens < self._cells(images)

    def _cells(self, images: Sequence[Image]) -> int:
        return sum(image.width * image.height for image in images) // self.grid**2

    def _sentence(self, cells: int, tokens: int, *, smaller: bool) -> str:
        mend = (
            "let it take larger images (vLLM: --mm-processor-kwargs '{\"max_pixels\": ...}'), or lower --overview-pixels"
            if smaller
            else "let it take smaller images"
        )
        misread = " Boxes in pixels would be misread." if self.system in _PIXELS else ""
        return (
            f"{self.where} counts {tokens:,} tokens for a question whose images are {cells:,} cells of {self.grid} x "
            f"{self.grid} pixels: it makes images {'smaller' if smaller else 'larger'}, or the model has another grid.{misread} "
            f"If it resizes, {mend}."
        )


def _text_tokens(messages: Sequence[Message]) -> tuple[int, int]:
    """The least and the largest number of tokens that the text of a prompt has, where no token spans two words, or is less than
    a byte."""
    texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    tools: Any = messages[0].get("tools", ())
    told = json.dumps(tools) if tools else ""
    words = sum(len(text.split()) for text in texts)
    size = sum(len(text.encode("utf-8", "replace")) for text in (*texts, told))
    return words, size + _AROUND_MESSAGE * len(messages) + _OF_TEMPLATE
