"""Loads the processor of a checkpoint with or without torchvision: without it images and text, no video."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
)
from transformers.utils import cached_file

from cof_agent.backends import families
from cof_agent.backends.families import Markers
from cof_agent.output.files import write_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.geometry import PixelLimits


FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
"""What a stock `AutoProcessor` reads beside the tokenizer; not every checkpoint has all of them."""


_UTILS_MERGE = 2
"""The patches a side of a cell that qwen-vl-utils counts with."""


class ImageOnlyProcessor(Qwen2_5_VLProcessor):
    """A processor that puts image tokens into a text as Qwen2.5-VL's does, without its video part, which alone needs
    torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None, markers: Markers):
        self.image_token, self.video_token = markers.image, markers.video
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        self.files: dict[str, dict[str, Any]] = {}
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> list[str]:
        """Writes the files of the checkpoint that it was loaded from, video part included, so that a stock
        `AutoProcessor` elsewhere loads them; the sizes of images are this processor's."""
        directory = Path(save_directory)
        self.tokenizer.chat_template = self.chat_template
        self.tokenizer._set_processor_class(None)  # else our own name is kept, which no stock loader knows
        self.tokenizer.init_kwargs.pop("processor_class", None)
        self.tokenizer.save_pretrained(directory)
        for name, content in self.files.items():
            write_json(directory / name, _with_size(content, dict(self.image_processor.size), name))
        return [str(directory / name) for name in self.files]


def _with_size(content: dict[str, Any], size: dict[str, Any], name: str) -> dict[str, Any]:
    """A processor file with the limits of images in it; those of videos stay."""
    if "image_processor" in content:
        return content | {"image_processor": content["image_processor"] | {"size": size}}
    if name != "preprocessor_config.json":
        return content
    return {key: value for key, value in content.items() if key not in ("min_pixels", "max_pixels")} | {"size": size}


def generation_config_of(where: str, config: Any) -> GenerationConfig:
    """How a checkpoint is meant to generate; what its configuration says where it has no file of that."""
    try:
        return GenerationConfig.from_pretrained(where)
    except OSError:
        return GenerationConfig.from_model_config(config)


def load_processor(model: str, config: Any = None, **options: Any) -> ProcessorMixin:
    """The processor of a checkpoint (directory or hub id); image-only where torchvision is missing.

    config: that of the model, which is read here by default; the folder of an adapter has none.
    options: as `from_pretrained` takes them; a checkpoint's own code is run only where they say so.

    Raises:
        OSError, ValueError: as transformers does, if there is no such checkpoint.
        InputError: if it is of an unknown family, where torchvision is missing.
    """
    options.setdefault("trust_remote_code", False)  # `transformers serve` passes its own
    if find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(model, **options)
    markers = families.of(config or AutoConfig.from_pretrained(model, **options)).markers
    tokenizer = AutoTokenizer.from_pretrained(model, **options)
    images = AutoImageProcessor.from_pretrained(model, **options)
    processor = ImageOnlyProcessor(images, tokenizer, _chat_template(model, tokenizer, options), markers)
    processor.files = _files(model, options.get("revision"))
    return processor


def _files(model: str, revision: str | None) -> dict[str, dict[str, Any]]:
    found = {
        name: cached_file(
            model,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for name in FILES
    }
    return {name: json.loads(Path(path).read_text("utf-8")) for name, path in found.items() if path}


def _chat_template(model: str, tokenizer: Any, options: dict[str, Any]) -> str | None:
    """The processor's own template, which may stand in files that the tokenizer does not read."""
    found, _ = ProcessorMixin.get_processor_dict(model, **options)
    template: str | None = found.get("chat_template") or tokenizer.chat_template
    return template


def has_qwen_vl_utils() -> bool:
    """Whether qwen-vl-utils can be imported; it needs torchvision."""
    return find_spec("torchvision") is not None and find_spec("qwen_vl_utils") is not None


def prepare_images(images: Sequence[Image], limits: PixelLimits) -> list[Image]:
    """The images as the models' own preparation gives them, through qwen-vl-utils where it is installed.

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
    prepared, _ = process_vision_info(
        [{"role": "user", "content": content}], image_patch_size=limits.grid // _UTILS_MERGE
    )
    if [image.size for image in prepared or []] != [image.size for image in images]:
        raise ValueError("qwen-vl-utils resized an image that was already of the model's size")
    return list(prepared or [])
