"""Teaches the region scorer of CoRoI where to look (arXiv 2505.06840): `python -m sft.papers.coroi --model nano --output DIR`.

The model stays as it is; the scorer (`cof_agent.strategies.coroi.scorer`) learns from boxes alone. For each question the chain
of regions is played as it should be: the next thing that cannot be read yet, the tightest window over it, the crop of that
window, and again. Scores are taught by the cross-entropy with how much of the thing lies in each patch, and at the same time
whether a region is needed. Questions are those of drawn scenes, or with --data SAMPLES any that have boxes. DIR holds the
model's own checkpoint and the scorer beside it, for `--model DIR --strategy coroi`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.data.samples import read_samples
from cof_agent.environment import FULL_DETAIL, ZoomEnvironment, ZoomSettings
from cof_agent.episodes import QUESTION
from cof_agent.errors import InputError
from cof_agent.geometry import Box, View
from cof_agent.nano.build import FAMILY
from cof_agent.output.files import write_atomic
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.questions import CATEGORIES, ask
from cof_agent.scenes.scene import generate
from cof_agent.strategies.coroi.scorer import (
    FOLDER,
    Query,
    RegionScorer,
    ScorerConfig,
    Seen,
    save_scorer,
    score_maps,
)
from cof_agent.strategies.coroi.windows import Window, best_window, box_of, share_of
from cof_agent.training.command import explained
from cof_agent.trajectory import Sample
from sft.nano.curriculum import SHOWN, WEIGHTS, overview_of, sample_without_image, style
from sft.nano.stage import SAVE_EVERY, Optimiser, Report, is_finished, keep, options, restore

IMAGES = 16  # a step
QUESTIONS = 6  # about each scene
FOLLOWED = 1  # of them beyond the first region: a crop takes as long as all the questions about an overview
LONG_SIDES = (224, 448, 448, 448, 896)  # shown pixels of a full scene's overview, one drawn for each step
SIMPLE = 0.2  # share of scenes that are simpler than those of the benchmark
SHIFTED = 0.3  # share of windows that are cut a cell off, as the scorer's own will be
HELD_OUT = 64  # samples, of as many pictures at most, a tenth of all; drawn scenes: a quarter as many
COVERED = 0.95  # of a thing, for a region to show it


@dataclass(frozen=True, slots=True)
class Asked:
    """One step of a chain. images: of the batch, by number, the overview and the crops so far. boxes: where the next thing
    is, in source pixels; a thing that is to be found may be there without a region being `needed` for it."""

    question: str
    images: tuple[int, ...]
    boxes: tuple[Box, ...]
    needed: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Steps of chains, and the images that they are about, with their views."""

    views: list[View]
    images: list[Image]
    asked: list[Asked]


class Chains:
    """Makes the steps of a batch."""

    def __init__(self, environment: ZoomEnvironment, config: ScorerConfig, random: Random) -> None:
        self.environment, self.config, self.random = environment, config, random
        self.batch = Batch([], [], [])

    def add(self, samples: Sequence[Sample], overview: View, draw: Callable[[View], Image]) -> None:
        """The chain of each sample, all of one image, whose views `draw` shows."""
        first = self._show(overview, draw)
        for place, sample in enumerate(samples):
            numbers = [first]
            for left in reversed(range(self.config.regions if place < FOLLOWED else 1)):
                views = [self.batch.views[number] for number in numbers]
                box = next_box(sample, views, self.environment)
                sought = _sought(sample) if len(views) == 1 else None
                boxes = tuple(found for found in (box or sought,) if found)
                self.batch.asked.append(Asked(sample.question, tuple(numbers), boxes, box is not None))
                crop = self._crop(box, overview) if box and left else None
                if crop is None or crop in views:
                    break
                numbers.append(self._show(crop, draw))

    def _show(self, view: View, draw: Callable[[View], Image]) -> int:
        self.batch.views.append(view)
        self.batch.images.append(draw(view))
        return len(self.batch.views) - 1

    def _crop(self, box: Box, overview: View) -> View:
        """The tightest window over a box, now and then a cell off, as the environment cuts it."""
        patch = self.environment.settings.limits.grid // self.config.merge
        rows, columns = overview.shown_size.height // patch, overview.shown_size.width // patch
        window = best_window(share_of([box], overview, rows, columns), self.config.factors)
        if self.random.random() < SHIFTED:
            x, y = window.x + self.random.choice((-1, 0, 1)), window.y + self.random.choice((-1, 0, 1))
            x, y = min(max(0, x), columns - window.width), min(max(0, y), rows - window.height)
            window = Window(x, y, window.width, window.height, window.score)
        return self.environment.crop_view(box_of(window, overview, rows, columns), overview.source_size)


def next_box(sample: Sample, views: Sequence[View], environment: ZoomEnvironment) -> Box | None:
    """What is to be looked at next, in source pixels: for a scene what the oracle would look at, for another picture the
    first box that no view shows at full detail; None if there is nothing."""
    if "looks" in sample.metadata:
        found = oracle.next_target(sample, views, environment)
        return found[2] if found else None
    crops = [view.region for view in views[1:]]
    if views[0].scale >= FULL_DETAIL:
        return None
    return next((box for box in sample.boxes if not any(crop.coverage(box) > COVERED for crop in crops)), None)


