"""Addresses at which a running `cof serve` shows a trajectory at full resolution. Its page takes the parts of the query."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode, urlsplit

from cof_agent.errors import InputError
from cof_agent.viewer.templates import cut

_LONGEST = 200  # characters of an id


def server_of(address: str) -> str:
    """The address of a server, without a slash at its end.

    Raises:
        InputError: if it is none.
    """
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, half a bracket
        fits = False
    if not fits or parts.username is not None or parts.query or parts.fragment:
        raise InputError(f"--server {address} is no address of a server, such as http://127.0.0.1:8000.")
    return address.rstrip("/")


def address_of(server: str, file: Path, number: int, id: str) -> str:
    """The page for one trajectory. number: its place in the file, from 0. id: of its sample, since a file may change."""
    query = {"run": str(file.resolve()), "number": number, "id": short_id(id)}
    return f"{server}/?{urlencode(query, errors='replace')}"


def short_id(id: str) -> str:
    """An id as it stands in an address."""
    return cut(id, _LONGEST)
