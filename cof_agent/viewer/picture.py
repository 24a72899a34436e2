"""Draws one trajectory as one picture: each overview with numbered boxes, the crops beside it, question and answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from cof_agent.geometry import Box, Size, View
from cof_agent.image import Source
from cof_agent.protocol import lettered, question_text
from cof_agent.region_refs import in_source_pixels
from cof_agent.scoring import choice_of
from cof_agent.trajectory import Trajectory

PALETTE = ("#ff4d2e", "#1677ff", "#ffb300", "#00a86b", "#a24bff", "#ff3d9a", "#00b5d8", "#8d6e3f")
"""The colour of image `k` of a conversation is `PALETTE[(k - 1) % 8]`, in the picture and on the page."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Edges = tuple[int, int, int, int]

_PAPER, _INK, _QUIET, _LINE = "#ffffff", "#17181a", "#6b6f76", "#d9dbdf"
_MIN_COLUMN, _MAX_COLUMN, _MOST_COLUMNS = 0.17, 0.42, 4  # widths as shares of the overview's long side
_MAX_ASPECT = 3.0  # a crop longer than this is letterboxed in its cell


def annotate(trajectory: Trajectory, *sources: Source, long_side: int = 1600, font: str | None = None) -> Image.Image:
    """The picture of a trajectory, mode RGB; the overview in it has at most `long_side` pixels a side. sources: its images, in
    order; the overviews of several stand one below the other, each with its number.

    Every region the model zoomed into is a numbered box, and the crop of the same number stands in the strip beside
    the overview. Objects the question needs are dashed. `font` is a TrueType file for text in other than Latin letters,
    which Pillow's own font does not have.

    Raises:
        InputError: if a source cannot be decoded, or is not the image that the trajectory was made on.
        OSError: if `font` cannot be read.
    """
    body = seen(trajectory, *sources, long_side=long_side)
    wholes = [_whole(trajectory, number, source, long_side) for number, source in enumerate(sources)]
    # Every length below is in pixels of a 1600 pixel overview.
    unit = max(whole.shown_size.long_side for whole in wholes) / 1600
    gap, margin = round(24 * unit), round(40 * unit)
    width = max(body.width, round(800 * unit))
    head = _caption(trajectory, width, unit, font)
    foot = _verdict(trajectory, width, unit, font)

    top = margin + head.height + gap
    canvas = Image.new("RGB", (width + 2 * margin, top + body.height + gap + foot.height + margin), _PAPER)
    canvas.paste(head, (margin, margin))
    canvas.paste(body, (margin, top))
    canvas.paste(foot, (margin, top + body.height + gap))
    return canvas


