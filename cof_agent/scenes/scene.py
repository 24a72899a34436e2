"""What is in a scene: small labelled objects with look-alikes on a cluttered ground. Numbers only, no pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from cof_agent.geometry import Box, Size

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (245, 222, 60),
    "green": (40, 150, 60),
    "blue": (35, 90, 210),
    "purple": (135, 60, 170),
    "black": (25, 25, 28),
    "white": (245, 245, 242),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# Every colour and every shape is seen in training, but these combinations only in `hard`.
HELD_OUT = (
    ("red", "diamond"),
    ("orange", "cross"),
    ("yellow", "triangle"),
    ("green", "star"),
    ("blue", "square"),
    ("purple", "circle"),
    ("black", "star"),
    ("white", "cross"),
)
SEEN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)

DIGITS = "0123456789"
LETTERS = "ACEFHJKLMNPRTUXY"  # none that looks like a digit

LABEL_HEIGHT = 1 / 3  # of the object's side
SIGN_SIDE, SIGN_TEXT = 0.2, 0.08  # a sign's side and its letters' height, of the object's side
SIGN_OFFSET = 0.28  # of the object's side, from its centre


@dataclass(frozen=True, slots=True)
class Item:
    """One object: a `shape` filled with `colour`, `side` source pixels wide and high, centred at (x, y), bearing `label`.

    `sign` is the text of a small plate on it, at (`sign_x`, `sign_y`).
    """

    colour: str
    shape: str
    x: int
    y: int
    side: int
    label: str
    tint: int = 0  # a shift of the colour, -20 to 20
    tilt: int = 0  # degrees
    sign: str = ""
    sign_x: int = 0
    sign_y: int = 0

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def box(self) -> Box:
        half = self.side / 2
        return Box(self.x - half, self.y - half, self.x + half, self.y + half)

    @property
    def sign_box(self) -> Box:
        half = self.side * SIGN_SIDE / 2
        return Box(self.sign_x - half, self.sign_y - half, self.sign_x + half, self.sign_y + half)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything needed to draw: size in source pixels, a seed for ground and noise, and the objects."""

    size: Size
    seed: str
    clutter: int
    items: tuple[Item, ...] = field(default=())


FULL = Size(3840, 2160)


@dataclass(frozen=True, slots=True)
class Style:
    """From what scenes are drawn. Sides are fractions of the long side."""

    size: Size = FULL
    count: tuple[int, int] = (6, 20)
    side: tuple[float, float] = (0.02, 0.08)
    pairs: tuple[tuple[str, str], ...] = SEEN
    label_lengths: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2, 2, 3)
    clutter: tuple[int, int] = (15, 40)
    signs: float = 0.5  # chance that a large enough object bears a sign


def part_of(style: Style, share: float) -> Style:
    """A smaller scene, of this share of the sides, with things as large as in the whole one, and so fewer of them: in an
    overview of the same size they are seen larger. 1 is the style itself."""
    if share == 1:
        return style
    (fewest, most), low, high = style.count, *style.side
    return replace(
        style,
        size=Size(round(style.size.width * share), round(style.size.height * share)),
        count=(max(3, round(fewest * share**2)), max(6, round(most * share**2))),
        side=(low / share, high / share),
        clutter=(round(style.clutter[0] * share**2), round(style.clutter[1] * share**2)),
    )


def rescaled(scene: Scene, share: float) -> Scene:
    """The same scene at this share of its source pixels a side, to the whole pixel; 1 is the scene itself."""
    if share == 1:
        return scene

    def moved(item: Item) -> Item:
        numbers = {name: round(getattr(item, name) * share) for name in ("x", "y", "side", "sign_x", "sign_y")}
        return replace(item, **numbers)

    size = Size(round(scene.size.width * share), round(scene.size.height * share))
    return replace(scene, size=size, items=tuple(moved(item) for item in scene.items))


SIGN_MIN_SIDE = 170  # source pixels; below, the letters of a sign would have fewer than 14 pixels
HARD = Style(count=(14, 24), side=(0.012, 0.05), pairs=PAIRS, label_lengths=(2, 3, 3))


def generate(seed: str, style: Style) -> Scene:
    """The scene of a seed: the same on any machine.

    Objects never touch. Each has a colour and shape pair of its own; half of the later ones share their colour or
    their shape with an earlier one.
    """
    random = Random(f"scene:{seed}")
    items: list[Item] = []
    for _ in range(random.randint(*style.count)):
        pair = _pair(random, items, style.pairs)
        item = pair and _place(random, pair, items, style)
        if item:
            items.append(item)
    return Scene(style.size, seed, random.randint(*style.clutter), tuple(items))


def _pair(random: Random, items: list[Item], pairs: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    """A colour and shape not yet in the scene; half of the time a look-alike of something that is."""
    taken = {(item.colour, item.shape) for item in items}
    free = [pair for pair in pairs if pair not in taken]
    if items and random.random() < 0.5:
        model = random.choice(items)
        alike = [pair for pair in free if pair[0] == model.colour or pair[1] == model.shape]
        free = alike or free
    return random.choice(free) if free else None


def _place(random: Random, pair: tuple[str, str], items: list[Item], style: Style) -> Item | None:
    """An object of `pair` at a free place; None if none was found."""
    long_side = style.size.long_side
    for _ in range(40):
        side = round(random.uniform(*style.side) * long_side)
        margin = side // 2 + 4
        if 2 * margin > min(style.size.width, style.size.height):
            continue
        x = random.randint(margin, style.size.width - margin)
        y = random.randint(margin, style.size.height - margin)
        gap = [max(abs(x - other.x), abs(y - other.y)) - (side + other.side) / 2 for other in items]
        if min(gap, default=side) < 0.15 * side:
            continue
        item = Item(*pair, x, y, side, label(random, random.choice(style.label_lengths)))
        return _finish(random, item, style.signs)
    return None


def _finish(random: Random, item: Item, signs: float) -> Item:
    tint, tilt = random.randint(-18, 18), random.randint(-8, 8)
    sign, sign_x, sign_y = "", 0, 0
    if item.side >= SIGN_MIN_SIDE and random.random() < signs:
        offset = round(item.side * SIGN_OFFSET)
        sign = label(random, 2)
        sign_x, sign_y = item.x + random.choice((-offset, offset)), item.y + random.choice((-offset, offset))
    return Item(item.colour, item.shape, item.x, item.y, item.side, item.label, tint, tilt, sign, sign_x, sign_y)


def label(random: Random, length: int) -> str:
    """Digits only or letters only, so that no letter can pass for a digit."""
    alphabet = random.choice((DIGITS, LETTERS))
    return "".join(random.choice(alphabet) for _ in range(length))
