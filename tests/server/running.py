"""The server in a thread of the tests, on loopback, with nano."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.server.run import address_of, listening, server_of
from cof_agent.server.service import Service
from cof_agent.server.settings import ServerSettings


@contextmanager
def running(*folders: Path, agent: Agent | None = None, **settings: Any) -> Iterator[tuple[str, Service]]:
    """The address of a server of `agent` (by default nano's), and its service."""
    agent = agent or Agent(AgentConfig())
    service = Service(agent.config, ServerSettings(port=0, folders=folders, **settings), agent)
    listener = listening("127.0.0.1", 0)
    server = server_of(service, page=False)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended as it started"
        time.sleep(0.01)
    yield address_of(listener), service
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive(), "the server did not end"
