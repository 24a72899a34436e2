"""Teaches a Qwen2.5-VL to read regions as embeddings (GPT4RoI, arXiv 2307.03601, section 3.2), in two stages:

    python -m sft.papers.gpt4roi --config sft/configs/nano-regions.yaml
    python -m sft.papers.gpt4roi --config sft/configs/nano-regions.yaml --stage 2 --model_name_or_path outputs/nano-regions-1 ...

Stage 1 trains the extractor alone, on short texts; stage 2 everything but the vision encoder. With `as_text` the same rows name
their boxes in words, for a model without an extractor: what the embeddings are held against. Loss falls on answers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL.Image import Image
from transformers import set_seed
from trl import SFTConfig

from cof_agent import protocol
from cof_agent.backends import families
from cof_agent.backends.local.cpu import speed_up_training
from cof_agent.backends.local.reader import limits_of
from cof_agent.backends.regions.features import slotted, with_regions
from cof_agent.data.region_sets import drawn
from cof_agent.data.unusable import NO_ANSWER, NOT_AN_IMAGE, Unusable
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, Size, View
from cof_agent.output.terminal import console
from cof_agent.protocol.messages import plainly
from cof_agent.region_refs import located, rounds
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.training import settings
from cof_agent.training.command import explained
from cof_agent.training.models import freeze, load_model, read_checkpoint
from cof_agent.training.progress import progress
from cof_agent.training.resume import check_continues, says_finished, train_and_save
from cof_agent.training.rows import batches_of
from cof_agent.training.trainer import held_out_of
from cof_agent.trajectory import Sample
from sft.collate import AssistantCollator
from sft.dataset import to_row
from sft.frame import Outline
from sft.nano import curriculum
from sft.train import COLUMNS, as_dataset
from sft.trainer import ZoomSFTTrainer

DRAWN = "drawn"
SEEN = "I look at the regions."  # the thought of an answer where the sample gives none
ZOOMING = curriculum.Plan(regions=1.0, sources=(1.0, 1.0, 0.5))
OF_CROPS = ("zoom_pixels", "enlarge", "min_side", "zoom_scale")
OF_CONVERSATIONS = ("system_prompt", "tools", "resolutions")
ASKED = 2  # times that a drawn scene's kinds of questions are asked in its conversation, in any order


@dataclass
class RunConfig(settings.RunConfig):
    """What is trained on what. data: `drawn`, scenes without end, or samples with regions as `cof regions` writes them."""

    freeze_vision: bool = field(default=True, metadata={"help": "Both stages leave the vision encoder as it is."})
    stage: int = field(default=1, metadata={"help": "1: the extractor alone; 2: all but the vision encoder."})
    as_text: bool = field(default=False, metadata={"help": "Boxes in words, and no extractor (in stage 2)."})
    zooming: float = field(
        default=0.0, metadata={"help": "Share of drawn conversations that are the agent's, with zooms into regions."}
    )


@dataclass(frozen=True)
class Settings(settings.Settings):
    """A run's resolved configuration."""

    run: RunConfig
    training: SFTConfig


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The settings of `--config FILE [--key value ...]`.

    Raises:
        InputError: as `cof_agent.training.settings.parse`, or if what is asked for makes no sense.
    """
    run, training, model = settings.parse((RunConfig, SFTConfig), arguments)
    if run.stage not in (1, 2):
        raise InputError(f"stage must be 1 or 2, not {run.stage}.")
    if run.as_text and run.stage == 1:
        raise InputError("as_text has no extractor to train alone; give --stage 2 with it.")
    if not 0 <= run.zooming <= 1:
        raise InputError(f"zooming is a share from 0 to 1, not {run.zooming:g}.")
    if run.data == DRAWN and not run.samples:
        raise InputError("drawn scenes have no end: say how many with --samples.")
    if run.dry_run:
        raise InputError("this training has no dry run; leave dry_run out.")
    if model.use_peft:
        raise InputError("the two stages train whole modules; leave use_peft out.")
    if not run.freeze_vision:
        raise InputError("both stages leave the vision encoder as it is; leave freeze_vision out.")
    if given := [name for name in (*OF_CROPS, *OF_CONVERSATIONS) if getattr(run, name)]:
        raise InputError(f"{given[0]} has no effect on these lessons; leave it out.")
    if not run.as_text and (model.dtype not in (None, "float32") or model.attn_implementation is not None):
        raise InputError(
            "a region model is trained in float32 with its own attention; leave dtype and attn_implementation out."
        )
    training.max_length, training.assistant_only_loss = None, False
    return Settings(run, training, model)


class DrawnRows:
    """The first `count` scenes of a seed, a conversation about each: the kinds of `drawn.samples_of` and `drawn.show_of`,
    `ASKED` times, or for a share of `zooming` the agent's about the scenes of `cof scenes`. Each question counts its regions
    anew (see `sft.dataset.Rows`)."""

    def __init__(
        self, environment: ZoomEnvironment, seed: int, count: int, *, as_text: bool, zooming: float = 0.0
    ) -> None:
        self._environment, self._seed, self._count, self._as_text = environment, seed, count, as_text
        self._zooming = zooming

    def __len__(self) -> int:
        return self._count

    def where(self, index: int) -> tuple[str, int]:
        return f"train:{self._seed}", index + 1

    def outline(self, index: int) -> Outline:
        made = self.row(index)
        return Outline(made["messages"], [Size(*image.size) for image in made["images"]])

    def row(self, index: int) -> dict[str, Any]:
        key = f"train:{self._seed}:{index}"
        if Random(f"zooming:{key}").random() < self._zooming:
            return _slotted_row(curriculum.row(ZOOMING, self._environment, key), as_text=self._as_text)
        scene = drawn.scene_of(key)
        view = self._environment.overview(scene.size)
        samples: list[Sample] = []
        for asked in (f"{key}:{time}" for time in range(ASKED)):
            samples += [*drawn.samples_of(scene, asked), drawn.show_of(scene, asked)]
        Random(f"order:{key}").shuffle(samples)  # else each kind would be known by its place
        image = sketch(scene, view.region, view.shown_size)
        return row_of(samples, view, image, self._environment.settings.system, as_text=self._as_text)


class SampleRows:
    """Samples with regions, one conversation each, of all their rounds."""

    def __init__(self, samples: Sequence[Sample], environment: ZoomEnvironment, *, as_text: bool) -> None:
        self._samples, self._environment, self._as_text = samples, environment, as_text

    def __len__(self) -> int:
        return len(self._samples)

    def where(self, index: int) -> tuple[str, int]:
        return self._samples[index].id, index + 1

    def outline(self, index: int) -> Outline:
        sample = self._samples[index]
        try:
            view = self._environment.reset(sample)
            if not all(answer for _, answer in rounds(sample)):
                raise Unusable(NO_ANSWER)
        except InputError as error:
            raise Unusable(NOT_AN_IMAGE, error) from None
        return Outline([], [view.shown_size])

    def row(self, index: int) -> dict[str, Any]:
        sample = self._samples[index]
        view = self._environment.reset(sample)
        image = self._environment.image(sample, view)
        return row_of([sample], view, image, self._environment.settings.system, as_text=self._as_text)


def row_of(
    samples: Sequence[Sample], view: View, image: Image, system: CoordinateSystem, *, as_text: bool
) -> dict[str, Any]:
    """A conversation about one image: every round of the samples, in the agent's format.

    Returns:
        TRL's columns (`sft.dataset.to_row`) and `regions`: a box in shown pixels for each slot of the messages, in order.
    """
    messages = protocol.opening(replace(samples[0], question=""), view, system=system)
    head = messages.pop()["content"][0]  # the image, which stands before the first question
    for sample in samples:
        thought = str(sample.metadata.get(drawn.THOUGHT, SEEN))
        (_, first), *further = rounds(sample)
        for question, answer in [(protocol.question_text(sample), first), *further]:
            text = plainly(located(question, sample.regions, view, system))
            content = [*([] if len(messages) > 1 else [head]), {"type": "text", "text": text}]
            messages.append({"role": "user", "content": content})
            if sample.metadata.get("category") == drawn.SHOW:
                reply = protocol.write_zoom(thought, oracle.pointing_box(view, sample.regions[0], system))
            else:
                reply = protocol.write_answer(thought, answer)
            messages.append(protocol.assistant(reply))
    return _slotted_row(to_row(messages, [image]), as_text=as_text)


def _slotted_row(row: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
    """TRL's columns with slots in place of the boxes that users name, and `regions`; with boxes in words as they are."""
    boxes: list[list[float]] = []
    for message in row["messages"]:
        for part in message["content"]:
            if message["role"] == "user" and part["type"] == "text" and not as_text:
                part["text"], found = slotted(part["text"])
                boxes += found
    return row | {"regions": boxes}


