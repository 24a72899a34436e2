"""Shows one trajectory in a notebook: the picture with its zooms, and what the model wrote turn by turn."""

from __future__ import annotations

from collections.abc import Iterator

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.geometry import View
from cof_agent.image import open_source
from cof_agent.protocol import lettered, thought
from cof_agent.region_refs import in_source_pixels
from cof_agent.trajectory import Action, Malformed, Observation, Trajectory, Turn, Use
from cof_agent.viewer import templates
from cof_agent.viewer.images import limit_of, webp
from cof_agent.viewer.picture import altered, seen, spelled
from cof_agent.viewer.record import asked_for, paired
from cof_agent.viewer.templates import cut, data_url

MOST_BYTES = 300_000
"""The picture of one trajectory; base64 takes a third more. A notebook keeps it in its file."""

_SIDE = 1000  # pixels on the long side of the overview
_MOST_TURNS, _MOST_STEPS, _MOST_CHOICES, _MOST_NOTES = 30, 8, 30, 12
_LONG, _SHORT = 1_200, 200  # characters of one text

Line = tuple[str, str]
"""One line of a turn: what it is (thought, zoom, result, problem), and its text."""


def notebook_html(trajectory: Trajectory) -> str:
    """The trajectory as a piece of HTML that needs nothing else; every text is escaped; below 1 MB.

    An image that cannot be opened is no error: the HTML says what is wrong with it.
    """
    picture = _picture(trajectory)
    template = templates.environment().get_template("notebook.html")
    html = template.render(
        question=_question(trajectory),
        choices=_choices(trajectory),
        image=data_url("webp", picture) if isinstance(picture, bytes) else "",
        problem=picture if isinstance(picture, str) else "",
        turns=list(_turns(trajectory)),
        left_out=max(0, len(trajectory.turns) - _MOST_TURNS),
        verdict=_verdict(trajectory),
        notes=_notes(trajectory),
    )
    return html.encode("utf-8", "replace").decode()


def _picture(trajectory: Trajectory) -> bytes | str:
    """WebP, or the sentence why there is none."""
    try:
        most = limit_of([trajectory])
        sources = [open_source(path, max_source_pixels=most) for path in trajectory.sample.images]
        return webp(seen(trajectory, *sources, long_side=_SIDE), MOST_BYTES)
    except (InputError, ValueError, OSError, MemoryError) as error:
        return cut(str(error) or type(error).__name__, _SHORT)


def _question(trajectory: Trajectory) -> str:
    sample = trajectory.sample
    if trajectory.overview is None:
        return cut(sample.question, _LONG)
    return cut(in_source_pixels(sample.question, sample, trajectory.overview.source_size), _LONG)


def _choices(trajectory: Trajectory) -> str:
    choices = lettered(trajectory.sample.choices[:_MOST_CHOICES])
    return cut("    ".join(f"{letter}. {text}" for letter, text in choices), _LONG)


def _turns(trajectory: Trajectory) -> Iterator[list[Line]]:
    views = iter(enumerate(trajectory.crops, len(trajectory.overviews)))
    for turn in trajectory.turns[:_MOST_TURNS]:
        lines = [(kind, text) for kind, text in _lines(turn, views) if text] or [("thought", turn.text)]
        yield [(kind, cut(text, _LONG)) for kind, text in lines]


def _lines(turn: Turn, views: Iterator[tuple[int, View]]) -> list[Line]:
    """views: those that are still to come, with their numbers. The answer is left to the line below all turns."""
    broken = any(isinstance(action, Malformed) for action in turn.actions)
    steps: list[Line] = []
    for action, observation in paired(turn):
        number, view = next(views) if observation and observation.view else (0, None)
        steps += _step(action, observation, number, view)
    if len(steps) > _MOST_STEPS:
        steps = [*steps[:_MOST_STEPS], ("problem", f"{len(steps) - _MOST_STEPS} more actions in this turn.")]
    return [("thought", turn.text if broken else thought(turn.text)), *steps]


def _step(action: Action | None, observation: Observation | None, number: int, view: View | None) -> Iterator[Line]:
    if view is not None:
        width, height = (round(side) for side in (view.region.width, view.region.height))
        shown = f"{view.shown_size.width} × {view.shown_size.height}"
        made = "Zoom" if view.tool is None else f"Image by {view.tool}"
        of = f" of image {view.source}" if view.source else ""
        yield "zoom", f"{made} {number}: {width} × {height} source pixels{of}, shown at {shown}"
    elif observation is not None and observation.text is not None:
        yield "result", f"{asked_for(action) if isinstance(action, Use) else 'Result'}: {observation.text}"
    elif observation is not None:
        yield "problem", f"Refused: {observation.error}"
    elif isinstance(action, Malformed):
        yield "problem", f"Not an action: {action.reason}"


def _verdict(trajectory: Trajectory) -> str:
    if trajectory.answer is None:
        return f"No answer ({trajectory.stop.value.replace('_', ' ')})"
    judged = {True: " (right)", False: " (wrong)", None: ""}[scoring.accuracy(trajectory)]
    return cut(f"Answer: {spelled(trajectory.answer, trajectory.sample.choices)}", _LONG) + judged


def _notes(trajectory: Trajectory) -> list[str]:
    sample = trajectory.sample
    truth = " or ".join(spelled(text, sample.choices) for text in sample.answers[:_MOST_CHOICES])
    rewards = [
        f"reward {name} {'not scored' if value is None else f'{value:.4g}'}"
        for name, value in list(trajectory.rewards.items())[:_MOST_NOTES]
    ]
    notes = [
        "" if trajectory.warning is None else f"Unreliable: {trajectory.warning}",
        f"Truth: {truth}" if truth else "",
        "Dashed: what the question is about" if sample.boxes or sample.regions else "",
        altered(trajectory) or "",
        *trajectory.notes[:_MOST_NOTES],
        *rewards,
        "" if trajectory.advantage is None else f"advantage {trajectory.advantage:+.4g}",
        "" if trajectory.error is None else f"Error: {trajectory.error}",
    ]
    return [cut(note, _SHORT) for note in notes if note]
