"""The teacher's graph: a question with a known answer becomes the shortest zoom trajectory that leads to it.

The visual search agent of Chain-of-Focus (arXiv 2505.15436, section 3.2), as far as the paper tells of it:
look -> glance (does the overview suffice?) -> plan <-> act -> verify -> shorten -> tell. Whatever goes wrong ends in a
trajectory whose `error` says why it is not to be learned from; see `cof_agent.teacher.accept`.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from cof_agent import protocol, scoring
from cof_agent.backends.scenes_only import warning_of
from cof_agent.data.choices import shuffled
from cof_agent.environment import FULL_DETAIL, ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size, View, crop_region, smart_resize
from cof_agent.policy import GREEDY, PolicyError, PolicyRefusal, Retries, Sampling
from cof_agent.protocol.dialects import Dialect, ours, recorded
from cof_agent.teacher.accept import Refusal, refusal
from cof_agent.teacher.roles import (
    Adjust,
    Cast,
    Describe,
    Errand,
    GiveUp,
    Link,
    Locate,
    Propose,
    Step,
    Unreadable,
    fitted,
)
from cof_agent.teacher.rules import ADJUSTMENTS, adjusted
from cof_agent.trajectory import Failure, Sample, StopReason, Trajectory, Turn

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

MOVES = 8  # of the planner for each answer that it may propose
LOOKS = 60  # crops a search may make, dead ends included
RUNS = 12  # of a shortened path, until one leads to the answer
LEAVES = 3  # crops that may be needed together
PART = 6  # grid cells: the least side of the part of an overview that is looked at on its own


@dataclass(frozen=True, slots=True)
class Search:
    """What does not change from sample to sample. glances: times that an overview, or crops, must lead to the answer.
    attempts: answers that may be proposed. seed: of the sampled glances. timeout: seconds for one reply. describer: the name by
    which its model was loaded; what nano says of other pictures than its own is marked. retries: when a policy is asked again.
    dialect: in which the student speaks; `settings` follow it. models: how each model was loaded that plays a role, by the name
    that it was loaded by; its words depend on that.
    """

    cast: Cast
    settings: ZoomSettings
    glances: int = 3
    attempts: int = 4
    seed: int = 0
    timeout: float = 600.0
    describer: str = ""
    retries: Retries = field(default_factory=Retries)
    dialect: Dialect = field(default_factory=ours)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def point(self, views: Sequence[View], box: Box, image: int) -> tuple[Box, int]:
        """A box (source pixels) as the student writes it in an image of the conversation; in the first one, where its dialect
        knows no other."""
        image = 0 if self.dialect.call.always_first else image
        return Box(*words(views[image], box, self.settings.system)), image

    def turn(self, thought: str, box: Box, image: int) -> Turn:
        """The student's turn that zooms there."""
        text = protocol.write_zoom(thought, box, image, self.dialect)
        return Turn(text, protocol.parse(text, dialect=self.dialect))


@dataclass(frozen=True, slots=True)
class Context:
    """One search under way: `environment` is what the student is shown, `errand` the sample."""

    search: Search
    environment: ZoomEnvironment
    errand: Errand


class State(TypedDict, total=False):
    """What was seen and done so far. `views[0]` is the overview; `links` is the path once an answer is right."""

    views: list[View]
    steps: list[Step]
    wrong: int
    answer: str | None
    links: list[Link]
    thoughts: list[str] | None
    refused: tuple[Refusal, str]


async def look(state: State, runtime: Runtime[Context]) -> State:
    """Opens the image."""
    errand = runtime.context.errand
    try:
        overview = await asyncio.to_thread(runtime.context.environment.reset, errand.sample)
        await errand.environment.images(errand.sample, [overview])  # decoded here, so that a broken file is told of
    except InputError as error:
        return {"refused": (Refusal.IMAGE, str(error))}
    return {"views": [overview], "steps": [], "wrong": 0, "answer": None}


async def glance(state: State, runtime: Runtime[Context]) -> State:
    """Whether the overview suffices. A describer that cannot be shown all of it is shown what it can: the whole made
    smaller, and the part that was located, no sharper than in the overview."""
    context, overview = runtime.context, state["views"][0]
    cast, errand = context.search.cast, context.errand
    whole = fitted(overview, cast.describer.limits)
    suffices = await _reliable(context, [whole])
    if not suffices and whole != overview:
        box = await cast.locator.locate(errand, overview, errand.sample.question)
        part = _part(overview, box, context) if box is not None else None
        suffices = part is not None and await _reliable(context, [part])
    return {"answer": scoring.agreed(errand.sample)[0], "links": []} if suffices else {}


