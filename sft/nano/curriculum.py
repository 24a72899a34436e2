"""What nano is taught to say: an endless stream of conversations about drawn scenes, most of them those of the benchmark.

Several questions about one picture in one conversation give several times the signal for the price of one picture, and
a list of all that is seen ten times. Pointing itself is begun before, in `sft.nano.ground`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from cof_agent import protocol
from cof_agent.data.region_sets.scenes import by_region
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.geometry import Box, CoordinateSystem, Size, View, smart_resize
from cof_agent.nano.build import FAMILY, OVERVIEW_PIXELS, ZOOM_PIXELS
from cof_agent.region_refs import located
from cof_agent.scenes import imperfect, oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.questions import CATEGORIES, Look, Question, ask, colour, shape, sign_on, written_on
from cof_agent.scenes.scene import Item, Scene, Style, generate, part_of, rescaled
from cof_agent.scenes.write import sample_of
from cof_agent.strategies.spot import protocol as spot
from cof_agent.trajectory import Sample
from sft.dataset import to_row
from sft.frame import Outline

FULL = 3840  # source pixels of the long side of a full scene
SHOWN = 448  # shown pixels of its overview
WEIGHTS = (3, 2, 4)  # of CATEGORIES in whole trajectories: those that take two zooms teach most


@dataclass(frozen=True, slots=True)
class Plan:
    """The mixture of conversations; what is left over asks several questions, each for the first action only."""

    whole: float = 0.5  # whole trajectories
    reading: float = 0.15  # about crops alone
    listing: float = 0.05  # lists of what is seen
    simple: float = 0.2  # share of scenes that are simpler than those of the benchmark
    written: float = 0.0  # share of the questions for the first action only that ask for a label or a sign
    tokens: int = 270  # beside an overview; rows of one length waste no padding
    long_sides: Sequence[int] = (SHOWN,)  # shown pixels of a full scene's overview, one drawn for each conversation
    parts: Sequence[float] = (1.0,)  # of a full scene's sides, one drawn for each conversation (`scene.part_of`)
    sources: Sequence[float] = (1.0,)  # of a full scene's source pixels a side, one drawn for each conversation
    faults: dict[str, float] = field(
        default_factory=dict
    )  # of the teacher (`scenes.imperfect.Faults`); none by default
    spot: float = 0.0  # share of rows in Chain-of-Spot's two turns in their place; the others stay as they are
    weights: Sequence[float] = WEIGHTS  # of CATEGORIES, in rows that are not for the first action only
    regions: float = 0.0  # and of whole trajectories whose questions name regions, with their boxes in words


def row(plan: Plan, environment: ZoomEnvironment, key: str) -> dict[str, Any]:
    """One conversation; the same for a key, whenever and wherever it is made."""
    random = Random(f"row:{key}")
    growth = random.random() if random.random() < plan.simple else 1.0
    part = Random(f"part:{key}").choice(plan.parts)
    if growth < 1:
        part = max(part, 0.5)  # in less of a small canvas its large objects have no room
    source = Random(f"source:{key}").choice(plan.sources)
    scene = rescaled(generate(key, part_of(style(growth), part)), source)
    part *= source  # for what follows a scene of fewer pixels is a smaller one
    if Random(f"spot:{key}").random() < plan.spot:
        overview = overview_of(scene, Random(f"shown:{key}").choice(plan.long_sides), part)
        samples = samples_about(scene, overview, random, weights=plan.weights)
        return _spot_row(samples, scene, overview, environment, plan.tokens, random)
    talk = _Conversation(scene, environment, plan.tokens, imperfect.Faults(**plan.faults))
    if Random(f"regions:{key}").random() < plan.regions:
        talk.show(overview_of(scene, Random(f"shown:{key}").choice(plan.long_sides), part))
        named = samples_about(scene, talk.views[0], random, weights=plan.weights)
        talk.ask([by_region(sample) for sample in named], whole=True)
        return talk.row()
    kind = random.random()
    if kind < plan.reading:
        _read_crops(talk, random, source)
        return talk.row()
    talk.show(overview_of(scene, Random(f"shown:{key}").choice(plan.long_sides), part))
    if kind < plan.reading + plan.listing:
        talk.say(LIST, listing(random.sample(scene.items, len(scene.items)), talk.views[0]))
    else:
        whole = kind < plan.reading + plan.listing + plan.whole
        weights = plan.weights if whole else ()
        talk.ask(samples_about(scene, talk.views[0], random, weights=weights, written=plan.written), whole=whole)
    return talk.row()


class CurriculumRows:
    """The first `count` rows of the stream of a seed (see `sft.dataset.Rows`)."""

    def __init__(self, plan: Plan, seed: int, count: int) -> None:
        self._plan, self._seed, self._count = plan, seed, count
        self._environment = nano_environment()

    def __len__(self) -> int:
        return self._count

    def where(self, index: int) -> tuple[str, int]:
        return f"train:{self._seed}", index + 1

    def outline(self, index: int) -> Outline:
        made = self.row(index)
        return Outline(made["messages"], [Size(*image.size) for image in made["images"]])

    def row(self, index: int) -> dict[str, Any]:
        return row(self._plan, self._environment, f"train:{self._seed}:{index}")


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


def overview_of(scene: Scene, long_side: int = SHOWN, part: float = 1.0) -> View:
    """The overview at the scale at which that of a full scene (or of a `part` of one) has `long_side` shown pixels; for a
    full scene at 224, 448 and 896 it is what `ZoomEnvironment.at` shows, at other sizes it can be a row of cells higher."""
    full, grid = FULL * part, FAMILY.vision.grid
    shown = Size(*(max(grid, round(side * long_side / full)) for side in (scene.size.width, scene.size.height)))
    resized = smart_resize(shown, grid=grid, min_pixels=grid * grid, max_pixels=long_side * long_side)
    return View(scene.size, Box(0, 0, scene.size.width, scene.size.height), resized)


LIST = "List the objects."


class _Conversation:
    """Questions about one scene, each answered as the oracle does but for `faults`, as many as about `tokens` tokens hold."""

    def __init__(self, scene: Scene, environment: ZoomEnvironment, tokens: int, faults: imperfect.Faults) -> None:
        self.scene, self.environment, self.left, self.faults = scene, environment, tokens, faults
        self.messages = [_message("system", protocol.system_prompt(environment.settings.system))]
        self.views: list[View] = []
        self._new: list[dict[str, Any]] = []  # the image of the next question

    def show(self, view: View) -> None:
        """Put an image before the next question."""
        self._new = [{"type": "image", "view": len(self.views)}]
        self.views.append(view)

    def row(self) -> dict[str, Any]:
        return to_row(self.messages, [sketch(self.scene, view.region, view.shown_size) for view in self.views])

    def say(self, question: str, reply: str) -> None:
        self.messages.append(_message("user", question, *self._new))
        self.messages.append(_message("assistant", reply))
        self._new = []

    def ask(self, samples: list[Sample], *, whole: bool = False) -> bool:
        """Answer `samples` in order: the whole way with its crops, or the first action only. False: no room is left."""
        for sample in samples:
            others = [item.box for item in self.scene.items]
            views, teacher = list(self.views), imperfect.Teacher(sample, self.environment, self.faults, others)
            asked = located(protocol.question_text(sample), sample.regions, views[0], self.environment.settings.system)
            messages = [_message("user", asked, *self._new)]
            while text := self._next_zoom(sample, views, teacher):
                messages.append(_message("assistant", text))
                if not whole:
                    break
                if len(views) > self.environment.settings.max_zooms:  # it would be refused
                    return False
                seen = self.environment.step(protocol.parse(text), views)
                system = self.environment.settings.system
                messages += protocol.observation_messages(seen, len(views), system=system)
                views += [one.view for one in seen if one.view]
            else:
                messages.append(_message("assistant", oracle.answer(sample, self.views[0], self.environment)))
            self.left -= sum(_tokens(message) for message in messages)
            if len(self.messages) > 1 and (self.left < 0 or len(views) > self.environment.settings.max_zooms):
                return False
            self.messages += messages
            self.views, self._new = views, []
        return True

    def _next_zoom(self, sample: Sample, views: list[View], teacher: imperfect.Teacher) -> str | None:
        if sample.metadata["kind"] == "show" and len(views) == len(self.views):
            box = oracle.pointing_box(views[0], sample.boxes[0], CoordinateSystem.ABSOLUTE)
            return protocol.write_zoom("It can be seen well.", box)
        return teacher.next_zoom(views)


def _message(role: str, text: str, *images: dict[str, Any]) -> protocol.Message:
    return {"role": role, "content": [*images, {"type": "text", "text": text}]}


def _tokens(message: protocol.Message) -> int:
    """Roughly the length of a message in nano's tokens; an image is a crop."""
    images = [part["type"] for part in message["content"]].count("image")
    text = str(message["content"][-1]["text"])
    return 15 + 36 * images + len(protocol.thought(text) if message["role"] == "assistant" else text) // 5


