"""The files of images: those that rows name are found, those that rows hold are written once, named by their content."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from cof_agent.data.fetch import Fetcher, TooLarge
from cof_agent.data.images import SUFFIXES, Reference, decoded, kind_of_image
from cof_agent.data.unusable import IMAGE_BY_URL, IMAGE_MISSING, NOT_AN_IMAGE, Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.image import LARGEST_HEADER, file_of, open_source, upright_size
from cof_agent.output.files import write_atomic

LFS = b"version https://git-lfs"
"""How a pointer of Git LFS begins."""

_MOST_FILES = 500_000  # that are listed in search of an image
_OF_COCO = re.compile(r"(?:COCO_\w+_)?(\d{12})")  # names of files, up to the suffix
_SHORT = 200  # bytes of a file that may be a pointer of Git LFS


@dataclass(frozen=True, slots=True)
class Taken:
    """One image on disk. path: "" where it was not to be written. size: in source pixels, where it was asked for."""

    path: str
    size: Size | None = None


class ImageFiles:
    """The images of one set. folders: what paths are tried relative to, in this order. keep: where images that rows hold, or
    name by URL, are written; None where nothing is written. fetcher: fetches URLs; None where they are not fetched. moved:
    whether the images of absolute paths, which are those of the author's machine, lie in the folders now."""

    def __init__(
        self, folders: Sequence[Path], keep: Path | None, *, fetcher: Fetcher | None = None, moved: bool = False
    ) -> None:
        self.folders = tuple(folders)
        self.keep = keep
        self.fetcher = fetcher
        self.moved = moved
        self._known = frozenset(self.folders)
        self._listed: dict[str, list[Path]] | None = None
        self._by_parent: dict[str, dict[str, list[Path]]] = {}  # of files of one name
        self._kept: dict[str, Path] | None = None  # by what their names begin with

    def take(self, ref: Reference, *, measure: bool = False, write: bool = True, row_in: Path | None = None) -> Taken:
        """The file of an image. measure: also its size. write: whether an image that the row holds is put into `keep`.
        row_in: the file of its row, beside which it is looked for first.

        Raises:
            Unusable: if there is no such file, or it is no image.
            InputError: if there is no folder to write to.
        """
        if ref.kind == "path":
            return self._measured(self._located(ref.value, row_in), measure)
        if write and self.keep is None and (ref.holds_image or self.fetcher):
            raise InputError("this set holds images itself; say where they may be written (keep_images).")
        if ref.kind == "url":
            return self._measured(self._fetched(ref.value), measure) if self.keep and write else self._not_fetched(ref)
        content = ref.value if ref.kind == "bytes" else decoded(ref.value)
        if not content:
            raise Unusable(NOT_AN_IMAGE, "it is empty, or base64 that cannot be decoded")
        kind = _kind(content)
        size = _size(content) if measure else None
        return Taken(written_once(content, kind, self.keep) if self.keep and write else "", size)

    def _measured(self, path: str, measure: bool) -> Taken:
        if not measure:
            return Taken(path)
        try:
            return Taken(path, open_source(path, max_source_pixels=LARGEST_HEADER).size)
        except InputError as error:
            raise Unusable(NOT_AN_IMAGE, error) from None

    def _located(self, name: str, row_in: Path | None) -> str:
        for folder in self._places(row_in):
            path = os.path.join(folder, name)
            if _is_file(path):
                return os.path.normpath(path)
        found = self._by_end(name)
        if found is None or not _is_file(found):
            raise Unusable(IMAGE_MISSING, name)
        return str(found)

    def _places(self, row_in: Path | None) -> Iterator[Path]:
        """The folders, those first that are nearest to a file. There may be as many as rows, so that none is listed for each."""
        near: tuple[Path, ...] = ()
        if row_in is not None:
            folder = row_in.parent
            near = tuple(
                one
                for one in (folder, folder / "images", folder / "imgs", *list(folder.parents)[:2])
                if one in self._known
            )
            yield from near
        yield from (one for one in self.folders if one not in near)

    def _by_end(self, name: str) -> Path | None:
        """The one file below the folders whose path ends in `name`, which may lack the suffix."""
        plain = PureWindowsPath(name)  # its parts are parted by slashes of either kind
        wanted = tuple(part for part in plain.parts if part not in (".", "..", plain.anchor))
        if not wanted:
            return None
        if self._listed is None:
            self._listed = _files_by_name(self.folders[:1])
        last = wanted[-1]
        key = next((key for key in (last, f"{last}.", f"#{last}") if key in self._listed), None)
        if key is None:
            return None
        for start in range(len(wanted) if self.moved and plain.anchor else 1):
            end = wanted[start:-1]
            files = self._below(key, end[-1]) if end else self._listed[key]
            found = [path for path in files if path.parts[-len(end) - 1 : -1] == end]
            if len(found) > 1:
                raise Unusable(IMAGE_MISSING, f"{name}, or there are several: {found[0]}, {found[1]}")
            if found:
                return found[0]
        return None

    def _below(self, key: str, parent: str) -> list[Path]:
        """The files that are listed under `key` in folders of this name: in some sets all images have one name."""
        assert self._listed is not None
        if key not in self._by_parent:
            parents = self._by_parent[key] = {}
            for path in self._listed[key]:
                parents.setdefault(path.parent.name, []).append(path)
        return self._by_parent[key].get(parent, [])

    def _not_fetched(self, ref: Reference) -> Taken:
        if self.fetcher is None:
            raise Unusable(IMAGE_BY_URL, ref.value)
        return Taken("")

    def _fetched(self, url: str) -> str:
        """The file of a URL, fetched once: its name is made of the URL."""
        if self.fetcher is None:
            raise Unusable(IMAGE_BY_URL, url)
        assert self.keep is not None
        stem = hashlib.sha256(url.encode()).hexdigest()[:24]
        if self._kept is None:
            self._kept = {path.stem: path for path in self.keep.iterdir()} if self.keep.is_dir() else {}
        if (there := self._kept.get(stem)) is not None:
            return str(there.absolute())
        try:
            content = self.fetcher.get(url)
        except InputError as error:
            reason = NOT_AN_IMAGE if isinstance(error, TooLarge) else IMAGE_MISSING
            raise Unusable(reason, f"{url}: {error}") from None
        path = self.keep / f"{stem}.{_kind(content)}"
        write_atomic(path, content)
        self._kept[stem] = path
        return str(path.absolute())


