"""Makes pixels of a scene: the whole of it, or any region at any size without drawing the rest."""

from __future__ import annotations

import math
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from cof_agent.geometry import Box, Size
from cof_agent.scenes.scene import COLOURS, LABEL_HEIGHT, SIGN_TEXT, Item, Scene

_NOISE = 5  # grey levels, either way


def photograph(scene: Scene) -> Image.Image:
    """The scene at full resolution, RGB, slightly blurred and noisy: what is written to disk."""
    width, height = scene.size.width, scene.size.height
    image = _paint(scene, Box(0, 0, width, height), Size(width, height))
    image = image.filter(ImageFilter.GaussianBlur(0.8))
    return _with_noise(image, scene.seed, _NOISE)


def sketch(scene: Scene, region: Box, shown: Size) -> Image.Image:
    """`region` (source pixels) at `shown` pixels, painted directly.

    Looks like a resized crop of `photograph`, for about a hundredth of the time; training uses it.
    """
    scale = shown.width / region.width
    oversample = 1 if scale > 1.5 else 2
    painted = _paint(scene, region, Size(shown.width * oversample, shown.height * oversample))
    if scale > 1:  # the photograph's own softness, seen enlarged
        painted = painted.filter(ImageFilter.GaussianBlur(0.8 * scale * oversample))
    image = painted if oversample == 1 else painted.reduce(oversample)
    return _with_noise(image, f"{scene.seed}:{region}", max(1, round(_NOISE * min(1.0, scale))))


def _paint(scene: Scene, region: Box, size: Size) -> Image.Image:
    """Ground, clutter, objects and light of `region`, without blur and noise."""
    random = Random(f"ground:{scene.seed}")
    place = _Placement(region, size)
    image = _ground(random, scene, place)
    draw = ImageDraw.Draw(image)
    for _ in range(scene.clutter):
        _clutter(random, scene.size, draw, place)
    for item in scene.items:
        if region.intersection(item.box.scaled(1.5)) > 0:
            _item(draw, item, place)
    return ImageChops.multiply(image, _light(random, scene, place))


class _Placement:
    """Maps source pixels to pixels of the picture being painted."""

    def __init__(self, region: Box, size: Size) -> None:
        self.region, self.size = region, size
        self.sx, self.sy = size.width / region.width, size.height / region.height

    def point(self, x: float, y: float) -> tuple[float, float]:
        return (x - self.region.x0) * self.sx, (y - self.region.y0) * self.sy

    def length(self, pixels: float) -> float:
        return pixels * (self.sx + self.sy) / 2

    def stretch(self, small: Image.Image, scene: Scene) -> Image.Image:
        """A tiny picture that covers the whole scene -> its part in this region, smooth."""
        fx, fy = small.width / scene.size.width, small.height / scene.size.height
        r = self.region
        box = (r.x0 * fx, r.y0 * fy, r.x1 * fx, r.y1 * fy)
        return small.resize((self.size.width, self.size.height), Image.Resampling.BICUBIC, box=box)


def _ground(random: Random, scene: Scene, place: _Placement) -> Image.Image:
    base = [random.randint(95, 190) for _ in range(3)]
    tiny = bytes(_clamp(channel + random.randint(-20, 20)) for _ in range(8 * 5) for channel in base)
    return place.stretch(Image.frombytes("RGB", (8, 5), tiny), scene)


def _light(random: Random, scene: Scene, place: _Placement) -> Image.Image:
    tiny = Image.frombytes("L", (4, 3), bytes(random.randint(205, 255) for _ in range(12)))
    light = place.stretch(tiny, scene)
    return Image.merge("RGB", (light, light, light))


