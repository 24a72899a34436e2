"""Images that clients send, as files of a folder that ends with the server; the oldest go when there are too many."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cof_agent.data.image_files import kept_image, written_once
from cof_agent.image import file_of, is_pdf

MOST_BYTES = 2_000_000_000
"""Of all images together that are kept on the disk."""


class Pictures:
    """Images by their content. Thread-safe. Those in use stay; the others go, the least recently used first, when all together
    have more than `most_bytes`."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cof-serve-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name).resolve()
        self._most, self._total = most_bytes, 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, content: bytes) -> str:
        """The path of an image or a PDF file, which is in use until `release` is called with it, as often as it was added.

        Raises:
            InputError: if it is neither.
        """
        path = self._written(content)
        with self._lock:
            if not Path(path).exists():  # it was there already, and has just gone
                self._written(content)
            self._total += len(content) - self._sizes.get(path, 0)
            self._sizes[path] = len(content)
            self._sizes.move_to_end(path)
            self._used[path] += 1
            self._make_room()
        return path

    def _written(self, content: bytes) -> str:
        if is_pdf(content[:64]):
            return written_once(content, "pdf", self.folder)
        return kept_image(content, "the request", self.folder)

    def hold(self, path: str) -> bool:
        """One more use of an image; whether it is still there."""
        with self._lock:
            if path not in self._sizes:
                return False
            self._sizes.move_to_end(path)
            self._used[path] += 1
            return True

    def release(self, path: str) -> None:
        """Ends one use of an image, or of a page; a path of another file is passed over."""
        path = file_of(path)
        with self._lock:
            if path in self._sizes:
                self._used -= Counter([path])
                self._make_room()

    @property
    def in_use(self) -> int:
        """How often images are in use."""
        return self._used.total()

    @contextmanager
    def released(self, paths: Sequence[str]) -> Iterator[None]:
        """Ends the use of these images at the end of the block."""
        try:
            yield
        finally:
            for path in paths:
                self.release(path)

    def close(self) -> None:
        """Removes the folder."""
        self._folder.cleanup()

    def _make_room(self) -> None:
        if self._total <= self._most:
            return
        for path in [one for one in self._sizes if not self._used[one]]:
            self._total -= self._sizes.pop(path)
            Path(path).unlink(missing_ok=True)
            if self._total <= self._most:
                return
