"""What a row says about its image: a path, a URL, or the image itself, in each of the shapes in which sets have it.

Known are texts (path, `file://`, URL, `data:`, base64), raw bytes, objects (`{"bytes", "path"}`, `{"image": path}`,
`{"url": ...}`), and lists of these. Nothing is opened here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlparse

from cof_agent.data.columns import words
from cof_agent.data.nested import is_missing, unpacked
from cof_agent.data.unusable import TWO_IMAGES, Unusable

Kind = Literal["path", "url", "bytes", "base64"]

SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".heif",
    ".jp2",
    ".ppm",
    ".jfif",
}
VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".flv"}

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"\x00\x00\x00\x0cjP  ", "jp2"),
)
_HEAD = 64  # base64 letters that hold a whole signature
_LONGEST_PATH = 1024
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+=*\s*")
_MARKED = re.compile(r"(.*)###\s*(\[[^\]]*\])\s*", re.DOTALL)

_IMAGE_KEYS = {"bytes", "image", "path", "url", "image_url", "b64_json"}
_OBJECT_KEYS = (
    "bytes",
    "image",
    "path",
    "url",
    "image_url",
    "image_path",
    "file_name",
    "filename",
    "src",
    "data",
    "base64",
    "b64_json",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One image as a row refers to it. box: what stands behind `###` in Visual-CoT's paths, as text."""

    kind: Kind
    value: Any
    box: str | None = None

    @property
    def holds_image(self) -> bool:
        """Whether the row holds the image itself."""
        return self.kind in ("bytes", "base64")

    @property
    def cost(self) -> int:
        """Bytes of the row that it takes up."""
        return len(self.value)


def kind_of_image(head: bytes) -> str | None:
    """The format whose signature a file begins with; None for none that is known here."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic"}.get(head[8:12])
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def references(value: Any) -> list[Reference]:
    """The images that a column refers to, in order; what refers to none is passed over."""
    if isinstance(value, str) and value[:1] == "[":
        value = unpacked(value)
    if isinstance(value, list | tuple):
        return [found for one in value for found in references(one)]
    if isinstance(value, dict):
        inner = next((value[key] for key in _OBJECT_KEYS if not is_missing(value.get(key))), None)
        named = inner is None and all(_rank(str(key)) in (0, 1, 2) for key in value)  # {"image_1": ..., "image_2": ...}
        return references(list(value.values()) if named else inner)
    found = _reference(value)
    return [found] if found else []


def _reference(value: Any) -> Reference | None:
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        if (
            not kind_of_image(content[:_HEAD])
            and content.isascii()
            and is_base64_image(text := content.decode("ascii"))
        ):
            return Reference("base64", text)
        return Reference("bytes", content) if content else None
    return _of_text(value) if isinstance(value, str) else None


def _of_text(text: str) -> Reference | None:
    if not text.strip():
        return None
    if text.startswith("data:"):
        return Reference("base64", text.partition(",")[2])
    if is_base64_image(text):
        return Reference("base64", text)
    if re.match(r"(?:https?|s3|gs|ftp)://", text):
        return Reference("url", text.strip())
    if text.startswith("file://"):
        try:
            return Reference("path", unquote(urlparse(text).path))
        except ValueError:  # half a bracket
            return Reference("path", text)
    if len(text) > _LONGEST_PATH or "\n" in text.strip():
        return None
    marked = _MARKED.fullmatch(text)
    return Reference("path", marked[1], marked[2]) if marked else Reference("path", text.strip())


def is_base64_image(text: str) -> bool:
    """Whether a text is an image in base64: by the signature that its beginning decodes to."""
    head = "".join(text[: 2 * _HEAD].split())[:_HEAD]
    if len(head) < 16 or not _BASE64.fullmatch(head):
        return False
    return kind_of_image(decoded(head[: len(head) // 4 * 4]) or b"") is not None


def decoded(text: str) -> bytes | None:
    """The bytes of a base64 text, of either alphabet; None if it is none."""
    plain = "".join(text.split()).translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


# Columns with an image ----------------------------------------------------------------------------------------------------------

_WHOLE_NAMES = {"image": 0, "images": 0, "img": 0, "imgs": 0, "picture": 1, "photo": 1, "bytes": 1, "image bytes": 1}
_PATH_NAMES = {"file name", "file names", "filename", "file path", "filepath", "path", "file"}
_IMAGE_WORDS = {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "figure", "screenshot"} | {
    *("imagepath", "imgpath", "imagename", "imgname", "imagefile", "imageurl"),
}
_ABOUT_IMAGES = {
    *(
        "id",
        "ids",
        "size",
        "width",
        "height",
        "caption",
        "captions",
        "description",
        "type",
        "source",
        "format",
        "hash",
        "count",
    ),
    *("num", "number", "classes", "class", "token", "tokens", "license", "category", "info", "names"),
}
_PARTS = {
    "crop",
    "cropped",
    "crops",
    "mask",
    "masked",
    "masks",
    "annotated",
    "thumbnail",
    "overlay",
    "depth",
    "heatmap",
}
_ID_NAMES = {("image", "id"), ("img", "id"), ("picture", "id"), ("photo", "id"), ("image", "name"), ("image", "key")}
_VIDEO_WORDS = {"video", "videos"}
_AUDIO_WORDS = {"audio", "audios"}


Candidate = tuple[bool, bool, int, str, list[Reference]]


@cache
def _rank(name: str) -> int | None:
    """How likely a column of this name is to hold the image: the lower the likelier; None if it holds something about it."""
    parts = words(name)
    bare = tuple(part for part in parts if not part.isdecimal())
    if not bare or (bare[-1] in _ABOUT_IMAGES and bare[-2:] != ("file", "names")):
        return None
    rank = _WHOLE_NAMES.get(
        " ".join(bare), 2 if _IMAGE_WORDS & set(bare) else 3 if " ".join(bare) in _PATH_NAMES else 4
    )
    return rank + (5 if _PARTS & set(bare) else 0)


def images_in(row: Mapping[str, Any]) -> list[Reference]:
    """The images of a row, in order, by what its columns hold and are called. One that the row holds itself goes before a path;
    of numbered columns (`image_1`, `image_2`) all are taken.

    Raises:
        Unusable: if two columns are as likely, and hold different images.
    """
    found = list(_candidates(row))
    if not found:
        return _by_id(row)
    if len(found) == 1:
        return found[0][4]
    _, _, _, best, images = first = min(found, key=_likelihood)
    numbered = [
        (name, refs)
        for _, _, _, name, refs in found
        if _stem(name) == _stem(best) and name != best and (_number(name) or _number(best))
    ]
    other = next((one for one in found if _likelihood(one) == _likelihood(first) and one[4] != images), None)
    if other and not numbered and _names_of(images) != _names_of(other[4]):
        raise Unusable(TWO_IMAGES, f"{best}, {other[3]}")
    together = sorted([(best, images), *numbered], key=lambda one: _number(one[0]))
    return [ref for _, refs in together for ref in refs]


def holds_image(row: Any) -> bool:
    """Whether a row has a column that may hold an image."""
    return isinstance(row, Mapping) and next(_candidates(row), None) is not None


def _likelihood(found: Candidate) -> tuple[bool, bool, bool, int]:
    """A sort key: the lower the likelier."""
    is_part, is_path, rank, _, images = found
    return is_part, is_path, images[0].kind == "url", rank


def _names_of(images: list[Reference]) -> list[Any]:
    """The images without their folders, which two columns may write differently."""
    return [PurePosixPath(ref.value).name if ref.kind == "path" else ref.value for ref in images]


def _by_id(row: Mapping[str, Any]) -> list[Reference]:
    """The image that a row names by an id, which is its file's name without the suffix."""
    ids = (value for name, value in row.items() if words(name) in _ID_NAMES and not is_missing(value))
    return [Reference("path", str(value)) for value in ids if type(value) in (str, int)][:1]


