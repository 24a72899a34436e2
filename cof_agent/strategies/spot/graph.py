"""Chain-of-Spot (arXiv 2403.12966) as a LangGraph: look, point, zoom, answer.

How a run ends:
- ANSWERED: the second reply holds anything at all.
- TRUNCATED: the second reply runs into `max_tokens`; the bare answer may go on.
- MALFORMED: the second reply is empty.
- ERROR: the image cannot be opened, or the policy fails after its retries; `error` says it in a sentence.

A first reply that names no region of the image ends nothing: it is recorded as malformed with what was wrong, and the
model answers from the overview.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from cof_agent.environment import ZoomSettings
from cof_agent.graphs.state import Ask, Progress, State, plain, progress
from cof_agent.graphs.steps import Context, Graph, look, see, speak
from cof_agent.policy import Policy
from cof_agent.protocol import Message
from cof_agent.strategies.spot import protocol as wire
from cof_agent.strategies.wrapper import Way
from cof_agent.trajectory import Answer, StopReason


async def point(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Asks for the region of interest."""
    overview = progress(dict(state)).overview
    assert overview is not None
    now, _ = await speak(
        state,
        runtime.context,
        _messages(state, runtime),
        read=lambda text: (wire.read_region(text, overview),),
        on_event=runtime.stream_writer,
    )
    return _turns(now)


async def zoom(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Cuts the region; a reply that named none is noted."""
    return _turns(await see(state, runtime.context, on_event=runtime.stream_writer))


async def answer(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Asks the question under the crop, and ends the run."""
    now, completion = await speak(
        state,
        runtime.context,
        _messages(state, runtime),
        read=lambda text: (wire.read_answer(text),),
        on_event=runtime.stream_writer,
    )
    (said,) = now.turns[-1].actions
    if completion.truncated:
        return _turns(now) | {"stop": StopReason.TRUNCATED.value}
    if not isinstance(said, Answer):
        return _turns(now) | {"stop": StopReason.MALFORMED.value}
    return _turns(now) | {"stop": StopReason.ANSWERED.value, "answer": said.text}


def _messages(state: State, runtime: Runtime[Context]) -> list[Message]:
    now = progress(dict(state))
    return wire.messages(now.sample, now.turns, prompt=runtime.context.prompt)


def _turns(now: Progress) -> dict[str, Any]:
    return {"turns": [plain(turn) for turn in now.turns]}


def _after_look(state: State) -> Literal["point", "__end__"]:
    return "__end__" if state.get("stop") else "point"


def build() -> StateGraph[State, Any, Ask, State]:
    """The graph, not yet compiled."""
    graph = StateGraph(State, context_schema=Context, input_schema=Ask, output_schema=State)
    graph.add_node("look", look)
    graph.add_node("point", point)
    graph.add_node("zoom", zoom)
    graph.add_node("answer", answer)
    graph.add_edge(START, "look")
    graph.add_conditional_edges("look", _after_look)
    graph.add_edge("point", "zoom")
    graph.add_edge("zoom", "answer")
    return graph


def settings_for(settings: ZoomSettings) -> ZoomSettings:
    """These settings with the coordinates and the one crop of Chain-of-Spot.

    `enlarge` stays as it is, by default the agent's 1.5 (Chain-of-Focus). The paper extends the regions that it teaches and
    then cuts what is named as it is; here the margin comes with the cut, the same one as for every other strategy.
    """
    return replace(settings, system=wire.SYSTEM, max_zooms=1)


def spot(policy: Policy, settings: ZoomSettings) -> Way:
    """Chain-of-Spot: the model names one region, and answers from its crop."""
    return Way(policy, settings_for(settings), SPOT)


SPOT = Graph(build, wire.VERSION, lambda max_zooms: 6, wire.SYSTEM)
