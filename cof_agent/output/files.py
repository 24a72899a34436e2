"""Files that are written whole or not at all, those that a run appends to line by line, and the sentence for what cannot be
written."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from cof_agent.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where files are not locked
    fcntl = None  # type: ignore[assignment]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST}
_NO_HANDLES = {errno.EMFILE, errno.ENFILE}
_BLOCK = 1 << 16  # bytes that are read at a time in search of the last line


_UMASK = os.umask(0o022)  # it can be read only by setting it
os.umask(_UMASK)


def unwritable(path: str | Path, error: OSError) -> InputError:
    """The sentence for an output that cannot be written, with what helps."""
    if error.errno in _FULL:
        hint = "make room there, and give the same command again"
    elif error.errno in _CLOSED:
        hint = "name a folder that you may write to"
    elif error.errno in _NO_FOLDER:
        hint = "a file stands where a folder is needed; name another folder"
    elif error.errno in _NO_HANDLES:
        hint = "raise the limit of open files (ulimit -n), and give the same command again"
    elif error.errno == errno.EISDIR:
        hint = "that is a folder; name a file"
    elif error.errno == errno.ENAMETOOLONG:
        hint = "choose a shorter name"
    else:
        return InputError(f"cannot write {path}: {error.strerror or error}.")
    return InputError(f"cannot write {path}: {error.strerror or error}; {hint}.")


def make_folder(path: Path) -> None:
    """Makes a folder with its parents, if it is not there, and checks that files can be made in it.

    Raises:
        InputError: if it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise unwritable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def write_new(path: Path, content: str) -> None:
    """Writes a file that is not there; one with the same content stays.

    Raises:
        InputError: if it holds something else, or cannot be written.
    """
    check_new(path, content)
    write_atomic(path, content)


def check_new(path: Path, content: str) -> None:
    """Refuses what `write_new` would not write.

    Raises:
        InputError: if the file holds something else.
    """
    if path.exists() and path.read_bytes() != content.encode("utf-8", "backslashreplace"):
        raise InputError(f"{path} holds something else; use another output folder, or remove the file.")


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file whole: to a temporary name beside it, then renamed.

    Raises:
        InputError: if it cannot be written; what was there before stays.
    """
    path = Path(path)
    # A name of a file that is no UTF-8 has half surrogate pairs; in JSON, what they become is their escape.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    make_folder(path.parent)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o666 & ~_UMASK)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)  # an interrupt may come just after the renaming
            raise
    except OSError as error:
        raise unwritable(path, error) from None


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON for people to read, as `write_atomic`.

    Raises:
        InputError: if it cannot be written; what was there before stays.
    """
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds; None where it holds none, or cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class LineFile:
    """A file to which whole lines are appended, by one writer at a time (an advisory lock).

    An append that fails, as on a full disk, leaves the file as it was before it. A cut-off last line, as a killed writer leaves
    it, is completed or removed before the first append.

    Raises:
        InputError: if the file cannot be written, or another writer has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)
        try:
            self._file = _opened(path)
        except OSError as error:
            raise unwritable(path, error) from None
        self._whole = False

    def append(self, line: bytes) -> None:
        """Appends a line, which ends with a line break.

        Raises:
            InputError: if it cannot be written.
        """
        try:
            if not self._whole:
                _end_last_line(self._file)
                self._whole = True
            self._write(line)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _write(self, line: bytes) -> None:
        start, rest = self._file.seek(0, os.SEEK_END), memoryview(line)
        try:
            while rest:  # on a full disk the first write takes a part and only the second one fails
                rest = rest[self._file.write(rest) :]
        except BaseException:
            with suppress(OSError):
                self._file.truncate(start)
            self._whole = False
            raise

    def close(self) -> None:
        self._file.close()


def _opened(path: Path) -> BinaryIO:
    """The file at `path`, locked. It may be replaced between opening and locking, by the writer that had it; then again."""
    while True:
        file = open(path, "ab+", buffering=0)  # noqa: SIM115 - held until `LineFile.close`
        try:
            _lock(file, path)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file  # type: ignore[return-value]
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO | object, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        raise InputError(
            f"another run is writing to {path}; wait for its end, or name another output folder."
        ) from None
    except OSError:
        pass  # a file system without locks, as some network drives are


def _end_last_line(file: BinaryIO) -> None:
    """What a reader takes for a record must stay one: only the line break is missing then."""
    start, last = _last_line(file)
    if not last:
        return
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        file.truncate(start)
    else:
        file.seek(0, os.SEEK_END)
        if file.write(b"\n") != 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Where the text behind the last line break begins, and this text."""
    start = file.seek(0, os.SEEK_END)
    tail = b""
    while start:
        size = min(_BLOCK, start)
        start -= size
        file.seek(start)
        block = file.read(size)
        found = block.rfind(b"\n")
        if found >= 0:
            return start + found + 1, block[found + 1 :] + tail
        tail = block + tail
    return 0, tail
