"""CoRoI: windows of a score map, the scorer that makes the map, how it is trained, and the graph that plays it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cof_agent import protocol
from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import QUESTION
from cof_agent.errors import InputError
from cof_agent.evaluation import metrics as evaluate
from cof_agent.geometry import Box, PixelLimits, Size, View
from cof_agent.graphs.steps import Context
from cof_agent.policy import Completion, ScriptedPolicy, begun
from cof_agent.strategies import registry as strategies
from cof_agent.strategies.coroi.chooser import RegionChooser
from cof_agent.strategies.coroi.graph import COROI, THOUGHT
from cof_agent.strategies.coroi.scorer import (
    CONFIG,
    FOLDER,
    WEIGHTS,
    Query,
    RegionScorer,
    ScorerConfig,
    Seen,
    load_scorer,
    patch_map,
    places_of,
    save_scorer,
    score_maps,
)
from cof_agent.strategies.coroi.windows import best_window, box_of, share_of, window_sides
from cof_agent.training.command import explained
from cof_agent.trajectory import Answer, Sample, StopReason, Tokens, Trajectory, Zoom, to_json
from sft.papers import coroi

FACTORS = ScorerConfig(192).factors
ANSWER = protocol.write_answer("I see.", "red")
ZOOM = protocol.write_zoom("Closer.", Box(0, 0, 50, 50))

grids = st.tuples(st.integers(1, 40), st.integers(1, 40))
some_factors = st.lists(st.integers(1, 64), min_size=1, max_size=6)


@given(grids, some_factors, st.integers(0, 2**31))
def test_the_best_window_lies_inside_the_map_and_scores_what_it_holds(
    grid: tuple[int, int], factors: list[int], seed: int
) -> None:
    scores = np.random.default_rng(seed).random(grid)
    best = best_window(scores, factors)
    assert 0 <= best.x <= grid[1] - best.width and 0 <= best.y <= grid[0] - best.height
    assert (best.height, best.width) in window_sides(*grid, factors)
    held = scores[best.y : best.y + best.height, best.x : best.x + best.width]
    assert best.score == pytest.approx(held.mean() * held.size**0.7)


@given(grids, some_factors, st.data())
def test_the_best_window_of_a_single_peak_contains_it(
    grid: tuple[int, int], factors: list[int], data: st.DataObject
) -> None:
    y, x = data.draw(st.integers(0, grid[0] - 1)), data.draw(st.integers(0, grid[1] - 1))
    scores = np.zeros(grid)
    scores[y, x] = 1
    best = best_window(scores, factors)
    assert best.x <= x < best.x + best.width and best.y <= y < best.y + best.height
    assert best.width * best.height == min(height * width for height, width in window_sides(*grid, factors))


@given(st.integers(0, 28), st.integers(0, 14), st.sampled_from([1, 2, 3, 4]))
def test_an_even_square_is_held_by_the_tightest_window(x: int, y: int, side: int) -> None:
    scores = np.zeros((18, 32))
    scores[y : y + side, x : x + side] = 1 / side**2
    best = best_window(scores, FACTORS)
    assert (best.x, best.y, best.width, best.height) == (x, y, side, side)


def test_windows_are_square_where_the_map_allows_it() -> None:
    assert window_sides(24, 24, (2, 3, 4)) == [(12, 12), (8, 8), (6, 6)]
    assert window_sides(3, 32, (2, 8, 16, 32, 64)) == [(3, 16), (3, 4), (2, 2), (1, 1)]


@given(grids, st.data())
def test_a_window_is_a_box_of_the_source_and_back(grid: tuple[int, int], data: st.DataObject) -> None:
    view = View(Size(3840, 2160), Box(100, 50, 1000, 950), Size(448, 448))
    window = best_window(np.random.default_rng(data.draw(st.integers(0, 99))).random(grid), (1, 2, 5))
    box = box_of(window, view, *grid)
    assert view.region.coverage(box) == pytest.approx(1)
    share = share_of([box], view, *grid)
    inside = share[window.y : window.y + window.height, window.x : window.x + window.width]
    assert inside.sum() == pytest.approx(1) and inside.min() == pytest.approx(inside.max())


def test_what_lies_outside_a_view_has_no_share() -> None:
    view = View(Size(400, 200), Box(0, 0, 200, 200), Size(56, 56))
    assert not share_of([Box(210, 0, 300, 100)], view, 2, 2).any()
    assert share_of([Box(150, 50, 250, 150)], view, 2, 2).tolist() == [[0, 0.5], [0, 0.5]]


# --- the scorer


def scorer_of(**sizes: object) -> RegionScorer:
    torch.manual_seed(0)
    return RegionScorer(ScorerConfig(24, **{"width": 32, **sizes})).eval()  # type: ignore[arg-type]


def seen_of(rows: int, columns: int, seed: int, region: Box | None = None) -> Seen:
    source = Size(columns * 100, rows * 100)
    features = torch.randn(rows * columns, 24, generator=torch.Generator().manual_seed(seed))
    whole = Box(0, 0, source.width, source.height)
    return Seen(View(source, region or whole, Size(columns * 28, rows * 28)), features, 28)


def words_of(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [(1, 1), (9, 16), (16, 9), (3, 40)])
def test_a_map_has_a_score_for_every_patch_of_any_grid(grid: tuple[int, int]) -> None:
    seen, query = [seen_of(*grid, 1)], Query(words_of(5), (0,))
    (first,), need = score_maps(scorer_of(), seen, [query])
    (again,), _ = score_maps(scorer_of(), seen, [query])
    assert first.shape == (2 * grid[0], 2 * grid[1]) and need.shape == (1,)
    assert torch.equal(first, again)


def test_what_is_asked_together_is_answered_as_if_alone() -> None:
    scorer = scorer_of()
    seen = [seen_of(9, 16, 1), seen_of(4, 8, 2), seen_of(6, 6, 3, Box(200, 200, 500, 500)), seen_of(9, 16, 4)]
    queries = [Query(words_of(7, 1), (0, 2)), Query(words_of(3, 2), (1,)), Query(words_of(12, 3), (3,))]
    maps, needs = score_maps(scorer, seen, queries)
    for query, together, need in zip(queries, maps, needs, strict=True):
        (alone,), one = score_maps(scorer, seen, [query])
        assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(need, one[0], atol=1e-5)


def test_the_question_and_the_regions_before_change_the_scores() -> None:
    scorer, region = scorer_of(), Box(200, 200, 500, 500)
    seen = [seen_of(9, 16, 1), seen_of(6, 6, 3, region), seen_of(6, 6, 3, Box(900, 200, 1200, 500))]
    asked = [
        Query(words_of(7), (0,)),
        Query(words_of(7, 9), (0,)),
        Query(words_of(7), (0, 1)),
        Query(words_of(7), (0, 2)),
    ]
    maps, needs = score_maps(scorer, seen, asked)
    for first in range(len(maps)):
        for second in range(first):
            assert not torch.allclose(maps[first], maps[second], atol=1e-3)
    assert len({round(need, 5) for need in needs.tolist()}) == 4


def test_every_weight_is_reached_by_the_loss() -> None:
    scorer = scorer_of().train()
    (scores,), need = score_maps(scorer, [seen_of(4, 8, 1), seen_of(6, 6, 2)], [Query(words_of(6), (0, 1))])
    (scores.flatten().log_softmax(0)[3] + need.sum()).backward()
    for name, weight in scorer.named_parameters():
        assert weight.grad is not None and bool((weight.grad != 0).any()), name


def test_scores_are_laid_out_as_the_patches_lie() -> None:
    scores = torch.arange(2 * 3 * 4).view(6, 4)
    assert patch_map(scores, 2, 3).tolist() == [
        [0, 1, 4, 5, 8, 9],
        [2, 3, 6, 7, 10, 11],
        [12, 13, 16, 17, 20, 21],
        [14, 15, 18, 19, 22, 23],
    ]


def test_a_crop_is_placed_where_it_was_cut() -> None:
    source = Size(1600, 900)
    whole = places_of(View(source, Box(0, 0, 1600, 900), Size(448, 252)), 9, 16)
    crop = places_of(View(source, Box(300, 200, 400, 300), Size(28, 28)), 1, 1)
    assert torch.allclose(whole[2 * 16 + 3, :-2], crop[0, :-2], atol=1e-4)
    assert crop[0, -1] == 1 and whole[0, -1] == 0


# --- beside a checkpoint


@pytest.fixture(scope="module")
def nano() -> LocalPolicy:
    return load("nano")


@pytest.fixture(scope="module")
def folder(nano: LocalPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano with a scorer of random weights that always wants a region, and is sure which."""
    path = tmp_path_factory.mktemp("nano-coroi")
    assert nano.folder is not None
    coroi._with_checkpoint(nano.folder, path)
    torch.manual_seed(1)
    scorer = RegionScorer(ScorerConfig(192, needed=0.0))
    scorer.score.weight.data *= 30  # else all regions are near a tie, which rounding decides
    save_scorer(scorer, path)
    return path


