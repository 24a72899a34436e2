"""Lines of text with their place, and what two engines read alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from cof_agent.geometry import Box
from cof_agent.scoring.normalise import folded

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Line:
    """Words that stand side by side. box: in pixels of the image that was read. sure: whether a second engine read the same."""

    text: str
    box: Box
    sure: bool = True

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words in the form in which two engines are compared: lower case, plain quotes and dashes."""
        return tuple(folded(self.text).split())


class Engine(Protocol):
    """Reads text. Thread-safe; reads the same in the same pixels.

    name: with its version, for the record.
    """

    name: str

    def read(self, image: Image) -> list[Line]:
        """The lines in `image`, from the top down; those that are not level are left out.

        Raises:
            InputError: if the engine fails.
        """
        ...


def from_top(lines: Sequence[Line]) -> list[Line]:
    """The lines from the top down, those of one height from the left."""
    return sorted(lines, key=lambda line: (line.box.y0, line.box.x0))


def agreed(lines: Sequence[Line], words: Sequence[Line]) -> list[Line]:
    """The lines that one engine read, each `sure` if the words that another one read at its place are the same.

    words: one word in each.
    """
    return [replace(line, sure=_words_in(line.box, words) == line.words) for line in lines]


def _words_in(box: Box, words: Sequence[Line]) -> tuple[str, ...]:
    inside = [word for word in words if _holds(box, word.box.center)]
    return tuple(part for word in sorted(inside, key=lambda word: word.box.x0) for part in word.words)


def _holds(box: Box, point: tuple[float, float]) -> bool:
    return box.x0 <= point[0] <= box.x1 and box.y0 <= point[1] <= box.y1
