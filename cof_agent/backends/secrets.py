"""API keys and passwords never reach a record, a page or a terminal: they are replaced by `***` before that."""

from __future__ import annotations

import base64
import logging
import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from cof_agent.output.escape import for_terminal

HIDDEN = "***"
SHORTEST = 6  # characters: a shorter one (`none`, `EMPTY`) is a placeholder, and may well be a word of an answer
KEYS = ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "HF_TOKEN")
"""Environment variables that hold a secret, beside those whose names end in _API_KEY."""

_USER = re.compile(r"(?<=://)[^\s/?#]*@")
_NAMED = re.compile("key|token|secret|sig", re.IGNORECASE)
_PARAMETER = re.compile(rf"([?&][^\s=&#]{{0,40}}(?:{_NAMED.pattern})[^\s=&#]{{0,40}}=)[^\s&#]+", re.IGNORECASE)
_given: set[str] = set()


def keep(*secrets: str | None) -> None:
    """Remembers secrets of this process, which `hidden` then replaces."""
    _given.update(secret for secret in secrets if secret)


def keep_address(url: str) -> None:
    """Remembers what an address holds of secrets, in each form in which a server may send them back: user, password, and
    parameters that are named as keys or tokens."""
    user, password = credentials(url)
    raw = urlsplit(url)
    keep(user, password, raw.username, raw.password)
    keep(*(value for name, value in parse_qsl(raw.query) if _NAMED.search(name)))
    if user or password:
        keep(basic(user, password))


def credentials(url: str) -> tuple[str, str]:
    """The user and the password of an address, empty where it has none."""
    parts = urlsplit(url)
    return unquote(parts.username or ""), unquote(parts.password or "")


def basic(user: str, password: str) -> str:
    """Both as HTTP sends them."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def hidden(text: str) -> str:
    """The text with `***` in place of every secret that is known."""
    for secret in sorted(_known(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def hidden_addresses(text: str) -> str:
    """As `hidden`, and also without the user, the password, and the parameters named as keys or tokens of any address: for
    commands, addresses and errors."""
    return hidden(_PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text)))


def _known() -> set[str]:
    named = {value for name, value in os.environ.items() if name in KEYS or name.endswith("_API_KEY")}
    return {secret for secret in named | _given if len(secret) >= SHORTEST}


class HidingFormatter(logging.Formatter):
    """A log line, with the traceback that belongs to it, without secrets and without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return for_terminal(hidden_addresses(super().format(record)), lines=True)


def log_handler(form: str = "%(message)s") -> logging.Handler:
    """Writes log lines to stderr, as `HidingFormatter` makes them."""
    handler = logging.StreamHandler()
    handler.setFormatter(HidingFormatter(form))
    return handler