def listing(items: Sequence[Item], overview: View) -> str:
    """Objects and their boxes, in the order given: ten times as many places a row as questions ask for."""
    boxes = [oracle.pointing_box(overview, item.box, CoordinateSystem.ABSOLUTE) for item in items]
    found = [f"{item.name} {[int(value) for value in box]}" for item, box in zip(items, boxes, strict=True)]
    return protocol.write_answer("They can be seen well.", ", ".join(found))


def _read_crops(talk: _Conversation, random: Random, source: float) -> None:
    """Crops of objects and of signs, cut a little off as the model's own boxes will be, and questions about them."""
    for item in random.sample(talk.scene.items, len(talk.scene.items)):
        sign = bool(item.sign) and random.random() < 0.6
        overview = overview_of(talk.scene, part=source)
        view = crop_of(item, overview, talk.environment, random, sign=sign and random.random() < 0.5)
        talk.show(view)
        question = sign_on(talk.scene, item, random) if sign else written_on(talk.scene, item, random)
        if not talk.ask(
            [sample_without_image(talk.scene, question, random, choices=random.random() < 0.2)], whole=True
        ):
            break
    if talk._new:  # shown, but without a question
        talk.views.pop()


def _spot_row(
    samples: list[Sample], scene: Scene, overview: View, environment: ZoomEnvironment, tokens: int, random: Random
) -> dict[str, Any]:
    """Questions about one scene in the turns of Chain-of-Spot, as many as about `tokens` tokens and the zoom budget hold.

    Each region takes in all that its question needs. Half of the crops are cut beside it, as nano will point: else it would learn
    to read what lies in the middle alone. The true answer follows as the agent gives it, after a thought. If even the crop does
    not show it, no answer is asked for: the row would teach to guess.
    """
    messages: list[protocol.Message] = []
    views = [overview]
    padded = environment.with_system(spot.SYSTEM)
    for sample in samples[: environment.settings.max_zooms]:
        exact = oracle.pointing_box(overview, oracle.region(sample, overview), spot.SYSTEM)
        text = spot.write_region(exact)
        pointed = text if random.random() < 0.5 else spot.write_region(_beside(exact, random))
        (seen,) = padded.step((spot.read_region(pointed, overview),), [overview])
        assert seen.view is not None
        asked = [spot.ask_region(sample, None if messages else 0), protocol.assistant(text)]
        told = oracle.shown(sample, (overview, seen.view))
        if told:
            reply = protocol.assistant(oracle.answer(sample, overview, environment))
            asked += [spot.ask_answer(sample, len(views)), reply]
        tokens -= sum(_tokens(message) for message in asked)
        if messages and tokens < 0:
            break
        messages += asked
        if told:
            views.append(seen.view)
    return to_row(messages, [sketch(scene, view.region, view.shown_size) for view in views])


