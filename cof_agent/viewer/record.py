"""One trajectory as the data of its card on the page: plain values, whose texts are cut to the room that there is."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from cof_agent.geometry import Box, View
from cof_agent.protocol import lettered, thought
from cof_agent.region_refs import in_source_pixels
from cof_agent.scoring import choice_of
from cof_agent.teacher.accept import Refusal
from cof_agent.trajectory import Action, Answer, Observation, Trajectory, Turn, Use, Zoom, views_of
from cof_agent.viewer.templates import cut

MOST_VIEWS = 100
"""Images of one trajectory that the page shows."""

_LONGEST_TEXT, _SHORT_TEXT, _SHORTEST_TEXT = 12_000, 200, 24  # characters of one text
_MOST_TURNS, _MOST_STEPS, _MOST_CHOICES, _MOST_NOTES = 60, 24, 60, 12


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a trajectory comes from. file: its name on a page that shows several, else empty. address: of the page of
    `cof serve` that shows it at full resolution, empty without a server."""

    file: str = ""
    address: str = ""


NOWHERE = Origin()


def json_text(value: Any) -> Markup:
    """JSON that templates put in as it is: it can neither close the script element that it stands in nor open a comment."""
    return htmlsafe_json_dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def fitted_record(
    trajectory: Trajectory,
    right: bool | None,
    images: Sequence[int],
    rewards: Mapping[str, int],
    most_bytes: int,
    origin: Origin = NOWHERE,
) -> Markup:
    """The trajectory as `json_text` of about `most_bytes` at most: long texts are cut ever shorter, then turns are left out.

    right: right, wrong or (None) not scored. images: for each of its first `MOST_VIEWS` views the number of its image.
    rewards: names of rewards that the page knows, with their numbers.
    """
    limit, turns = _LONGEST_TEXT, _MOST_TURNS
    while True:
        record = json_text(_record(trajectory, right, images, rewards, limit, turns) | _origin(origin))
        size = len(record.encode())
        if size <= most_bytes or limit < _SHORT_TEXT:
            return record
        if limit > _SHORT_TEXT:
            limit = max(_SHORT_TEXT, int(limit * min(0.5, most_bytes / size)))
        elif turns:
            turns //= 2
        else:
            limit = _SHORTEST_TEXT


def _origin(origin: Origin) -> dict[str, str]:
    return {"from": cut(origin.file, 200), "address": origin.address}


def _record(
    trajectory: Trajectory,
    right: bool | None,
    images: Sequence[int],
    rewards: Mapping[str, int],
    limit: int,
    turns: int,
) -> dict[str, Any]:
    shown = trajectory.turns[:turns]
    views = views_of(trajectory.overviews, shown)
    return {
        **_task(trajectory, limit, _MOST_CHOICES if turns else 2),
        **_outcome(trajectory, limit),
        **_circumstances(trajectory, rewards, limit),
        "right": right,
        "overviews": len(trajectory.overviews),
        "views": [_view(view, number) for view, number in zip(views, images, strict=False)],
        "turns": _turns(shown, len(trajectory.overviews), limit),
        "left_out": len(trajectory.turns) - len(shown),
    }


def _task(trajectory: Trajectory, limit: int, most: int) -> dict[str, Any]:
    """The sample. most: choices, answers and boxes at most."""
    sample, overview = trajectory.sample, trajectory.overview
    category = sample.metadata.get("category")
    question = in_source_pixels(sample.question, sample, overview.source_size) if overview else sample.question
    return {
        "id": cut(sample.id, min(limit, 200)),
        "file": cut(", ".join(Path(image).name for image in sample.images), min(limit, 200)),
        "question": cut(question, limit),
        "choices": [[letter, cut(text, min(limit, 1000))] for letter, text in lettered(sample.choices[:most])],
        "truth": [[cut(text, min(limit, 1000)), _choice(text, sample.choices)] for text in sample.answers[:most]],
        "category": "" if category is None else cut(str(category), min(limit, 80)),
        "boxes": [list(box) for box in (*sample.boxes, *sample.regions)[:most] if _all_finite(box)],
    }


def _outcome(trajectory: Trajectory, limit: int) -> dict[str, Any]:
    answer = trajectory.answer
    return {
        "answer": None if answer is None else [cut(answer, limit), _choice(answer, trajectory.sample.choices)],
        "stop": trajectory.stop.value,
        "warning": "" if trajectory.warning is None else cut(trajectory.warning, min(limit, 400)),
        "notes": [cut(note, min(limit, 400)) for note in trajectory.notes[:_MOST_NOTES]],
        "error": None if trajectory.error is None else cut(trajectory.error, min(limit, 2000)),
        "reason": _reason(trajectory),
        "zooms": trajectory.zooms,
        "tokens": _tokens(trajectory.turns),
        "seconds": _finite(trajectory.seconds),
    }


