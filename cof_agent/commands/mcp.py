"""`cof mcp`: the agent's tools for an MCP client that starts it itself, over stdin and stdout."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from cof_agent.commands import common
from cof_agent.commands.options import add_agent
from cof_agent.commands.serve import add_sources, check_installed
from cof_agent.server.settings import ServerSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof mcp [OPTION ...]"
    parser.epilog = (
        "example:\n  cof mcp --allow-images-from photos\n"
        "or in the configuration of a client:\n"
        '  {"mcpServers": {"look": {"command": "cof", "args": ["mcp", "--allow-images-from", "photos"]}}}\n'
        "The model is loaded at the first question; zooms into boxes need none."
    )
    add_sources(parser.add_argument_group("server"))
    add_agent(parser)


def run(options: argparse.Namespace) -> int:
    check_installed()
    config = common.config_of(options)
    from cof_agent.server.mcp_door import mcp_server
    from cof_agent.server.service import Service

    folders = tuple(map(Path, options.allow_images_from))
    service = Service(config, ServerSettings(folders=folders, allow_urls=options.allow_urls))
    try:
        asyncio.run(mcp_server(service).run_stdio_async())
    finally:
        service.close()
    return 0
