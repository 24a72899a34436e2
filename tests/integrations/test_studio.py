"""LangGraph Studio opens the agent's graph, and runs it from plain values."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.integrations import studio
from cof_agent.trajectory import Sample, StopReason


@pytest.fixture(scope="module")
def sample(picture: Path) -> Sample:
    return Sample("shapes", str(picture), "What is there?")


def test_studio_can_open_the_graph() -> None:
    described = json.loads((Path(__file__).parents[2] / "langgraph.json").read_text())
    path, _, name = described["graphs"]["focus"].partition(":")
    assert Path(path).as_posix() == "cof_agent/integrations/studio.py"
    graph = getattr(studio, name)
    assert graph.config["recursion_limit"] > 2 * 100  # more zooms than anyone allows
    assert graph.get_context_jsonschema()["properties"]["model"]["default"] == "nano"
    assert graph.get_input_jsonschema()["required"] == ["sample"]
    with pytest.raises(InputError, match="no sample"):
        asyncio.run(graph.ainvoke({"sample": {"image": "x.png"}}, context=AgentConfig()))


def test_studio_runs_the_graph_from_plain_values(checkpoint: Callable[[str], Path], sample: Sample) -> None:
    start = {"sample": {"image": sample.image, "question": sample.question}}
    context = {"model": str(checkpoint("qwen2_5_vl")), "max_tokens": 8}
    state = asyncio.run(studio.graph.ainvoke(start, context=context))  # type: ignore[call-overload]
    assert state["stop"] == StopReason.TRUNCATED
    with pytest.raises(InputError, match="nosuch"):  # a list, as JSON has it
        asyncio.run(studio.graph.ainvoke(start, context=context | {"tools": ["cof_agent.tools:nosuch"]}))  # type: ignore[call-overload]
    assert state["turns"][0]["tokens"]["completion"] == 8


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"question": " "}, "the question is empty"),
        ({"question": "What is in <region1>?"}, "no region is given"),
    ],
)
def test_what_cannot_be_asked_is_said_before_a_model_is_loaded(told: dict[str, Any], said: str, sample: Sample) -> None:
    start = {"sample": {"image": sample.image} | told}
    with pytest.raises(InputError, match=said):
        asyncio.run(studio.graph.ainvoke(start, context={"model": "nowhere"}))  # type: ignore[call-overload]


def test_a_configuration_is_checked_outside_the_event_loop(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """`langgraph dev` ends runs that read files within the loop."""
    threads, check = [], AgentConfig.__post_init__

    def told(config: AgentConfig) -> None:
        threads.append(threading.get_ident())
        check(config)

    monkeypatch.setattr(AgentConfig, "__post_init__", told)
    start = {"sample": {"image": sample.image, "question": sample.question}}
    with pytest.raises(InputError, match="max_zooms must be 0 or more"):
        asyncio.run(studio.graph.ainvoke(start, context={"max_zooms": -1}))  # type: ignore[call-overload]
    assert threads and threading.get_ident() not in threads