def seen(trajectory: Trajectory, *sources: Source, long_side: int) -> Image.Image:
    """`annotate`'s picture without its words: the overviews with their boxes, the crops beside them.

    Raises:
        InputError: as `annotate`.
    """
    side = max(long_side // len(sources), long_side // 3)
    wholes = [_whole(trajectory, number, source, side) for number, source in enumerate(sources)]
    unit = _stack(wholes, 0).long_side / 1600
    gap = round(24 * unit)
    column = _stack(wholes, gap)
    crops = dict(enumerate(trajectory.crops, len(sources)))
    cells = _strip([view.region for view in crops.values()], column.height, long=column.long_side, gap=gap)
    right = max((column.width + gap + x1 for _, _, x1, _ in cells), default=column.width)
    bottom = max((y1 for _, _, _, y1 in cells), default=0)

    canvas, y = Image.new("RGB", (right, max(column.height, bottom)), _PAPER), 0
    for source, whole in zip(sources, wholes, strict=True):
        canvas.paste(_overview(trajectory, source, whole, crops, unit), (0, y))
        y += whole.shown_size.height + gap
    for (number, view), cell in zip(crops.items(), cells, strict=True):
        crop = _crop_in_cell(sources[view.source], view.region, cell, number, _later(crops, number), unit)
        canvas.paste(crop, (column.width + gap + cell[0], cell[1]))
    return canvas


def _whole(trajectory: Trajectory, number: int, source: Source, long_side: int) -> View:
    """How image `number` is drawn whole."""
    overviews = trajectory.overviews
    size = overviews[number].source_size if overviews else source.size
    shown = fitted(size, long_side, at_least=long_side // 2)
    return View(size, Box(0, 0, size.width, size.height), shown, source=number)


def _stack(wholes: Sequence[View], gap: int) -> Size:
    """The size of overviews that stand one below the other."""
    heights = sum(whole.shown_size.height for whole in wholes)
    return Size(max(whole.shown_size.width for whole in wholes), heights + gap * (len(wholes) - 1))


def _overview(
    trajectory: Trajectory, source: Source, whole: View, crops: Mapping[int, View], unit: float
) -> Image.Image:
    """One image with the boxes of what was cut from it; the sample's own boxes lie in the first one."""
    picture = source.show(whole)
    if whole.source == 0:
        _draw_truth(picture, (*trajectory.sample.boxes, *trajectory.sample.regions), whole, unit)
    _draw_boxes(picture, {k: view.region for k, view in crops.items() if view.source == whole.source}, whole, unit)
    if trajectory.sample.more_images:
        _tag(picture, (0, 0), whole.source, unit)
    return picture


def _later(crops: Mapping[int, View], number: int) -> dict[int, Box]:
    """The regions of the same image that were looked at after crop `number`."""
    of = crops[number].source
    return {k: view.region for k, view in crops.items() if k > number and view.source == of}


def altered(trajectory: Trajectory) -> str | None:
    """The sentence that says where the model saw other images than are drawn; None where it saw these.

    In an ablation it saw other crops. Of an image that a tool made, the region that the tool was given is drawn.
    """
    crops = trajectory.settings.get("crop", "real")
    tools = sorted({view.tool for view in trajectory.views if view.tool is not None})
    if crops != "real":
        return f"The crops that the model saw were {crops}, not these"
    return f"Drawn are the regions that {', '.join(tools)} got, not the images made of them" if tools else None


def fitted(size: Size, long_side: int, *, at_least: int = 1) -> Size:
    """`size` scaled down to `long_side` pixels on its long side, or up to `at_least`; the aspect is kept."""
    factor = min(long_side, max(size.long_side, at_least)) / size.long_side
    return Size(max(1, round(size.width * factor)), max(1, round(size.height * factor)))


def color(number: int) -> str:
    """The colour of the `number`-th zoom, counted from 1."""
    return PALETTE[(number - 1) % len(PALETTE)]


def spelled(answer: str, choices: Sequence[str]) -> str:
    """An answer in words: a letter that stands for a choice is followed by the choice."""
    text = choice_of(answer, choices)
    return answer if text is None else ". ".join(lettered(choices)[choices.index(text)])


def _strip(regions: Sequence[Box], height: int, *, long: int, gap: int) -> list[Edges]:
    """Where each crop goes, relative to the strip's corner: columns that fill `height` where they can, and reach below it where
    they would be too narrow to see anything."""
    groups: list[Sequence[Box]] = []
    widths: list[float] = []
    for columns in range(1, min(_MOST_COLUMNS, len(regions)) + 1):
        groups = _balanced(regions, columns)
        widths = [_column_width(group, height, gap) for group in groups]
        if min(widths) >= _MIN_COLUMN * long:
            break
    cells: list[Edges] = []
    x = 0
    for group, natural in zip(groups, widths, strict=True):
        column = max(24, round(min(max(natural, _MIN_COLUMN * long), _MAX_COLUMN * long)))
        y = 0
        for region in group:
            cell_height = max(24, round(column / _cell_aspect(region)))
            cells.append((x, y, x + column, y + cell_height))
            y += cell_height + gap
        x += column + gap
    return cells


def _balanced(regions: Sequence[Box], columns: int) -> list[Sequence[Box]]:
    edges = [math.ceil(len(regions) * column / columns) for column in range(columns + 1)]
    return [regions[start:end] for start, end in pairwise(edges)]


def _column_width(group: Sequence[Box], height: int, gap: int) -> float:
    free = height - gap * (len(group) - 1)
    return free / sum(1 / _cell_aspect(region) for region in group)


def _cell_aspect(region: Box) -> float:
    return min(max(region.width / region.height, 1 / _MAX_ASPECT), _MAX_ASPECT)


def _crop_in_cell(
    source: Source, region: Box, cell: Edges, number: int, later: Mapping[int, Box], unit: float
) -> Image.Image:
    """One crop in a frame of its colour, with the boxes of later zooms that went deeper into it."""
    x0, y0, x1, y1 = cell
    line = max(2, round(5 * unit))
    framed = Image.new("RGB", (x1 - x0, y1 - y0), color(number))
    inner = Size(max(1, x1 - x0 - 2 * line), max(1, y1 - y0 - 2 * line))
    factor = min(inner.width / region.width, inner.height / region.height)
    shown = Size(
        min(inner.width, max(1, round(region.width * factor))),
        min(inner.height, max(1, round(region.height * factor))),
    )
    view = View(source.size, region, shown)
    pixels = source.show(view)
    deeper = {
        other: box for other, box in later.items() if region.coverage(box) > 0.99 and box.area < 0.8 * region.area
    }
    for other, box in deeper.items():
        _outline(ImageDraw.Draw(pixels), _to_shown(box, view), color(other), max(1, round(3 * unit)))
    ground = Image.new("RGB", (inner.width, inner.height), "#eceef1")
    ground.paste(pixels, ((inner.width - shown.width) // 2, (inner.height - shown.height) // 2))
    framed.paste(ground, (line, line))
    _tag(framed, (0, 0), number, unit)
    return framed


def _to_shown(region: Box, view: View) -> Box:
    """Source pixels -> pixels of the picture that `view` describes."""
    sx, sy = view.shown_size.width / view.region.width, view.shown_size.height / view.region.height
    x, y = view.region.x0, view.region.y0
    return Box((region.x0 - x) * sx, (region.y0 - y) * sy, (region.x1 - x) * sx, (region.y1 - y) * sy)


def _draw_boxes(picture: Image.Image, regions: Mapping[int, Box], whole: View, unit: float) -> None:
    drawn = {number: _to_shown(region, whole) for number, region in regions.items()}
    draw, line = ImageDraw.Draw(picture), max(2, round(5 * unit))
    for number, box in drawn.items():
        _outline(draw, box, color(number), line)
    taken: list[Box] = []
    for number, box in drawn.items():
        corner = _tag_corner(box, _tag_size(number, unit), picture.size, line, taken)
        _tag(picture, (round(corner.x0), round(corner.y0)), number, unit)
        taken.append(corner)


def _outline(draw: ImageDraw.ImageDraw, box: Box, ink: str, line: int) -> None:
    """A coloured frame just outside `box` between hairlines of white and black, so that it shows on any ground."""
    halo = max(1, line // 3)
    left, top = math.floor(box.x0), math.floor(box.y0)
    right, bottom = math.ceil(box.x1) - 1, math.ceil(box.y1) - 1
    for ring, ring_ink in [*((offset, ink) for offset in range(1, line + 1)), *_rings(line, halo)]:
        draw.rectangle((left - ring, top - ring, right + ring, bottom + ring), outline=ring_ink)


def _rings(line: int, halo: int) -> list[tuple[int, str]]:
    white = [(line + offset, "#ffffff") for offset in range(1, halo + 1)]
    return [*white, (line + halo + 1, "#000000")]


def _draw_truth(picture: Image.Image, boxes: Sequence[Box], whole: View, unit: float) -> None:
    draw, line, dash = ImageDraw.Draw(picture), max(1, round(2 * unit)), max(3, round(9 * unit))
    for box in boxes:
        if not all(math.isfinite(edge) for edge in box):
            continue
        shown = _to_shown(box, whole).clipped(whole.shown_size)
        x0, y0, x1, y1 = (round(edge) for edge in shown)
        for (ax, ay), (bx, by) in (
            ((x0, y0), (x1, y0)),
            ((x1, y0), (x1, y1)),
            ((x1, y1), (x0, y1)),
            ((x0, y1), (x0, y0)),
        ):
            draw.line((ax, ay, bx, by), fill="#000000", width=line)
            length = max(abs(bx - ax), abs(by - ay))
            for start in range(0, length, 2 * dash):
                p, q = start / length, min(start + dash, length) / length
                ends = (ax + (bx - ax) * p, ay + (by - ay) * p, ax + (bx - ax) * q, ay + (by - ay) * q)
                draw.line(ends, fill="#ffffff", width=line)


def _tag_size(number: int, unit: float) -> tuple[int, int]:
    return max(18, round((34 + 14 * (len(str(number)) - 1)) * unit)), max(18, round(34 * unit))


def _tag_corner(box: Box, tag: tuple[int, int], picture: tuple[int, int], line: int, taken: Sequence[Box]) -> Box:
    """Where a box's number goes: outside a corner if the picture has room there and no other number stands there, else within
    the picture, where there is room."""
    (w, h), out = tag, line
    left, right, above, below = box.x0 - out, box.x1 + out - w, box.y0 - out - h, box.y1 + out
    places = [(left, above), (right, above), (left, below), (right, below)]
    places += [(left - w, box.y0 - out), (box.x1 + out, box.y0 - out), (left, box.y0 - out), (right, below - h)]
    inside = [(x, y) for x, y in places if 0 <= x <= picture[0] - w and 0 <= y <= picture[1] - h]
    places = inside + [(max(0, min(x, picture[0] - w)), max(0, min(y, picture[1] - h))) for x, y in places]
    places += [(x, 0) for x in range(0, picture[0] - w, w)]
    corners = [Box(x, y, x + w, y + h) for x, y in places]
    return next((one for one in corners if not any(one.intersection(other) for other in taken)), corners[0])


def _tag(picture: Image.Image, corner: tuple[int, int], number: int, unit: float) -> None:
    """The number in a filled square of its colour; drawn large and scaled down, which smooths its edges."""
    width, height = _tag_size(number, unit)
    big = Image.new("RGB", (width * 4, height * 4), color(number))
    draw = ImageDraw.Draw(big)
    font = ImageFont.load_default(height * 4 * 0.68)
    ink = ink_on(color(number))
    draw.text((width * 2, height * 2), str(number), fill=ink, font=font, anchor="mm", stroke_width=4, stroke_fill=ink)
    picture.paste(big.resize((width, height), Image.Resampling.LANCZOS), corner)


def ink_on(ground: str) -> str:
    """Black or white, what can be read better on a #rrggbb colour. On any colour that is a contrast of 4.58 at least."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, ground))


def contrast(first: str, second: str) -> float:
    """The contrast of two #rrggbb colours, 1 to 21 (WCAG)."""
    darker, lighter = sorted((_luminance(first), _luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(ink: str) -> float:
    """Relative luminance of a #rrggbb colour, 0 to 1 (WCAG)."""
    levels = [int(ink[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _caption(trajectory: Trajectory, width: int, unit: float, font: str | None) -> Image.Image:
    sample, text = trajectory.sample, question_text(trajectory.sample)
    if trajectory.overview is not None:
        text = in_source_pixels(text, sample, trajectory.overview.source_size)
    question, *choices = text.split("\n")
    paragraphs = [(question, round(38 * unit), _INK, 3)]
    if choices:
        paragraphs.append(("    ".join(choices), round(26 * unit), _QUIET, 2))
    return _paragraphs(paragraphs, width, font)


def _verdict(trajectory: Trajectory, width: int, unit: float, font: str | None) -> Image.Image:
    choices = trajectory.sample.choices
    if trajectory.answer is None:
        said = f"No answer ({trajectory.stop.value.replace('_', ' ')})"
    else:
        said = f"Answer: {spelled(trajectory.answer, choices)}"
    paragraphs = [(said, round(34 * unit), _INK, 3)]
    truth = " or ".join(spelled(answer, choices) for answer in trajectory.sample.answers)
    notes = [f"Truth: {truth}"] if truth else []
    if trajectory.sample.boxes or trajectory.sample.regions:
        notes.append("Dashed: what the question is about")
    if (sentence := altered(trajectory)) is not None:
        notes.append(sentence)
    if trajectory.warning is not None:
        notes.append(f"Unreliable: {trajectory.warning}")
    notes.extend(trajectory.notes)
    if notes:
        paragraphs.append(("        ".join(notes), round(26 * unit), _QUIET, 2))
    return _paragraphs(paragraphs, width, font)


def _paragraphs(paragraphs: Sequence[tuple[str, int, str, int]], width: int, font: str | None) -> Image.Image:
    """Text on paper: each paragraph is (text, font size in pixels, ink, lines at most)."""
    rows: list[tuple[str, Font, str, int]] = []
    for text, size, ink, limit in paragraphs:
        face = _face(max(10, size), font)
        rows += [(line, face, ink, round(max(10, size) * 1.4)) for line in _wrap(text, face, width, limit)]
    block = Image.new("RGB", (width, max(1, sum(row[3] for row in rows))), _PAPER)
    draw, y = ImageDraw.Draw(block), 0
    for line, face, ink, height in rows:
        draw.text((0, y + height // 2), line, fill=ink, font=face, anchor="lm")
        y += height
    return block


def undrawn(trajectory: Trajectory, font: str | None = None) -> str:
    """The letters of question, choices and answer that the font lacks, so that `annotate` draws boxes in their place."""
    face, sample = _face(20, font), trajectory.sample
    text = "".join((sample.question, *sample.choices, *sample.answers, trajectory.answer or ""))
    box = face.getmask("\uffff")
    masks = {letter: face.getmask(letter) for letter in dict.fromkeys(text) if letter.isprintable() and letter != " "}
    return "".join(letter for letter, mask in masks.items() if (mask.size, bytes(mask)) == (box.size, bytes(box)))


def _face(size: int, font: str | None) -> Font:
    return ImageFont.truetype(font, size) if font else ImageFont.load_default(size)


def _wrap(text: str, face: Font, width: int, limit: int) -> list[str]:
    """Lines no wider than `width` pixels, broken at spaces where there are any, at most `limit` of them."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[:2000])
    lines = [""]
    for word in text.split(" "):
        pieces = [word] if face.getlength(word) <= width else list(word)
        for index, piece in enumerate(pieces):
            longer = lines[-1] + (" " if index == 0 and lines[-1] else "") + piece
            if face.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
    if len(lines) <= limit:
        return lines
    last = lines[limit - 1]
    while last and face.getlength(last + "...") > width:
        last = last[:-1]
    return [*lines[: limit - 1], last + "..."]