def _sought(sample: Sample) -> Box | None:
    """What the question is about first, whether or not it can be read."""
    if "looks" in sample.metadata:
        return next((look.boxes[0] for look in oracle.looks(sample)), None)
    return next(iter(sample.boxes), None)


@dataclass
class SceneLessons(IterableDataset[Batch]):
    """The batches of a run about drawn scenes."""

    config: ScorerConfig
    settings: ZoomSettings
    key: str
    start: int
    steps: int
    images: int = IMAGES

    def __iter__(self) -> Iterator[Batch]:
        environment = ZoomEnvironment(self.settings)
        for step in range(self.start, self.steps):
            random = Random(f"coroi:{self.key}:{step}")
            long_side = random.choice(LONG_SIDES)
            chains = Chains(environment, self.config, random)
            for k in range(
                self.images if long_side <= SHOWN else self.images // 4
            ):  # else one step is longer than the others
                growth = random.random() if random.random() < SIMPLE else 1.0
                scene = generate(f"coroi:{self.key}:{step}:{k}", style(growth))
                questions = [ask(scene, random.choices(CATEGORIES, WEIGHTS)[0], random) for _ in range(QUESTIONS)]
                samples = [sample_without_image(scene, question, random) for question in questions if question]
                chains.add(
                    samples,
                    overview_of(scene, long_side),
                    lambda view, scene=scene: sketch(scene, view.region, view.shown_size),  # type: ignore[misc]
                )
            yield chains.batch


@dataclass
class SampleLessons(IterableDataset[Batch]):
    """The batches of a run about samples with boxes, drawn with the seed."""

    config: ScorerConfig
    settings: ZoomSettings
    key: str
    start: int
    steps: int
    samples: Sequence[Sample]
    images: int = IMAGES

    def __iter__(self) -> Iterator[Batch]:
        environment = ZoomEnvironment(self.settings, source_cache=0)
        for step in range(self.start, self.steps):
            random = Random(f"coroi:{self.key}:{step}")
            chains = Chains(environment, self.config, random)
            for sample in random.sample(self.samples, min(self.images, len(self.samples))):
                chains.add(
                    [sample],
                    environment.reset(sample),
                    lambda view, sample=sample: environment.image(sample, view),  # type: ignore[misc]
                )
            yield chains.batch


