"""The loop of the agent as a LangGraph: look, think, zoom, think, ..., answer.

    trajectory = await run(sample, Context(policy, environment))

How a run ends:
- ANSWERED: a turn answers.
- MAX_ZOOMS: the zooms are used up, a zoom beyond them was refused with a sentence that says so, and the model asks
  for another. With `max_zooms=0` the first one is refused: the model has to answer from the overview. Some dialects end here
  at the first zoom beyond the limit (`End.at_limit`).
- MALFORMED: more than `FRUITLESS_TURNS` turns in a row bring nothing to see (no action, or refused boxes only); each
  time before, the model reads what was wrong. Some dialects end at the first turn with neither a call nor an answer
  (`End.neither`), or at any that does not answer once the zooms are used up (`End.at_limit`).
- TRUNCATED: a turn runs into `max_tokens`, and what there is of it holds no action, or an answer that is cut off.
- ERROR: the image cannot be opened, or the policy fails after its retries; `error` says it in a sentence.
Anything else that goes wrong is an error of the program, and propagates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from cof_agent import protocol
from cof_agent.graphs.state import Ask, Progress, State, plain, progress
from cof_agent.graphs.steps import Context, Graph, conversation, look, see, speak
from cof_agent.trajectory import Answer, StopReason, is_look

FRUITLESS_TURNS = 2
"""Turns in a row that may bring nothing to see before the run is given up."""


async def think(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Asks the policy for the next assistant message and reads the actions in it."""
    context = runtime.context
    messages = conversation(progress(dict(state)), context)
    now, completion = await speak(state, context, messages, on_event=runtime.stream_writer)
    return {"turns": [*state.get("turns", []), plain(now.turns[-1])], **_end(now, completion.truncated, context)}


def _end(now: Progress, truncated: bool, context: Context) -> dict[str, Any]:
    """The state's `stop` and `answer` after a turn without observations yet; nothing if the run goes on."""
    actions = now.turns[-1].actions
    if isinstance(actions[-1], Answer):
        if truncated and not protocol.is_whole(now.turns[-1].text, context.dialect):
            return {"stop": StopReason.TRUNCATED.value}
        return {"stop": StopReason.ANSWERED.value, "answer": actions[-1].text}
    looking = any(map(is_look, actions))
    if truncated and not looking:
        return {"stop": StopReason.TRUNCATED.value}
    most, end = context.environment.settings.max_zooms, context.dialect.end
    at_limit = end.at_limit == "stop" and now.zooms + now.texts >= most
    if looking:
        return {"stop": StopReason.MAX_ZOOMS.value} if at_limit or now.refused(most) else {}
    silent = end.neither == "stop" and protocol.says_nothing(now.turns[-1].text, context.dialect)
    return {"stop": StopReason.MALFORMED.value} if at_limit or silent or now.fruitless > FRUITLESS_TURNS else {}


async def zoom(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Carries out the actions of the last turn, in order, up to the zoom budget."""
    now = await see(state, runtime.context, on_event=runtime.stream_writer)
    update: dict[str, Any] = {"turns": [*state["turns"][:-1], plain(now.turns[-1])]}
    if now.fruitless > FRUITLESS_TURNS:
        update["stop"] = StopReason.MALFORMED.value
    return update


def _after_look(state: State) -> Literal["think", "__end__"]:
    return "__end__" if state.get("stop") else "think"


def _after_think(state: State) -> Literal["zoom", "__end__"]:
    return "__end__" if state.get("stop") else "zoom"


Node = Callable[..., Awaitable[dict[str, Any]]]


def build(
    context_schema: type[Any] = Context, adapt: Callable[[Node], Node] = lambda node: node
) -> StateGraph[State, Any, Ask, State]:
    """The graph, not yet compiled. adapt: wraps each node, for a front end that gives another context than `Context`."""
    graph = StateGraph(State, context_schema=context_schema, input_schema=Ask, output_schema=State)
    graph.add_node("look", adapt(look))
    graph.add_node("think", adapt(think))
    graph.add_node("zoom", adapt(zoom))
    graph.add_edge(START, "look")
    graph.add_conditional_edges("look", _after_look)
    graph.add_conditional_edges("think", _after_think)
    graph.add_conditional_edges("zoom", _after_look)
    return graph


def recursion_limit(max_zooms: int) -> int:
    """Steps that no run within the rules can exceed."""
    return 2 * (max_zooms + 2) * (FRUITLESS_TURNS + 1) + 2


FOCUS = Graph(build, protocol.PROTOCOL_VERSION, recursion_limit)
run = FOCUS.run
