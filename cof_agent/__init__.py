"""Chain-of-Focus: agentic visual search in large images.

    from cof_agent import Agent
    trajectory = Agent("nano").ask("photo.jpg", "What is written on the red sign?")

Importing this package loads neither torch nor trl: each name is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cof_agent.agent import Agent
    from cof_agent.backends.load import load
    from cof_agent.config import AgentConfig
    from cof_agent.trajectory import Sample, Trajectory

__version__ = "0.2.0"
__all__ = ["Agent", "AgentConfig", "Sample", "Trajectory", "load"]

_HOMES = {
    "Agent": "cof_agent.agent",
    "AgentConfig": "cof_agent.config",
    "Sample": "cof_agent.trajectory",
    "Trajectory": "cof_agent.agent",  # with which a trajectory shows itself in a notebook
    "load": "cof_agent.backends.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