def _is_file(path: str | Path) -> bool:
    """Whether there is a file.

    Raises:
        Unusable: if it is empty, or stands for a file that was not fetched.
    """
    try:
        path = file_of(str(path))
        about = os.stat(path)
    except (OSError, ValueError):  # the latter for a zero in a name
        return False
    if not stat.S_ISREG(about.st_mode):
        return False
    if about.st_size < _SHORT:
        with open(path, "rb") as file:
            head = file.read(_SHORT)
        if not head:
            raise Unusable(NOT_AN_IMAGE, f"{path} is empty")
        if head.startswith(LFS):
            raise Unusable(NOT_AN_IMAGE, f"{path} is a pointer of Git LFS; fetch the files with `git lfs pull`")
    return True


def _files_by_name(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """The files below folders by their name, and images also by their name up to the suffix: "a.png" under "a.png" and "a.".
    COCO's are there by their number, too: "COCO_val2014_000000000042.jpg" under "#42"."""
    found: dict[str, list[Path]] = {}
    count = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                path = Path(root, name)
                found.setdefault(name, []).append(path)
                if path.suffix.lower() in SUFFIXES:
                    found.setdefault(f"{path.stem}.", []).append(path)
                    if number := _OF_COCO.fullmatch(path.stem):
                        found.setdefault(f"#{int(number[1])}", []).append(path)
            count += len(names)
            if count > _MOST_FILES:
                return found
    return found


def _kind(content: bytes) -> str:
    """The format of an image, as a file's suffix: "img" for one that Pillow knows, but not by its first bytes alone."""
    kind = kind_of_image(content[:64])
    if kind is None:
        _size(content)
    return kind or "img"


def _size(content: bytes) -> Size:
    try:
        return upright_size(io.BytesIO(content), "in the row")
    except InputError as error:
        raise Unusable(NOT_AN_IMAGE, error) from None


def written_once(content: bytes, kind: str, folder: Path) -> str:
    """The absolute path of an image in `folder`, written there if it is not there yet. kind: the file's suffix."""
    path = folder / f"{hashlib.sha256(content).hexdigest()[:24]}.{kind}"
    if not path.exists():
        write_atomic(path, content)
    return str(path.absolute())


def kept_image(content: bytes, where: str, keep: Path | None) -> str:
    """The path of an image that a row holds itself, written to the folder `keep` under a name made of its content.

    Raises:
        InputError: if there is no folder, or it is no image, naming `where`.
    """
    if keep is None:
        raise InputError(f"{where} holds an image itself; say where it may be written.")
    try:
        return written_once(content, _kind(content), keep)
    except Unusable:
        raise InputError(f"{where} holds an image that cannot be read.") from None
