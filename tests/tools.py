"""Tools as a user writes them, for tests."""

from __future__ import annotations

from typing import Literal

from PIL import Image


def turned(image: Image.Image, degrees: int, way: Literal["left", "right"] = "left") -> Image.Image:
    """Shows an image
    turned by so many degrees.

    What stands here is for people.
    """
    if degrees % 90:
        raise ValueError("only quarter turns are possible.")
    return image.rotate(degrees if way == "left" else -degrees, expand=True)


def size(image: Image.Image, times: float = 1.0) -> str:
    """Says how large an image is."""
    return f"{image.width * times:g} x {image.height * times:g}"


def nothing(image: Image.Image) -> str:
    """Finds nothing to say."""
    return ""


def long(image: Image.Image) -> str:
    """Says too much."""
    return "x" * 100_000


def faulty(image: Image.Image) -> str:
    """Has a mistake of its programmer in it."""
    raise ZeroDivisionError


def untyped(image: Image.Image, degrees) -> str:  # type: ignore[no-untyped-def]
    """Lacks a type."""
    return str(degrees)


def pair(first: Image.Image, image: int) -> str:
    """Has a second parameter called image."""
    return ""


def none() -> str:
    """Takes no image."""
    return ""