@pytest.fixture(scope="module")
def chooser(folder: Path) -> RegionChooser:
    return RegionChooser(load(folder))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = tmp_path_factory.mktemp("image") / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (18, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((1600, 900)).save(path)
    return Sample("one", str(path), "What is written on the red circle?", ("red",))


def test_a_scorer_is_read_as_it_was_written(folder: Path) -> None:
    first, second = load_scorer(folder), load_scorer(folder)
    assert first.config == ScorerConfig(192, needed=0.0)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert 200_000 < sum(weight.numel() for weight in first.parameters()) < 600_000


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (CONFIG, b"{"),
        (CONFIG, b'{"features": -1}'),
        (CONFIG, b'{"features": 192, "factors": []}'),
        (CONFIG, b'{"features": 192, "width": 64}'),
        (WEIGHTS, b"no weights"),
        (WEIGHTS, None),
    ],
)
def test_a_scorer_that_cannot_be_read_is_one_sentence(
    folder: Path, tmp_path: Path, file: str, content: bytes | None
) -> None:
    save_scorer(load_scorer(folder), tmp_path)
    if content is None:
        (tmp_path / FOLDER / file).unlink()
    else:
        (tmp_path / FOLDER / file).write_bytes(content)
    with pytest.raises(InputError, match=r"^cannot read the region scorer in .*\.$") as told:
        load_scorer(tmp_path)
    assert "\n" not in str(told.value)


