"""Zooms distilled into one look: which trajectories are replaced, by what words, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.data.source import Source
from cof_agent.data.unusable import Tally
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.geometry import Box, PixelLimits, Size
from cof_agent.policy import Completion, ScriptedPolicy
from cof_agent.training.command import explained
from cof_agent.training.distill import NOT_READ, ONE_LOOK, PLAIN, UNPLAYED, Plays
from cof_agent.trajectory import Sample, Trajectory, Zoom, to_json
from sft.dataset import read_rows
from tests.scenes.shared import Scenes
from tests.sft.test_train import QWEN25

LIMITS = PixelLimits(28, 3136, 123904, 168 * 168)
ZOOM = protocol.write_zoom("Too small.", Box(40, 40, 100, 80))


class Asked(ScriptedPolicy):
    """A script that keeps what it was shown before each of its lines."""

    seen: list[tuple[list[protocol.Message], list[Any]]]

    async def generate(self, messages: Any, images: Any, sampling: Any) -> Completion:
        self.seen.append((list(messages), list(images)))
        return await super().generate(messages, images, sampling)


def played(sample: Sample, *script: str, strategy: str = "focus", **more: Any) -> tuple[Trajectory, Asked]:
    """The agent's trajectory of a script, and the policy that played it."""
    policy = Asked(script, limits=LIMITS)
    policy.seen = []
    agent = Agent(AgentConfig(strategy=strategy, **more), policy=policy)
    (trajectory,) = agent.ask_many([Episode(sample)], progress=False)
    return trajectory, policy


def right(sample: Sample, thought: str = "I see it.") -> str:
    return protocol.write_answer(thought, sample.answers[0])


WRONG = protocol.write_answer("Perhaps.", "nothing of the kind")


@pytest.fixture(scope="module")
def samples(drawn: Scenes) -> list[Sample]:
    return read_samples(drawn(8, split="train", seed=5))[:5]  # the pictures of tests/sft


@pytest.fixture(scope="module")
def zoomed(samples: Sequence[Sample]) -> list[Trajectory]:
    """Each answered right after a zoom, but the last without one."""
    scripts = [[ZOOM, right(sample, "Now I see it.")] for sample in samples[:-1]] + [[right(samples[-1])]]
    return [played(sample, *script)[0] for sample, script in zip(samples, scripts, strict=True)]


def written(path: Path, *trajectories: Trajectory) -> Path:
    path.write_text("".join(to_json(one) + "\n" for one in trajectories))
    return path


def kinds(
    trajectories: Sequence[Trajectory], plays: Path, rate: float = 0.5
) -> tuple[dict[str, int], list[Trajectory]]:
    tally = Tally()
    found = Plays(str(plays), rate).distilled(trajectories, tally)
    return {kind: count for kind, count in tally.kinds.items() if count}, found


def test_a_row_is_what_the_agent_sees_when_it_answers_at_once(
    samples: Sequence[Sample], zoomed: Sequence[Trajectory], tmp_path: Path
) -> None:
    at_once, first = played(samples[0], right(samples[0]), strategy="direct")
    refused, second = played(samples[1], ZOOM, right(samples[1], "It is plain."), strategy="direct")
    wrong, _ = played(samples[2], WRONG, strategy="direct")
    assert refused.zooms == 0 and len(refused.turns) == 2
    data = written(tmp_path / "zoomed.jsonl", *zoomed)
    plays, tally = Plays(str(written(tmp_path / "direct.jsonl", at_once, refused, wrong)), 0.5), Tally()
    rows = read_rows(Source(str(data)), QWEN25, tally, plays=plays)
    plays.check("data")
    assert tally.kinds == {ONE_LOOK: 2, NOT_READ: 1, UNPLAYED: 1, PLAIN: 1}
    for index, policy, said in ((0, first, right(samples[0])), (1, second, right(samples[1], "It is plain."))):
        opening, images = policy.seen[0]
        row = rows.row(index)
        assert row["messages"] == slots([*opening, protocol.assistant(said)])
        assert [image.tobytes() for image in row["images"]] == [image.tobytes() for image in images]
        assert [(size.width, size.height) for size in rows.outline(index).sizes] == [image.size for image in images]
    whole = read_rows(Source(str(data)), QWEN25)
    for index in (2, 3, 4):
        assert rows.row(index)["messages"] == whole.row(index)["messages"]


def slots(messages: Sequence[protocol.Message]) -> list[protocol.Message]:
    """Messages as a row has them: places of images without the number of the view."""
    return [
        {**one, "content": [{"type": "image"} if part["type"] == "image" else part for part in one["content"]]}
        for one in messages
    ]


