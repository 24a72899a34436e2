"""Measures one sample as the model reads it: its tokens, and what cannot be trained on."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

from cof_agent.backends.local.template import opened, templated
from cof_agent.data.unusable import Unusable
from sft.conversations.spans import assistant_spans
from sft.frame import Frame, Outline

TOO_LONG = "longer than max_length"
RESIZED = "image that the processor would resize"
CONTROL = "text with a control token of the model"
UNTRAINED = "nothing written by an assistant"
UNFRAMED = "turn of an assistant that the chat template frames in no known way"


@dataclass(frozen=True, slots=True)
class Measure:
    """Tokens of a rendered sample, how many of them are image tokens and how many are trained, its images and its turns: those
    of an assistant. digest: of its text and the sizes of its images."""

    index: int
    tokens: int
    image_tokens: int
    trained: int
    images: int
    turns: int
    digest: int = 0


class Ruler:
    """Measures outlines for one model. most: tokens of a sample."""

    def __init__(self, processor: Any, frame: Frame, most: int | None) -> None:
        self._processor, self._frame, self._most = processor, frame, most
        self._begun = opened(processor, frame.family.markers)
        special = [str(token) for token in processor.tokenizer.added_tokens_decoder.values() if token.special]
        self._control = re.compile("|".join(map(re.escape, special)))

    def measure(self, index: int, outline: Outline) -> Measure:
        """
        Raises:
            Unusable: if the sample cannot be trained on.
        """
        self._check(outline)
        tokenizer = self._processor.tokenizer
        text = templated(self._processor, outline.messages)
        ids = tokenizer.encode(text, add_special_tokens=False)
        spans = assistant_spans(ids, tokenizer, self._frame.family.markers, self._begun)
        trained = sum(stop - start for start, stop in spans)
        if not trained:
            raise Unusable(UNTRAINED)
        images = len(outline.sizes)
        cells = sum(size.area // self._frame.grid**2 for size in outline.sizes)
        tokens = len(ids) - images + cells
        if self._most is not None and tokens > self._most:
            raise Unusable(TOO_LONG, f"{tokens} tokens, more than {self._most}")
        turns = sum(message["role"] == "assistant" for message in outline.messages)
        if len(spans) != turns:
            raise Unusable(UNFRAMED, f"{len(spans)} of {turns} turns are found")
        digest = zlib.crc32(f"{text}{outline.sizes}".encode("utf-8", "backslashreplace"))
        return Measure(index, tokens, cells, trained, images, turns, digest)

    def _check(self, outline: Outline) -> None:
        for number, size in enumerate(outline.sizes):
            if not self._frame.fits(size):
                raise Unusable(RESIZED, f"image {number}: {size} pixels would become {self._frame.fitted(size)}")
        for message in outline.messages:
            for part in message["content"]:
                if part["type"] == "text" and (found := self._control.search(part["text"])):
                    raise Unusable(CONTROL, found[0])