def test_a_model_without_a_scorer_is_told_how_to_get_one(checkpoint: Callable[[str], Path]) -> None:
    policy = load(checkpoint("qwen2_5_vl"))
    with pytest.raises(InputError, match="has no region scorer .* python -m sft.papers.coroi --model"):
        strategies.by_name("coroi")(policy, ZoomSettings())


def test_a_policy_that_is_no_local_model_is_refused() -> None:
    with pytest.raises(InputError, match="scripted is no model in a folder of this machine"):
        strategies.by_name("coroi")(ScriptedPolicy([ANSWER]), ZoomSettings())


def test_a_scorer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    coroi._with_checkpoint(folder, tmp_path)
    save_scorer(RegionScorer(ScorerConfig(64)), tmp_path)
    with pytest.raises(InputError, match="for features 64 wide .* the model's are 192 wide"):
        RegionChooser(load(tmp_path))


# --- the graph


class Scripted(ScriptedPolicy):
    """Says what a script says, and looks where a real scorer does."""

    def __init__(self, chooser: RegionChooser, script: object) -> None:
        super().__init__(script, limits=chooser.limits)  # type: ignore[arg-type]
        self.region = chooser.region


def play(policy: ScriptedPolicy, sample: Sample, max_zooms: int = 2) -> Trajectory:
    settings = ZoomSettings(policy.coordinates, policy.limits, max_zooms=max_zooms)
    return asyncio.run(COROI.run(sample, Context(policy, ZoomEnvironment(settings))))


@pytest.mark.parametrize("max_zooms", [0, 1, 2])
def test_the_model_answers_once_after_a_chain_of_regions(
    chooser: RegionChooser, sample: Sample, max_zooms: int
) -> None:
    asked: list[Sequence[protocol.Message]] = []

    def line(messages: Sequence[protocol.Message]) -> Completion:
        asked.append(messages)
        return Completion(ANSWER, Tokens(321, 12))

    played = play(Scripted(chooser, line), sample, max_zooms)
    assert (played.stop, played.answer, played.zooms, len(asked)) == (StopReason.ANSWERED, "red", max_zooms, 1)
    *regions, last = played.turns
    assert len(regions) == max_zooms and last.tokens == Tokens(321, 12)
    assert all(protocol.well_formed(turn.text) and turn.tokens == Tokens(0, 0) for turn in regions)
    assert all(protocol.thought(turn.text) == THOUGHT for turn in regions)
    assert len({turn.text for turn in regions}) == max_zooms
    assert played.overview is not None
    for turn in regions:
        assert [observation.error for observation in turn.observations] == [None]
        (action,) = turn.actions
        assert isinstance(action, Zoom)
        box = Box(*action.box)
        assert Box(0, 0, 448, 252).coverage(box) == 1 and all(value % 14 == 0 for value in box)
    assert [message["role"] for message in asked[0]] == ["system", "user", *["assistant", "user"] * max_zooms]


