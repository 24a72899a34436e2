"""Pages of PDF files: their size, the region that is drawn, and what is refused."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cof_agent.environment import ZoomEnvironment, identity
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import file_of, open_source
from cof_agent.trajectory import Sample, Zoom

pytest.importorskip("pypdfium2")

TEXT = b"BT /F1 6 Tf 20 30 Td (Zoom) Tj ET\n1 0 0 rg 0 190 100 10 re f\n"  # small words low down, a red bar at the top left


def write(path: Path, *pages: bytes, more: bytes = b"") -> Path:
    """A PDF file of pages of 300 x 200 points, each with these drawing commands."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * k) for k in range(len(pages)))
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for k, content in enumerate(pages):
        font = b"/Resources << /Font << /F1 3 0 R >> >>"
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] %s /Contents %d 0 R %s >>" % (font, 5 + 2 * k, more)
        )
        bodies.append(b"<< /Length %d >>\nstream\n%sendstream" % (len(content), content))
    data, places = b"%PDF-1.7\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\n" % (
        len(places) + 1,
        table,
        len(places) + 1,
    )
    path.write_bytes(data + end + b"startxref\n%d\n%%%%EOF\n" % len(data))
    return path


def test_a_page_has_300_pixels_for_each_inch(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.pdf", TEXT))
    assert source.size == Size(1250, 833)
    corner = source.crop(Box(0, 0, 500, 50))
    assert corner.getpixel((200, 20)) == (255, 0, 0) and corner.getpixel((450, 20)) == (255, 255, 255)
    assert source.crop(Box(0, 60, 5, 65)).getpixel((0, 0)) == (255, 255, 255)


def test_a_crop_is_drawn_as_sharp_as_it_is_shown(tmp_path: Path) -> None:
    """A letter drawn large has the same grey edge of a pixel; one blown up has wide ones."""
    source = open_source(write(tmp_path / "a.pdf", TEXT))
    region = Box(75, 670, 155, 720)
    sharp = np.asarray(source.show(View(source.size, region, Size(1600, 1000))).convert("L"))
    blown = np.asarray(source.crop(region).resize((1600, 1000), Image.Resampling.BICUBIC).convert("L"))
    assert (sharp < 60).mean() > 0.02
    between = [((image > 60) & (image < 200)).mean() for image in (sharp, blown)]
    assert between[0] < between[1] / 4
    small = source.show(View(source.size, Box(0, 0, 1250, 833), Size(280, 196)))
    assert small.size == (280, 196) and small.getpixel((50, 4)) == (255, 0, 0)


def test_a_page_that_lies_on_its_side(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.pdf", TEXT, more=b"/Rotate 90"))
    assert source.size == Size(833, 1250)
    assert source.crop(Box(800, 200, 810, 210)).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("before", [b"\n\n", b"\xef\xbb\xbf"])
def test_what_stands_before_the_signature_does_no_harm(tmp_path: Path, before: bytes) -> None:
    path = write(tmp_path / "a.pdf", TEXT)
    path.write_bytes(before + path.read_bytes())
    assert open_source(path).size == open_source(f"{path}#page=1").size


def test_each_page_has_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pdf", TEXT, b"0 0 1 rg 0 0 300 200 re f\n")
    assert open_source(f"{path}#page=2").crop(Box(0, 0, 1, 1)).getpixel((0, 0)) == (0, 0, 255)
    assert file_of(f"{path}#page=2") == str(path) and file_of("a.png#page=2") == "a.png#page=2"
    assert identity(f"{path}#page=2")[1:] == identity(str(path))[1:] != (0, 0)
    for name, words in (
        ("", "it has 2 pages; name one as"),
        ("#page=3", "it has 2 pages, counted from 1"),
        ("#page=0", "page 0"),
    ):
        with pytest.raises(InputError, match=words):
            open_source(f"{path}{name}")


def test_the_agent_looks_at_a_page(tmp_path: Path) -> None:
    sample = Sample("s", f"{write(tmp_path / 'a.pdf', TEXT, TEXT)}#page=2", "?")
    environment = ZoomEnvironment()
    overview = environment.reset(sample)
    (observation,) = environment.step([Zoom((0, 0, 200, 100))], [overview])
    assert observation.view is not None
    image = environment.image(sample, observation.view)
    assert image.size == (observation.view.shown_size.width, observation.view.shown_size.height)


def test_many_threads_at_once(tmp_path: Path) -> None:
    source, drawn = open_source(write(tmp_path / "a.pdf", TEXT)), []
    threads = [
        threading.Thread(target=lambda: drawn.append(source.crop(Box(0, 0, 300, 200)).tobytes())) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 6 and len(set(drawn)) == 1


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7\nnothing")
    with pytest.raises(InputError, match=r"cannot decode the image .*a\.pdf: it is damaged"):
        open_source(path)
    with pytest.raises(InputError, match="there is no such file"):
        open_source(tmp_path / "none.pdf#page=2")
    (tmp_path / "b.pdf").write_text("words")
    with pytest.raises(InputError, match="damaged"):
        open_source(tmp_path / "b.pdf#page=1")
    source = open_source(write(path, TEXT))
    with pytest.raises(InputError, match="is too large to be shown at"):
        source.show(View(source.size, Box(0, 0, 10, 10), Size(40_000, 40_000)))
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(InputError, match="a PDF file needs the package pypdfium2: pip install 'pypdfium2"):
        open_source(path)
