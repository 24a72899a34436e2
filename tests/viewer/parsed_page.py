"""A written page as the parser of a browser sees it."""

from __future__ import annotations

import base64
import hashlib
import io
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image


class ParsedPage(HTMLParser):
    """Elements with their attributes, texts, and the text of each block (script, style, title) by its id or tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.blocks: dict[str, str] = {}
        self._block: str | None = None
        self.feed(html)
        self.close()

    @classmethod
    def read(cls, path: Path) -> ParsedPage:
        return cls(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style", "title"):
            self._block = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self._block = None

    def handle_data(self, data: str) -> None:
        if self._block is not None:
            self.blocks[self._block] = self.blocks.get(self._block, "") + data
        elif data.strip():
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    @property
    def addresses(self) -> list[str]:
        """Everything that the page could ask for."""
        return [str(found[name]) for _, found in self.elements for name in ("src", "href") if found.get(name)]

    @property
    def handlers(self) -> list[str]:
        """Attributes that are scripts."""
        return [name for _, attributes in self.elements for name in attributes if name.startswith("on")]

    @property
    def policy(self) -> str:
        [found] = [a["content"] for _, a in self.elements if a.get("http-equiv") == "Content-Security-Policy"]
        return str(found)

    def images(self, kind: str) -> list[Image.Image]:
        """The images of a kind (png, webp) that stand in img elements."""
        start = f"data:image/{kind};base64,"
        sources = [str(attributes["src"]) for tag, attributes in self.elements if tag == "img"]
        return [decoded(source[len(start) :]) for source in sources if source.startswith(start)]


def decoded(text: str) -> Image.Image:
    """The image of its base64."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def digest(text: str) -> str:
    """As a Content-Security-Policy names a script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
