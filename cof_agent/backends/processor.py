"""Loads a Qwen-VL processor with or without torchvision: without it images and text, no video."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin, Qwen2_5_VLProcessor


class ImageOnlyProcessor(Qwen2_5_VLProcessor):
    """The Qwen-VL processor without its video part, which alone needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def load_processor(model: str, **options: Any) -> ProcessorMixin:
    """The processor of a checkpoint (directory or hub id); image-only where torchvision is missing."""
    if find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(model, **options)
    tokenizer = AutoTokenizer.from_pretrained(model, **options)
    images = AutoImageProcessor.from_pretrained(model, **options)
    return ImageOnlyProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
