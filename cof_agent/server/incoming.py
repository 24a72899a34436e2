"""What clients name an image by: the image itself as a `data:` URL, a file of an allowed folder, or an address."""

from __future__ import annotations

import base64
import binascii
import re

from cof_agent.data.fetch import Fetcher
from cof_agent.errors import InputError
from cof_agent.server.folders import Folders, path_of
from cof_agent.server.pictures import Pictures
from cof_agent.server.settings import ServerSettings

_DATA = re.compile(r"data:[\w.+/-]*(;[\w=.+-]+)*;base64,", re.IGNORECASE | re.ASCII)
_WEB = re.compile(r"https?:", re.IGNORECASE)
_OTHER = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:", re.IGNORECASE)


class Incoming:
    """Finds the file of an image that a client names."""

    def __init__(self, settings: ServerSettings) -> None:
        self.pictures = Pictures()
        self.folders = Folders(settings.folders)
        self._fetcher = Fetcher(settings.most_bytes) if settings.allow_urls else None

    def path(self, reference: str) -> str:
        """The path of the image. What was sent or fetched is in use until `pictures.release`.

        Raises:
            InputError: if there is none, it is no image, or it may not be named so.
        """
        if reference[:5].lower() == "data:":
            return self.pictures.add(_content(reference))
        if _WEB.match(reference):
            if self._fetcher is None:
                raise InputError(
                    "images are not fetched from addresses: the server was started without --allow-urls; send the image itself."
                )
            return self.pictures.add(self._fetcher.get(reference))
        if _OTHER.match(reference):
            raise InputError(f"an image is a data: or http address or a path, not {reference[:40]!r}.")
        return self.folders.file(path_of(reference))

    def without_folders(self, sentence: str) -> str:
        """The sentence without where sent images lie on this machine, under names that no client has given them."""
        return re.sub(rf"{re.escape(str(self.pictures.folder))}/[0-9a-f]+\.\w+", "that was sent", sentence)


def _content(url: str) -> bytes:
    found = _DATA.match(url[:300])
    if found is None:
        raise InputError("a data: address of an image must be base64: data:image/png;base64,...")
    try:
        return base64.b64decode(url[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise InputError("the data: address of the image is no base64.") from None
