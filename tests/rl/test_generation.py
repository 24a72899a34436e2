"""What a generation plays follows from the seed, the step and a place in the batch of all processes."""

from __future__ import annotations

import pytest

from cof_agent.episodes import Episode
from cof_agent.trajectory import Sample
from rl.generation import Generation, equal_groups, without_variance

EPISODES = [Episode(Sample(str(number), f"{number}.png", "What?")) for number in range(4)]


def test_several_processes_play_what_one_plays() -> None:
    before = Generation(seed=7, size=2)
    alone = before.following(0, 0)
    first, second = before.following(0, 0), before.following(0, 2)
    assert first.plays(EPISODES[:2]) + second.plays(EPISODES[2:]) == alone.plays(EPISODES)
    assert first.plays(EPISODES[:2], 1, [1]) + second.plays(EPISODES[2:], 1, [0]) == alone.plays(EPISODES, 1, [1, 2])
    assert [first.group(1), second.group(0)] == [alone.group(1), alone.group(2)] == [0, 1]
    assert first.another(1, 0, 100) == second.another(1, 0, 100)


def test_each_generation_draws_numbers_of_its_own() -> None:
    begun = Generation(seed=7, size=2).following(0, 0)
    again, later = begun.following(0, 0), begun.following(1, 0)
    other = Generation(seed=8, size=2).following(0, 0)
    assert [one.name for one in (begun, again, later)] == ["0-0", "0-1", "1-0"]
    plays = [(one, attempt) for one in (begun, again, later, other) for attempt in (0, 1)]
    seeds = [seed for one, attempt in plays for _, seed in one.plays(EPISODES, attempt)]
    assert len(set(seeds)) == len(seeds)
    # However a run came to this step: the one that goes on at step 1 plays as the one that got there.
    assert Generation(seed=7, size=2).following(1, 0).plays(EPISODES) == later.plays(EPISODES)


@pytest.mark.parametrize(
    ("totals", "nothing"),
    [([1.0, 1.0], True), ([1.0, 0.5], False), ([None, 1.0, 1.0], True), ([None, 1.0, 0.0], False), ([None], True)],
)
def test_rollouts_without_a_score_do_not_make_a_group_worth_training_on(
    totals: list[float | None], nothing: bool
) -> None:
    assert without_variance(totals) == nothing


def test_groups_are_numbered_over_all_processes() -> None:
    assert equal_groups([1.0, 0.0, 1.0, 1.0, None, None, 0.5, None], 2) == {1, 2, 3}
