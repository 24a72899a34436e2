"""What nano is taught, step by step: an endless stream of drawn scenes that grow from a few large objects to the real task.

A model this small that starts on cluttered scenes never begins to point; started on a few large objects it does so
within minutes, and keeps it while the scenes grow. Several questions about one picture in one conversation give
several times the signal for the price of one picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from PIL.Image import Image

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.geometry import Box, CoordinateSystem, Size, View, smart_resize
from cof_agent.nano.build import OVERVIEW_PIXELS, ZOOM_PIXELS
from cof_agent.policy import PixelLimits
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.questions import CATEGORIES, Look, Question, ask
from cof_agent.scenes.scene import Scene, Style, generate
from cof_agent.scenes.write import sample_of
from cof_agent.trajectory import Sample, Trajectory
from sft.dataset import to_row

FULL = 3840  # source pixels of the long side of a full scene
SHOWN = 448  # shown pixels of its overview


@dataclass(frozen=True, slots=True)
class Plan:
    """When what happens, as fractions of the whole run.

    Up to `first` a canvas of a few grid cells with one object grows to one with a few, on a plain ground and with
    nothing to read. From `grow_from` to `grow_to` it grows to the scenes of the benchmark; from `zoom_from` on, a
    growing part of the conversations are whole trajectories with crops, up to `zoom_share`.
    """

    first: float = 0.20
    grow_from: float = 0.22
    grow_to: float = 0.60
    zoom_from: float = 0.45
    zoom_share: float = 0.5
    tokens: int = 270  # of questions and first actions beside an overview; rows of one length waste no padding


def row(plan: Plan, environment: ZoomEnvironment, *, progress: float, key: str) -> dict[str, Any]:
    """One conversation at `progress` (0 to 1) through the run; the same for a key, whenever and wherever it is made."""
    random = Random(f"row:{key}")
    first = min(1.0, progress / plan.first)
    growth = _ramp(progress, plan.grow_from, plan.grow_to)
    if random.random() < 0.2:  # earlier lessons are not forgotten
        first, growth = first * random.random() ** 0.5, growth * random.random()
    if (first < 1.0 and growth == 0.0) or random.random() < 0.03:
        return _first_lesson(key, environment, random, plan, first)
    scene = generate(key, style(growth))
    overview = overview_of(scene)
    zooming = plan.zoom_share * _ramp(progress, plan.zoom_from, plan.zoom_from + 0.25)
    if random.random() < zooming:
        return _whole(scene, overview, environment, random, plan)
    return _first_actions(scene, overview, environment, random, plan, growth)


def _ramp(progress: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (progress - low) / (high - low)))


def style(growth: float) -> Style:
    """From one to three large objects on a small canvas (0) to the scenes of the benchmark (1).

    The canvas grows at a constant scale, so that an object of so many source pixels always looks the same.
    """
    long_side = round(1440 + (FULL - 1440) * growth)
    final = Style()
    low, high = (side * FULL for side in final.side)
    return Style(
        size=Size(long_side, round(long_side * (0.75 + (2160 / FULL - 0.75) * growth))),
        count=(round(1 + (final.count[0] - 1) * growth), round(3 + (final.count[1] - 3) * growth)),
        side=((250 + (low - 250) * growth) / long_side, (520 + (high - 520) * growth) / long_side),
        clutter=(round(final.clutter[0] * growth), round(3 + (final.clutter[1] - 3) * growth)),
    )


def overview_of(scene: Scene) -> View:
    """The overview at the constant scale of the curriculum; for a full scene what the environment shows."""
    shown = Size(max(28, round(scene.size.width * SHOWN / FULL)), max(28, round(scene.size.height * SHOWN / FULL)))
    resized = smart_resize(shown, grid=28, min_pixels=28 * 28, max_pixels=SHOWN * SHOWN)
    return View(scene.size, Box(0, 0, scene.size.width, scene.size.height), resized)


def _first_lesson(key: str, environment: ZoomEnvironment, random: Random, plan: Plan, first: float) -> dict[str, Any]:
    """Large objects on a small plain canvas: where each is, or what it looks like."""
    scene = generate(key, first_style(first))
    overview = overview_of(scene)
    messages = _fill([], _samples(scene, random, exercises=1.0), overview, environment, plan.tokens)
    return to_row(messages, [sketch(scene, overview.region, overview.shown_size)])


def first_style(first: float) -> Style:
    """From one object on a canvas of two by two cells (0) to up to four on six by four (1)."""
    long_side = round(500 + 940 * first)
    return Style(
        size=Size(long_side, round(long_side * (1 - 0.3 * first))),
        count=(1, round(1 + 3 * first)),
        side=((190 + 60 * first) / long_side, (320 + 150 * first) / long_side),
        clutter=(0, 0),
        signs=0.0,
    )


def _first_actions(
    scene: Scene, overview: View, environment: ZoomEnvironment, random: Random, plan: Plan, growth: float
) -> dict[str, Any]:
    """Several questions about one overview, each with the first thing to do about it: zoom where, or answer what."""
    samples = _samples(scene, random, exercises=0.7 - 0.45 * growth)
    messages = _fill([], samples, overview, environment, plan.tokens)
    return to_row(messages, [sketch(scene, overview.region, overview.shown_size)])


def _fill(
    messages: list[protocol.Message],
    samples: list[Sample],
    overview: View,
    environment: ZoomEnvironment,
    tokens: int,
) -> list[protocol.Message]:
    """`messages` and after them first actions for `samples`, as many as about `tokens` tokens hold."""
    for sample in samples:
        opening = protocol.opening(sample, overview, system=CoordinateSystem.ABSOLUTE)
        text = _first_action(sample, overview, environment)
        tokens -= 20 + len(protocol.question_text(sample)) // 5 + len(protocol.thought(text)) // 4
        if tokens < 0 and messages:
            break
        messages = messages + (opening if not messages else [_without_image(opening[1])])
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
    return messages


def _first_action(sample: Sample, overview: View, environment: ZoomEnvironment) -> str:
    if sample.metadata["kind"] == "show":
        box = oracle.pointing_box(overview, sample.boxes[0], CoordinateSystem.ABSOLUTE)
        return protocol.write_zoom("It can be seen well.", box)
    return oracle.next_zoom(sample, (overview,), environment) or oracle.answer(sample, overview, environment)


def _without_image(message: protocol.Message) -> protocol.Message:
    return {**message, "content": [part for part in message["content"] if part["type"] != "image"]}


def _samples(scene: Scene, random: Random, *, exercises: float, most: int = 14) -> list[Sample]:
    """Up to `most` questions; a share of `exercises` drills what the others need: place from looks, and back.

    No object is asked about twice: the first question would give away what the second should make the model look for.
    """
    used: set[str] = set()
    samples: list[Sample] = []
    for _ in range(3 * most):
        if random.random() < exercises:
            question = random.choice((show, show, inverse))(scene, random)
        else:
            category = "direct_attributes" if random.random() < 0.5 else random.choice(CATEGORIES)
            question = ask(scene, category, random)
        if question and len(samples) < most and used.isdisjoint(item.name for item in question.about):
            used |= {item.name for item in question.about}
            samples.append(_sample(scene, question, random, choices=not samples))
    return samples


def show(scene: Scene, random: Random) -> Question | None:
    """Point at an object whether or not it can be read: place from looks."""
    item = random.choice(scene.items)
    look = Look(item.name, (item.box,), item.side)
    return Question("direct_attributes", "show", f"Show the {item.name}.", item.name, (look,), (), (item,))


def inverse(scene: Scene, random: Random) -> Question | None:
    """What is in this box? Looks from place."""
    item = random.choice(scene.items)
    box = oracle.pointing_box(overview_of(scene), item.box, CoordinateSystem.ABSOLUTE)
    return Question("direct_attributes", "object", f"What is in {[int(v) for v in box]}?", item.name, (), (), (item,))


def _sample(scene: Scene, question: Question, random: Random, *, choices: bool = True) -> Sample:
    sample = sample_of(scene, question, id=f"{scene.seed}:{random.random()}", image="", size=scene.size)
    return sample if choices else replace(sample, choices=())


def _whole(scene: Scene, overview: View, environment: ZoomEnvironment, random: Random, plan: Plan) -> dict[str, Any]:
    """A whole trajectory with its crops, of a category drawn evenly; then further questions while there is room."""
    question = ask(scene, random.choice(CATEGORIES), random) or ask(scene, "direct_attributes", random)
    assert question is not None  # every scene has an object with a label
    trajectory = oracle.play(_sample(scene, question, random), overview, environment)
    messages = protocol.render(trajectory, system=CoordinateSystem.ABSOLUTE)
    left = plan.tokens - 20 - 100 * trajectory.zooms
    messages = _fill(messages, _samples(scene, random, exercises=0.2), overview, environment, left)
    return to_row(messages, images(scene, trajectory))


def images(scene: Scene, trajectory: Trajectory) -> list[Image]:
    """The pixels of every view, painted directly."""
    return [sketch(scene, view.region, view.shown_size) for view in trajectory.views]


def nano_environment() -> ZoomEnvironment:
    """The environment nano lives in: the same settings as the agent's defaults for it."""
    limits = PixelLimits(grid=28, min_pixels=56 * 56, max_pixels=OVERVIEW_PIXELS, zoom_pixels=ZOOM_PIXELS)
    return ZoomEnvironment(ZoomSettings(system=CoordinateSystem.ABSOLUTE, limits=limits))
