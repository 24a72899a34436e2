"""Images that a server keeps under the ids that they were sent with, as vLLM does: their pixels travel once.

vLLM (0.30) takes an id as `uuid` beside the `image_url` of a part. If the `image_url` is null, it takes the image from its
multi-modal cache (`--mm-processor-cache-gb`), and answers with status 400 if the image is not there any longer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

_MOST = 4096  # ids that we remember: more than all conversations under way have
_TRIES = 16  # requests with images left out, before we judge whether that helps
_OFTEN = 0.2  # share of these that may fail

_log = logging.getLogger(__name__)


def says_missing(error: bytes) -> bool:
    """Whether an error says that the server has no image of an id."""
    return b"cache miss" in error.lower()


def probe(model: str) -> dict[str, Any]:
    """A request with an id that nobody has sent. A server that keeps images says that this one is missing; one that passes over
    images without pixels answers."""
    nobody = {"type": "image_url", "image_url": None, "uuid": "nobody-has-sent-this"}
    return {
        "model": model,
        "messages": [{"role": "user", "content": [nobody, {"type": "text", "text": "?"}]}],
        "max_completion_tokens": 1,
    }


class ImageIds:
    """The ids under which a server has images, as far as we know. where: the server, for sentences. asked: requests whose images
    were left out in part. failed: those of them that the server could not answer. useless: whether too many failed."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._names: dict[str, None] = {}  # the last one that was shown is the last one here
        self.asked = self.failed = 0
        self.useless = False

    def known(self, names: Iterable[str]) -> frozenset[str]:
        """Those whose pixels may be left out."""
        return frozenset() if self.useless else frozenset(name for name in names if name in self._names)

    def shown(self, names: Iterable[str], *, left_out: bool) -> None:
        """After an answer: the server has these. left_out: whether pixels were."""
        self.asked += left_out
        for name in names:
            self._names.pop(name, None)
            self._names[name] = None
        while len(self._names) > _MOST:
            del self._names[next(iter(self._names))]

    def missed(self, names: Iterable[str]) -> None:
        """After an answer that came only when the pixels of these were sent again."""
        self.asked, self.failed = self.asked + 1, self.failed + 1
        for name in names:
            self._names.pop(name, None)
        if self.asked >= _TRIES and self.failed > _OFTEN * self.asked:
            self.stop("it seldom has an image of an earlier turn (vLLM: --mm-processor-cache-gb)")

    def stop(self, why: str) -> None:
        """From now on, each image travels with each turn."""
        if not self.useless:
            _log.warning("%s gets each image with each turn again: %s.", self._where, why)
        self.useless = True
