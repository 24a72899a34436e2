"""Fine-tunes a Qwen-VL on zoom trajectories: `accelerate launch -m sft.train --config sft/configs/NAME.yaml [--key value ...]`.

Loss falls on every assistant turn and on nothing else. The same command on one CPU and on many GPUs; after an
interruption it goes on from the last whole checkpoint, with the same order of data, optimiser and random numbers.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from rich.console import Console
from torch.utils.data import get_worker_info
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForImageTextToText, set_seed
from trl.trainer.utils import get_quantization_config

from cof_agent.backends.cpu import speed_up_vision
from cof_agent.backends.processor import load_processor
from cof_agent.errors import InputError
from cof_agent.samples import read_samples
from sft import measure
from sft.collate import AssistantCollator
from sft.curriculum import CurriculumRows, Plan
from sft.dataset import Rows, read_rows
from sft.frame import Frame, frame_of
from sft.settings import CURRICULUM, Settings, parse, record, write_record
from sft.trainer import AgentEvaluation, ZoomSFTTrainer

LINEAR = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
"""The linear layers of a language model of these families."""
TOWER = r"qkv|attn\.proj|gate_proj|up_proj|down_proj|fc1|fc2|linear_fc1|linear_fc2"


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    if settings.run.dry_run:
        from sft import plan

        plan.show(settings)
        return
    trainer = build_trainer(settings)
    if trainer.is_world_process_zero():
        write_record(settings)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(Path(settings.training.output_dir)))
    trainer.save_model()
    trainer.create_model_card()


def build_trainer(settings: Settings) -> ZoomSFTTrainer:
    """The trainer with its model, processor and data; nothing is trained yet.

    Raises:
        InputError: if the model or the data cannot be read, or nothing in the data can be trained on.
    """
    run, training = settings.run, settings.training
    if run.threads:
        torch.set_num_threads(run.threads)
    set_seed(training.seed)  # also of an adapter's first weights, which are drawn before the trainer sets its own
    config, processor = read_checkpoint(settings)
    frame = frame_of(config, processor)
    rows, measured = read_data(settings, processor, frame)
    agent = _agent(settings)
    if training.deepspeed:
        import deepspeed

        # Under ZeRO-3 the weights are shared out while they are read, and by then it must know of all processes.
        deepspeed.init_distributed("gloo" if training.use_cpu else None)
    model = _model(settings)
    return ZoomSFTTrainer(
        model=model,
        args=training,
        processing_class=processor,
        data_collator=AssistantCollator(processor),
        train_dataset=_dataset(rows, [one.index for one in measured.kept]),
        eval_dataset=_dataset(rows, [measured.kept[0].index]) if agent else None,  # the trainer insists on one
        peft_config=lora(settings) if settings.model.use_peft else None,
        agent=agent,
        record=record(settings) | {"data": _figures(measured)},
    )


def read_checkpoint(settings: Settings) -> tuple[Any, Any]:
    """Configuration and processor of the model; no weights.

    Raises:
        InputError: if there is no such checkpoint, or it is an adapter.
    """
    path, run = settings.model_path, settings.run
    if (Path(path) / "adapter_config.json").exists():
        raise InputError(f"{path} is an adapter; fold it into its model first: cof merge {path} -o DIR.")
    try:
        config = AutoConfig.from_pretrained(path)
        processor: Any = load_processor(path)
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        raise InputError(f"cannot read the model {path}: {' '.join(str(error).split())[:200]}") from None
    size = dict(processor.image_processor.size)
    size["shortest_edge"] = run.min_pixels or size["shortest_edge"]
    size["longest_edge"] = run.max_pixels or size["longest_edge"]
    processor.image_processor.size = size
    return config, processor


def read_data(settings: Settings, processor: Any, frame: Frame) -> tuple[Rows, measure.Measured]:
    """The samples and their measures; prints the table, and lists what is left out beside the checkpoints.

    Raises:
        InputError: if nothing can be trained on, saying why.
    """
    run, first = settings.run, settings.training.process_index == 0
    if run.data == CURRICULUM:
        rows: Rows = CurriculumRows(Plan(**run.plan), settings.training.seed, run.samples or 0)
        return rows, measure.Measured([measure.Measure(index, 0, 0, 0, 0) for index in range(len(rows))], {})
    rows = read_rows(run.data, frame, split=run.split, limit=run.samples)
    measured = measure.measure(rows, processor, frame, settings.max_length, progress=first)
    left_out = Path(settings.training.output_dir) / "left_out.jsonl"
    if not measured.kept:
        name, reason = next(iter(measured.left_out.items()))
        raise InputError(
            f"nothing in {run.data} can be trained on; of the first of its {len(rows)} samples, {name}: {reason}."
        )
    if first:
        if not run.dry_run:
            measure.write_left_out(measured, left_out)
        Console(stderr=True).print(measure.table(measured, left_out))
    return rows, measured


def _figures(measured: measure.Measured) -> dict[str, Any]:
    kept = measured.kept
    return {
        "samples": len(kept),
        "left_out": len(measured.left_out),
        "tokens": sum(one.tokens for one in kept) or "?",
        "images": sum(one.images for one in kept) or "?",
    }


def _dataset(rows: Rows, indices: list[int]) -> Dataset:
    """Rows that are made when they are read, so that nothing is decoded ahead and a resumed run skips in no time."""

    def read(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        yield_to_training()
        made = [rows.row(index) for index in batch["index"]]
        return {key: [entry[key] for entry in made] for key in ("messages", "images")}

    return Dataset.from_dict({"index": indices}).with_transform(read)


@cache
def yield_to_training() -> None:
    """Lower the priority of a data worker: a core taken from a two-threaded matrix product stalls the other one too."""
    if get_worker_info() is not None:
        os.nice(19)


def _agent(settings: Settings) -> AgentEvaluation | None:
    run = settings.run
    if run.eval_data is None or settings.training.eval_strategy == "no":
        return None
    samples = read_samples(run.eval_data, limit=run.eval_samples)
    return AgentEvaluation(samples, run.eval_max_pixels, run.eval_zoom_pixels, run.eval_max_tokens)


def _model(settings: Settings) -> Any:
    path, asked = settings.model_path, settings.model
    options: dict[str, Any] = {"dtype": asked.dtype if asked.dtype in ("auto", None) else getattr(torch, asked.dtype)}
    if asked.attn_implementation:
        options["attn_implementation"] = asked.attn_implementation
    if (quantization := get_quantization_config(asked)) is not None:
        options |= {"quantization_config": quantization, "device_map": {"": settings.training.device}}
    try:
        model = AutoModelForImageTextToText.from_pretrained(path, **options)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"cannot load the model {path}: {' '.join(str(error).split())[:200]}") from None
    freeze(model, settings)
    if settings.training.use_cpu:
        speed_up_vision(model)
    return model


def freeze(model: Any, settings: Settings) -> None:
    """Takes out of training what the settings leave as it is: the tower, the projector (`merger` in these families)."""
    for name, parameter in model.model.visual.named_parameters():
        projector = "merger" in name
        if settings.run.freeze_projector if projector else settings.run.freeze_vision:
            parameter.requires_grad_(False)


def lora(settings: Settings) -> LoraConfig:
    """LoRA on all linear layers of the language model, and of the tower unless it is frozen; the projector is trained
    in full unless it is frozen. `lora_target_modules` and `lora_modules_to_save` of the configuration come first."""
    asked, run = settings.model, settings.run
    language = rf"model\.language_model\..*\.({LINEAR})"
    tower = rf"model\.visual\.blocks\..*\.({TOWER})"
    projectors = ["merger", "deepstack_merger_list"]
    return LoraConfig(
        r=asked.lora_r,
        lora_alpha=asked.lora_alpha,
        lora_dropout=asked.lora_dropout,
        target_modules=asked.lora_target_modules or (language if run.freeze_vision else f"({language}|{tower})"),
        modules_to_save=asked.lora_modules_to_save or (None if run.freeze_projector else projectors),
        use_rslora=asked.use_rslora,
        use_dora=asked.use_dora,
        task_type="CAUSAL_LM",
    )


def last_whole_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that was written to its end; one that a kill cut off has no `trainer_state.json`, which
    is written last."""
    whole = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    numbered = [(int(found[1]), path) for path in whole if (found := re.fullmatch(r"checkpoint-(\d+)", path.name))]
    return str(max(numbered)[1]) if numbered else None


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        for bar in list(tqdm._instances):
            bar.close()  # now, rather than after the sentence
        print(f"\nsft.train: {error}", file=sys.stderr)
        sys.exit(2)
