"""Reads pages of PDF files with PDFium: `file.pdf#page=3`. A region is drawn at just the resolution at which it is shown."""

from __future__ import annotations

import ctypes
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.image.files import open_file, refuse_damaged
from cof_agent.image.reader import Edges, check_shown
from cof_agent.output.install import how_to_install

if TYPE_CHECKING:
    import pypdfium2

DPI = 300
"""Source pixels of a page for each inch of it. A crop that is shown larger than that is drawn sharper, not blown up."""

_SIGNATURE, _BEFORE = b"%PDF-", b"\xef\xbb\xbf\r\n\t \0"  # some writers put a blank line or a byte order mark before it
_POINTS = 72  # in an inch
_LONGEST = 200 * _POINTS * 16  # of a side, in points; beyond what the format itself allows
_NAME = re.compile(r"(?P<file>.+\.pdf)#page=(?P<page>\d{1,9})", re.IGNORECASE | re.DOTALL)
_lock = threading.Lock()  # PDFium does one thing at a time


def is_pdf(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a PDF file."""
    return head.lstrip(_BEFORE).startswith(_SIGNATURE)


def split_name(name: str) -> tuple[str, int | None]:
    """The file that the name of an image names, and the page in it, counted from 1; None where it names none."""
    found = _NAME.fullmatch(name)
    return (name, None) if found is None else (found["file"], int(found["page"]))


def pages_of(path: str) -> list[str]:
    """The names of all pages of a PDF file.

    Raises:
        InputError: if the file cannot be read, or pypdfium2 is missing.
    """
    with open_file(Path(path)):  # which says what is wrong with a path
        pass
    with _lock, _document(Path(path)) as document:
        return [f"{path}#page={number}" for number in range(1, len(document) + 1)]


class PageReader:
    """The `Reader` of one page. Nothing is kept: the page is drawn anew for each view."""

    levels: tuple[float, ...] = (1.0,)
    held = 1
    passes = False
    note: str | None = None
    is_decoded = False

    def __init__(self, path: Path, page: int | None) -> None:
        """Reads the size of a page; page: counted from 1; may be left out where there is only one.

        Raises:
            InputError: if the file cannot be read, has no such page, or pypdfium2 is missing.
        """
        self._path = path
        with _lock, _document(path) as document:
            self._page = _checked(path, page, len(document))
            sides = document.get_page_size(self._page - 1)
        if not all(0 < side <= _LONGEST for side in sides):
            raise InputError(f"cannot open the image {path}: its page {self._page} has no size that can be drawn.")
        self.size = Size(*(max(1, round(side * DPI / _POINTS)) for side in sides))

    def read(self, region: Edges, shown: Size, resample: str) -> Image.Image:
        check_shown(self._path, shown)
        left, top, right, bottom = region
        across, down = shown.width / (right - left), shown.height / (bottom - top)
        place = (-left * across, -top * down, self.size.width * across, self.size.height * down)
        with _lock, _document(self._path) as document:
            if self._page > len(document):
                raise InputError(f"the image {self._path} has changed; ask again.")
            return _drawn(document, self._page - 1, shown, [round(one) for one in place])


class _document:
    """A PDF file while it is read; its parts are given back before the lock is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> pypdfium2.PdfDocument:
        try:
            import pypdfium2
        except ImportError:
            raise InputError(
                f"cannot open {self._path}: a PDF file needs the package pypdfium2: {how_to_install('pypdfium2')}."
            ) from None
        try:
            self._document = pypdfium2.PdfDocument(self._path)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise InputError(f"cannot open {self._path}: it asks for a password; save it without one.") from None
            refuse_damaged(self._path, error)
        return self._document

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pypdfium2

        self._document.close()
        if isinstance(error, pypdfium2.PdfiumError):
            refuse_damaged(self._path, error)


def _checked(path: Path, page: int | None, count: int) -> int:
    example = f"name one as {path}#page=1"
    if page is None and count != 1:
        raise InputError(f"cannot open the image {path}: it has {count} pages; {example}.")
    if page is not None and not 1 <= page <= count:
        raise InputError(f"cannot open page {page} of {path}: it has {count} pages, counted from 1; {example}.")
    return page or 1


def _drawn(document: pypdfium2.PdfDocument, index: int, shown: Size, place: list[int]) -> Image.Image:
    """place: left and top edge, width and height of the whole page, in shown pixels."""
    import pypdfium2
    from pypdfium2 import raw

    if document.get_formtype() != raw.FORMTYPE_NONE:
        document.init_forms()  # what is filled in is drawn, too
    page = document[index]
    bitmap = pypdfium2.PdfBitmap.new_native(shown.width, shown.height, raw.FPDFBitmap_BGR)
    try:
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, shown.width, shown.height)
        where: tuple[Any, ...] = (bitmap, page, *map(ctypes.c_int, place), 0, raw.FPDF_ANNOT)
        raw.FPDF_RenderPageBitmap(*where)
        if document.formenv:
            raw.FPDF_FFLDraw(document.formenv, *where)
        drawn: Image.Image = bitmap.to_pil().convert("RGB").copy()
        return drawn
    finally:
        bitmap.close()
        page.close()
