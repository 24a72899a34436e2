"""Runs the application until it is interrupted."""

from __future__ import annotations

import socket

import uvicorn

from cof_agent.errors import InputError
from cof_agent.server.app import make_app
from cof_agent.server.service import Service

_GRACE = 5  # seconds for open requests when the server ends


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: if it cannot, as when another server does.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot listen at {host}, port {port}: {reason.lower()}; choose another --port.") from None
    return made


def address_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(service: Service, *, page: bool = True) -> uvicorn.Server:
    """The server, not yet started: `run(sockets=[listening(...)])` serves until it is interrupted. page: as in `make_app`."""
    config = uvicorn.Config(
        make_app(service, page=page),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    return uvicorn.Server(config)
