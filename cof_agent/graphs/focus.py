"""The loop of the agent as a LangGraph: look, think, zoom, think, ..., answer.

    trajectory = await run(sample, policy, environment)

How a run ends:
- ANSWERED: a turn answers.
- MAX_ZOOMS: the zooms are used up, a zoom beyond them was refused with a sentence that says so, and the model asks
  for another. With `max_zooms=0` the first one is refused: the model has to answer from the overview.
- MALFORMED: more than `FRUITLESS_TURNS` turns in a row bring nothing to see (no action, or refused boxes only); each
  time before, the model reads what was wrong.
- TRUNCATED: a turn runs into `max_tokens` and what there is of it holds no action.
- ERROR: the image cannot be opened, or the policy fails after its retries; `error` says it in a sentence.
Anything else that goes wrong is an error of the program, and propagates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.geometry import View
from cof_agent.graphs.state import Ask, Progress, State, plain, progress
from cof_agent.nano import NANO
from cof_agent.policy import GREEDY, Completion, Policy, PolicyError, Sampling
from cof_agent.trajectory import Action, Answer, Observation, Sample, StopReason, Trajectory, Turn, Zoom

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph
    from PIL.Image import Image

FRUITLESS_TURNS = 2
"""Turns in a row that may bring nothing to see before the run is given up."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The overview is there."""

    sample: Sample
    overview: View


@dataclass(frozen=True, slots=True)
class Spoke:
    """The model has written turn `number` (from 0); `turn` has no observations yet."""

    number: int
    turn: Turn
    thought: str


@dataclass(frozen=True, slots=True)
class Saw:
    """What came back for the actions of turn `number`, one observation for each that was carried out."""

    number: int
    actions: tuple[Action, ...]
    observations: tuple[Observation, ...]


Event = Looked | Spoke | Saw


@dataclass(frozen=True)
class Context:
    """What a run needs beside its state. `timeout`: seconds for one assistant message, waiting in a queue included."""

    policy: Policy
    environment: ZoomEnvironment
    sampling: Sampling = GREEDY
    prompt: str | None = None
    timeout: float = 600.0

    async def images(self, sample: Sample, views: tuple[View, ...]) -> list[Image]:
        """The pixels of the views; the environment keeps them, so they are no part of the state."""
        return await self.environment.images(sample, views)


@dataclass(frozen=True)
class Options:
    """The context as LangGraph Studio can offer it: plain values, from which a `Context` is made."""

    model: str = NANO
    max_zooms: int = 6
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    prompt: str | None = None


def _context(runtime: Runtime[Any]) -> Context:
    if isinstance(runtime.context, Context):
        return runtime.context
    return _context_from(runtime.context or Options())


@lru_cache(maxsize=1)
def _loaded(model: str) -> Policy:
    from cof_agent.backends.local import load

    return load(model)


def _context_from(options: Options) -> Context:
    from cof_agent.environment import ZoomSettings

    policy = _loaded(options.model)
    settings = ZoomSettings(policy.coordinates, policy.limits, max_zooms=options.max_zooms)
    sampling = Sampling(max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed)
    return Context(policy, ZoomEnvironment(settings), sampling, options.prompt)


async def look(state: Ask, runtime: Runtime[Any]) -> dict[str, Any]:
    """Opens the image and shows the overview."""
    sample = progress(dict(state)).sample
    context = await asyncio.to_thread(_context, runtime)
    opened: dict[str, Any] = {"sample": plain(sample), "overview": None, "turns": []}
    try:
        overview = await asyncio.to_thread(context.environment.reset, sample)
        await context.images(sample, (overview,))  # decoded here, so that a broken file ends the run before it starts
    except InputError as error:
        return opened | {"stop": StopReason.ERROR.value, "error": str(error)}
    runtime.stream_writer(Looked(sample, overview))
    return opened | {"overview": plain(overview)}


async def think(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
    """Asks the policy for the next assistant message and reads the actions in it."""
    context, now = _context(runtime), progress(state)
    started = time.perf_counter()
    try:
        images = await context.images(now.sample, now.views)
    except InputError as error:  # the file was changed or removed during the run
        return {"stop": StopReason.ERROR.value, "error": str(error)}
    completion = await _generate(context, now, images)
    turn = Turn(
        completion.text,
        protocol.parse(completion.text),
        tokens=completion.tokens,
        seconds=round(time.perf_counter() - started, 4),
    )
    runtime.stream_writer(Spoke(len(now.turns), turn, protocol.thought(turn.text)))
    after = replace(now, turns=(*now.turns, turn))
    return {"turns": [*state.get("turns", []), plain(turn)], **_end(after, completion.truncated, context)}


async def _generate(context: Context, now: Progress, images: list[Image]) -> Completion:
    assert now.overview is not None
    system = context.environment.settings.system
    messages = protocol.opening(now.sample, now.overview, system=system, prompt=context.prompt)
    messages += protocol.render_turns(now.turns, first_view=1, system=system)
    try:
        async with asyncio.timeout(context.timeout):
            return await context.policy.generate(messages, images, _turn_sampling(context.sampling, now))
    except TimeoutError:
        raise PolicyError(f"{context.policy.name} gave no answer within {context.timeout:g} seconds.") from None


def _turn_sampling(sampling: Sampling, now: Progress) -> Sampling:
    """The seed of this turn: else each sample and each turn would draw the same random numbers."""
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=crc32(f"{sampling.seed}/{now.sample.id}/{len(now.turns)}".encode()))


