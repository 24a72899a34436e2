"""TRL's `GRPOTrainer` whose rollout is the agent of inference. Every touch of a private TRL API is in this file.

TRL's own tool loop does not keep ranks in step (uneven numbers of turns hang under ZeRO-3), takes no template without tool
roles, and reads every conversation anew each turn. Here `graphs/focus.py` plays each conversation; TRL gets tokens, mask
and images back in the form that its own loop gives them in (a test holds the two together), and does the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from trl import GRPOTrainer

from cof_agent import scoring
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.policy import Sampling
from cof_agent.training.trainer import ZoomTrainer
from cof_agent.trajectory import JsonlAppender, Sample, Trajectory, from_json, to_json
from rl.rollout import Rollout, roll_out

ROLLOUTS = "trajectories.jsonl"
"""In the output folder: all that was played, with the `step` in the settings."""


class ZoomGRPOTrainer(ZoomTrainer, GRPOTrainer):
    """GRPO over whole zoom conversations; rows of the data set hold a sample as JSON in the column `sample`.

    Crops are part of the loss's input, their tokens and all that the model did not write are masked. Reward functions get
    the played `trajectory`. Every conversation draws random numbers of its own, which depend on the seed, the step and its
    place in the batch, so that a resumed run plays the same ones.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.is_fsdp_enabled:
            raise InputError("under FSDP the agent cannot play, which takes all weights; use DeepSpeed, or neither.")
        # Images come in the model's own sizes. If TRL's processor resized one after all, its features would no longer
        # match its tokens, and TRL would then train the whole batch without any image, without a word.
        self.processing_class.image_processor.do_resize = False
        # What makes TRL take the images that came up during the conversation, and the mask; no tool is ever called by it.
        self.tools = [dict[str, Any]()]
        self._standalone_tools: list[Any] = []
        self._samples: list[Sample] = []
        self._sources = ZoomEnvironment()

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._samples = [from_json(row["sample"], Sample) for row in inputs]
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return output

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """Plays the samples of this step; returns what TRL's own method returns: ids of prompts and completions, mask,
        messages, log-probabilities, columns for the rewards, all images, and those that came up on the way."""
        started = time.perf_counter()
        rollouts = self._played()
        self._account(rollouts, time.perf_counter() - started)
        images = [one.images for one in rollouts]
        return (
            [one.prompt for one in rollouts],
            [one.completion for one in rollouts],
            [one.mask for one in rollouts],
            [[{"role": "assistant", "content": turn.text} for turn in one.trajectory.turns] for one in rollouts],
            None,
            {"trajectory": [one.trajectory for one in rollouts]},
            images,
            images,  # "on the way": so that TRL always takes them as they are, and never renders the prompt again
        )

    def _played(self) -> list[Rollout]:
        with self.agent_policy() as policy:
            return asyncio.run(
                roll_out(
                    self._samples,
                    policy,
                    self._sources.with_settings(self._play.settings(policy)),
                    budget=self.max_completion_length,
                    sampling=Sampling(self._play.turn_tokens, self.temperature, self.top_p),
                    seeds=self._seeds(len(self._samples)),
                )
            )

    def _seeds(self, count: int) -> list[int]:
        first = self.accelerator.process_index * count
        generation = self.state.global_step if self.model.training else -1
        return [hash((self.args.seed, generation, first + index)) & 0x7FFFFFFF for index in range(count)]

    def _account(self, rollouts: Sequence[Rollout], seconds: float) -> None:
        """Metrics of the step, and its trajectories for `cof view`."""
        mode = "train" if self.model.training else "eval"
        step = self.state.global_step
        lines = [
            to_json(replace(one.trajectory, settings={**one.trajectory.settings, "step": step})) for one in rollouts
        ]
        gathered = [from_json(line, Trajectory) for line in gather_object(lines)]
        written = gather_object([sum(one.mask) for one in rollouts])
        exhausted = gather_object([one.exhausted for one in rollouts])
        for name, value in measures(gathered).items():
            self._metrics[mode][name].append(value)
        self._metrics[mode]["exhausted"].append(sum(exhausted) / len(exhausted))
        self._metrics[mode]["completions/mean_length"].append(sum(written) / len(written))
        self._metrics[mode]["seconds/rollout"].append(seconds)
        if mode == "train" and self.accelerator.is_main_process:
            with JsonlAppender(Path(self.args.output_dir) / ROLLOUTS) as file:
                for trajectory in gathered:
                    file.append(trajectory)


def measures(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Figures of a step's rollouts: accuracy, in all and of those that did and did not zoom, zooms, malformed turns."""
    right = [bool(scoring.accuracy(one)) for one in trajectories]
    found = {
        "accuracy": _share(right),
        "zooms/mean": sum(one.zooms for one in trajectories) / len(trajectories),
        "malformed": _share([scoring.malformed(one) for one in trajectories]),
    }
    for name, zoomed in (("direct", False), ("zoomed", True)):
        mine = [hit for hit, one in zip(right, trajectories, strict=True) if (one.zooms > 0) == zoomed]
        if mine:
            found[f"accuracy/{name}"] = _share(mine)
    for zooms in sorted({one.zooms for one in trajectories}):
        found[f"zooms/{zooms}"] = _share([one.zooms == zooms for one in trajectories])
    return found


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
