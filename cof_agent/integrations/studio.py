"""The agent's graph for LangGraph Studio and other front ends (see langgraph.json): its context is an `AgentConfig`."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, fields
from functools import lru_cache, wraps
from typing import Any

from langgraph.runtime import Runtime

from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.episodes import Episode
from cof_agent.errors import InputError, check_text
from cof_agent.graphs import focus
from cof_agent.graphs.state import progress
from cof_agent.graphs.steps import Context
from cof_agent.region_refs import check_regions
from cof_agent.strategies.registry import check_images
from cof_agent.trajectory import Sample

MOST_ZOOMS = 1000
"""LangGraph is told how many steps a run may have before it is known how many zooms the configuration allows."""

_one_at_a_time = threading.Lock()
_agent = lru_cache(maxsize=1)(Agent)


@dataclass(frozen=True)
class Told(AgentConfig):
    """What a front end tells of a configuration. It is checked in a thread: that reads files, which LangGraph's server allows
    nobody within its event loop."""

    def __post_init__(self) -> None: ...


def loaded(config: AgentConfig) -> Agent:
    """The agent of a configuration; one model is kept in memory."""
    with _one_at_a_time:  # else runs that begin together would load one each
        return _agent(config)


def _context(sample: Sample, told: AgentConfig | None) -> Context:
    """What a run of a sample needs.

    Raises:
        InputError: if it cannot be asked, or what was told is no configuration of this graph.
    """
    named = {one.name: getattr(told, one.name) for one in fields(AgentConfig)} if told is not None else {}
    config = AgentConfig(**named)
    if config.strategy != AgentConfig.strategy:
        raise InputError(
            f"this graph is the strategy {AgentConfig.strategy}, not {config.strategy}; see `cof ask --strategy`."
        )
    check_text(sample.question, "the question")
    check_regions(sample)
    check_images(config.strategy, config.spoken, [sample])
    return loaded(config).context(Episode(sample))


def _configured(node: focus.Node) -> focus.Node:
    """The node, given the context that the front end's `AgentConfig` describes."""

    @wraps(node)
    async def run(state: Any, runtime: Runtime[Told]) -> dict[str, Any]:
        context = await asyncio.to_thread(_context, progress(dict(state)).sample, runtime.context)
        given: Any = runtime  # its context becomes another type
        return await node(state, given.override(context=context))

    run.__annotations__ = {
        "state": node.__annotations__["state"],
        "runtime": Runtime[Told],
        "return": dict[str, Any],
    }
    return run


graph = focus.build(Told, _configured).compile().with_config(recursion_limit=focus.recursion_limit(MOST_ZOOMS))
