"""Large TIFF files: by tiles the same pixels as whole, from no more of the file than is shown."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import Source, open_source, pyramid
from tests.image.ramps import REGIONS, SIZE, SMALL, picture

pyvips = pytest.importorskip("pyvips")


def whole(source: Source) -> Box:
    return Box(0, 0, source.size.width, source.size.height)


def overview(source: Source, shown: Size) -> np.ndarray:
    return np.asarray(source.show(View(source.size, whole(source), shown)), dtype=float)


def difference(path: Path, regions: tuple[Box, ...] = REGIONS) -> float:
    """The most by which a pixel differs between the file read by tiles and read whole, as crops and as shown at other sizes."""
    tiled, plain = open_source(path, max_source_pixels=SMALL), open_source(path)
    assert tiled.size == plain.size and not tiled.is_decoded
    most = 0.0
    for region in regions:
        for shown in (Size(int(region.width), int(region.height)), Size(84, 56)):
            view = View(plain.size, region, shown)
            one, other = (np.asarray(source.show(view), dtype=float) for source in (tiled, plain))
            assert one.shape == other.shape == (shown.height, shown.width, 3)
            most = max(most, np.abs(one - other).max())
    return most


def sixteen(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251)


KINDS: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, Any], float]] = {
    "rgb": (lambda image: image, {}, 0),
    "lzw": (lambda image: image, {"compression": "tiff_lzw"}, 0),
    "jpeg": (lambda image: image, {"compression": "jpeg"}, 0),
    "bigtiff": (lambda image: image, {"big_tiff": True}, 0),
    "grey": (lambda image: image.convert("L"), {}, 0),
    "bilevel": (lambda image: image.convert("1"), {"compression": "group4"}, 0),
    "palette": (lambda image: image.convert("P"), {}, 0),
    "16 bits": (sixteen, {}, 0),
    "cmyk": (lambda image: image.convert("CMYK"), {}, 1),
    "alpha": (lambda image: Image.merge("RGBA", (*image.split(), image.getchannel(0))), {}, 1),
    "grey, alpha": (lambda image: Image.merge("LA", image.split()[:2]), {}, 1),
}
"""How a picture is made and saved, and the grey levels by which tiles may differ: blending is rounded in other places."""


def test_every_kind_of_pixels_is_the_same_as_read_whole(tmp_path: Path) -> None:
    for name, (make, options, most) in KINDS.items():
        make(picture()).save(tmp_path / "strips.tif", **options)
        assert difference(tmp_path / "strips.tif") <= most, name
        with_tiles = pyvips.Image.new_from_file(str(tmp_path / "strips.tif"))
        with_tiles.tiffsave(str(tmp_path / "tiles.tif"), tile=True, tile_width=64, tile_height=64)
        assert difference(tmp_path / "tiles.tif") <= most, name


def test_colours_of_sixteen_bits(tmp_path: Path) -> None:
    deep = pyvips.Image.new_from_array(np.asarray(picture()).astype(np.uint16) * 251)
    deep.copy(interpretation="rgb16").tiffsave(str(tmp_path / "a.tif"), tile=True)
    assert difference(tmp_path / "a.tif") == 0


def test_every_orientation(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture().save(tmp_path / "a.tif", exif=exif)
        tall = tuple(Box(one.y0, one.x0, one.y1, one.x1) for one in REGIONS)
        assert difference(tmp_path / "a.tif", tall if orientation >= 5 else REGIONS) <= 1, orientation


def large(path: Path, **options: Any) -> None:
    """17 megapixels in tiles of 256 x 256, none of which is empty."""
    tile = pyvips.Image.new_from_memory(picture().tobytes(), 300, 200, 3, "uchar").copy(interpretation="srgb")
    tile.replicate(15, 19).tiffsave(
        str(path), tile=True, tile_width=256, tile_height=256, compression="jpeg", **options
    )


def spoil(path: Path, tile: int | None = None) -> None:
    """Overwrites a tile of the first page in a file with compression; all of them by default."""
    with Image.open(path) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        offsets, counts = image.tag_v2[324], image.tag_v2[325]
    with open(path, "r+b") as file:
        for offset, count in list(zip(offsets, counts, strict=True))[slice(tile, None if tile is None else tile + 1)]:
            file.seek(offset)
            file.write(b"\xff" * count)


def test_an_overview_takes_the_copy_and_a_crop_its_tiles(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for subifd in (False, True):
        large(path, pyramid=True, subifd=subifd)
        plain = open_source(path)
        expected, exact = overview(plain, Size(588, 392)), plain.crop(Box(1000, 900, 1300, 1100))
        spoil(path, tile=1)
        source = open_source(path, max_source_pixels=SMALL)
        assert np.abs(overview(source, Size(588, 392)) - expected).mean() < 2
        assert source.levels[:3] == (1.0, 0.5, 0.25)
        assert source.crop(Box(1000, 900, 1300, 1100)).tobytes() == exact.tobytes()
        with pytest.raises(InputError, match=r"cannot decode the image .*a\.tif: it is damaged"):
            source.crop(Box(300, 10, 320, 20))


def test_a_view_costs_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    large(path, pyramid=True)
    expected = overview(open_source(path), Size(2268, 1904))
    source = open_source(path, max_source_pixels=SMALL)
    spoil(path, tile=1)
    with pytest.raises(InputError, match="damaged"):
        overview(source, Size(2268, 1904))  # of which each pixel takes two a side
    monkeypatch.setattr(pyramid, "MOST_READ", 10_000_000)
    assert np.abs(overview(source, Size(2268, 1904)) - expected).mean() < 10  # less sharp, but the same


def test_without_a_copy_one_pass_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    large(path)
    expected = overview(open_source(path), Size(588, 392))
    source = open_source(path, max_source_pixels=SMALL)
    assert source.levels == (1.0,)
    first = overview(source, Size(588, 392))
    assert np.abs(first - expected).mean() < 2
    spoil(path)
    assert (overview(source, Size(588, 392)) == first).all()
    part = np.asarray(source.show(View(source.size, Box(0, 0, 4500, 3760), Size(280, 168))), dtype=float)
    assert part.std() > 5  # of the ramps
    with pytest.raises(InputError, match="damaged"):
        source.crop(Box(4000, 3000, 4100, 3100))


def test_strips_are_read_in_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    large(path, pyramid=False)
    pyvips.Image.new_from_file(str(path)).tiffsave(str(tmp_path / "strips.tif"), compression="deflate")
    plain, source = open_source(path), open_source(tmp_path / "strips.tif", max_source_pixels=SMALL)
    assert np.abs(overview(source, Size(588, 392)) - overview(plain, Size(588, 392))).mean() < 2
    for region in (Box(4000, 3000, 4100, 3050), Box(10, 10, 60, 60)):
        assert source.crop(region).tobytes() == plain.crop(region).tobytes()


def test_a_smaller_picture_in_the_file_is_no_copy_unless_it_says_so(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("RGB", (150, 100), "red")])
    assert open_source(tmp_path / "a.tif", max_source_pixels=SMALL).levels == (1.0,)


def refused(path: Path, words: str, most: int = SMALL) -> None:
    with pytest.raises(InputError) as error:
        source = open_source(path, max_source_pixels=most)
        source.crop(whole(source))
    sentence = str(error.value)
    assert words in sentence and path.name in sentence and "\n" not in sentence and sentence.endswith(".")


def test_what_has_no_tiles_to_read_falls_under_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.ones((200, 300), np.float32)).save(path)
    refused(path, "than the limit of 1000, and it cannot be read in parts (it has 1 channels of type float (b-w));")
    assert open_source(path, max_source_pixels=60_000).crop(Box(0, 0, 2, 2)).getpixel((0, 0)) == (255, 255, 255)


def test_without_the_package_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.tif")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    refused(tmp_path / "a.tif", "it cannot be read in parts (that needs libvips: pip install 'pyvips")


def header(path: Path, tags: dict[int, int]) -> None:
    """A small file whose header claims other sizes."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    large(path) if 322 in tags else picture().save(path)
    with Image.open(path) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        info = image.tag_v2
        order = "<" if info.prefix == b"II" else ">"
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little" if order == "<" else "big")
    count = int.from_bytes(content[start : start + 2], "little" if order == "<" else "big")
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag = int.from_bytes(content[at : at + 2], "little" if order == "<" else "big")
        if tag in tags:  # as one number of four bytes
            content[at + 2 : at + 12] = (
                (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + tags[tag].to_bytes(4, "little")
            )
    path.write_bytes(content)


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    header(path, {256: 200_000, 257: 200_000, 322: 100_000, 323: 100_000})
    refused(path, "its tiles of 100000 x 100000 are too large")
    header(path, {256: 200_000, 257: 200_000, 322: 256, 323: 2_048})
    refused(path, "its tiles of 256 x 2048 are too large")
    header(path, {256: 200_000, 257: 200_000, 322: 256, 323: 256})
    refused(path, "it has no smaller copy inside")
    header(path, {256: 200_000, 257: 200_000, 278: 200_000})
    refused(path, "its strips have more than 67108864 pixels")
    header(path, {256: 2_000_000, 257: 2_000_000, 278: 1})
    refused(path, "more than 1099511627776 pixels")
    header(path, {256: 300_000, 257: 300_000, 278: 1})
    refused(path, "it has strips, not tiles")


def test_a_tile_that_cannot_be_unpacked_is_not_black(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    stored = pyvips.Image.new_from_memory(picture().tobytes(), 300, 200, 3, "uchar").copy(interpretation="srgb")
    for compression in ("deflate", "lzw", "jpeg"):
        stored.tiffsave(str(path), tile=True, tile_width=64, tile_height=64, compression=compression)
        spoil(path, tile=3)
        assert open_source(path, max_source_pixels=SMALL).crop(Box(0, 0, 64, 64)).getbbox() is not None
        refused(path, "cannot decode the image")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.tif", picture().convert("L").tobytes()
    tags = {
        256: SIZE.width,
        257: SIZE.height,
        258: 8,
        259: 1,
        262: 1,
        273: 122,
        277: 1,
        278: SIZE.height,
        279: len(pixels),
    }
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + pixels)
    assert difference(path) == 0
    path.write_bytes(path.read_bytes()[:-20_000])
    refused(path, "libvips cannot unpack it")


def test_tags_that_nobody_knows_do_no_harm(tmp_path: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[33550], info.tagtype[33550] = (1.0, 1.0, 0.0), 12  # of GeoTIFF
    info[65000], info.tagtype[65000] = "a note", 2
    picture().save(tmp_path / "a.tif", tiffinfo=info)
    assert difference(tmp_path / "a.tif") == 0


def test_what_a_fourth_channel_is(tmp_path: Path) -> None:
    """Near infrared beside the colours is no alpha; colours may be multiplied by theirs."""
    colours, path = (np.asarray(picture().resize((320, 200))), tmp_path / "a.tif")
    fourth = np.full((200, 320, 1), 90, np.uint8)
    made = pyvips.Image.new_from_array(np.concatenate([colours, fourth], axis=2), interpretation="srgb")
    made.tiffsave(str(path), tile=True, tile_width=64, tile_height=64)
    over_white = np.rint((colours.astype(int) * 90 + 165 * 255) / 255)
    for kind, expected in ((0, colours.astype(int)), (2, over_white)):
        _set_tag(path, 338, kind)
        shown = np.asarray(open_source(path, max_source_pixels=SMALL).crop(Box(0, 0, 320, 200))).astype(int)
        assert np.abs(shown - expected).max() <= 1, kind


def _set_tag(path: Path, tag: int, value: int) -> None:
    """Changes a tag of one short number in place."""
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    place = next(at + 2 + 12 * n for n in range(count) if struct.unpack_from("<H", data, at + 2 + 12 * n)[0] == tag)
    struct.pack_into("<HHIHH", data, place, tag, 3, 1, value, 0)
    path.write_bytes(data)


def _with_tags(path: Path, pixels: bytes, size: Size, *tags: tuple[int, int, int, int]) -> Path:
    """An uncompressed file of one strip; tags: number, type, count, value."""
    given = {256: (4, 1, size.width), 257: (4, 1, size.height), 259: (3, 1, 1), 278: (4, 1, size.height)}
    given |= {tag: (kind, count, value) for tag, kind, count, value in tags}
    given[273] = (4, 1, 8 + 2 + 12 * (len(given) + 2) + 4) if 273 not in given else given[273]
    given[279] = (4, 1, len(pixels))
    entries = b"".join(struct.pack("<HHII", tag, *given[tag]) for tag in sorted(given))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(given)) + entries + bytes(4) + pixels)
    return path