def test_a_model_that_zooms_on_is_held_to_an_answer(chooser: RegionChooser, sample: Sample) -> None:
    def line(messages: Sequence[protocol.Message]) -> Completion:
        if not begun(messages):
            return Completion(ZOOM, Tokens(300, 20))
        assert begun(messages) == protocol.begin_answer("Closer.")
        return Completion(f"{begun(messages)}blue</answer>", Tokens(310, 2))

    played = play(Scripted(chooser, line), sample)
    assert (played.stop, played.answer, played.zooms) == (StopReason.ANSWERED, "blue", 2)
    assert played.turns[-1].text == protocol.write_answer("Closer.", "blue")
    assert played.turns[-1].tokens == Tokens(610, 22)


@pytest.mark.parametrize(
    ("reply", "stop"),
    [
        (Completion("<think>on and on", truncated=True), StopReason.TRUNCATED),
        (Completion("I wonder."), StopReason.MALFORMED),
        (Completion(ZOOM + "\n<tool_call>", truncated=True), StopReason.TRUNCATED),
    ],
)
def test_a_model_that_never_answers_is_recorded_as_such(
    chooser: RegionChooser, sample: Sample, reply: Completion, stop: StopReason
) -> None:
    def line(messages: Sequence[protocol.Message]) -> Completion:
        return Completion(begun(messages), truncated=reply.truncated) if begun(messages) else reply

    played = play(Scripted(chooser, line), sample)
    assert (played.stop, played.answer) == (stop, None)


def test_where_nothing_is_needed_the_overview_is_all(folder: Path, sample: Sample, tmp_path: Path) -> None:
    coroi._with_checkpoint(folder, tmp_path)
    scorer = load_scorer(folder)
    scorer.config = replace(scorer.config, needed=1.0)
    save_scorer(scorer, tmp_path)
    played = play(Scripted(RegionChooser(load(tmp_path)), [ANSWER]), sample)
    assert (played.zooms, len(played.turns), played.answer) == (0, 1, "red")


