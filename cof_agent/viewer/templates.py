"""Fills the templates in `page/`: Jinja2 escapes every value, and each page forbids every request and every other script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def environment() -> Environment:
    """The templates. A value that a template needs and does not get is an error."""
    return Environment(
        loader=PackageLoader("cof_agent.viewer", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


STYLES = ("base.css", "cards.css", "tables.css")
"""One style sheet for all pages."""


def scripts(cards: str) -> tuple[str, ...]:
    """The scripts of a page with cards. cards: the one that says what a card of this page is of."""
    return ("data.js", "pictures.js", "cards.js", cards, "filters.js", "controls.js", "browse.js")


def page(template: str, *, scripts: tuple[str, ...], **values: Any) -> bytes:
    """A whole page as UTF-8.

    scripts: names of files in `page/`. They are put into the page in this order, and the page's policy allows exactly them
    and `STYLES`. Half a surrogate pair, which is no UTF-8, becomes a question mark.
    """
    style, script = "\n".join(map(_own, STYLES)), _together(scripts)
    text = (
        environment()
        .get_template(template)
        .render(
            # Our own files are not escaped.
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script),
            **values,
        )
    )
    return text.encode("utf-8", "replace")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, all of which can be written as UTF-8; the text says how many more there were."""
    kept = text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit:,} more characters]"
    return kept.encode("utf-8", "replace").decode()


def data_url(kind: str, content: bytes) -> str:
    """An image that stands in the page itself. kind: png, webp, ..."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _own(name: str) -> str:
    return (files("cof_agent.viewer") / "page" / name).read_text("utf-8")


def _together(scripts: tuple[str, ...]) -> str:
    """One script of several files, which share their names with each other and not with the rest of the page."""
    return '"use strict";\n(() => {\n' + "\n".join(map(_own, scripts)) + "\n})();\n"


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page with this style and this script that asks for nothing."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
