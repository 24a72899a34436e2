"""What the pages share: templates in `page/`, the policy that forbids every request, and HTML that is escaped as it is built."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files

_WITHOUT_END = ("img", "br", "col")


class Markup(str):
    """Text that is HTML already; any other text is escaped when it is put into an element."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: str) -> Markup:
    """An element; children that are None are left out. Of an attribute's name a last underscore is left out (`class_`)."""
    named = "".join(f' {name.rstrip("_")}="{escape(value, quote=True)}"' for name, value in attributes.items())
    return Markup(f"<{tag}{named}>" if tag in _WITHOUT_END else f"<{tag}{named}>{together(children)}</{tag}>")


def together(pieces: Iterable[str | None]) -> Markup:
    """The pieces one after the other, escaped where they are not HTML."""
    return Markup(
        "".join(one if isinstance(one, Markup) else escape(one, quote=False) for one in pieces if one is not None)
    )


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, all of which can be written as UTF-8."""
    kept = text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit:,} more characters]"
    return kept.encode("utf-8", "replace").decode()


def part(name: str) -> str:
    """The text of a file in `page/`."""
    return (files("cof_agent.viewer") / "page" / name).read_text("utf-8")


def policy(style: str, script: str | None = None) -> str:
    """The Content-Security-Policy of a page with this style and this script, or none, that asks for nothing."""
    scripts = f"script-src '{_digest(script)}'; " if script is not None else ""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; {scripts}base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def fill(template: str, fills: Mapping[str, str]) -> str:
    """The template with each %%name%% replaced; what is put in is not looked at again."""
    pieces = template.split("%%")  # text, name, text, name, ..., text
    return "".join(fills[piece] if index % 2 else piece for index, piece in enumerate(pieces))
