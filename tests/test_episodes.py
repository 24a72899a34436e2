"""What is played: each sample at each resolution, so many times, under keys that differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cof_agent.episodes import Episode, by_key, drawn, episodes, question_of, resolution_of
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Sample, StopReason, Trajectory

FIRST, SECOND = Sample("a", "a.png", "?"), Sample("b", "b.png", "?")
SMALL = replace(FIRST, metadata={"resolution": 896, "question": "whole"})


def test_each_sample_at_each_resolution_so_many_times() -> None:
    found = episodes([FIRST, SECOND], resolutions=(224, 448), plays=2, shuffle_seed=3)
    assert [one.key for one in found] == [
        (name, resolution, play) for name in "ab" for resolution in (224, 448) for play in (1, 2)
    ]
    assert {one.shuffle_seed for one in found} == {3}
    assert list(by_key(found).values()) == found


def test_without_more_each_sample_once_at_the_models_own_limit() -> None:
    assert episodes(iter([FIRST, SECOND])) == [Episode(FIRST), Episode(SECOND)]
    assert Episode(FIRST).key == ("a", None, None)


def test_an_episode_and_its_trajectory_have_one_key() -> None:
    played = Trajectory(FIRST, None, (), StopReason.ERROR, resolution=224, play=2)
    assert played.key == Episode(FIRST, 224, 2).key == ("a", 224, 2)


def test_two_of_one_key_are_refused() -> None:
    with pytest.raises(InputError, match="two samples have the id 'a'"):
        by_key([Episode(FIRST), Episode(SECOND), Episode(replace(SECOND, id="a"))])
    assert len(by_key([Episode(FIRST, play=1), Episode(FIRST, play=2), Episode(FIRST, 224, 1)])) == 3


def test_what_was_drawn_at_several_sizes_is_asked_about_at_its_own() -> None:
    with pytest.raises(InputError, match="'a' was drawn at several sizes already.*leave --resolutions out"):
        episodes([SECOND, SMALL], resolutions=(224,))
    assert episodes([SMALL]) == [Episode(SMALL)]


def test_a_drawn_resolution_hangs_on_the_id_and_the_seed_alone() -> None:
    many = [Sample(str(number), "a.png", "?") for number in range(200)]
    first = drawn(many, (224, 448, 896), 1)
    assert drawn(many[::-1], (224, 448, 896), 1)[::-1] == first
    assert drawn(many, (224, 448, 896), 2) != first
    counts = {size: sum(one.resolution == size for one in first) for size in (224, 448, 896)}
    assert min(counts.values()) > 40 and sum(counts.values()) == 200
    assert drawn(many, (), 1) == episodes(many)


def test_the_question_and_the_resolution_of_what_was_played() -> None:
    overview = View(Size(1600, 900), Box(0, 0, 1600, 900), Size(448, 252))
    assert (question_of(FIRST), question_of(SMALL)) == ("a", "whole")
    played = Trajectory(FIRST, overview, (), StopReason.ERROR)
    assert resolution_of(played) == 1600
    assert resolution_of(replace(played, sample=SMALL)) == 896
    assert resolution_of(replace(played, sample=SMALL, resolution=224)) == 224
    assert resolution_of(replace(played, overview=None)) is None
