"""RapidOCR (extra `ocr`): PaddleOCR's detector and recogniser on ONNX Runtime; its weights come in its wheel."""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from cof_agent.errors import InputError, said
from cof_agent.geometry import Box
from cof_agent.ocr.lines import Line, from_top
from cof_agent.output.install import how_to_install

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 4096
"""Pixels of a side of what is read at a time. A larger image is read at a smaller scale."""

SLOPE = 0.08  # of a line's upper edge, above which it is not level
_SETTINGS = {"Global.log_level": "critical", "Global.use_cls": False, "Global.max_side_len": LONGEST}


class RapidOcr:
    """See `Engine`.

    Raises:
        InputError: if RapidOCR or ONNX Runtime is missing.
    """

    def __init__(self) -> None:
        try:
            self.name = f"rapidocr {version('rapidocr')}"
            from rapidocr import RapidOCR
        except (ImportError, PackageNotFoundError):
            raise InputError(f"reading text needs RapidOCR: {how_to_install('rapidocr', 'onnxruntime')}.") from None
        self._lock = threading.Lock()
        self._engine: Any = RapidOCR(params=_SETTINGS)

    def read(self, image: Image) -> list[Line]:
        """See `Engine`."""
        import numpy as np

        blue_first = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        try:
            with self._lock:
                found = self._engine(blue_first)
        except Exception as error:  # what OpenCV and ONNX Runtime raise is not limited
            raise InputError(f"{self.name} cannot read the image: {said(error)}") from None
        if found.boxes is None:
            return []
        lines = [_line(corners.tolist(), text) for corners, text in zip(found.boxes, found.txts, strict=True)]
        return from_top([line for line in lines if line is not None])


def _line(corners: list[list[float]], text: str) -> Line | None:
    """The line with these corners, from the upper left one clockwise; None if it is not level or empty."""
    (left, top), (right, other_top) = corners[:2]
    xs, ys = zip(*corners, strict=True)
    box = Box(min(xs), min(ys), max(xs), max(ys))
    level = right > left and abs(other_top - top) <= SLOPE * (right - left)
    upright = box.width >= box.height or len(text) <= 2
    return Line(text, box) if level and upright and text.strip() else None
