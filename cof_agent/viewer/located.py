"""Finds the images of recorded trajectories, also after the files were moved together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cof_agent.image import file_of
from cof_agent.trajectory import Trajectory


def located(trajectory: Trajectory, folder: Path, images: Path | None = None) -> Trajectory:
    """The trajectory with its images found.

    folder: of the file that holds the trajectory. A relative path counts from there, or from a folder above: the run may
    have been started in one of these. An absolute path that is gone is looked for by its last two parts at least, since a
    run and its images are often moved together. images: searched before the folders above, by path or by name.
    """
    sample = trajectory.sample
    return replace(trajectory, sample=sample.with_images(_found(path, folder, images) for path in sample.images))


def _found(path: str, folder: Path, images: Path | None) -> str:
    return next((str(place) for place in _places(Path(path), folder, images) if _exists(place)), path)


def _exists(place: Path) -> bool:
    try:
        return Path(file_of(str(place))).exists()
    except OSError:  # a name too long, a folder that may not be read
        return False


def _places(image: Path, folder: Path, images: Path | None) -> Iterator[Path]:
    """Where the image may be; the surest place first. A relative path is tried in the folder that the command
    runs in last: that may be another one than the run's."""
    if image.is_absolute():
        yield image
    if images is not None:
        if not image.is_absolute():
            yield images / image
        yield images / image.name
    yield from _above(image, folder.absolute())
    if not image.is_absolute():
        yield image


def _above(image: Path, folder: Path) -> Iterator[Path]:
    """Places in `folder` and above, the nearest first; the longest part of the path that fits is the surest."""
    parts = image.parts[1:] if image.is_absolute() else image.parts
    starts = range(max(1, len(parts) - 1)) if image.is_absolute() else range(1)
    for start in starts:
        for above in (folder, *folder.parents):
            yield above.joinpath(*parts[start:])