def _clutter(random: Random, size: Size, draw: ImageDraw.ImageDraw, place: _Placement) -> None:
    """One muted thing behind the objects: a block, an outline or a stroke."""
    reach = 0.01 + 0.14 * random.random() ** 2
    x, y = random.random() * size.width, random.random() * size.height
    dx, dy = (random.uniform(-reach, reach) * size.long_side for _ in range(2))
    grey = random.randint(70, 205)
    colour = tuple(_clamp(grey + random.randint(-22, 22)) for _ in range(3))
    kind, thickness = random.choice(("block", "outline", "stroke")), random.uniform(2, 14)
    (x0, y0), (x1, y1) = place.point(x, y), place.point(x + dx, y + dy)
    width = max(1, round(place.length(thickness)))
    corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if kind == "block":
        draw.rectangle(corners, fill=colour)
    elif kind == "outline":
        draw.ellipse(corners, outline=colour, width=width)
    else:
        draw.line((x0, y0, x1, y1), fill=colour, width=width)


_CROSS = ((-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1))
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {  # in a square from -1 to 1
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0, -1), (1, 0.85), (-1, 0.85)),
    "diamond": ((0, -1), (0.8, 0), (0, 1), (-0.8, 0)),
    "star": tuple(
        ((1, 0.45)[i % 2] * math.sin(math.pi * i / 5), -(1, 0.45)[i % 2] * math.cos(math.pi * i / 5)) for i in range(10)
    ),
    "cross": tuple((x / 3, y / 3) for x, y in _CROSS),
}


def _item(draw: ImageDraw.ImageDraw, item: Item, place: _Placement) -> None:
    fill = tuple(_clamp(channel + item.tint) for channel in COLOURS[item.colour])
    radius = item.side / 2
    if item.shape == "circle":
        draw.ellipse(
            (*place.point(item.x - radius, item.y - radius), *place.point(item.x + radius, item.y + radius)), fill
        )
    else:
        cos, sin = math.cos(math.radians(item.tilt)), math.sin(math.radians(item.tilt))
        corners = [
            place.point(item.x + radius * (x * cos - y * sin), item.y + radius * (x * sin + y * cos))
            for x, y in _OUTLINES[item.shape]
        ]
        draw.polygon(corners, fill)
    dark = sum(fill) < 420
    ink = (250, 250, 250) if dark else (15, 15, 15)
    _text(draw, item.label, place.point(item.x, item.y), place.length(item.side * LABEL_HEIGHT), ink, fill)
    if item.sign:
        _sign(draw, item, place)


def _sign(draw: ImageDraw.ImageDraw, item: Item, place: _Placement) -> None:
    plate = item.sign_box
    draw.rectangle((*place.point(plate.x0, plate.y0), *place.point(plate.x1, plate.y1)), (250, 250, 240), (40, 40, 40))
    centre, height = place.point(item.sign_x, item.sign_y), place.length(item.side * SIGN_TEXT)
    _text(draw, item.sign, centre, height, (10, 10, 10), (250, 250, 240))


CAPITAL = 0.7  # height of a capital or a digit, of the font's size


def _text(
    draw: ImageDraw.ImageDraw,
    text: str,
    centre: tuple[float, float],
    height: float,
    ink: tuple[int, ...],
    halo: tuple[int, ...],
) -> None:
    """`text` with letters `height` pixels high; the halo keeps it apart from what lies behind a thin shape."""
    if height >= 1.5:
        size = max(2, round(height / CAPITAL))
        draw.text(centre, text, ink, _font(size), anchor="mm", stroke_width=height / 10, stroke_fill=halo)


@lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _with_noise(image: Image.Image, seed: str, amplitude: int) -> Image.Image:
    """The same small random shift on the three channels of a pixel."""
    grain = Image.frombytes("L", image.size, Random(f"noise:{seed}").randbytes(image.width * image.height))
    # Two in three pixels stay as they are: grain, at a third of the file size of dense noise.
    darker = grain.point([amplitude if value < 42 else 0 for value in range(256)])
    lighter = grain.point([amplitude if 42 <= value < 84 else 0 for value in range(256)])
    image = ImageChops.subtract(image, Image.merge("RGB", [darker] * 3))
    return ImageChops.add(image, Image.merge("RGB", [lighter] * 3))


def _clamp(value: int) -> int:
    return min(255, max(0, value))