def test_a_lucky_answer_is_not_enough(samples: Sequence[Sample], zoomed: Sequence[Trajectory], tmp_path: Path) -> None:
    sample = samples[0]
    scripts = ([ZOOM, right(sample, "a")], [WRONG], [right(sample, "b")], [ZOOM, WRONG], [right(sample, "c")])
    plays = [played(sample, *script, strategy="direct")[0] for script in scripts]
    last = plays[-1].turns[0]  # some dialects let a turn ask for a zoom and answer; it is no answer without a zoom
    plays[-1] = replace(plays[-1], turns=(replace(last, actions=(Zoom((1, 2, 30, 40)), *last.actions)),))
    plays = [replace(play, play=number) for number, play in enumerate(plays, 1)]
    path = written(tmp_path / "direct.jsonl", *plays)
    assert kinds(zoomed[:1], path)[0] == {NOT_READ: 1}
    counts, found = kinds([zoomed[0]] * 3, path, rate=0.4)
    assert counts == {ONE_LOOK: 3}
    assert [protocol.thought(one.turns[0].text) for one in found] == ["b", "a", "b"]  # at once before a refused zoom


def test_without_known_answers_both_must_agree(zoomed: Sequence[Trajectory], tmp_path: Path) -> None:
    blank = replace(zoomed[0].sample, answers=())
    for text, kind in ((zoomed[0].answer or "", ONE_LOOK), ("something else", NOT_READ)):
        play, _ = played(blank, protocol.write_answer("I see.", text), strategy="direct")
        path = written(tmp_path / "direct.jsonl", play)
        assert kinds([replace(zoomed[0], sample=blank)], path)[0] == {kind: 1}


def test_what_is_wrong_stays_and_is_left_out_as_ever(
    samples: Sequence[Sample], zoomed: Sequence[Trajectory], tmp_path: Path
) -> None:
    play, _ = played(samples[0], right(samples[0]), strategy="direct")
    path = written(tmp_path / "direct.jsonl", play)
    wrong = replace(zoomed[0], answer="nothing of the kind")
    assert kinds([wrong], path) == ({}, [wrong])


def train(**settings: Any) -> Callable[[], None]:
    from sft.train import main

    given = {"model_name_or_path": "nano", "use_cpu": "true", "report_to": "none", "dry_run": "true"} | settings
    return lambda: main([text for key, value in given.items() for text in (f"--{key}", str(value))])


def test_the_table_counts_each_kind(
    samples: Sequence[Sample], zoomed: Sequence[Trajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play, _ = played(samples[0], right(samples[0]), strategy="direct")
    (tmp_path / "direct").mkdir()
    written(tmp_path / "direct" / "trajectories.jsonl", play)
    data = written(tmp_path / "zoomed.jsonl", *zoomed)
    train(data=data, distill=tmp_path / "direct", output_dir=tmp_path / "run")()
    lines = capsys.readouterr().err.splitlines()
    told = {
        kind: int(line.split("│")[2])
        for line in lines
        for kind in (ONE_LOOK, NOT_READ, UNPLAYED, PLAIN)
        if kind in line
    }
    assert told == {ONE_LOOK: 1, NOT_READ: 0, UNPLAYED: 3, PLAIN: 1}


def test_bad_input_is_one_sentence(
    samples: Sequence[Sample], zoomed: Sequence[Trajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play, _ = played(samples[0], right(samples[0]), strategy="direct")
    prompt, _ = played(samples[0], right(samples[0]), strategy="direct", system_prompt="Answer.")
    assert play.overview is not None
    smaller = replace(play, overview=replace(play.overview, shown_size=Size(56, 28)))
    elsewhere = replace(play, sample=replace(play.sample, question="What else is there?"))
    cases: dict[str, tuple[Trajectory, ...]] = {
        "direct.jsonl holds no plays to distill with": (),
        "direct.jsonl was played with zooms; play it from the overview alone": (zoomed[0],),
        "has no play of a question that .*zoomed.jsonl answers right with zooms": (
            replace(play, sample=replace(play.sample, id="another")),
            replace(play, resolution=448),
        ),
        f"holds a play of another sample '{play.sample.id}'": (elsewhere,),
        "was played with another system prompt or other tools": (prompt,),
        "was played with overviews of another size": (smaller,),
    }
    data = written(tmp_path / "zoomed.jsonl", *zoomed)
    direct = tmp_path / "direct.jsonl"
    for sentence, plays in cases.items():
        written(direct, *plays)
        with pytest.raises(InputError, match=sentence) as caught:
            train(data=data, distill=direct, output_dir=tmp_path / "run")()
        assert "\n" not in str(caught.value)
    written(direct, play)
    for settings, sentence in (
        ({"distill_rate": 0}, "distill_rate must be above 0 and at most 1, not 0"),
        ({"data": "curriculum", "samples": 2}, "the curriculum cannot be mixed with other data, nor distilled"),
        ({"distill": tmp_path / "nowhere"}, "cannot read .*nowhere: No such file"),
    ):
        with pytest.raises(InputError, match=sentence):
            train(**{"data": data, "distill": direct, "output_dir": tmp_path / "run", **settings})()
    with pytest.raises(SystemExit) as ended:
        explained("sft.train", train(data=data, distill=direct, distill_rate=2, output_dir=tmp_path / "run"))
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("sft.train: distill_rate must be")