def _reason(trajectory: Trajectory) -> str:
    """Why `cof collect` rejected the trajectory, in words; empty where it did not."""
    name, colon, _ = (trajectory.error or "").partition(": ")
    return name.replace("_", " ") if colon and name in set(Refusal) else ""


def _circumstances(trajectory: Trajectory, rewards: Mapping[str, int], limit: int) -> dict[str, Any]:
    """How the trajectory was played and, in training, what it was worth. A reward is [its number, its value or None]."""
    crop = trajectory.settings.get("crop", "real")
    group, advantage = trajectory.group, trajectory.advantage
    return {
        "policy": cut(trajectory.policy, min(limit, 120)),
        "strategy": cut(trajectory.strategy, min(limit, 80)),
        "altered": "" if crop == "real" else cut(str(crop), min(limit, 40)),  # an ablation: the model saw other crops
        "resolution": trajectory.resolution,
        "play": trajectory.play,
        "shuffle": trajectory.shuffle_seed,
        "step": trajectory.step,
        "group": "" if group is None else cut(group, min(limit, 120)),
        "advantage": None if advantage is None else _finite(advantage),
        "rewards": [
            [rewards[name], None if value is None else _finite(value)]
            for name, value in trajectory.rewards.items()
            if name in rewards
        ],
    }


def _tokens(turns: Iterable[Turn]) -> list[int | None]:
    """Tokens in and out of all turns; None where no turn knows."""
    spent = [(turn.tokens.prompt, turn.tokens.completion) for turn in turns]
    known = [[count for count in column if count is not None] for column in zip(*spent, strict=True)]
    return [sum(counts) if counts else None for counts in known] or [None, None]


def _view(view: View, number: int) -> dict[str, Any]:
    return {
        "image": number,
        "source": view.source,
        "region": list(view.region.pixels()),
        "shown": [view.shown_size.width, view.shown_size.height],
        "tool": None if view.tool is None else cut(view.tool, 80),  # the page shows what the tool was given
    }


def _turns(turns: Iterable[Turn], next_view: int, limit: int) -> list[dict[str, Any]]:
    """next_view: the number of the first crop."""
    shown = []
    for turn in turns:
        steps: list[dict[str, Any]] = []
        pairs = list(paired(turn))
        for action, observation in pairs[:_MOST_STEPS]:
            steps.append(_step(action, observation, next_view, limit))
            next_view += observation is not None and observation.view is not None
        unshown = [observation for _, observation in pairs[_MOST_STEPS:]]
        next_view += sum(observation is not None and observation.view is not None for observation in unshown)
        shown.append(
            {
                "thought": cut(thought(turn.text), limit),
                "text": cut(turn.text, limit),
                "steps": steps,
                "more": len(pairs) - len(steps),
                "tokens": [turn.tokens.prompt, turn.tokens.completion],
                "seconds": _finite(turn.seconds),
            }
        )
    return shown


def paired(turn: Turn) -> Iterator[tuple[Action | None, Observation | None]]:
    """Each action with its observation: the i-th observation belongs to the i-th action that is no answer."""
    waiting = deque(turn.observations)
    for action in turn.actions:
        yield action, waiting.popleft() if waiting and not isinstance(action, Answer) else None
    yield from ((None, observation) for observation in waiting)


def _step(action: Action | None, observation: Observation | None, next_view: int, limit: int) -> dict[str, Any]:
    step: dict[str, Any] = {"kind": action.kind if action else "observation"}
    if isinstance(action, Zoom | Use):
        step["asked"] = asked_for(action)
        step["of"] = action.image
    elif isinstance(action, Answer):
        step["text"] = cut(action.text, limit // 2)
    elif action is not None:
        step["text"] = cut(action.reason, 400)
    if observation is not None:
        if observation.view is not None:
            step["view"] = next_view
        step["said"] = None if observation.text is None else cut(observation.text, limit // 2)
        step["error"] = None if observation.error is None else cut(observation.error, 400)
        step["note"] = None if observation.note is None else cut(observation.note, 400)
    return step


def asked_for(action: Zoom | Use) -> str:
    """A zoom's box, or a tool with its arguments, as the model wrote them."""
    if isinstance(action, Zoom):
        return cut("[" + ", ".join(str(value) for value in action.box[:8]) + "]", 120)
    arguments = ", ".join(f"{name}={value!r}" for name, value in list(action.arguments.items())[:8])
    return cut(f"{action.tool}({arguments})", 120)


def _choice(answer: str, choices: tuple[str, ...]) -> int | None:
    text = choice_of(answer, choices)
    return None if text is None else choices.index(text)


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _all_finite(box: Box) -> bool:
    return all(math.isfinite(edge) for edge in box)
