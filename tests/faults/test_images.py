"""No image file, however damaged, ends in anything but a picture or one sentence, in bounded time and memory."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from cof_agent.errors import InputError
from cof_agent.image import open_source
from tests.faults import images

SOME, MANY = 100, 500


def none_fails(count: int) -> None:
    found = [f"image {number}: {fault}" for number, _, fault in islice(images.faults(range(count)), 5)]
    assert not found, "\n".join(found)


def test_mutated_images_are_pictures_or_sentences() -> None:
    none_fails(SOME)


@pytest.mark.slow
def test_many_mutated_images_are_pictures_or_sentences() -> None:
    none_fails(MANY)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of Pillow, about what is broken
def test_the_mutations_leave_some_pictures_and_break_some(tmp_path: Path) -> None:
    """Else they would test the first check of a header only, or nothing."""
    ends: dict[str, set[bool]] = {}
    for number in range(15 * len(images.originals())):
        kind, content = images.image_of(1, number)
        path = tmp_path / "mutated"
        path.write_bytes(content)
        try:
            images._look(path)
        except InputError:
            ends.setdefault(kind, set()).add(False)
        else:
            ends.setdefault(kind, set()).add(True)
    kinds = {kind for kind, _ in images.originals()}
    assert kinds == {"PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "HEIF", "PDF"}
    assert ends == {kind: {True, False} for kind in kinds}


def test_a_header_that_claims_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    content = bytearray(next(data for kind, data in images.originals() if kind == "BMP"))
    content[18:26] = (50_000).to_bytes(4, "little") * 2
    path = tmp_path / "huge.bmp"
    path.write_bytes(content)
    with pytest.raises(InputError, match="more than the limit"):
        open_source(path, max_source_pixels=images.LIMIT)
    assert images.fault_of(path) is None
