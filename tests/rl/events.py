"""Reads what TensorBoard's writers wrote, without TensorBoard, which needs gRPC."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tensorboardX.proto.event_pb2 import Event


def events(folder: Path) -> Iterator[tuple[int, str, Image.Image | str | float]]:
    """Step, tag and value of each image, text and figure in the event file below `folder`."""
    (file,) = folder.rglob("events.*")
    content, at = file.read_bytes(), 0
    while at < len(content):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += length + 16
        for value in event.summary.value:
            match value.WhichOneof("value"):
                case "image":
                    yield event.step, value.tag, Image.open(io.BytesIO(value.image.encoded_image_string))
                case "tensor":
                    yield event.step, value.tag.removesuffix("/text_summary"), value.tensor.string_val[0].decode()
                case _:
                    yield event.step, value.tag, value.simple_value
