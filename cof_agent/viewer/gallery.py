"""Failures to look at: which of a run's wrong answers are shown, and their pictures, small enough for one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.evaluation.runs import Run
from cof_agent.image import open_source
from cof_agent.trajectory import Trajectory
from cof_agent.viewer.images import limit_of, webp
from cof_agent.viewer.picture import seen

MOST = 12
"""Failures of a run that are shown."""
SIDE = 900
"""Pixels on the long side of an overview."""
BYTES = 8_500_000
"""All pictures of a page together; base64 takes a third more."""
_MOST_BYTES = 150_000  # of one


def failures(run: Run, base: Run) -> list[Trajectory]:
    """The wrong answers of the run, in its order; the questions that the base run got right come first."""
    right = {one.sample.id for one in base.trajectories if scoring.accuracy(one) is True}
    wrong = [one for one in run.trajectories if scoring.accuracy(one) is False]
    return sorted(wrong, key=lambda one: one.sample.id not in right)


def pictures(trajectories: Sequence[Trajectory], *, most_bytes: int = BYTES) -> list[bytes | str]:
    """For each trajectory its overview with numbered boxes and its crops as WebP, or the sentence why there is none.

    The images of a sample are decoded once, a few samples at a time. most_bytes: of all together.
    """
    allowed = min(_MOST_BYTES, most_bytes // max(1, len(trajectories)))
    by_paths: dict[tuple[str, ...], list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        by_paths.setdefault(trajectory.sample.images, []).append(index)
    made: dict[int, bytes | str] = {}
    # Decoding releases the interpreter lock; each worker holds the sources of one sample at a time.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        jobs = pool.map(lambda paths: _of_sources(paths, [trajectories[k] for k in by_paths[paths]], allowed), by_paths)
        for indices, found in zip(by_paths.values(), jobs, strict=True):
            made |= zip(indices, found, strict=True)
    return [made[index] for index in range(len(trajectories))]


def _of_sources(paths: tuple[str, ...], trajectories: Sequence[Trajectory], allowed: int) -> list[bytes | str]:
    try:
        sources = [open_source(path, max_source_pixels=limit_of(trajectories)) for path in paths]
    except (InputError, OSError) as error:
        return [str(error)] * len(trajectories)
    found: list[bytes | str] = []
    for trajectory in trajectories:
        try:
            found.append(webp(seen(trajectory, *sources, long_side=SIDE), allowed))
        except (InputError, ValueError, OSError, MemoryError) as error:
            found.append(str(error) or type(error).__name__)
    return found
