"""The model that ships: it must see and zoom, on the pictures it was made for."""

from __future__ import annotations

import pytest

from cof_agent import scoring
from cof_agent.agent import Agent
from cof_agent.backends.checkpoint import load
from cof_agent.data.samples import read_samples
from cof_agent.environment import CropMode, ZoomEnvironment, ZoomSettings
from cof_agent.geometry import Size
from cof_agent.nano import NANO
from cof_agent.scenes import oracle
from cof_agent.trajectory import Sample, Trajectory
from tests.scenes.shared import Scenes

SCENES = 24


@pytest.fixture(scope="module")
def samples(drawn: Scenes) -> list[Sample]:
    return read_samples(drawn(SCENES, size=Size(3840, 2160)))


def asked(samples: list[Sample], crop: CropMode = "real") -> list[Trajectory]:
    return Agent(NANO, crop=crop).ask_many(samples, concurrency=8, progress=False)


@pytest.mark.slow
def test_nano_answers_points_and_zooms_as_often_as_needed(samples: list[Sample]) -> None:
    """Well below its measured rates (see the README), so that only a real fault fails here."""
    trajectories = asked(samples)
    assert sum(bool(scoring.accuracy(one)) for one in trajectories) >= 0.8 * SCENES
    hits = [hit for one in trajectories if (hit := scoring.target_hits(one)) is not None]
    assert len(hits) >= SCENES / 3
    assert sum(hits) >= 0.85 * len(hits)
    policy = load(NANO)
    environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
    needed = [oracle.zooms_needed(one.sample, environment.reset(one.sample), environment) for one in trajectories]
    assert sum(one.zooms == zooms for one, zooms in zip(trajectories, needed, strict=True)) >= 0.9 * SCENES


@pytest.mark.slow
def test_nano_needs_what_the_crops_show(samples: list[Sample]) -> None:
    blank = [one for one in asked(samples, "blank") if one.zooms]
    assert sum(bool(scoring.accuracy(one)) for one in blank) <= 0.1 * len(blank)
