"""Tesseract, the program: a second reader that shares neither code nor training data with the first."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.ocr.lines import Line, from_top

if TYPE_CHECKING:
    from PIL.Image import Image

PROGRAM = "tesseract"
SECONDS = 300  # that one image may take
_SPARSE = "11"  # page segmentation: as much text as there is, in no order
_WORD = "5"  # level of a row


class Tesseract:
    """See `Engine`; each of its lines is one word.

    Raises:
        InputError: if the program is missing.
    """

    def __init__(self) -> None:
        if shutil.which(PROGRAM) is None:
            raise InputError("checking text needs the program tesseract: apt-get install tesseract-ocr.")
        first = _run(["--version"]).splitlines()[0]
        self.name = first.decode("utf-8", "replace").strip()

    def read(self, image: Image) -> list[Line]:
        """See `Engine`."""
        plain = io.BytesIO()
        image.convert("RGB").save(plain, "PPM")  # PNG would take as long as the reading
        table = _run(["stdin", "stdout", "--psm", _SPARSE, "tsv"], plain.getvalue())
        rows = [row.split("\t", 11) for row in table.decode("utf-8", "replace").splitlines()]
        return from_top([_word(row) for row in rows if len(row) == 12 and row[0] == _WORD and row[11].strip()])


def _word(row: list[str]) -> Line:
    left, top, width, height = map(int, row[6:10])
    return Line(row[11].strip(), Box(left, top, left + width, top + height))


def _run(arguments: list[str], given: bytes = b"") -> bytes:
    """What the program prints.

    Raises:
        InputError: if it fails.
    """
    one_thread = {**os.environ, "OMP_THREAD_LIMIT": "1"}  # more make it slower
    try:
        done = subprocess.run([PROGRAM, *arguments], input=given, capture_output=True, timeout=SECONDS, env=one_thread)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"tesseract cannot read the image: {error}") from None
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no reason given"]
        raise InputError(f"tesseract cannot read the image: {reason[0]}")
    return done.stdout
