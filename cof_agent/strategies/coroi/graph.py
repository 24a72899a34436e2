"""CoRoI as a LangGraph (arXiv 2505.06840): a chain of regions is chosen for the model, which then answers in one pass.

    trajectory = await COROI.run(sample, Context(policy, environment))      # the policy is a `Chooser`

look -> choose -> zoom -> choose -> ... -> answer. The regions stand in the conversation as zooms of the usual wire format,
so that any model of ours can read them, and any record of them can be shown, scored and trained on. They cost no completion
tokens. The chain ends when no further region is needed, when the one chosen was cut before, or when the zooms are used up.

How a run ends: ANSWERED; TRUNCATED, where the reply runs into `max_tokens` without an action; MALFORMED, where the model
says nothing even to the beginning of an answer; ERROR as in every graph. A reply that zooms, or holds nothing to read, is no
end: the model is held to its thought and the beginning of an answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from cof_agent import protocol
from cof_agent.geometry import Box, View
from cof_agent.graphs.state import Ask, State, plain, progress
from cof_agent.graphs.steps import (
    Context,
    Event,
    Graph,
    Spoke,
    conversation,
    look,
    see,
    shown,
    speak,
)
from cof_agent.trajectory import Answer, Malformed, StopReason, Tokens, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

THOUGHT = "I look closer where the question points."
"""What is written as the thought of every chosen region."""


class Chooser(Protocol):
    """A policy that can also choose regions."""

    async def region(self, question: str, views: Sequence[View], images: Sequence[Image]) -> Box | None:
        """The next region for a question, in source pixels; None if what is shown suffices.

        views: the overview and the crops so far; images: their pixels.
        """
        ...


async def choose(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Writes the next region as a zoom into the overview; nothing if none is to come."""
    context, now, started = runtime.context, progress(dict(state)), time.perf_counter()
    if now.zooms >= context.environment.settings.max_zooms:
        return {}
    chooser = cast("Chooser", context.policy)
    images = await shown(now, context)
    box = await context.retries.run(lambda: chooser.region(now.sample.question, now.views, images), context.policy.name)
    if box is None:
        return {}
    system, overview = context.environment.settings.system, now.views[0]
    told = Box(*(round(value, system.digits) for value in overview.from_source(box, system)))
    text = protocol.write_zoom(THOUGHT, told)
    if any(turn.text == text for turn in now.turns):
        return {}
    turn = Turn(text, protocol.parse(text), tokens=Tokens(0, 0), seconds=round(time.perf_counter() - started, 4))
    runtime.stream_writer(Spoke(len(now.turns), turn, THOUGHT))
    return {"turns": [*state.get("turns", []), plain(turn)]}


async def zoom(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Cuts the region that was chosen last."""
    now = await see(state, runtime.context, on_event=runtime.stream_writer)
    return {"turns": [*state["turns"][:-1], plain(now.turns[-1])]}


async def answer(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Asks the model, which reads the overview and all regions; holds it to an answer where it gives none."""
    context = runtime.context
    told: list[Event] = []  # by the replies, of which the run is told once it knows the last
    messages = conversation(progress(dict(state)), context)
    now, completion = await speak(state, context, messages, on_event=told.append)
    turn = now.turns[-1]
    if not isinstance(turn.actions[-1], Answer) and not (completion.truncated and _without_action(turn)):
        thought = protocol.without_tags(protocol.thought(turn.text))
        held = [*messages, protocol.assistant(protocol.begin_answer(thought))]
        now, completion = await speak(state, context, held, on_event=told.append)
        last = now.turns[-1]
        turn = replace(last, tokens=turn.tokens + last.tokens, seconds=round(turn.seconds + last.seconds, 4))
    runtime.stream_writer(Spoke(len(now.turns) - 1, turn, protocol.thought(turn.text)))
    update = {"turns": [*state.get("turns", []), plain(turn)]}
    if isinstance(turn.actions[-1], Answer) and not (completion.truncated and not protocol.is_whole(turn.text)):
        return {**update, "stop": StopReason.ANSWERED.value, "answer": turn.actions[-1].text}
    return {**update, "stop": (StopReason.TRUNCATED if completion.truncated else StopReason.MALFORMED).value}


def _without_action(turn: Turn) -> bool:
    return all(isinstance(action, Malformed) for action in turn.actions)


def _after_look(state: State) -> Literal["choose", "__end__"]:
    return "__end__" if state.get("stop") else "choose"


def _after_choose(state: State) -> Literal["zoom", "answer"]:
    turns = progress(dict(state)).turns
    return "zoom" if turns and not turns[-1].observations else "answer"


def build() -> StateGraph[State, Any, Ask, State]:
    """The graph, not yet compiled."""
    graph = StateGraph(State, context_schema=Context, input_schema=Ask, output_schema=State)
    graph.add_node("look", look)
    graph.add_node("choose", choose)
    graph.add_node("zoom", zoom)
    graph.add_node("answer", answer)
    graph.add_edge(START, "look")
    graph.add_conditional_edges("look", _after_look)
    graph.add_conditional_edges("choose", _after_choose)
    graph.add_edge("zoom", "choose")
    return graph


def recursion_limit(max_zooms: int) -> int:
    """Steps that no run within the rules can exceed."""
    return 2 * max_zooms + 5


COROI = Graph(build, protocol.PROTOCOL_VERSION, recursion_limit)