def test_an_image_that_goes_away_ends_the_run(chooser: RegionChooser, sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "gone.png"
    path.write_bytes(Path(sample.image).read_bytes())

    class Removing(Scripted):
        async def generate(self, *_: object) -> Completion:  # type: ignore[override]
            raise AssertionError

    policy = Removing(chooser, [])

    async def region(question: str, views: Sequence[View], images: Sequence[Image.Image]) -> Box | None:
        path.write_bytes(b"something else")
        return await chooser.region(question, views, images)

    policy.region = region
    played = play(policy, replace(sample, image=str(path)))
    assert played.stop is StopReason.ERROR and played.error


def test_nano_itself_reads_the_overview_and_the_regions_in_one_pass(folder: Path, sample: Sample) -> None:
    local = load(folder)
    way = strategies.by_name("coroi")(local, ZoomSettings(local.coordinates, local.limits))
    assert (way.settings.max_zooms, way.graph) == (2, COROI)
    context = Context(way.policy, ZoomEnvironment(way.settings), details=way.details)
    played = asyncio.run(COROI.run(sample, context))
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", played.settings["scorer"]) and played.zooms == 2
    assert isinstance(played.turns[-1].actions[-1], Answer)
    shown = evaluate.image_tokens(played)
    assert shown == sum(view.shown_size.area for view in played.views) / 28**2
    assert (played.turns[-1].tokens.prompt or 0) > shown
    assert evaluate.image_tokens_full(played) == 57 * 32  # 1600 x 900 pixels become 1596 x 896


# --- training


def test_a_few_steps_on_nano_lower_the_loss(nano: LocalPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroi, "LONG_SIDES", (224,))
    settings = ZoomSettings(nano.coordinates, nano.limits)
    config = coroi._config(nano)
    (batch,) = coroi.SceneLessons(config, settings, "test", 0, 1, images=3)
    torch.manual_seed(0)
    scorer = RegionScorer(config)
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = coroi.loss_of(*coroi.scored(scorer, nano, batch), batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    figures = coroi.measure(scorer, nano, [batch], ZoomEnvironment(settings))
    assert {"peak", "centre", "shown", "need"} <= set(figures)
    assert all(0 <= value <= 1 for value in figures.values())


def test_lessons_are_chains_whose_crops_show_what_was_sought(
    nano: LocalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coroi, "LONG_SIDES", (448,))
    monkeypatch.setattr(coroi, "SHIFTED", 0.0)
    settings = ZoomSettings(nano.coordinates, nano.limits)
    lessons = coroi.SceneLessons(coroi._config(nano), settings, "test", 3, 4, images=4)
    (batch,), (again,) = list(lessons), list(lessons)
    assert (batch.views, batch.asked) == (again.views, again.asked)
    later = [(before, asked) for before, asked in pairwise(batch.asked) if len(asked.images) > 1]
    assert later and {True, False} == {asked.needed for asked in batch.asked}
    assert all(asked.boxes or not asked.needed for asked in batch.asked)
    assert all(batch.images[k].size == (v.shown_size.width, v.shown_size.height) for k, v in enumerate(batch.views))
    for before, asked in later:
        assert asked.question == before.question
        assert batch.views[asked.images[1]].region.coverage(before.boxes[0]) > 0.9


def test_a_picture_that_is_no_scene_is_learned_from_its_boxes(sample: Sample) -> None:
    known = replace(sample, boxes=(Box(0, 0, 90, 90), Box(1200, 600, 1300, 700)))
    limits = PixelLimits(max_pixels=448 * 252)
    environment = ZoomEnvironment(ZoomSettings(limits=limits))
    overview = environment.reset(known)
    crop = View(overview.source_size, Box(0, 0, 100, 100), Size(196, 196))
    assert coroi.next_box(known, [overview], environment) == known.boxes[0]
    assert coroi.next_box(known, [overview, crop], environment) == known.boxes[1]
    whole = ZoomEnvironment(ZoomSettings(limits=replace(limits, max_pixels=1600 * 900)))
    assert coroi.next_box(known, [whole.reset(known)], whole) is None


def arguments(monkeypatch: pytest.MonkeyPatch, *given: object) -> None:
    monkeypatch.setattr(sys, "argv", ["sft.papers.coroi", *map(str, given)])


def test_no_picture_is_both_trained_on_and_held_out() -> None:
    scenes = [
        Sample(f"{k}@{side}", f"{k}-{side}.png", "?", metadata={QUESTION: str(k)})
        for k in range(11)
        for side in (448, 1024)
    ]
    photos = [Sample(f"{k}", f"{k % 11}.png", "?") for k in range(40)]
    for samples in (scenes, photos):
        apart, trained = coroi._apart(samples, seed=3)
        of_both = {coroi._picture(one) for one in apart} & {coroi._picture(one) for one in trained}
        assert apart and not of_both and len(apart) + len(trained) == len(samples)
        assert not {one.image.partition("-")[0] for one in apart} & {one.image.partition("-")[0] for one in trained}


def test_training_writes_a_model_that_can_be_used_and_is_done_once(
    sample: Sample, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [shutil.copy(sample.image, tmp_path / f"{k}.png") for k in range(3)]
    known = [
        replace(sample, id=str(k), image=str(one), boxes=(Box(k, 0, 90 + k, 80),)) for k, one in enumerate(pictures)
    ]
    data, output = tmp_path / "samples.jsonl", tmp_path / "out"
    data.write_text("".join(to_json(one) + "\n" for one in known))
    arguments(monkeypatch, "--model", "nano", "--output", output, "--data", data, "--steps", 2)
    coroi.main()
    assert "held out: peak" in capsys.readouterr().err
    record = json.loads((output / FOLDER / coroi.RECORD).read_text())
    assert (record["steps"], record["data"]) == (2, str(data))
    assert not (output / coroi.STATE).exists()
    assert RegionChooser(load(output)).regions == 2
    coroi.main()
    assert "left as it is" in capsys.readouterr().out
    arguments(monkeypatch, "--model", "nano", "--output", output, "--data", data, "--steps", 3)
    with pytest.raises(InputError, match="was trained with steps 2 and not 3"):
        coroi.main()


@pytest.mark.parametrize(
    ("rows", "model", "said"),
    [
        ([{"id": "a", "image": "a.png", "question": "?"}], "nano", "has no samples with boxes"),
        ([], "nowhere", "there is no model directory nowhere"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    rows: list[dict[str, object]],
    model: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "samples.jsonl"
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments(monkeypatch, "--model", model, "--output", tmp_path / "out", "--data", data)
    with pytest.raises(SystemExit) as ended:
        explained("sft.papers.coroi", coroi.main)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