def _end(now: Progress, truncated: bool, context: Context) -> dict[str, Any]:
    """The state's `stop` and `answer` after a turn without observations yet; nothing if the run goes on."""
    actions = now.turns[-1].actions
    if isinstance(actions[-1], Answer):
        return {"stop": StopReason.ANSWERED.value, "answer": actions[-1].text}
    zooming = any(isinstance(action, Zoom) for action in actions)
    if truncated and not zooming:
        return {"stop": StopReason.TRUNCATED.value}
    if zooming and now.refused(context.environment.settings.max_zooms):
        return {"stop": StopReason.MAX_ZOOMS.value}
    if not zooming and now.fruitless > FRUITLESS_TURNS:
        return {"stop": StopReason.MALFORMED.value}
    return {}


async def zoom(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
    """Carries out the actions of the last turn, in order, up to the zoom budget."""
    context, now = _context(runtime), progress(state)
    turn = now.turns[-1]
    observations = await asyncio.to_thread(context.environment.step, turn.actions, now.views)
    runtime.stream_writer(Saw(len(now.turns) - 1, turn.actions, observations))
    turns = (*now.turns[:-1], replace(turn, observations=observations))
    update: dict[str, Any] = {"turns": [*state["turns"][:-1], plain(turns[-1])]}
    if replace(now, turns=turns).fruitless > FRUITLESS_TURNS:
        update["stop"] = StopReason.MALFORMED.value
    return update


def _after_look(state: State) -> Literal["think", "__end__"]:
    return "__end__" if state.get("stop") else "think"


def _after_think(state: State) -> Literal["zoom", "__end__"]:
    return "__end__" if state.get("stop") else "zoom"


def _worth_a_retry(error: Exception) -> bool:
    return isinstance(error, PolicyError) and error.transient


RETRIES = RetryPolicy(initial_interval=0.3, backoff_factor=4.0, max_attempts=3, jitter=False, retry_on=_worth_a_retry)


def build(context_schema: type[Any] = Context) -> StateGraph[State, Any, Ask, State]:
    """The graph, not yet compiled."""
    graph = StateGraph(State, context_schema=context_schema, input_schema=Ask, output_schema=State)
    graph.add_node("look", look)
    graph.add_node("think", think, retry_policy=RETRIES)
    graph.add_node("zoom", zoom)
    graph.add_edge(START, "look")
    graph.add_conditional_edges("look", _after_look)
    graph.add_conditional_edges("think", _after_think)
    graph.add_conditional_edges("zoom", _after_look)
    return graph


def recursion_limit(max_zooms: int) -> int:
    """Steps that no run within the rules can exceed."""
    return 2 * (max_zooms + 2) * (FRUITLESS_TURNS + 1) + 2


graph = build(Options).compile().with_config(recursion_limit=recursion_limit(Options.max_zooms))
"""For LangGraph Studio and other front ends, see langgraph.json; its context is `Options`."""


@lru_cache(maxsize=4)
def _compiled(checkpointer: BaseCheckpointSaver[Any] | None) -> CompiledStateGraph[State, Any, Ask, State]:
    return build().compile(checkpointer=checkpointer)


async def run(
    sample: Sample,
    policy: Policy,
    environment: ZoomEnvironment,
    *,
    sampling: Sampling = GREEDY,
    prompt: str | None = None,
    timeout: float = 600.0,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
    thread_id: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Trajectory:
    """Runs the agent on one sample and returns the record, whatever the end was.

    prompt: replaces the system message. timeout: seconds for one assistant message.
    checkpointer: each step is saved under `thread_id` (the sample's id by default); a run of that thread that was
    interrupted goes on from its last finished step, one that had ended is returned as it was.
    on_event: called as things happen, in order, in the event loop.

    Raises:
        InputError: if the thread belongs to another sample, or the policy refuses how it is used (a bad API key).
    """
    context = Context(policy, environment, sampling, prompt, timeout)
    compiled = _compiled(checkpointer)
    config: RunnableConfig = {"recursion_limit": recursion_limit(environment.settings.max_zooms)}
    values: dict[str, Any] = {"sample": plain(sample)}
    start: Any = dict(values)
    if checkpointer is not None:
        config["configurable"] = {"thread_id": thread_id or sample.id}
        saved = (await compiled.aget_state(config)).values
        if saved:
            values, start = _of_same_sample(saved, sample, thread_id), None
        if values.get("stop"):
            return _trajectory(progress(values), context)
    try:
        stream = compiled.astream(
            start,
            config,
            context=context,
            stream_mode=["values", "custom"],
            durability="sync" if checkpointer is not None else None,
        )
        mode: str
        data: Any
        async for mode, data in stream:
            if mode == "values":
                values = data
            elif on_event is not None:
                on_event(data)
    except PolicyError as error:
        values = values | {"stop": StopReason.ERROR.value, "error": str(error)}
    return _trajectory(progress(values), context)


def _of_same_sample(saved: dict[str, Any], sample: Sample, thread_id: str | None) -> dict[str, Any]:
    if saved.get("sample") != plain(sample):
        raise InputError(
            f"the checkpoint of thread {thread_id or sample.id} belongs to another sample; use another thread."
        )
    return saved


def made_with(context: Context) -> dict[str, Any]:
    """The fields of `Trajectory` that say how it was made: policy, protocol_version, settings."""
    settings = {
        **context.environment.settings.to_dict(),
        "sampling": context.sampling.to_dict(),
        "prompt": context.prompt,
    }
    return {"policy": context.policy.name, "protocol_version": protocol.PROTOCOL_VERSION, "settings": settings}


def _trajectory(now: Progress, context: Context) -> Trajectory:
    assert now.stop is not None, "the graph ended without a reason"
    return Trajectory(now.sample, now.overview, now.turns, now.stop, now.answer, error=now.error, **made_with(context))
