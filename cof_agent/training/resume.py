"""From where a training goes on: its last whole checkpoint, or nowhere, since it has finished."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from cof_agent.output.files import write_atomic
from cof_agent.training.settings import Settings, write_record

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

    from cof_agent.training.trainer import ZoomTrainer

FINISHED = "finished.json"
"""Is written last, when the model lies in the output folder: the step and the epoch that it was trained to."""
_ROUNDING = 1e-6  # of an epoch


def last_whole_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that was written to its end; one that a kill cut off has no `trainer_state.json`, which
    is written last."""
    whole = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    numbered = [(int(found[1]), path) for path in whole if (found := re.fullmatch(r"checkpoint-(\d+)", path.name))]
    return str(max(numbered)[1]) if numbered else None


def says_finished(training: TrainingArguments) -> bool:
    """Whether an earlier run has trained as far as these settings ask for, of which a sentence is printed then."""
    output = Path(str(training.output_dir))
    found = _read(output / FINISHED)
    if found is None or not _reached(found, training):
        return False
    if training.process_index == 0:
        print(
            f"finished already: {output} holds the model of step {found['global_step']}. Raise max_steps or num_train_epochs "
            "to train on, or name another output_dir."
        )
    return True


class _Reached(Exception):
    """The checkpoint that was loaded is as far as the settings ask for."""


class _StopWhereReached(TrainerCallback):
    """Ends a training before its first step, where none is left: the Trainer looks after a step only."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        """See `TrainerCallback`; the weights of the checkpoint are loaded by now, those of DeepSpeed and FSDP, too."""
        if _reached({"global_step": state.global_step, "epoch": state.epoch}, args):
            raise _Reached


def train_and_save(trainer: ZoomTrainer, settings: Settings) -> None:
    """Trains from where an earlier run was interrupted, if it was, and writes the model with its record and card.

    An interruption may come between the last checkpoint and the model: then no step is trained any more.
    """
    training = trainer.args
    output = Path(str(training.output_dir))
    checkpoint = last_whole_checkpoint(output)
    if trainer.is_world_process_zero():
        write_record(settings)
        (output / FINISHED).unlink(missing_ok=True)
    trainer.add_callback(_StopWhereReached())
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except _Reached:
        if training.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
            trainer._load_best_model()
    trainer.save_model()
    trainer.save_state()  # `trainer_state.json`, with the log of the whole run
    trainer.create_model_card()
    if trainer.is_world_process_zero():
        done = {"global_step": trainer.state.global_step, "epoch": trainer.state.epoch}
        write_atomic(output / FINISHED, json.dumps(done) + "\n")


def _reached(state: Mapping[str, Any], training: TrainingArguments) -> bool:
    """Whether a state is as far as the settings ask for; `max_steps` goes before `num_train_epochs`, as in the Trainer."""
    if training.max_steps > 0:
        return bool(state["global_step"] >= training.max_steps)
    return bool((state["epoch"] or 0) >= training.num_train_epochs - _ROUNDING)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"global_step", "epoch"} <= set(found) else None
