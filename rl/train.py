"""Multi-turn GRPO whose rollout is the zoom agent: `accelerate launch -m rl.train --config FILE [--key value ...]`.

The same command goes on after an interruption, with the same samples and the same random numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from transformers import set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.import_utils import is_vllm_available

from cof_agent.backends.load import load, split_spec
from cof_agent.backends.local.reader import limits_of
from cof_agent.backends.scenes_only import warning_for
from cof_agent.episodes import Episode, digest, drawn
from cof_agent.errors import InputError
from cof_agent.evaluation.judge import Judge
from cof_agent.geometry import PixelLimits
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.output.install import how_to_install
from cof_agent.strategies.registry import takes_several_images
from cof_agent.training import settings as shared
from cof_agent.training.command import explained
from cof_agent.training.models import load_model, lora, read_checkpoint
from cof_agent.training.plan import differing
from cof_agent.training.progress import progress
from cof_agent.training.resume import check_continues, check_data, last_whole_checkpoint, says_finished, train_and_save
from cof_agent.training.trainer import held_out_of
from cof_agent.trajectory import to_json
from rl import plan, record, rewards
from rl.checks import check_devices, check_epochs
from rl.engines.fleet import first_there
from rl.engines.options import options_of, precision_of
from rl.measures import columns
from rl.settings import Settings, parse
from rl.trainer import ZoomGRPOTrainer

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    check_continues(settings)
    if settings.run.dry_run:
        with TemporaryDirectory() as folder:  # images that rows hold are measured, and not kept
            plan.show(settings, episodes_of(settings, Path(folder)))
        return
    if says_finished(settings.training):
        return
    output = Path(settings.training.output_dir)
    record.check_own(output)
    trainer = build_trainer(settings)
    checkpoint = last_whole_checkpoint(output)
    if checkpoint is not None:
        check_data(output, trainer.record["data"])
    if trainer.is_world_process_zero():
        record.forget_after(output / record.NAME, int(checkpoint.rpartition("-")[2]) if checkpoint else 0)
    train_and_save(trainer, settings)


def build_trainer(settings: Settings) -> ZoomGRPOTrainer:
    """The trainer with its model, processor and samples; nothing is played yet.

    Raises:
        InputError: if the model, the judge or the samples cannot be read, or too few of them have a known answer.
    """
    run, training = settings.run, settings.training
    check_devices(training)
    if training.use_vllm and not is_vllm_available():
        raise InputError(f"use_vllm needs vLLM, which is not installed here: {how_to_install('vllm')}.")
    if run.threads:
        torch.set_num_threads(run.threads)
    set_seed(training.seed)
    config, processor = read_checkpoint(settings)
    if training.process_index == 0:
        _warn_of_length(settings, limits_of(config, processor, *run.agent_config().areas))
    wanted = episodes_of(settings, Path(str(settings.training.output_dir)))
    held_out, judge = held_out_of(settings), _judge(settings)
    model = load_model(settings)
    if settings.servers and training.process_index == 0:  # the process that sends the weights
        training.vllm_server_base_url = first_there(settings.servers, training.vllm_server_timeout)
    functions = [rewards.by_name(name, training.num_generations, judge) for name in run.rewards]
    return ZoomGRPOTrainer(
        model,
        functions,
        training,
        train_dataset=_dataset(wanted),
        eval_dataset=_dataset(wanted[:1]) if held_out else None,  # the trainer insists on one
        processing_class=processor,
        peft_config=lora(settings, config) if settings.model.use_peft else None,
        redraws=run.redraws,
        vision_cache=run.vision_cache,
        servers=settings.servers,
        ahead=bool(run.ahead),
        trajectory_steps=run.trajectory_steps,
        callbacks=progress(columns(one.__name__ for one in functions), quiet=run.quiet),
        engine_options=options_of(settings, precision_of(training, model.dtype)) if training.use_vllm else (),
        agent=settings.run.agent_config(),
        held_out=held_out,
        blank_control=run.eval_blank,
        record=shared.record(settings) | {"data": {"samples": len(wanted), "digest": digest(wanted)}},
    )


def _warn_of_length(settings: Settings, limits: PixelLimits) -> None:
    """Warns of TRL's default of `max_completion_length`, which knows of no crops. A length that was chosen is left to the dry
    run: few conversations need room for all zooms."""
    if "max_completion_length" not in differing(settings.training):
        for sentence in plan.too_short(settings, limits):
            _log.warning("%s", sentence)


def _judge(settings: Settings) -> Judge | None:
    """The judge that the settings name; its verdicts are kept in the output folder, a file for each process."""
    run = settings.run
    if run.judge is None:
        return None
    provider, model = split_spec(run.judge)
    if provider is None and run.judge_base_url is None and is_deepspeed_zero3_enabled():
        raise InputError(
            f"under ZeRO-3 the judge {model} would be divided among the processes; serve it, and name it PROVIDER:MODEL."
        )
    policy = load(run.judge, base_url=run.judge_base_url, timeout=run.judge_timeout, boxes=False)
    cache = Path(settings.training.output_dir) / "judge" / f"{settings.training.process_index}.jsonl"
    return Judge(policy, cache=cache, timeout=run.judge_timeout, concurrency=run.judge_concurrency)


def episodes_of(settings: Settings, output: Path) -> list[Episode]:
    """What a run plays: the samples with a known answer, each at its resolution. output: the folder for images that rows hold,
    and for the list of rows that are left out.

    Raises:
        InputError: if they cannot be read, there are fewer than are played at once, of which TRL would play none, or checkpoints
            of later epochs would lie between the updates on what is played once.
    """
    run, training = settings.run, settings.training
    config = run.agent_config()
    one_image = not takes_several_images(config.strategy, config.spoken)
    read = run.read(keep_images=output / "images", left_out=output / "left_out.jsonl", one_image=one_image)
    samples = [sample for sample in read if sample.answers]
    if not samples:
        raise InputError(f"no sample of {run.data} has a known answer, so that nothing can be rewarded.")
    if len(samples) < (prompts := training.generation_batch_size // training.num_generations):
        raise InputError(
            f"{run.data} has {len(samples)} samples with a known answer, but {prompts} are played at once, each "
            f"{training.num_generations} times; take more samples, or lower gradient_accumulation_steps."
        )
    check_epochs(training, len(samples))
    from_nano = settings.model_path == str(WEIGHTS)
    if from_nano and training.process_index == 0 and (sentence := warning_for(NANO, samples)):
        _log.warning("%s", sentence)
    return drawn(samples, run.resolutions, training.seed)


def _dataset(wanted: Sequence[Episode]) -> Dataset:
    """TRL's rows. The prompt is only what its logs show: the conversation opens as the agent's does."""
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": one.sample.question}], "episode": to_json(one)} for one in wanted]
    )


if __name__ == "__main__":
    explained("rl.train", main)
