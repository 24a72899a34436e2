"""`cof serve`: the agent behind one server, for OpenAI's clients, MCP's and browsers."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from cof_agent.backends import secrets
from cof_agent.commands import common
from cof_agent.commands.options import add_agent, count, option, whole
from cof_agent.errors import InputError
from cof_agent.output.install import how_to_install
from cof_agent.server.settings import MEGABYTE, ServerSettings

KEY = "COF_API_KEY"
NEEDED = ("fastapi", "mcp", "nicegui", "uvicorn")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof serve [OPTION ...]"
    parser.epilog = (
        "example:\n  cof serve --model Qwen/Qwen2.5-VL-7B-Instruct --allow-images-from photos\n"
        "then open http://127.0.0.1:8000 in a browser. OpenAI's clients use http://127.0.0.1:8000/v1, MCP's\n"
        "http://127.0.0.1:8000/mcp"
    )
    group = parser.add_argument_group("server")
    group.add_argument(
        "--host", default=ServerSettings.host, metavar="HOST", help="address to listen at; others need a key"
    )
    group.add_argument(
        "--port", type=whole, default=ServerSettings.port, metavar="N", help="port to listen at; 0: any that is free"
    )
    group.add_argument(
        "--api-key", metavar="KEY", help="key that callers must send (seen by all users of this machine; default: none)"
    )
    group.add_argument(
        "--api-key-env", default=KEY, metavar="NAME", help="environment variable with the key, if it is set"
    )
    changed = {"default": ServerSettings.concurrency, "help": "number of conversations at the same time"}
    option(group, "concurrency", **changed)
    group.add_argument(
        "--waiting",
        type=whole,
        default=ServerSettings.waiting,
        metavar="N",
        help="number of requests that may wait for a place",
    )
    group.add_argument(
        "--max-upload",
        type=count,
        default=ServerSettings.most_bytes // MEGABYTE,
        metavar="MB",
        help="largest request, in megabytes",
    )
    add_sources(group)
    add_agent(parser)


def add_sources(group: argparse._ArgumentGroup) -> None:
    """The options that say which images may be named, beside those that are sent."""
    group.add_argument(
        "--allow-images-from",
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose images and trajectories may be opened by name; repeat for more (default: none)",
    )
    group.add_argument(
        "--allow-urls", action="store_true", help="fetch images from public addresses (default: refuse addresses)"
    )


def check_installed() -> None:
    """Refuses to go on without the extra `serve`.

    Raises:
        InputError: if a package of it is missing.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f"serving needs {' and '.join(missing)}: {how_to_install(*missing)}.")


def run(options: argparse.Namespace) -> int:
    check_installed()
    settings, config = _settings(options), common.config_of(options)
    from cof_agent.server.run import address_of, listening, server_of
    from cof_agent.server.service import Service

    listener = listening(settings.host, settings.port)
    server = server_of(Service(config, settings, common.agent_of(config)))
    print(f"{address_of(listener)}  (page; /v1 for OpenAI's clients, /mcp for MCP's; Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):  # how a server ends
        server.run(sockets=[listener])
    return 0


def _settings(options: argparse.Namespace) -> ServerSettings:
    key = options.api_key or os.environ.get(options.api_key_env) or None
    secrets.keep(key)
    return ServerSettings(
        options.host,
        options.port,
        key,
        options.concurrency,
        options.waiting,
        tuple(map(Path, options.allow_images_from)),
        options.allow_urls,
        options.max_upload * MEGABYTE,
    )
