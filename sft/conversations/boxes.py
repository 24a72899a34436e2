"""Boxes in the texts of published conversations: what their numbers mean, and how they follow an image that is resized.

Numbers within 0..1 are shares of an image, and 0..1000 a thousandth of it: both stay as they are. Pixels of the image file
become the model's own coordinates of the image that it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent.data.boxes import Form, corners, form_named
from cof_agent.data.samples import NO_BOXES
from cof_agent.data.unusable import BAD_BOX, BOX_BEYOND, Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.protocol import Message
from cof_agent.protocol.published import TextBox, boxes_in, loose_lists, with_boxes, with_sizes
from sft.frame import Frame

FEW = 0.02  # of a set's boxes that may lie outside their images, and be in pixels all the same
_ROUNDED = 1.01
"""By how much of a side a box may go beyond it: sets round, and some sizes were put onto a grid."""


@dataclass(slots=True)
class Evidence:
    """What the boxes of a set show about their numbers; those within 0..1 are passed over.

    outside: how many go beyond their images. beyond: how many beyond 1000. unsure: how many lie in images of more than 1000
    pixels a side, so that 0..1000 would not show. moved: how many lie in images that the model is shown otherwise, so that
    pixels would become other numbers. loose: lists of numbers that may be anything, and boxes that cannot be read.
    points: of `point_2d`, which stay as they are.
    """

    boxes: int = 0
    outside: int = 0
    beyond: int = 0
    unsure: int = 0
    moved: int = 0
    loose: int = 0
    points: int = 0

    def add(self, messages: Sequence[Message], sizes: Sequence[Size], frame: Frame) -> None:
        for text in _texts(messages):
            self.loose += loose_lists(text)
            self.points += text.count('"point_2d"')
            for box in boxes_in(text):
                image = _image_of(box, len(sizes))
                if max(map(abs, box.numbers)) > 1 and image is not None and image < len(sizes):
                    self._count(box, sizes[image], frame)

    def _count(self, box: TextBox, size: Size, frame: Frame) -> None:
        across, down = max(box.numbers[::2]), max(box.numbers[1::2])
        self.boxes += 1
        self.outside += _goes_beyond(across, down, size)
        self.beyond += max(across, down) > 1000
        self.unsure += size.long_side > 1000
        self.moved += not _stays(size, frame)

    def form(self, where: str) -> Form | None:
        """What numbers beyond 1 are: pixels, or None for numbers that stay as they are.

        Raises:
            InputError: if the boxes cannot show it and it makes a difference, naming `where` and the option that says it.
        """
        if not self.moved:
            return None
        if self.outside > FEW * self.boxes:
            if not self.beyond:
                return None
            raise _refused(
                where, f"lie outside their images in {self.outside} of {self.boxes} cases, and go beyond 1000"
            )
        if self.unsure and not self.beyond:
            raise _refused(where, "all lie within 1000 of images that are larger: they may be in pixels or in 0..1000")
        return Form()

    def note(self, form: Form | None) -> str:
        """What was decided, in a sentence; "" where there is nothing to say."""
        said = []
        if form is not None:
            said.append("boxes in the texts are pixels of the image files; they become the model's own coordinates")
        elif self.moved:
            said.append("the numbers of boxes in the texts are shares of an image and stay as they are")
        if self.loose:
            said.append(f"{self.loose} {'other ' if said else ''}lists of numbers stay as they are")
        if self.points:
            said.append(f"{self.points} points (point_2d) stay as they are")
        return "; ".join(said)


def _refused(where: str, what: str) -> InputError:
    return InputError(
        f"the boxes in the texts of {where} {what}; say what they are with --boxes pixels-xyxy or thousand-xyxy, or none to "
        "leave them as they are."
    )


def form_of(boxes: str | None, evidence: Evidence, where: str) -> Form | None:
    """The form that `--boxes` names where its numbers are pixels, or that the boxes show; None where they stay as they are.

    Raises:
        InputError: if there is no such form, or the boxes cannot show theirs.
    """
    if boxes is None:
        return evidence.form(where)
    form = None if boxes == NO_BOXES else form_named(boxes)
    if form is not None and form.unit == "padded":
        raise InputError(
            f"boxes in the texts of {where} cannot be rewritten from {boxes}; none leaves them as they are."
        )
    return form if form is not None and form.unit == "pixels" else None


def moved(messages: Sequence[Message], sizes: Sequence[Size], frame: Frame, form: Form | None) -> list[Message]:
    """The messages with their boxes in pixels in the model's own coordinates, and sizes of images (`640 x 420`) as shown.

    sizes: of the images, in source pixels.

    Raises:
        Unusable: if a box lies in an image that is not there, or one of an assistant beyond its image.
    """
    if form is None or all(_stays(size, frame) for size in sizes):
        return list(messages)
    views = [View(size, Box(0, 0, size.width, size.height), frame.fitted(size)) for size in sizes]
    shown = {(one.width, one.height): (there.width, there.height) for one, there in _unlike(views)}

    def written(message: Message) -> Message:
        own = message["role"] == "assistant"  # a prompt may have a box as an example

        def move(box: TextBox) -> Sequence[float]:
            return _moved(box, views, frame, form, within=own)

        return {"role": message["role"], "content": [_with(part, move, shown) for part in message["content"]]}

    return [one if one["role"] == "system" else written(one) for one in messages]


def _with(part: dict[str, Any], move: Any, shown: dict[tuple[int, int], tuple[int, int]]) -> dict[str, Any]:
    return (
        part if part["type"] == "image" else {"type": "text", "text": with_sizes(with_boxes(part["text"], move), shown)}
    )


def _unlike(views: Sequence[View]) -> list[tuple[Size, Size]]:
    return [(view.source_size, view.shown_size) for view in views if view.source_size != view.shown_size]


def _moved(box: TextBox, views: Sequence[View], frame: Frame, form: Form, *, within: bool) -> Sequence[float]:
    """within: whether a box beyond its image is refused."""
    if max(map(abs, box.numbers)) <= 1:
        return box.numbers
    image = _image_of(box, len(views))
    if image is None:
        raise Unusable(BAD_BOX, f"{list(box.numbers)} is in one of {len(views)} images, but it is not clear in which")
    if image >= len(views):
        raise Unusable(BAD_BOX, f"a box in image {image}, but there are {len(views)}")
    found = box.numbers if form.order == "xyxy" else corners(box.numbers, form.order)
    view = views[image]
    if within and _goes_beyond(max(found[::2]), max(found[1::2]), view.source_size):
        raise Unusable(BOX_BEYOND, f"{list(box.numbers)} in pixels, in an image of {view.source_size}")
    x0, y0, x1, y1 = _inside(view.from_source(Box(*found), frame.system), frame.system.frame(view.shown_size))
    if form.order == "xyxy":
        return x0, y0, x1, y1
    width, height = x1 - x0, y1 - y0
    return (x0, y0, width, height) if form.order == "xywh" else (x0 + width / 2, y0 + height / 2, width, height)


def _image_of(box: TextBox, images: int) -> int | None:
    """The number of the image that a box lies in: of a single image, whatever the text calls it."""
    return 0 if box.image is None and images == 1 else box.image


def _goes_beyond(across: float, down: float, size: Size) -> bool:
    return across > size.width * _ROUNDED + 2 or down > size.height * _ROUNDED + 2


def _inside(box: Box, edges: Box) -> Box:
    """The box inside its image, at least 1 wide and high where it was that in the file: rounding must not leave nothing of it."""
    x0, x1 = _spread(box.x0, box.x1, edges.x0, edges.x1)
    y0, y1 = _spread(box.y0, box.y1, edges.y0, edges.y1)
    return Box(x0, y0, x1, y1)


def _spread(low: float, high: float, first: float, last: float) -> tuple[float, float]:
    low, high = (min(max(value, first), last) for value in (low, high))
    if (
        high < low or round(low) != round(high) or last - first <= 1
    ):  # a reversed box stays reversed; shares are no pixels
        return low, high
    return (low, low + 1) if low + 1 <= last else (last - 1, last)


def _stays(size: Size, frame: Frame) -> bool:
    """Whether pixels of an image file are the model's own coordinates already."""
    edges = frame.system.frame(frame.fitted(size))
    return tuple(edges) == (0, 0, size.width, size.height)


def have_boxes(messages: Sequence[Message]) -> bool:
    """Whether texts of messages have boxes."""
    return any(boxes_in(text) for text in _texts(messages))


def _texts(messages: Sequence[Message]) -> list[str]:
    return [
        part["text"] for one in messages if one["role"] != "system" for part in one["content"] if part["type"] == "text"
    ]
