"""The roles of the teacher that need no model: for pictures whose boxes are known, and as stand-ins for one role each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cof_agent import scoring
from cof_agent.geometry import Box, Size, View, around
from cof_agent.teacher.roles import Adjust, Advice, Describe, Errand, GiveUp, Link, Locate, Move, Propose, Step
from cof_agent.trajectory import Sample

RULES, BOXES = "rules", "boxes"

VISIBLE = 8.0  # shown pixels a box must be wide and high to be pointed at
ABOUT = 0.3  # of a view's area: a box that fills more of it is what the view is about already
INSTRUCTIONS = {
    Advice.ENLARGE: ("wider", "wider, up", "wider, down", "wider, left", "wider, right"),
    Advice.TIGHTEN: ("tighter", "tighter, up", "tighter, down", "tighter, left", "tighter, right"),
    Advice.MOVE: ("left", "right", "up", "down", "wider, up, left"),
    Advice.ELSEWHERE: ("up, left", "down, right", "up, right", "down, left", "wider"),
}


class RulePlanner:
    """Locates what the question is about, looks at it, looks inside what is still unclear, and adjusts after advice."""

    name = RULES

    async def next(self, errand: Errand, views: Sequence[View], steps: Sequence[Step]) -> tuple[Move, str]:
        """See `Planner`; the text is empty."""
        return _next_move(errand.sample.question, steps), ""


def _next_move(question: str, steps: Sequence[Step]) -> Move:
    if not steps:
        return Locate(question)
    last = steps[-1]
    match last.move:
        case Locate(_, image) | Adjust(_, image, _) if last.box is not None:
            return Describe(last.box, image)
        case Describe() if last.seen is not None:
            return Propose(last.seen)
        case Describe() if last.view is not None and not isinstance(steps[-2].move, Adjust):
            return Locate(question, last.view)
    return _adjust(steps)


def _adjust(steps: Sequence[Step]) -> Move:
    """The last located box, changed as the advice says, differently each time."""
    located = [step for step in steps if isinstance(step.move, Locate) and step.box is not None]
    if not located:
        return GiveUp("nothing was found")
    tried = [step.move.instruction for step in steps if isinstance(step.move, Adjust)]
    advice = next((step.advice for step in reversed(steps) if step.advice), Advice.ENLARGE)
    for instruction in INSTRUCTIONS[advice]:
        if instruction not in tried:
            found = located[-1]
            assert isinstance(found.move, Locate) and found.box is not None
            return Adjust(found.box, found.move.image, instruction)
    return GiveUp("every adjustment was tried")


class AnnotatedBoxes:
    """Reads a sample's own boxes: the innermost that can be seen, of all things that the question needs."""

    name = BOXES

    async def locate(self, errand: Errand, view: View, what: str) -> Box | None:
        """See `Locator`. Of several things those that `what` names, else all of them: the box around them."""
        things = nested_boxes(errand.sample)
        named = [boxes for name, boxes in things if name and name.casefold() in what.casefold()]
        chosen = named or [boxes for _, boxes in things]
        found = [_innermost(boxes, view) for boxes in chosen]
        if not found or any(box is None for box in found):
            return None
        whole = around([box for box in found if box is not None])
        return whole if whole.area < ABOUT * view.region.area else None


def nested_boxes(sample: Sample) -> list[tuple[str, list[Box]]]:
    """For each thing that a sample needs its name ("" if unknown) and its boxes from the outer to the inner one."""
    if "looks" in sample.metadata:
        return [(look["name"], [Box(*box) for box in look["boxes"]]) for look in sample.metadata["looks"]]
    return [("", [box]) for box in sample.boxes]


def _innermost(boxes: Sequence[Box], view: View) -> Box | None:
    for box in reversed(boxes):
        if view.region.coverage(box) > 0.9 and min(box.width, box.height) * view.scale >= VISIBLE:
            return box
    return boxes[0] if view.region.coverage(boxes[0]) > 0.9 else None


class RuleVerifier:
    """Compares with the known answers, as the evaluation does; its advice goes round the list."""

    name = RULES

    async def judge(self, errand: Errand, answer: str, attempt: int) -> Advice | None:
        """See `Verifier`."""
        if scoring.is_right(answer, errand.sample):
            return None
        return list(Advice)[attempt % len(Advice)]


class RuleSummariser:
    """One plain sentence a turn, naming what is looked at where the sample says its name."""

    name = RULES

    async def thoughts(self, errand: Errand, links: Sequence[Link]) -> list[str] | None:
        """See `Summariser`."""
        names = [name for name, _ in nested_boxes(errand.sample) if name]
        subject = " and ".join(names) if names else "what the question asks about"
        subject = subject[:1].upper() + subject[1:]
        verb = "are" if len(names) > 1 else "is"
        return [f"{subject} {verb} too small to see."] * len(links) + [f"{subject} can be seen well."]


_FACTORS = {"wider": 1.6, "larger": 1.6, "enlarge": 1.6, "tighter": 0.65, "smaller": 0.65, "tighten": 0.65}
_SHIFTS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SHIFT = 0.35  # of the box's side
ADJUSTMENTS = "wider, tighter, left, right, up or down"


def adjusted(box: Box, instruction: str, size: Size) -> Box | None:
    """`box` (source pixels) changed by the words of `instruction` that are known; None if there are none, or nothing of
    it would be left in a picture of `size`."""
    words = re.findall(r"[a-z]+", instruction.casefold())
    known = [word for word in words if word in _FACTORS or word in _SHIFTS]
    if not known:
        return None
    dx = sum(_SHIFTS[word][0] for word in known if word in _SHIFTS) * _SHIFT * box.width
    dy = sum(_SHIFTS[word][1] for word in known if word in _SHIFTS) * _SHIFT * box.height
    for word in known:
        box = box.scaled(_FACTORS.get(word, 1.0))
    moved = Box(box.x0 + dx, box.y0 + dy, box.x1 + dx, box.y1 + dy).clipped(size)
    return moved if moved.width >= 1 and moved.height >= 1 else None
