"""Steps and memory of the paper's trainings, from the dry runs of `cof sft` and `cof rl`, which load no weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_stages import Stage

from cof_agent import protocol
from cof_agent.backends import families
from cof_agent.backends.names import check_name, folder_of
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Sample, StopReason, Trajectory, Turn, to_json


@dataclass(frozen=True, slots=True)
class Figures:
    """steps, batch: how many there are, and what each is made of, in words. training, playing: GiB of a GPU; None where it does
    not play. weights: of the model; trained: those of them that are trained."""

    steps: str
    batch: str
    training: float
    playing: float | None
    weights: float
    trained: float

    def __str__(self) -> str:
        play = "" if self.playing is None else f" in training, at least {self.playing:g} in play"
        return f"steps {self.steps}; a step {self.batch}; GiB of a GPU: {self.training:g}{play}"


def dry_run(stage: Stage, model: str, data: str, *, on_cpu: bool) -> Figures:
    """What a training would take, with this model and these data in place of what the stages before it make.

    Raises:
        InputError: with the sentence of the dry run, if it finds something wrong.
    """
    instead = ("--model", model, "--data", data, "--dry-run", "true", *(("--use-cpu", "true") if on_cpu else ()))
    return figures_of(said_by(*stage.command[1:], *instead))


def said_by(*words: str) -> str:
    """What a command of `cof` prints.

    Raises:
        InputError: with its last sentence, if it fails.
    """
    command = [sys.executable, "-m", "cof_agent.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(lines[-1] if lines else f"cof {words[0]} ended with {done.returncode}.")
    return done.stdout


def figures_of(text: str) -> Figures:
    """Reads the tables that a dry run prints."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"]
    named = {row[0]: row[1] for row in rows if len(row) == 2}
    sums = [row[1:] for row in rows if row[0] == "in all"]  # of parameters, of training in two ways, and in play
    return Figures(
        steps=named["steps"],
        batch=named["samples a step" if "samples a step" in named else "rollouts a step"],
        training=next(_number(gib) for how, gib in sums[1:3] if how.endswith("as configured")),
        playing=_number(sums[3][1]) if len(sums) > 3 else None,
        weights=_number(sums[0][0]),
        trained=_number(sums[0][1]),
    )


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def environment_of(model: str) -> ZoomEnvironment:
    """What a model is shown, by its configuration and processor.

    Raises:
        InputError: if there is no such model, or it is of an unknown family.
    """
    check_name(model)
    from transformers import AutoConfig

    from cof_agent.backends.local.processor import load_processor
    from cof_agent.backends.local.reader import limits_of, unreadable

    path = folder_of(model)
    try:
        config: Any = AutoConfig.from_pretrained(path)
        limits = limits_of(config, load_processor(path, config), None, None)
    except InputError:
        raise
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        raise unreadable(path, error) from None
    return ZoomEnvironment(AgentConfig().settings_for(families.of(config).vision.coordinates, limits))


def write_expected(data: str, limit: int | None, environment: ZoomEnvironment, output: Path) -> None:
    """Trajectories as a teacher might make them of these questions, into a folder.

    Raises:
        InputError: if the questions cannot be read.
    """
    samples = [sample for sample in read_samples(data, limit=limit, one_image=True) if sample.answers]
    lines = (to_json(_expected(sample, environment)) + "\n" for sample in samples)
    write_atomic(output / "trajectories.jsonl", "".join(lines))


def _expected(sample: Sample, environment: ZoomEnvironment) -> Trajectory:
    """One zoom into half of the sides, whose crop is as large as a crop can be, then the true answer."""
    overview = environment.reset(sample)
    x0, y0, x1, y1 = overview.region
    middle = Box((3 * x0 + x1) / 4, (3 * y0 + y1) / 4, (x0 + 3 * x1) / 4, (y0 + 3 * y1) / 4)
    box = overview.from_source(middle, environment.settings.system)
    zoom = protocol.write_zoom("It is too small to see.", Box(*map(round, box)))
    answer = protocol.write_answer("It can be seen well.", sample.answers[0])
    actions = protocol.parse(zoom)
    turns = (Turn(zoom, actions, environment.step(actions, (overview,))), Turn(answer, protocol.parse(answer)))
    return Trajectory(
        sample,
        overview,
        turns,
        StopReason.ANSWERED,
        answer=sample.answers[0],
        policy="expected",
        protocol_version=protocol.PROTOCOL_VERSION,
        settings=environment.settings.to_dict(),
    )
