"""Reading images: a gigapixel TIFF file by tiles, an 8K JPEG, ordinary 4K files; beside libvips itself and Pillow."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source

WIDTH, HEIGHT = 40_000, 30_000  # 1.2 gigapixels
SHOWN, ZOOM = Size(1148, 868), Size(588, 448)
REGION = (20_000, 15_000, 20_300, 15_228)

# In a process of its own, so that its memory is its own. Prints seconds of the overview and of a zoom, and MiB at most.
_CHILD = """
import json, re, sys, time
how, path, width, height, region = sys.argv[1], sys.argv[2], 1148, 868, (20000, 15000, 20300, 15228)
start = time.perf_counter()
if how == "ours":
    from cof_agent.geometry import Box, Size, View
    from cof_agent.image import open_source
    source = open_source(path)
    overview = lambda: source.show(View(source.size, Box(0, 0, 40000, 30000), Size(width, height)))
    zoom = lambda: source.show(View(source.size, Box(*region), Size(588, 448)))
elif how == "libvips":
    import pyvips
    overview = lambda: pyvips.Image.thumbnail(path, width, height=height, size="force").write_to_memory()
    image = pyvips.Image.new_from_file(path)
    x0, y0, x1, y1 = region
    zoom = lambda: image.crop(x0, y0, x1 - x0, y1 - y0).resize(588 / (x1 - x0)).write_to_memory()
else:
    from PIL import Image
    Image.MAX_IMAGE_PIXELS = None
    image = Image.open(path)
    overview = lambda: image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    zoom = lambda: image.crop(region).resize((588, 448), Image.Resampling.BICUBIC)
overview()
seen = time.perf_counter()
zoom()
done = time.perf_counter()
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([seen - start, done - seen, peak]))
"""


def run(repeats: int) -> None:
    """Makes the files in a temporary folder (4 GB) and prints a table of each."""
    print(f"pyvips {version('pyvips')}, pyvips-binary {version('pyvips-binary')}, Pillow {version('pillow')}")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (("with pyramid", {"pyramid": True}), ("without", {})):
            path = Path(folder, "large.tif")
            _write(path, **options)
            print(f"\nTIFF, {WIDTH} x {HEIGHT}, JPEG tiles of 256, {name}, {path.stat().st_size / 2**20:.0f} MiB")
            for how in ("ours", "libvips", "Pillow, whole"):
                overview, zoom, peak = min(_child(how, path) for _ in range(repeats if how != "Pillow, whole" else 1))
                print(f"  {how:14} overview {overview:6.2f} s, zoom {zoom:6.3f} s, {peak:5.0f} MiB at most")
            path.unlink()
        _ordinary(Path(folder), repeats)


def _child(how: str, path: Path) -> tuple[float, float, float]:
    done = subprocess.run([sys.executable, "-c", _CHILD, how, str(path)], check=True, capture_output=True, text=True)
    overview, zoom, peak = json.loads(done.stdout)
    return overview, zoom, peak


def _write(path: Path, **options: bool) -> None:
    import pyvips

    picture = photograph(2_000, 1_500)
    tile = pyvips.Image.new_from_memory(picture.tobytes(), 2_000, 1_500, 3, "uchar").copy(interpretation="srgb")
    image = tile.replicate(WIDTH // 2_000, HEIGHT // 1_500)
    image.tiffsave(
        str(path), tile=True, tile_width=256, tile_height=256, compression="jpeg", Q=85, bigtiff=True, **options
    )


def photograph(width: int, height: int, grain: float = 0.0) -> Image.Image:
    """Shapes of every size. grain: standard deviation of noise in each pixel."""
    rng, total = np.random.default_rng(2), np.zeros((height, width, 3), np.float32)
    for block, weight in ((600, 60), (90, 30), (12, 12), (3, 4)):
        few = rng.normal(128, weight, (height // block + 2, width // block + 2, 3)).clip(0, 255).astype(np.uint8)
        total += np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BILINEAR), np.float32) - 128
    if grain:
        total += rng.normal(0, grain, total.shape).astype(np.float32)
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


def _ordinary(folder: Path, repeats: int) -> None:
    eight, four = (7680, 4320, 0.0), (3840, 2160, 0.0)
    files = {"8K.jpg": eight, "8K with grain.jpg": (7680, 4320, 12.0), "4K.jpg": four, "4K.png": four}
    for name, (width, height, grain) in files.items():
        path = folder / name
        photograph(width, height, grain).save(path, quality=90, compress_level=1)
        print(f"\n{name}, {width} x {height}, {path.stat().st_size / 2**20:.1f} MiB")
        for what, zooms in (("overview", 0), ("overview and three zooms", 3)):
            works = {"ours": partial(_ours, path, zooms), "Pillow, whole": partial(_whole, path, zooms)}
            if not zooms:
                works["libvips"] = partial(_vips, path)
            print(f"  {what}: " + ", ".join(f"{how} {1000 * best:.0f} ms" for how, best in _best(works, repeats)))


def _best(works: Mapping[str, Callable[[], None]], repeats: int) -> list[tuple[str, float]]:
    """The best of some runs of each, which take turns."""
    seconds: dict[str, list[float]] = {how: [] for how in works}
    for _ in range(5 * repeats):
        for how, work in works.items():
            start = time.perf_counter()
            work()
            seconds[how].append(time.perf_counter() - start)
    return [(how, min(found)) for how, found in seconds.items()]


def _ours(path: Path, zooms: int) -> None:
    source = open_source(path)
    source.show(View(source.size, Box(0, 0, source.size.width, source.size.height), Size(1316, 756)))
    for k in range(zooms):
        source.show(View(source.size, Box(100 * k, 100 * k, 100 * k + 300, 100 * k + 228), ZOOM))


def _whole(path: Path, zooms: int) -> None:
    with Image.open(path) as image:
        image.resize((1316, 756), Image.Resampling.BICUBIC, reducing_gap=2.0)
        for k in range(zooms):
            image.crop((100 * k, 100 * k, 100 * k + 300, 100 * k + 228)).resize((588, 448), Image.Resampling.BICUBIC)


def _vips(path: Path) -> None:
    import pyvips

    pyvips.cache_set_max(0)  # else it remembers the first time
    pyvips.Image.thumbnail(str(path), 1316, height=756, size="force").write_to_memory()