async def _reliable(context: Context, views: Sequence[View]) -> bool:
    """Whether the describer answers rightly from these, greedily and each time it is drawn, the choices in another order."""
    search = context.search
    for time in range(search.glances):
        errand = _in_another_order(context.errand, time)
        sampling = Sampling(temperature=1.0, seed=search.seed + time) if time else GREEDY
        said = await search.cast.describer.describe(errand, views, None, sampling)
        if said is None or await search.cast.verifier.judge(errand, said, 0) is not None:
            return False
    return True


def _in_another_order(errand: Errand, time: int) -> Errand:
    """The sample with its choices shuffled, but the first time: who guesses by their letters is right by chance only."""
    sample = errand.sample
    if not time or not set(sample.answers) <= set(sample.choices):
        return errand
    return replace(errand, sample=shuffled([sample], time)[0])


def _part(overview: View, box: Box, context: Context) -> View | None:
    """The surroundings of `box` (source pixels) with no more detail than in the overview; None if that is all of it."""
    limits = context.search.cast.describer.limits
    if overview.scale >= FULL_DETAIL:
        return fitted(context.environment.crop_view(box, overview.source_size), limits, crop=True)
    scale = overview.shown_size.width / overview.region.width
    least = math.ceil(PART * limits.grid / scale)
    region = crop_region(box, overview.source_size, enlarge=1.5, min_side=least)
    if region == overview.region:
        return None
    cells = (int(side * scale) // limits.grid * limits.grid for side in (region.width, region.height))
    shown = Size(*(max(limits.grid, side) for side in cells))
    if shown.area > limits.max_pixels:
        shown = smart_resize(shown, grid=limits.grid, min_pixels=limits.min_pixels, max_pixels=limits.max_pixels)
    return View(overview.source_size, region, shown)


async def plan(state: State, runtime: Runtime[Context]) -> State:
    """Asks the planner for its next move."""
    context, steps = runtime.context, state["steps"]
    if len(steps) >= MOVES * context.search.attempts:
        return {"refused": (Refusal.NO_ANSWER, f"no answer within {len(steps)} moves")}
    move, text = await context.search.cast.planner.next(context.errand, state["views"], steps)
    if isinstance(move, GiveUp):
        return {"refused": (Refusal.NO_ANSWER, move.reason)}
    return {"steps": [*steps, Step(move, text)]}


async def act(state: State, runtime: Runtime[Context]) -> State:
    """Carries the planner's move out."""
    context, views = runtime.context, state["views"]
    step = state["steps"][-1]
    match step.move:
        case Unreadable(reason):
            done = replace(step, reply=reason)
        case Locate(what, image):
            box = await context.search.cast.locator.locate(context.errand, views[image], what)
            done = replace(step, box=box, reply="" if box else "It was not found there.")
        case Adjust(box, _, instruction):
            changed = adjusted(box, instruction, views[0].source_size)
            done = replace(step, box=changed, reply="" if changed else f"Say {ADJUSTMENTS}.")
        case Describe():
            done, views = await _describe(step, step.move, views, context)
        case _:
            raise AssertionError(f"{step.move} is not carried out")
    return {"steps": [*state["steps"][:-1], done], "views": views}


async def _describe(step: Step, move: Describe, views: list[View], context: Context) -> tuple[Step, list[View]]:
    pointed = context.search.turn("", *context.search.point(views, move.box, move.image))
    (observation,) = context.errand.environment.step(pointed.actions, views)
    if observation.view is None or observation.note is not None:
        return replace(step, reply=observation.note or observation.error or ""), views
    describer = context.search.cast.describer
    crop = fitted(observation.view, describer.limits, crop=True)
    seen = await describer.describe(context.errand, [crop], move.question)
    reply = f"Image {len(views)}. {'It is unclear what is seen there.' if seen is None else f'Seen there: {seen}'}"
    return replace(step, view=len(views), seen=seen, reply=reply), [*views, observation.view]


def words(view: View, box: Box, system: CoordinateSystem) -> tuple[float, ...]:
    """A box (source pixels) as a model writes it in a view: the part inside, edges rounded outwards."""
    frame, inside, scale = view.frame(system), view.from_source(box, system), 10**system.digits
    low = [
        max(limit, math.floor(value * scale) / scale) for value, limit in ((inside.x0, frame.x0), (inside.y0, frame.y0))
    ]
    high = [
        min(limit, math.ceil(value * scale) / scale) for value, limit in ((inside.x1, frame.x1), (inside.y1, frame.y1))
    ]
    return tuple(int(value) if value == int(value) else value for value in (*low, *high))


async def verify(state: State, runtime: Runtime[Context]) -> State:
    """Compares the proposed answer with the truth."""
    search, errand = runtime.context.search, runtime.context.errand
    step, wrong = state["steps"][-1], state["wrong"]
    assert isinstance(step.move, Propose)
    advice = await search.cast.verifier.judge(errand, step.move.answer, wrong)
    if advice is None:
        return {"answer": scoring.agreed(errand.sample)[0]}
    if wrong + 1 >= min(search.attempts, _most_guesses(errand.sample)):
        return {"refused": (Refusal.WRONG, f"{wrong + 1} answers were wrong, the last one {step.move.answer!r}")}
    told = replace(step, advice=advice, reply=f"That is not the answer. What may help: {advice.value}.")
    return {"steps": [*state["steps"][:-1], told], "wrong": wrong + 1}


async def shorten(state: State, runtime: Runtime[Context]) -> State:
    """The shortest part of the path that still leads to the answer, found by running it; as often as an overview must suffice, so
    that a lucky guess is no proof. A crop stays with those that it was found in: nobody could point at it otherwise."""
    context, views = runtime.context, state["views"]
    describer = context.search.cast.describer
    found = {step.view: step for step in state["steps"] if step.view is not None}
    overview = fitted(views[0], describer.limits)
    runs = 0
    for leaves, path in _shortest_first(found):
        crops = [fitted(views[leaf], describer.limits, crop=True) for leaf in leaves]
        for seen in ([crops] if len(leaves) == 1 else []) + [[overview, *crops]]:
            if runs >= RUNS:
                return {"refused": (Refusal.UNSUPPORTED, f"no crops lead to the answer in {RUNS} runs")}
            runs += 1
            if await _reliable(context, seen):
                return {"links": _links(path, found, views)}
    return {"refused": (Refusal.UNSUPPORTED, "the crops alone do not lead to the answer")}


def _most_guesses(sample: Sample) -> int:
    """How many answers may be proposed before the truth is what is left over."""
    if sample.choices:
        return max(1, len(sample.choices) - 1)
    return 1 if all(scoring.normalise(answer) in ("yes", "no") for answer in sample.answers) else sys.maxsize


def _shortest_first(found: dict[int, Step]) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Sets of crops to look at, each with all that is needed to find them; later crops first among equals."""
    candidates = []
    for count in range(1, LEAVES + 1):
        for leaves in combinations(sorted(found, reverse=True), count):
            path = sorted(set().union(*(_ancestry(leaf, found) for leaf in leaves)))
            candidates.append((leaves, path))
    return iter(sorted(candidates, key=lambda one: (len(one[1]), len(one[0]))))


def _ancestry(view: int, found: dict[int, Step]) -> set[int]:
    path = set()
    while view:
        path.add(view)
        view = found[view].move.image  # type: ignore[union-attr]
    return path


def _links(path: Sequence[int], found: dict[int, Step], views: Sequence[View]) -> list[Link]:
    numbers = {0: 0} | {view: number for number, view in enumerate(path, 1)}
    links = []
    for view in path:
        move = found[view].move
        assert isinstance(move, Describe)
        links.append(Link(move.box, numbers[move.image], views[view], found[view].seen))
    return links


async def tell(state: State, runtime: Runtime[Context]) -> State:
    """Puts the path into words."""
    thoughts = await runtime.context.search.cast.summariser.thoughts(runtime.context.errand, state["links"])
    return {"thoughts": thoughts} if thoughts else {"refused": (Refusal.NO_WORDS, "the path was not put into words")}


def _on(*ways: str) -> Any:
    """The route after a node: the end once refused, else the way that the state asks for."""

    def route(state: State) -> str:
        if state.get("refused"):
            return "__end__"
        if "tell" in ways and state.get("links") is not None:
            return "tell"
        if "shorten" in ways and state.get("answer") is not None:
            return "shorten"
        if "verify" in ways and isinstance(state["steps"][-1].move, Propose):
            return "verify"
        return ways[0]

    return route


def build() -> StateGraph[State, Context, State, State]:
    """The graph, not yet compiled."""
    graph = StateGraph(State, context_schema=Context)
    for work in (look, glance, plan, act, verify, shorten, tell):
        graph.add_node(work.__name__, work)
    ways: dict[str, tuple[str, ...]] = {
        "look": ("glance",),
        "glance": ("plan", "tell"),
        "plan": ("act", "verify"),
        "act": ("plan",),
        "verify": ("plan", "shorten"),
        "shorten": ("tell",),
    }
    graph.add_edge(START, "look")
    for node, targets in ways.items():
        graph.add_conditional_edges(node, _on(*targets), [*targets, "__end__"])
    return graph


@cache
def _compiled() -> CompiledStateGraph[State, Context, State, State]:
    return build().compile()


async def run(episode: Episode, search: Search, environment: ZoomEnvironment) -> Trajectory:
    """Searches for the answer to one sample, at the resolution of its episode.

    The trajectory is one to learn from if its `error` is None. Its `settings` hold, beside the environment's, what the
    search took. `environment` is where decoded images are kept.

    Raises:
        PolicyRefusal: if a policy refuses how it is used (a bad API key); it holds the record.
    """
    student = environment.with_settings(search.settings).at(episode.resolution)
    unlimited = environment.with_settings(replace(student.settings, max_zooms=LOOKS))
    context = Context(search, student, Errand(episode.sample, unlimited, search.timeout, search.retries))
    state: State = {}
    try:
        limit = 2 * MOVES * search.attempts + 20
        async for values in _compiled().astream(
            state, {"recursion_limit": limit}, context=context, stream_mode="values"
        ):
            state = values  # type: ignore[assignment]
    except PolicyRefusal as refused:
        state = {**state, "refused": (Refusal.POLICY, str(refused))}
        refused.trajectory = await asyncio.to_thread(_trajectory, state, context)
        raise
    except PolicyError as error:
        state = {**state, "refused": (Refusal.POLICY, str(error))}
    except InputError as error:  # the image was changed or removed during the search
        state = {**state, "refused": (Refusal.IMAGE, str(error))}
    return await asyncio.to_thread(_trajectory, state, context)


def _trajectory(state: State, context: Context) -> Trajectory:
    """The record: the path to the answer, or, once refused, all that was looked at."""
    refused, thoughts = state.get("refused"), state.get("thoughts")
    if refused is None and thoughts:
        made = _told(state["links"], thoughts, context)
        refused = refusal(made, context.environment, context.search.dialect)
    else:
        made = _so_far(state, context)
    spent = asdict(context.errand.spent) | {"wrong_answers": state.get("wrong", 0)}
    error = f"{refused[0].value}: {refused[1]}" if refused else None
    return replace(
        made,
        error=error,
        warning=warning_of(context.search.describer, context.errand.sample),
        notes=context.environment.notes(context.errand.sample),
        failure=_FAILURES.get(refused[0]) if refused else None,
        settings={**context.environment.settings.to_dict(), **recorded(context.search.dialect), "teacher": spent},
        dialect=context.search.dialect.name,
    )


_FAILURES: dict[Refusal, Failure] = {Refusal.POLICY: "model", Refusal.IMAGE: "image"}
"""Refusals that say nothing of the sample; the same command tries it again."""


def _told(links: Sequence[Link], thoughts: Sequence[str], context: Context) -> Trajectory:
    environment, sample = context.environment, context.errand.sample
    overview = environment.reset(sample)
    views, turns = [overview], []
    for link, thought in zip(links, thoughts, strict=False):
        turn = context.search.turn(thought, *context.search.point(views, link.box, link.parent))
        turns.append(replace(turn, observations=environment.step(turn.actions, views)))
        views.append(link.view)
    answer = scoring.agreed(sample)[0]
    text = protocol.write_answer(thoughts[-1], answer, context.search.dialect)
    turns.append(Turn(text, protocol.parse(text, dialect=context.search.dialect)))
    return _record(sample, overview, turns, StopReason.ANSWERED, answer, context)


def _so_far(state: State, context: Context) -> Trajectory:
    sample = context.errand.sample
    overview = next(iter(state.get("views", [])), None)
    turns, answer = [], None
    for step in state.get("steps", []):
        if isinstance(step.move, Describe) and step.view is not None:
            views = state["views"]
            box, image = context.search.point(views, step.move.box, step.move.image)
            turn = context.search.turn(protocol.thought(step.text), box, image)
            turns.append(replace(turn, observations=context.errand.environment.step(turn.actions, views[: step.view])))
        elif isinstance(step.move, Propose):
            answer = step.move.answer
    failed = state.get("refused", (None,))[0] in _FAILURES
    stop = StopReason.ERROR if failed else StopReason.TRUNCATED if answer is None else StopReason.ANSWERED
    return _record(sample, overview, turns, stop, answer, context)


def _record(
    sample: Sample,
    overview: View | None,
    turns: Sequence[Turn],
    stop: StopReason,
    answer: str | None,
    context: Context,
) -> Trajectory:
    return Trajectory(
        sample,
        overview,
        tuple(turns),
        stop,
        answer,
        policy=context.search.cast.name,
        protocol_version=protocol.PROTOCOL_VERSION,
        resolution=context.environment.settings.resolution,
    )