def scored(scorer: RegionScorer, policy: LocalPolicy, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """What the scorer says to each step of a batch (see `score_maps`); the model's features are reckoned once an image."""
    features, cell = policy.features(batch.images), policy.limits.grid
    seen = [Seen(view, one, cell) for view, one in zip(batch.views, features, strict=True)]
    words = {question: policy.embeddings(question) for question in {asked.question for asked in batch.asked}}
    return score_maps(scorer, seen, [Query(words[asked.question], asked.images) for asked in batch.asked])


def loss_of(maps: Sequence[Tensor], needs: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the patches with where the next thing is, and of whether a region is needed for it."""
    where = []
    for scores, asked in zip(maps, batch.asked, strict=True):
        if asked.boxes:
            share = torch.from_numpy(share_of(asked.boxes, batch.views[asked.images[0]], *scores.shape)).to(scores)
            where.append(-(share * scores.flatten().log_softmax(0).view_as(scores)).sum())
    needed = torch.tensor([float(asked.needed) for asked in batch.asked], device=needs.device)
    whether = F.binary_cross_entropy_with_logits(needs, needed)
    return whether + torch.stack(where).mean() if where else whether


@torch.no_grad()
def measure(
    scorer: RegionScorer, policy: LocalPolicy, batches: Sequence[Batch], environment: ZoomEnvironment
) -> dict[str, float]:
    """Over steps for which a region is needed, the shares whose best patch lies on the thing (`peak`; `centre`: the
    patch in the middle does) and whose region shows all of it (`shown`; `next`: the same of those that come after another
    region); and over all steps, whether what is said of the need is right (`need`). The regions before are the true ones,
    so that `next` says less than `cof eval --strategy coroi`, where they are the scorer's own."""
    found: dict[str, list[float]] = {"peak": [], "centre": [], "shown": [], "next": [], "need": []}
    scorer.eval()
    for batch in batches:
        maps, needs = scored(scorer, policy, batch)
        for scores, need, asked in zip(maps, needs, batch.asked, strict=True):
            found["need"].append((need.sigmoid().item() >= scorer.config.needed) == asked.needed)
            if not asked.needed:
                continue
            overview = batch.views[asked.images[0]]
            share, (rows, columns) = share_of(asked.boxes, overview, *scores.shape), scores.shape
            chances = scores.flatten().softmax(0).view_as(scores).double().cpu().numpy()
            found["peak"].append(float(share.flat[chances.argmax()] > 0))
            found["centre"].append(float(share[rows // 2, columns // 2] > 0))
            box = box_of(best_window(chances, scorer.config.factors), overview, rows, columns)
            region = environment.crop_view(box, overview.source_size).region
            found["next" if len(asked.images) > 1 else "shown"].append(region.coverage(asked.boxes[0]) > COVERED)
    scorer.train()
    return {name: round(fmean(values), 4) for name, values in found.items() if values}


def train(model: str, output: Path, *, data: Path | None, steps: int, rate: float, seed: int) -> None:
    """Train a scorer for a model, and write both to `output`; a finished run is left as it is.

    Raises:
        InputError: if the model is in no folder, there is nothing to train it on, or `output` holds a run with other settings.
    """
    done = {"model": model, "steps": steps, "rate": rate, "seed": seed, "data": str(data) if data else None}
    if is_finished(output / FOLDER / RECORD, done):
        return
    policy = load(model)
    if policy.folder is None:
        raise InputError(f"{model} is no folder; download the checkpoint, and name its folder as --model.")
    config = _config(policy)
    settings = ZoomSettings(system=policy.coordinates, limits=policy.limits)
    lessons, held_out = _lessons(config, settings, data, steps, seed)
    torch.manual_seed(seed)
    scorer = RegionScorer(config).to(policy.model.device)
    optimiser = Optimiser(scorer.parameters(), rate, steps)
    stateful = {"scorer": scorer, "optimiser": optimiser}
    lessons.start = start = restore(output / STATE, stateful, done)
    report, environment = Report(steps, start, "coroi"), ZoomEnvironment(settings)
    batches = DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=4)
    for step, batch in enumerate(report.track(batches), start + 1):
        loss = loss_of(*scored(scorer, policy, batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        report.add({"loss": loss.item()})
        if step % SAVE_EVERY == 0 and step < steps:
            keep(output / STATE, step, stateful, done)
            report.say("held out", measure(scorer, policy, held_out, environment))
    figures = measure(scorer, policy, held_out, environment)
    report.say("held out", figures)
    _with_checkpoint(policy.folder, output)
    save_scorer(scorer, output)
    write_atomic(output / FOLDER / RECORD, json.dumps(done | {"held_out": figures}) + "\n")
    (output / STATE).unlink(missing_ok=True)


STATE, RECORD = "coroi-state.pt", "training.json"


def _config(policy: LocalPolicy) -> ScorerConfig:
    """A scorer for a model: twice as wide where the model's features are as wide as those of a large one."""
    features = policy.model.config.get_text_config().hidden_size
    return ScorerConfig(features, policy.model.config.vision_config.spatial_merge_size, 128 if features < 1024 else 256)


def _lessons(
    config: ScorerConfig, settings: ZoomSettings, data: Path | None, steps: int, seed: int
) -> tuple[SceneLessons | SampleLessons, list[Batch]]:
    """What is trained on, and the batches that are held out."""
    if data is None:
        if settings.limits.grid != FAMILY.vision.grid:
            raise InputError(
                f"scenes are for a grid of {FAMILY.vision.grid} pixels, not {settings.limits.grid}; give --data SAMPLES."
            )
        held = SceneLessons(config, settings, f"held:{seed}", 0, 4, HELD_OUT // 16)
        return SceneLessons(config, settings, f"train:{seed}", 0, steps), list(held)
    samples = [sample for sample in read_samples(data) if sample.boxes]
    if not samples:
        raise InputError(f"{data} has no samples with boxes; regions are learned from them.")
    apart, trained = _apart(samples, seed)
    if not trained:
        raise InputError(
            f"{data} has {len(samples)} samples with boxes, of one picture; regions are learned from two or more."
        )
    held_out = SampleLessons(config, settings, f"held:{seed}", 0, 1, apart, HELD_OUT)
    return SampleLessons(config, settings, f"train:{seed}", 0, steps, trained), list(held_out)


def _apart(samples: Sequence[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """What is held out, and what is trained on: no picture is in both."""
    pictures = sorted({_picture(sample) for sample in samples})
    unseen = set(Random(seed).sample(pictures, min(HELD_OUT, max(1, len(pictures) // 10))))
    apart = [sample for sample in samples if _picture(sample) in unseen]
    return apart, [sample for sample in samples if _picture(sample) not in unseen]


def _picture(sample: Sample) -> str:
    """What a sample is about: its image, or the scene that several of its images show at different sizes."""
    return str(sample.metadata.get(QUESTION, sample.image))


def _with_checkpoint(folder: Path, output: Path) -> None:
    """The files of a checkpoint also in `output`, without a copy where the file system can do without."""
    for file in folder.iterdir():
        if not file.is_file() or (output / file.name).exists():
            continue
        output.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), output / file.name)
        except OSError:
            shutil.copyfile(file, output / file.name)


def main() -> None:
    given = options(__doc__, "model", "output", optional=("data",), steps=800, rate=1.5e-3)
    train(str(given.model), given.output, data=given.data, steps=given.steps, rate=given.rate, seed=given.seed)


if __name__ == "__main__":
    explained("sft.papers.coroi", main)
