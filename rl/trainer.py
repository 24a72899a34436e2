"""TRL's `GRPOTrainer` whose rollout is the agent of inference. Private TRL APIs are touched here and in `rl.engines`.

TRL's own tool loop does not keep ranks in step (uneven numbers of turns hang under ZeRO-3), takes no template without tool
roles, and reads every conversation anew each turn. Here `graphs/focus.py` plays each conversation; TRL gets tokens, mask
and images back in the form that its own loop gives them in (a test holds the two together), and does the rest.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOTrainer

from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.vllm.policy import Ask, VLLMPolicy
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.training.rows import window_of
from cof_agent.training.tower import TowerCache
from cof_agent.training.trainer import ZoomTrainer, policy_of
from cof_agent.trajectory import StopReason, Trajectory, from_json
from rl import ratio, record
from rl.ahead import Begun, Lookahead
from rl.engines.options import colocated_with, precision_of
from rl.engines.vllm import Attempt, Colocated, Conversations, Server, engine_of
from rl.engines.weights import merge_on_the_way
from rl.generation import Generation, Play, equal_groups
from rl.measures import gathered
from rl.order import EpochSampler
from rl.padding import Scores, alike_wherever, evened, scored
from rl.pictures import RolloutPictures
from rl.rewards import neutral, total
from rl.rollout import Rollout, cannot_be_played, roll_out
from rl.settings import NO_FSDP
from rl.watch import ToolWatch

_log = logging.getLogger(__name__)

REPLAYS = 3
"""Times that a group of which a rollout failed is played again, with another sample."""


class ZoomGRPOTrainer(ZoomTrainer, GRPOTrainer):
    """GRPO over whole zoom conversations; rows of the data set hold an episode as JSON in the column `episode`.

    Crops are part of the loss's input, their tokens and all that the model did not write are masked. Reward functions get
    the played `trajectory`. Every conversation draws random numbers of its own, which depend on the seed, the step and its
    place in the batch, so that a resumed run plays the same ones.

    redraws: how often groups without any variance are played again, with other samples. engine_options: vLLM's, see
    `rl.engines.options`. vision_cache: GiB for what a frozen vision tower makes of the images of a generation.
    servers: addresses of all vLLM servers, by default the one of TRL's settings. ahead: plays a step's samples on the servers
    while the step before is trained on, with the weights from before its update. trajectory_steps: after how many steps
    rollouts are shown in the trackers, 0 for never.

    With `use_vllm` vLLM writes the turns of the rollouts. `evaluate` still generates with transformers, from the weights
    in training: so its figures compare with those of SFT and of `cof eval`, and vLLM may sleep.
    """

    def __init__(
        self,
        *arguments: Any,
        redraws: int = 0,
        engine_options: Sequence[str] = (),
        vision_cache: float = 0.0,
        servers: Sequence[str] = (),
        ahead: bool = False,
        trajectory_steps: int = 0,
        **options: Any,
    ) -> None:
        with colocated_with(engine_options):
            super().__init__(*arguments, **options)
        if self.is_fsdp_enabled:
            raise InputError(NO_FSDP)
        # What makes TRL take the images that came up during the conversation, and the mask; no tool is ever called by it.
        self.tools = [dict[str, Any]()]
        self._standalone_tools: list[Any] = []
        # TRL takes cut-off conversations out of the attention mask as well, and then counts fewer images than it is given.
        self._forgive_cut_off, self.mask_truncated_completions = self.args.mask_truncated_completions, False
        self._redraws = redraws
        self._tower = TowerCache(vision_cache * 2**30, divided=is_deepspeed_zero3_enabled())
        self._tower.attach(self.model)
        if self.ref_model is not None:
            reference = self.accelerator.unwrap_model(self.ref_model)
            # Nothing of the reference is trained, but TRL does not say so; what is frozen in both is shared.
            for own, other in zip(self.model.parameters(), reference.parameters(), strict=True):
                other.requires_grad_(own.requires_grad)
            self._tower.attach(reference)
        self._rows: list[dict[str, Any]] = []  # TRL's, of the generation under way
        self._episodes: list[Episode] = []
        self._gathered: list[Trajectory] = []  # of all processes, of the generation under way
        self._sources = ZoomEnvironment()
        self._engine: Server | Colocated | None = None
        if self.use_vllm:
            merge_on_the_way(self.vllm_generation)
            token, precision = self.processing_class.image_token_id, precision_of(self.args, self.model.dtype)
            self._engine = engine_of(self.vllm_generation, self.accelerator, token, precision, servers)
        self._generation = Generation(self.args.seed, int(self.num_generations))
        # Updates between the weights that played the generation under way and those that train on it.
        self._staleness = 0
        self._ahead, self._coming, self._begun = ahead, Lookahead(), Begun[Attempt[list[Rollout]]]()
        # Tokenizers refuse to be used by two threads at once.
        self._processor = deepcopy(self.processing_class) if ahead else self.processing_class
        self._seconds, self._elsewhere = 0.0, 0.0  # of a step's update, and of what came in between
        self.add_callback(ToolWatch())
        self.add_callback(_CountsOn(self))
        self._pictures: RolloutPictures | None = None
        if trajectory_steps:
            self._pictures = RolloutPictures(trajectory_steps, self.callback_handler.callbacks)
            self.add_callback(self._pictures)

    def training_step(self, *arguments: Any, **options: Any) -> Any:
        started, self._elsewhere = time.perf_counter(), 0.0
        output = super().training_step(*arguments, **options)
        self._seconds += time.perf_counter() - started - self._elsewhere
        if self.accelerator.sync_gradients:
            self._metrics["train"]["seconds/update"].append(self._seconds)
            self._metrics["train"]["vision/computed"].append(self._tower.computed)
            self._seconds, self._tower.computed = 0.0, 0
        return output

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """As TRL's, with rows of like length in each micro-batch."""
        before = self._buffered_inputs  # type: ignore[has-type]
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        made: Any = self._buffered_inputs  # type: ignore[has-type]
        if made is before or not alike_wherever(self):
            return inputs
        window = window_of(len(made), self.args.gradient_accumulation_steps, self.args.per_device_train_batch_size)
        self._buffered_inputs = even = evened(made, window)
        return even[int(self._step) % len(even)]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Any,
        attention_mask: Any,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **inputs: Any,
    ) -> Scores:
        """As TRL's, without what pads the rows, and with the vision tower run once for an image."""
        score = partial(
            super()._get_per_token_logps_and_entropies,
            model,
            compute_entropy=compute_entropy,
            compute_aux_loss=compute_aux_loss,
        )
        rows = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        with self._tower.used():
            return scored(score, rows, logits_to_keep, batch_size, self.pad_to_multiple_of)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        self._tower.forget()
        return super().evaluate(*arguments, **options)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        self._tower.forget()
        self._rows, self._episodes = inputs, [from_json(row["episode"], Episode) for row in inputs]
        with unresized(self.processing_class.image_processor):
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self._check_sampler(output)
        self._record_played()
        self._elsewhere = time.perf_counter() - started
        metrics = self._metrics["train"]  # the only mode: evaluation is the agent's, not TRL's
        metrics["seconds/scoring"].append(self._elsewhere - metrics["seconds/rollout"][-1])
        return output

    def _check_sampler(self, output: dict[str, Any]) -> None:
        if self._engine is None or "importance_sampling_ratio" not in output:
            return
        found = ratio.ratios_of(output, ratio.Correction.of(self.args), self.accelerator.gather)
        for name in ("conversation", "token", "clipped"):
            self._metrics["train"][f"sampling/ratio/{name}"].append(getattr(found, name))
        # Else vLLM tells probabilities among the tokens that it may choose, or had the weights from before an update.
        if self.top_p == 1 and not self._staleness:
            ratio.check(found, self._engine.precision, self.state.global_step)

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
            [loss_mask(one, self._forgive_cut_off) for one in rollouts],
            [[{"role": "assistant", "content": turn.text} for turn in one.trajectory.turns] for one in rollouts],
            [one.logprobs for one in rollouts] if self.use_vllm else None,
            {"trajectory": [one.trajectory for one in rollouts]},
            images,
            images,  # "on the way": so that TRL always takes them as they are, and never renders the prompt again
        )

    def _played(self) -> list[Rollout]:
        """A rollout for each of the samples, or of others: see `_replayed`."""
        self._generation = self._following(self.state.global_step)
        begun = self._begun.taken()  # before new weights are sent: nothing may be played meanwhile
        with self._player() as play:
            rollouts = play(self._generation.plays(self._episodes), begun and begun[0])
            rollouts = self._replayed(rollouts, lambda turn: play(turn, None))
        self._staleness = self._generation.step - begun[1] if begun else 0
        if self._ahead:
            self._metrics["train"]["ahead/staleness"].append(self._staleness)
            self._begin_next()
        return rollouts

    def _replayed(self, rollouts: list[Rollout], play: Callable[[list[Play]], list[Rollout]]) -> list[Rollout]:
        """The rollouts, with others in place of those that teach nothing, which are played with other samples: groups whose
        rewards are all equal, up to `redraws` times (dynamic sampling, DAPO, arXiv 2503.14476), and groups of which a rollout
        failed, which says nothing of the model.

        Raises:
            InputError: if rollouts still fail after `REPLAYS` times.
        """
        failures, replays = 0, 0
        for attempt in count(1):
            failed = self._failed_groups(rollouts)
            again = set(failed) | (self._equal_groups(rollouts) if attempt <= self._redraws else set())
            if not again:
                break
            if failed and replays == REPLAYS:
                raise InputError(next(iter(failed.values())))
            failures, replays = failures + len(failed), replays + bool(failed)
            if self.accelerator.is_main_process:
                for sentence in dict.fromkeys(failed.values()):
                    _log.warning("%s Another sample is played in its place.", sentence)
            places = [place for place in range(len(rollouts)) if self._generation.group(place) in again]
            for place in places:
                self._episodes[place] = other = self._another(attempt, self._generation.group(place))
                self._rows[place]["prompt"][0]["content"] = other.sample.question  # which TRL logs
            turn = self._generation.plays(self._episodes, attempt, places)
            for place, rollout in zip(places, play(turn), strict=True):
                rollouts[place] = rollout
        self._metrics["train"]["failed"].append(failures)
        return rollouts

    def _failed_groups(self, rollouts: Sequence[Rollout]) -> dict[int, str]:
        """The groups of the whole step, over all processes, of which a rollout failed, with a sentence about it; the same on each
        of them."""
        mine = [one.failure and cannot_be_played(one.trajectory.sample, one.failure) for one in rollouts]
        size = self._generation.size
        return {place // size: sentence for place, sentence in enumerate(gather_object(mine)) if sentence}

    def _following(self, step: int) -> Generation:
        """The generation of this step that comes after the present one."""
        return self._generation.following(step, int(self.accelerator.process_index) * len(self._episodes))

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        return EpochSampler(super()._get_train_sampler(dataset))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        read = partial(super().get_batch_samples, epoch_iterator, num_batches, device)
        return self._coming.batches(epoch_iterator, read) if self._ahead else read()

    def _begin_next(self) -> None:
        """Plays the samples of the next step from now on, with the weights that the engine has."""
        step, rows = self.state.global_step, self._coming.rows
        if not rows or step + 1 >= self.state.max_steps or not isinstance(self._engine, Server):
            return
        wanted = [from_json(row["episode"], Episode) for row in rows]
        turn = self._following(step + 1).plays(wanted)
        self._begun.start(partial(self._engine.attempt, self._conversations(self._engine, turn)), step)

    @contextmanager
    def _player(self) -> Iterator[Callable[[list[Play], Attempt[list[Rollout]] | None], list[Rollout]]]:
        """What plays samples of this process's batch, unless an attempt was begun; all processes call it alike, with their own
        samples or none."""
        if self._engine is None:
            with self.agent_policy() as policy:
                yield lambda turn, _: asyncio.run(self._rollouts(policy, turn))
            return
        # As in TRL's `_generate_single_turn`: once an optimiser step.
        if self.state.global_step != self._last_loaded_step:  # type: ignore[has-type]
            self._engine.take_weights()
            self._last_loaded_step = self.state.global_step
        with self._engine.awake():
            yield partial(self._played_by, self._engine)

    def _played_by(
        self, engine: Server | Colocated, turn: list[Play], begun: Attempt[list[Rollout]] | None
    ) -> list[Rollout]:
        conversations = self._conversations(engine, turn)
        if begun is not None and isinstance(engine, Server):
            return engine.settled(begun, conversations)
        return engine.play(len(turn), conversations)

    def _conversations(self, engine: Server | Colocated, turn: list[Play]) -> Conversations[list[Rollout]]:
        def play(ask: Ask, leave: Callable[[], None]) -> Coroutine[Any, Any, list[Rollout]]:
            policy = policy_of(self.model, self._processor, self._agent, VLLMPolicy, longest=engine.longest, ask=ask)
            return self._rollouts(policy, turn, leave)

        return play

    def _rollouts(
        self, policy: LocalPolicy | VLLMPolicy, turn: list[Play], on_end: Callable[[], None] = lambda: None
    ) -> Coroutine[Any, Any, list[Rollout]]:
        return roll_out(
            [episode for episode, _ in turn],
            policy,
            replace(self._agent, temperature=self.temperature, top_p=self.top_p),
            self._sources,
            budget=self.max_completion_length,
            seeds=[seed for _, seed in turn],
            on_end=on_end,
        )

    def _equal_groups(self, rollouts: Sequence[Rollout]) -> set[int]:
        """The groups of the whole step, over all processes, whose rewards are all equal; the same on each of them."""
        trajectories = [one.trajectory for one in rollouts]
        parts = [reward(trajectory=trajectories) for reward in self.reward_funcs]
        scored = gather_object([[math.nan if one is None else one for one in row] for row in zip(*parts, strict=True)])
        found = neutral(torch.tensor(scored), self._generation.size).tolist()
        weights = self.reward_weights.tolist()
        totals = [total([None if math.isnan(one) else one for one in row], weights) for row in found]
        return equal_groups(totals, self._generation.size)

    def _calculate_rewards(self, *arguments: Any) -> Tensor:
        """As TRL's, over all processes, with `neutral` in place of what is missing; the record keeps what was found."""
        self._scored = super()._calculate_rewards(*arguments)
        return neutral(self._scored, int(self.num_generations))

    def _another(self, attempt: int, group: int) -> Episode:
        """One for the whole group, whichever processes it is played by."""
        rows: Any = self.train_dataset
        return from_json(rows[self._generation.another(attempt, group, len(rows))]["episode"], Episode)

    def _account(self, rollouts: Sequence[Rollout], seconds: float) -> None:
        """Metrics of the step."""
        metrics = self._metrics["train"]
        self._gathered, tokens, found = gathered(rollouts)
        self.state.num_input_tokens_seen += tokens
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        for name, value in found.items():
            metrics[name].append(value)
        metrics["seconds/rollout"].append(seconds)

    def _record_played(self) -> None:
        """TRL's logs hold the scores of all processes, of some steps."""
        if not self.accelerator.is_main_process:
            return
        count = len(self._gathered)
        rewards = dict(zip(self.reward_func_names, self._scored.T.tolist(), strict=True))
        advantages = list(self._logs["advantages"])[-count:]
        played = record.scored(self._generation, self._gathered, rewards, advantages)
        record.append(Path(self.args.output_dir) / record.NAME, played)
        if self._pictures is not None:
            self._pictures.take(played)


class _CountsOn(TrainerCallback):
    """Sets TRL's count of micro-batches, which begins at 0 in a resumed run, so that generations begin where they would have."""

    def __init__(self, trainer: ZoomGRPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """See `TrainerCallback`.

        Raises:
            InputError: if the checkpoint was written between updates on what was played once, as at the end of `max_steps`.
        """
        done = micro_batches(state.global_step, len(more["train_dataloader"]), args.gradient_accumulation_steps)
        if done % (args.steps_per_generation * args.num_iterations):
            raise InputError(
                f"the checkpoint of step {state.global_step} in {args.output_dir} was written between updates on rollouts that "
                "are played once for several; take it away, and the training goes on from the one before."
            )
        self._trainer._step = done


@contextmanager
def unresized(images: Any) -> Iterator[None]:
    """An image processor that leaves the sizes of images as they are, and is afterwards as it was: it is saved with the model.

    Images come in the model's own sizes. If TRL's processor resized one after all, its features would no longer match its
    tokens, and TRL would then train the whole batch without any image, without a word.
    """
    before, images.do_resize = images.do_resize, False
    try:
        yield
    finally:
        images.do_resize = before


def micro_batches(updates: int, epoch: int, update: int) -> int:
    """How many micro-batches so many updates took. epoch: how many an epoch has. update: how many an update takes; the last of an
    epoch may take fewer."""
    epochs, further = divmod(updates, max(1, math.ceil(epoch / update)))
    return epochs * epoch + further * update


def loss_mask(rollout: Rollout, forgive_cut_off: bool) -> list[int]:
    """1 for each id of the completion that the model wrote; all 0 for one that was cut off, where that is forgiven: by the
    length of a reply, or by the number of zooms."""
    cut_off = rollout.trajectory.stop in (StopReason.TRUNCATED, StopReason.MAX_ZOOMS)
    return [0] * len(rollout.mask) if cut_off and forgive_cut_off else rollout.mask
