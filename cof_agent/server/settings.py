"""How the server runs: where it listens, who may ask, and how much."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cof_agent.errors import InputError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens, and what it allows.

    key: what a caller has to know, None where anybody on this machine may ask. concurrency: conversations at the same time;
    waiting: requests that may wait for their turn beside them. folders: whose images and runs may be named by path.
    allow_urls: whether images are fetched from public addresses. most_bytes: of one request, and of one fetched image.

    Raises:
        InputError: if others could reach it without a key, or there is no such port or folder.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    concurrency: int = 8
    waiting: int = 64
    folders: tuple[Path, ...] = ()
    allow_urls: bool = False
    most_bytes: int = 100 * MEGABYTE

    def __post_init__(self) -> None:
        if self.port > 65535:
            raise InputError(f"--port must be at most 65535, not {self.port}.")
        if not self.is_local and not self.key:
            raise InputError(
                f"--host {self.host} can be reached from other machines, so a key is needed: set COF_API_KEY, or name "
                "another variable with --api-key-env."
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise InputError("the key must be printable ASCII without blanks, since it is sent as a header.")
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError(f"--allow-images-from {folder} is no folder.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine and nobody else's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
