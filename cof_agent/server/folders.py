"""The folders whose files clients may name: nothing outside them is opened, whatever links say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cof_agent.data.images import SUFFIXES
from cof_agent.errors import InputError
from cof_agent.image import SLIDES, file_of
from cof_agent.output.escape import for_terminal

MOST_LISTED = 1_000
"""Files of one kind that are listed."""

_IMAGES = {*SUFFIXES, *SLIDES, ".pdf"}
_RUNS = ("trajector", "rejected")  # how names of files of trajectories begin
_MOST_SEEN = 50_000  # names that are read for a list


class Folders:
    """Files inside `folders`, by their paths or, relative to one of them, by their names."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folder.resolve() for folder in folders)

    def file(self, name: str) -> str:
        """The path of the image that a client names, a page of a PDF file too (`file.pdf#page=3`), without links.

        Raises:
            InputError: if it lies outside, or is not there. Outside the folders both are told alike.
        """
        if not self._folders:
            raise InputError(
                "files of the server may not be named: it was started without --allow-images-from; send the image itself."
            )
        for folder in self._folders:
            if (path := self._inside(folder / name)) is not None:
                return path
        raise InputError(
            f"there is no file {for_terminal(name[:300])!r} in the folders that --allow-images-from names."
        )

    def contains(self, path: str | Path) -> bool:
        """Whether a path, with its links followed, is a file inside."""
        return self._inside(Path(path)) is not None

    def _inside(self, path: Path) -> str | None:
        try:
            file = file_of(str(path))
            real = Path(file).resolve()
            within = any(real.is_relative_to(folder) for folder in self._folders)
            return f"{real}{str(path).removeprefix(file)}" if within and real.is_file() else None
        except (OSError, ValueError, RuntimeError):  # a name too long, a NUL character, links in a circle
            return None

    def images(self) -> list[str]:
        """Paths of images and of PDF files, sorted, `MOST_LISTED` at most."""
        return self._listed(lambda path: path.suffix.lower() in _IMAGES)

    def runs(self) -> list[str]:
        """Paths of files of trajectories, as our commands name them, sorted, `MOST_LISTED` at most."""
        return self._listed(lambda path: path.suffix == ".jsonl" and path.stem.startswith(_RUNS))

    def _listed(self, wanted: Callable[[Path], bool]) -> list[str]:
        found = (path for path in self._all() if wanted(path) and _is_text(path) and self.contains(path))
        return [str(path) for _, path in zip(range(MOST_LISTED), found, strict=False)]

    def _all(self) -> Iterator[Path]:
        seen = 0
        for folder in self._folders:
            for root, folders, names in os.walk(folder):
                folders.sort()
                yield from (Path(root, name) for name in sorted(names)[: _MOST_SEEN - seen])
                seen += len(names)
                if seen >= _MOST_SEEN:
                    return


def _is_text(path: Path) -> bool:
    """Whether a name of a file is UTF-8, and so can be sent."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def path_of(reference: str) -> str:
    """The path that a `file://` address names, or the text itself.

    Raises:
        InputError: if the address is of another machine.
    """
    if not reference.lower().startswith("file:"):
        return reference
    try:
        parts = urlsplit(reference)
    except ValueError:  # half a bracket, a letter that is another one in the name of a host
        raise InputError(f"the address of the image is none: {reference[:100]!r}.") from None
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"the address of the image is on another machine, {parts.netloc[:100]!r}.")
    return unquote(parts.path) + (f"#{parts.fragment}" if parts.fragment else "")
