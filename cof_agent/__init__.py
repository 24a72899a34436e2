"""Chain-of-Focus: agentic visual search in large images.

    from cof_agent import Agent
    trajectory = Agent("nano").ask("photo.jpg", "What is written on the red sign?")

Importing this package loads neither torch nor trl: each name is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cof_agent.agent import Agent
    from cof_agent.config import AgentConfig
    from cof_agent.data.samples import read_samples
    from cof_agent.errors import InputError
    from cof_agent.geometry import Box
    from cof_agent.graphs.steps import Looked, Saw, Spoke
    from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl

__version__ = "0.2.0"
__all__ = [
    "Agent",
    "AgentConfig",
    "Box",
    "InputError",
    "Looked",
    "Sample",
    "Saw",
    "Spoke",
    "StopReason",
    "Trajectory",
    "read_jsonl",
    "read_samples",
]

_HOMES = {
    "Agent": "agent",
    "AgentConfig": "config",
    "Box": "geometry",
    "InputError": "errors",
    "Looked": "graphs.steps",
    "Sample": "trajectory",
    "Saw": "graphs.steps",
    "Spoke": "graphs.steps",
    "StopReason": "trajectory",
    "Trajectory": "agent",  # with which a trajectory shows itself in a notebook
    "read_jsonl": "trajectory",
    "read_samples": "data.samples",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