def _candidates(row: Mapping[str, Any]) -> Iterator[Candidate]:
    """Sort keys (a part of an image, a path and no image, rank), name and references of each column that may hold images."""
    for name, value in row.items():
        rank = _rank(name)
        if rank is None or value is None or isinstance(value, int | float):
            continue
        if rank % 5 == 4 and not _may_hold_image(value):
            continue
        refs = references(value)
        if refs and all(_is_likely(ref, rank) for ref in refs):
            yield rank >= 5, not refs[0].holds_image, rank, name, refs


def _may_hold_image(value: Any) -> bool:
    """Whether a column whose name says nothing may hold an image: by the kind of what it holds."""
    if isinstance(value, list):
        return bool(value) and _may_hold_image(value[0])
    if isinstance(value, dict):
        return not _IMAGE_KEYS.isdisjoint(value)
    return isinstance(value, bytes)


def _is_likely(ref: Reference, rank: int) -> bool:
    if ref.kind == "bytes":
        return rank % 5 < 4 or kind_of_image(ref.value[:_HEAD]) is not None
    if ref.kind == "base64":
        return True
    return (
        rank % 5 < 2
        or PurePosixPath(urlparse(ref.value).path if ref.kind == "url" else ref.value).suffix.lower() in SUFFIXES
    )


@cache
def _stem(name: str) -> tuple[str, ...]:
    return tuple(part.removesuffix("s") for part in words(name) if not part.isdecimal())


def _number(name: str) -> int:
    return next((int(part) for part in words(name) if part.isdecimal()), 0)


def is_video(row: Mapping[str, Any]) -> bool:
    """Whether a row is about a video: it says so, has one, or its images are files of videos."""
    return _has(row, _VIDEO_WORDS)


def is_audio(row: Mapping[str, Any]) -> bool:
    """Whether a row is about a recording: it says so, or has one."""
    return _has(row, _AUDIO_WORDS)


def _has(row: Mapping[str, Any], names: set[str]) -> bool:
    for name, value in row.items():
        parts = set(words(name))
        if parts & names and not _says_none(value) and not parts & _ABOUT_IMAGES:
            return True
    return False


def _says_none(value: Any) -> bool:
    """Whether a value says that there is none of what its column is named for: `has_video: "no"`, `videos: [null]`."""
    if isinstance(value, list | tuple):
        return all(map(_says_none, value))
    return is_missing(value) or value in (False, 0) or (isinstance(value, str) and value.strip().lower() in _NONE)


_NONE = {"no", "false", "none", "0"}