def test_grey_of_twelve_bits_and_channels_that_lie_apart(tmp_path: Path) -> None:
    size, values = Size(8, 4), np.linspace(0, 4095, 32).astype("<u2")
    packed = bytearray()
    for first, second in zip(values[::2].tolist(), values[1::2].tolist(), strict=True):
        packed += bytes((first >> 4, (first & 15) << 4 | second >> 8, second & 255))
    path = _with_tags(tmp_path / "a.tif", bytes(packed), size, (258, 3, 1, 12), (262, 3, 1, 1), (277, 3, 1, 1))
    shown = np.asarray(open_source(path).crop(Box(0, 0, 8, 4)))[..., 0].ravel()
    assert np.abs(shown - values / 4095 * 255).max() <= 1
    deep = (np.arange(32, dtype="<u2") * 2000).tobytes()
    path = _with_tags(tmp_path / "b.tif", deep, size, (258, 3, 1, 16), (262, 3, 1, 1), (277, 3, 1, 1), (284, 3, 1, 2))
    shown = np.asarray(open_source(path).crop(Box(0, 0, 8, 4)))[..., 0].ravel()
    assert np.abs(shown - np.arange(32) * 2000 / 257).max() <= 1


def test_a_palette_of_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (8, 4), (200, 100, 50)).quantize(2).save(path)
    with Image.open(path) as image:
        colours = image.tag_v2[320]  # type: ignore[attr-defined]
    data = path.read_bytes()
    wide = struct.pack(f"<{len(colours)}H", *colours)
    assert data.count(wide) == 1
    path.write_bytes(data.replace(wide, struct.pack(f"<{len(colours)}H", *(one >> 8 for one in colours))))
    assert open_source(path).crop(Box(0, 0, 1, 1)).getpixel((0, 0)) == (200, 100, 50)


def test_an_orientation_that_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    large(path)
    size = open_source(path, max_source_pixels=SMALL).size
    with Image.open(path) as image:
        assert 274 in image.tag_v2  # type: ignore[attr-defined]
    _set_tag(path, 274, 9)
    assert open_source(path, max_source_pixels=SMALL).size in (size, Size(size.height, size.width))
    open_source(path, max_source_pixels=SMALL).crop(Box(0, 0, 10, 10))