@dataclass
class RegionCollator(AssistantCollator):
    """`AssistantCollator` with the boxes, all in the first image of their row: `regions` as `RegionQwen.forward` takes them."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        first = [0, *accumulate(len(row["images"]) for row in rows)]
        regions = [[float(image), *box] for image, row in zip(first, rows, strict=False) for box in row["regions"]]
        return {**batch, "regions": torch.tensor(regions)} if regions else batch


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    check_continues(given)
    if not says_finished(given.training):
        train_and_save(build_trainer(given), given)


def build_trainer(given: Settings) -> ZoomSFTTrainer:
    """The trainer with its model, processor and data; nothing is trained yet.

    Raises:
        InputError: if the model or the data cannot be read, or nothing in the data can be trained on.
    """
    run, training = given.run, given.training
    if run.threads:
        torch.set_num_threads(run.threads)
    set_seed(training.seed)
    config, processor = read_checkpoint(given)
    model = load_model(given) if run.as_text else None
    if model is None:
        size = processor.image_processor.size  # as min_pixels and max_pixels have it
        model, processor = with_regions(given.model_path, seed=training.seed, dtype=torch.float32)
        processor.image_processor.size = size
        _freeze(model, given)
    limits = limits_of(config, processor, run.overview_pixels, None)
    environment = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE, limits), source_cache=0)
    rows, kept = _rows(given, environment)
    batches_of(training, len(kept))  # refuses too few of them
    return ZoomSFTTrainer(
        model=model,
        args=training,
        processing_class=processor,
        data_collator=RegionCollator(processor, families.of(config).markers),
        train_dataset=as_dataset(rows, kept),
        eval_dataset=as_dataset(rows, kept[:1]) if run.eval_data else None,
        agent=given.run.agent_config(),
        held_out=held_out_of(given),
        record=settings.record(given) | {"data": {"samples": len(kept), "left out": len(rows) - len(kept)}},
        callbacks=progress(COLUMNS, quiet=run.quiet),
    )


def _freeze(model: Any, given: Settings) -> None:
    if given.run.stage == 1:
        model.requires_grad_(False)
        model.region_extractor.requires_grad_(True)
    freeze(model, given)
    if given.training.use_cpu:
        speed_up_training(model)


def _rows(given: Settings, environment: ZoomEnvironment) -> tuple[DrawnRows | SampleRows, list[int]]:
    """The conversations, and which of them can be trained on; says how many cannot, and why the first.

    Raises:
        InputError: if none can.
    """
    run = given.run
    if run.data == DRAWN:
        made = DrawnRows(environment, given.training.seed, run.samples or 0, as_text=run.as_text, zooming=run.zooming)
        return made, list(range(len(made)))
    rows = SampleRows(
        run.read(keep_images=Path(str(given.training.output_dir)) / "images"), environment, as_text=run.as_text
    )
    kept, why = [], ""
    for index in range(len(rows)):
        try:
            rows.outline(index)
        except Unusable as reason:
            why = why or f"{rows.where(index)[0]}: {reason}"
        else:
            kept.append(index)
    if not kept:
        raise InputError(f"nothing in {run.data} can be trained on; {why}.")
    if why:
        console(stderr=True).print(f"{len(rows) - len(kept)} samples are left out; {why}.", soft_wrap=True)
    return rows, kept


if __name__ == "__main__":
    explained("sft.papers.gpt4roi", main)