def _beside(box: Box, random: Random) -> Box:
    """`box`, in fractions of the padded square, off its place and size as far as three of four regions that nano names are."""
    (cx, cy), (width, height) = box.center, (side * random.uniform(0.8, 1.5) / 2 for side in (box.width, box.height))
    cx, cy = cx + random.uniform(-0.4, 0.4) * box.width, cy + random.uniform(-0.4, 0.4) * box.height
    return Box(max(0.0, cx - width), max(0.0, cy - height), min(1.0, cx + width), min(1.0, cy + height))


def crop_of(item: Item, overview: View, environment: ZoomEnvironment, random: Random, *, sign: bool) -> View:
    """What the agent sees after it has pointed at `item` in the overview, and for its sign in the crop once more."""
    crop = _off_centre(item.box, overview, environment, random)
    return _off_centre(item.sign_box, crop, environment, random) if sign else crop


def _off_centre(target: Box, seen: View, environment: ZoomEnvironment, random: Random) -> View:
    """A crop that the environment makes of a box around `target` in the view `seen`, shifted as far as `target` stays
    in sight."""
    box = seen.from_source(target, CoordinateSystem.ABSOLUTE)
    side = max(oracle.SMALLEST, box.width)
    view = None
    for reach in (0.35, 0.2, 0.1, 0.0):
        half = side * random.choice((0.5, 0.5, 0.6))
        cx, cy = (value + random.uniform(-reach, reach) * side for value in box.center)
        shifted = seen.to_source(Box(cx - half, cy - half, cx + half, cy + half), CoordinateSystem.ABSOLUTE)
        view = environment.crop_view(shifted, seen.source_size)
        if view.region.coverage(target) > 0.97:
            break
    assert view is not None
    return view


