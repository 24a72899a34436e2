"""What the graphs share: their context and events, the nodes that open the image and cut crops, and how one is run.

    graph = Graph(build, version, limit)
    trajectory = await graph.run(sample, Context(policy, environment))

A run ends with ERROR, whatever the graph, when the image cannot be opened or the policy fails after its retries; `error` says it
in a sentence. A policy that refuses how it is used (a bad API key) ends the run with `PolicyRefusal`, which holds the same
record. Anything else that goes wrong is an error of the program, and propagates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.runtime import Runtime

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment, changed
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, View
from cof_agent.graphs.state import Ask, Progress, State, plain, progress
from cof_agent.policy import (
    GREEDY,
    Completion,
    Policy,
    PolicyError,
    PolicyRefusal,
    Retries,
    Sampling,
    not_taken,
    reply,
)
from cof_agent.protocol.dialects import Dialect, ours, recorded
from cof_agent.trajectory import Action, Failure, Observation, Sample, StopReason, Trajectory, Turn

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Looked:
    """The overview of each image is there."""

    sample: Sample
    overviews: tuple[View, ...]


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

NOT_TAKEN = "not_taken"
"""The setting that names the parameters of sampling that a server refused; it is no part of what was asked for."""


class ImageGone(RuntimeError):
    """The image was changed or removed during a run: recorded on the trajectory."""


@dataclass(frozen=True)
class Context:
    """What a run needs beside its state.

    prompt: replaces the system message. dialect: in which the conversation is held. timeout: seconds for one assistant
    message, waiting in a queue included. retries: when the policy is asked again; runs that share a policy share them.
    strategy, details: recorded, the details among the settings. play, shuffle_seed, warning: as in `Trajectory`.
    """

    policy: Policy
    environment: ZoomEnvironment
    sampling: Sampling = GREEDY
    prompt: str | None = None
    timeout: float = 600.0
    strategy: str = "focus"
    details: Mapping[str, Any] = field(default_factory=dict)
    play: int | None = None
    shuffle_seed: int | None = None
    warning: str | None = None
    retries: Retries = field(default_factory=Retries)
    dialect: Dialect = field(default_factory=ours)

    async def images(self, sample: Sample, views: tuple[View, ...]) -> list[Image]:
        """The pixels of the views; the environment keeps them, so they are no part of the state."""
        return await self.environment.images(sample, views)


async def look(state: Ask, runtime: Runtime[Any]) -> dict[str, Any]:
    """Opens the images and shows an overview of each."""
    sample = progress(dict(state)).sample
    context: Context = runtime.context
    times = changed(sample)  # before they are opened, so that no later change goes unseen
    opened: dict[str, Any] = {"sample": plain(sample), "overview": None, "changed": times, "turns": []}
    try:
        overviews = await asyncio.to_thread(context.environment.overviews, sample)
        await context.images(sample, overviews)  # decoded here, so that a broken file ends the run before it starts
    except InputError as error:
        return opened | {"stop": StopReason.ERROR.value, "error": str(error), "failure": "image"}
    runtime.stream_writer(Looked(sample, overviews))
    first, *others = map(plain, overviews)
    return opened | {"overview": first} | ({"more_overviews": others} if others else {})


async def shown(now: Progress, context: Context) -> list[Image]:
    """The pixels of all views so far.

    Raises:
        ImageGone: if an image was changed or removed during the run.
    """
    try:
        images = await context.images(now.sample, now.views)
    except InputError as error:
        raise ImageGone(str(error)) from None
    _check_unchanged(now)
    return images


def _check_unchanged(now: Progress) -> None:
    current = changed(now.sample)
    if now.changed in (None, current):
        return
    before, after = (times if isinstance(times, tuple) else (times,) for times in (now.changed, current))
    which = next(number for number, time in enumerate(after) if before[number : number + 1] != (time,))
    raise ImageGone(
        f"the image {now.sample.images[which]} was changed during the run, so that its views no longer belong together; "
        "ask again."
    )


def conversation(now: Progress, context: Context) -> list[protocol.Message]:
    """What was said and shown so far, in the wire format."""
    overviews = now.overviews
    assert overviews
    system, dialect = context.environment.settings.system, context.dialect
    tools = context.environment.tool_schemas
    messages = protocol.opening(
        now.sample, *overviews, system=system, prompt=context.prompt, tools=tools, dialect=dialect
    )
    question, first = protocol.question_of(now.sample, overviews, system, dialect), len(overviews)
    return messages + protocol.render_turns(
        now.turns, first_view=first, system=system, dialect=dialect, question=question
    )


async def speak(
    state: State,
    context: Context,
    messages: Sequence[protocol.Message],
    *,
    read: Callable[[str], tuple[Action, ...]] | None = None,
    on_event: Callable[[Event], None],
) -> tuple[Progress, Completion]:
    """Asks the policy for the next assistant message and has `read` find the actions in it, by default `protocol.parse`,
    of one that was cut off `protocol.parse_cut`.

    Returns:
        the record with the new turn, which has no observations yet, and the completion.

    Raises:
        ImageGone: if the image was changed or removed during the run.
        PolicyError: if no answer came in time, or none at all, and asking again did not help.
        PolicyRefusal: if the policy refuses how it is used.
    """
    now = progress(dict(state))
    images, sampling = await shown(now, context), _turn_sampling(context, now)

    async def timed() -> tuple[Completion, float]:
        started = time.perf_counter()
        completion = await reply(context.policy, messages, images, sampling, timeout=context.timeout)
        return completion, round(time.perf_counter() - started, 4)

    completion, seconds = await context.retries.run(timed, context.policy.name)
    environment = context.environment
    text = protocol.bounded(completion.text)
    parse = protocol.parse_cut if completion.truncated else protocol.parse
    turn = Turn(
        text,
        read(text) if read else parse(text, environment.tools, environment.settings.system, context.dialect),
        tokens=completion.tokens,
        seconds=seconds,
    )
    on_event(Spoke(len(now.turns), turn, protocol.thought(turn.text)))
    return replace(now, turns=(*now.turns, turn)), completion


def _turn_sampling(context: Context, now: Progress) -> Sampling:
    """The seed of this turn: else each sample, each play and each turn would draw the same random numbers."""
    sampling, resolution = context.sampling, context.environment.settings.resolution
    if sampling.seed is None:
        return sampling
    at = "" if resolution is None else f"@{resolution}"
    play = "" if context.play is None else f"#{context.play}"
    label = f"{sampling.seed}/{now.sample.id}{at}{play}/{len(now.turns)}"
    return replace(sampling, seed=crc32(label.encode()))


async def see(state: State, context: Context, *, on_event: Callable[[Event], None]) -> Progress:
    """Carries out the actions of the last turn, in order, up to the zoom budget: the record with what was seen.

    Raises:
        ImageGone: if a tool needs the image, and it was changed or removed during the run.
    """
    now = progress(dict(state))
    turn = now.turns[-1]
    step = context.environment.step
    try:
        observations = await asyncio.to_thread(step, turn.actions, now.views, sample=now.sample, texts=now.texts)
    except InputError as error:
        raise ImageGone(str(error)) from None
    on_event(Saw(len(now.turns) - 1, turn.actions, observations))
    return replace(now, turns=(*now.turns[:-1], replace(turn, observations=observations)))


@dataclass(frozen=True)
class Graph:
    """One way to play a sample.

    build: the graph, not yet compiled. version: of the format its model reads and writes. limit: steps that no run within
    the rules can exceed, for so many zooms. system: what boxes mean, where the format says that and not the model.
    """

    build: Callable[[], StateGraph[State, Any, Ask, State]]
    version: str
    limit: Callable[[int], int]
    system: CoordinateSystem | None = None

    async def run(
        self,
        sample: Sample,
        context: Context,
        *,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        thread_id: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Trajectory:
        """Plays one sample and returns the record, whatever the end was.

        checkpointer: each step is saved under `thread_id` (the sample's id by default); a run of that thread that was
        interrupted goes on from its last finished step, one that had ended is returned as it was.
        on_event: called as things happen, in order, in the event loop.

        Raises:
            InputError: if the environment is not made for the policy, or the thread belongs to another sample.
            PolicyRefusal: if the policy refuses how it is used (a bad API key); it holds the record.
        """
        self._check(context)
        compiled = _compiled(self, checkpointer)
        config: RunnableConfig = {"recursion_limit": self.limit(context.environment.settings.max_zooms)}
        values: dict[str, Any] = {"sample": plain(sample)}
        start: Any = dict(values)
        if checkpointer is not None:
            config["configurable"] = {"thread_id": thread_id or sample.id}
            saved = (await compiled.aget_state(config)).values
            if saved:
                values, start = _of_same_sample(saved, sample, thread_id), None
            if values.get("stop"):
                return self._trajectory(progress(values), context)
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
        except (PolicyError, ImageGone, PolicyRefusal) as error:
            failure: Failure = "image" if isinstance(error, ImageGone) else "model"
            values = values | {"stop": StopReason.ERROR.value, "error": str(error), "failure": failure}
            if isinstance(error, PolicyRefusal):
                error.trajectory = self._trajectory(progress(values), context)
                raise
        return self._trajectory(progress(values), context)

    def made_with(self, context: Context) -> dict[str, Any]:
        """The fields of `Trajectory` that say how it was made."""
        self._check(context)
        settings = {
            **context.environment.settings.to_dict(),
            **context.details,
            "sampling": context.sampling.to_dict(),
            "prompt": context.prompt,
            **recorded(context.dialect),
        }
        return {
            "policy": context.policy.name,
            "protocol_version": self.version,
            "settings": settings,
            "strategy": context.strategy,
            "dialect": context.dialect.name,
        }

    def _check(self, context: Context) -> None:
        """Boxes would be misread, or images shown at a size that the model was not made for, without a word."""
        settings, policy = context.environment.settings, context.policy
        wanted = self.system or context.dialect.coordinates or policy.coordinates
        if settings.system != wanted:
            raise InputError(
                f"the environment reads boxes as {settings.system.value}, but {policy.name} writes them as {wanted.value}; "
                "make it with AgentConfig.settings(policy)."
            )
        if settings.limits != context.dialect.limits(policy.limits):
            raise InputError(
                f"the environment shows images within {settings.limits}, but {policy.name} takes {policy.limits}; make it "
                "with AgentConfig.settings(policy)."
            )

    def _trajectory(self, now: Progress, context: Context) -> Trajectory:
        assert now.stop is not None, "the graph ended without a reason"
        return Trajectory(
            now.sample,
            now.overview,
            now.turns,
            now.stop,
            now.answer,
            error=now.error,
            resolution=context.environment.settings.resolution,
            play=context.play,
            shuffle_seed=context.shuffle_seed,
            failure=now.failure,
            warning=context.warning,
            more_overviews=now.more_overviews,
            notes=context.environment.notes(now.sample),
            **_with_refusals(self.made_with(context), not_taken(context.policy)),
        )


def _with_refusals(made: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What is known at the end only: the parameters of sampling that the server refused."""
    return {**made, "settings": {**made["settings"], NOT_TAKEN: names}} if names else made


@lru_cache(maxsize=8)
def _compiled(
    graph: Graph, checkpointer: BaseCheckpointSaver[Any] | None
) -> CompiledStateGraph[State, Any, Ask, State]:
    return graph.build().compile(checkpointer=checkpointer)


def _of_same_sample(saved: dict[str, Any], sample: Sample, thread_id: str | None) -> dict[str, Any]:
    if saved.get("sample") != plain(sample):
        raise InputError(
            f"the checkpoint of thread {thread_id or sample.id} belongs to another sample; use another thread."
        )
    return saved
