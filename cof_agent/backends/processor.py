"""Loads a Qwen-VL processor with or without torchvision: without it images and text, no video."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin, Qwen2_5_VLProcessor

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.policy import PixelLimits


class ImageOnlyProcessor(Qwen2_5_VLProcessor):
    """The Qwen-VL processor (2, 2.5 and 3 alike) without its video part, which alone needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def load_processor(model: str, **options: Any) -> ProcessorMixin:
    """The processor of a checkpoint (directory or hub id); image-only where torchvision is missing.

    Raises:
        OSError, ValueError: as transformers does, if there is no such checkpoint.
    """
    if find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(model, **options)
    tokenizer = AutoTokenizer.from_pretrained(model, **options)
    images = AutoImageProcessor.from_pretrained(model, **options)
    return ImageOnlyProcessor(images, tokenizer, chat_template=_chat_template(model, tokenizer, options))


def _chat_template(model: str, tokenizer: Any, options: dict[str, Any]) -> str | None:
    """The processor's own template, which may stand in files that the tokenizer does not read."""
    found, _ = Qwen2_5_VLProcessor.get_processor_dict(model, **options)
    template: str | None = found.get("chat_template") or tokenizer.chat_template
    return template


def has_qwen_vl_utils() -> bool:
    """Whether qwen-vl-utils can be imported; it needs torchvision."""
    return find_spec("torchvision") is not None and find_spec("qwen_vl_utils") is not None


def prepare_images(images: Sequence[Image], limits: PixelLimits) -> list[Image]:
    """The images as Qwen's own preparation gives them, through qwen-vl-utils where it is installed.

    The images are already of a size that the model takes, so their pixels stay as they are; a preparation that
    disagrees would move every coordinate.

    Raises:
        ValueError: if an image is not on the grid, or would be resized.
    """
    for image in images:
        if image.width % limits.grid or image.height % limits.grid:
            raise ValueError(f"an image of {image.width} x {image.height} pixels is not on the grid of {limits.grid}")
    if not has_qwen_vl_utils():
        return list(images)
    from qwen_vl_utils import process_vision_info  # type: ignore[import-untyped]

    # The limits are this image's own area: that it lies between the model's limits was seen to when it was sized.
    content = [
        {"type": "image", "image": image, "min_pixels": limits.grid**2, "max_pixels": image.width * image.height}
        for image in images
    ]
    prepared, _ = process_vision_info([{"role": "user", "content": content}], image_patch_size=limits.grid // 2)
    if [image.size for image in prepared or []] != [image.size for image in images]:
        raise ValueError("qwen-vl-utils resized an image that was already of the model's size")
    return list(prepared or [])