def samples_about(
    scene: Scene, overview: View, random: Random, *, weights: Sequence[float], written: float = 0.0, most: int = 14
) -> list[Sample]:
    """Up to `most` questions of the benchmark, each of CATEGORIES as often as its weight says; without weights such as drill what
    is learned slowest.

    No object is asked about twice: the first question would give away what the second should make the model look for.
    """
    used: set[str] = set()
    samples: list[Sample] = []
    for _ in range(3 * most):
        question = (
            ask(scene, random.choices(CATEGORIES, weights)[0], random)
            if weights
            else _drilled(scene, overview, random, written)
        )
        if question and len(samples) < most and used.isdisjoint(item.name for item in question.about):
            used |= {item.name for item in question.about}
            samples.append(sample_without_image(scene, question, random, choices=not samples))
    return samples


def _drilled(scene: Scene, overview: View, random: Random, written: float) -> Question | None:
    """Mostly what is answered at once: which of two is where, looks from place and place from looks; what is written for a
    share of `written`."""
    if written and random.random() < written:
        item = random.choice(scene.items)
        return sign_on(scene, item, random) if item.sign and random.random() < 0.6 else written_on(scene, item, random)
    kind = random.random()
    if kind < 0.4:
        return ask(scene, "relative_position", random)
    if kind < 0.85:
        return random.choice((colour, shape, show, partial(inverse, overview)))(scene, random)
    return ask(scene, random.choice(CATEGORIES), random)


def show(scene: Scene, random: Random) -> Question | None:
    """Point at an object whether or not it can be read: place from looks."""
    item = random.choice(scene.items)
    look = Look(item.name, (item.box,), item.side)
    return Question("direct_attributes", "show", f"Show the {item.name}.", item.name, (look,), (), (item,))


def inverse(overview: View, scene: Scene, random: Random) -> Question | None:
    """What is in this box? Looks from place."""
    item = random.choice(scene.items)
    box = oracle.pointing_box(overview, item.box, CoordinateSystem.ABSOLUTE)
    return Question("direct_attributes", "object", f"What is in {[int(v) for v in box]}?", item.name, (), (), (item,))


def sample_without_image(scene: Scene, question: Question, random: Random, *, choices: bool = True) -> Sample:
    sample = sample_of(scene, question, id=f"{scene.seed}:{random.random()}", image="", size=scene.size)
    return sample if choices else replace(sample, choices=())


def nano_environment() -> ZoomEnvironment:
    """The environment nano lives in: the same settings as the agent's defaults for it."""
    limits = FAMILY.vision.limits(OVERVIEW_PIXELS, ZOOM_PIXELS)
    return ZoomEnvironment(ZoomSettings(system=CoordinateSystem.ABSOLUTE, limits=limits))
