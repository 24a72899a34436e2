"""The agent as verl's `AgentLoop`: rollouts for verl's trainers, on Ray, with Megatron or FSDP.

verl makes one `ZoomAgentLoop` for each conversation, in many worker processes, and takes what `roll_out` played: ids, mask,
log-probabilities and images. The record itself goes on to `rl.verl.reward` as the field `trajectory`.

This needs verl 0.9.1, which needs an older transformers than TRL's trainer. So this module, `rl.rollout` and what they import
run with both; `rl.train` does not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from transformers import AutoConfig
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.utils.fs import copy_to_local

from cof_agent.agent import check
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.processor import generation_config_of, load_processor
from cof_agent.backends.local.reader import Reader, unreadable
from cof_agent.backends.vllm.requests import Reply, generated_of, request_of
from cof_agent.config import AgentConfig, read_prompt
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.errors import InputError, unknown
from cof_agent.geometry import PixelLimits
from cof_agent.policy import PolicyError
from cof_agent.trajectory import from_json, to_json
from rl.rollout import Rollout, cannot_be_played, roll_out

OF_VERL = (
    *("model", "base_url", "image_folder", "jpeg", "reasoning", "device", "dtype", "attn", "vllm_options"),
    *("temperature", "top_p", "seed"),
)
"""Fields of `AgentConfig` that verl's own configuration decides."""

SETTINGS = tuple(field.name for field in fields(AgentConfig) if field.name not in OF_VERL)
"""What may stand under `agent` in the file that `agent_loop_config_path` names."""


class ZoomAgentLoop(AgentLoopBase):
    """One conversation of the agent. agent: settings of `AgentConfig` by name, those of `SETTINGS`.

    Raises:
        InputError: if a setting is unknown or makes no sense, or verl's configuration asks for what the agent cannot do.
    """

    def __init__(self, *arguments: Any, agent: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        check_configuration(self.config)
        self._agent, self._reader, self._sources = parts_of(self.config.actor_rollout_ref.model.path, agent)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Plays the episode of one row that `rl.verl.rows` wrote.

        Raises:
            InputError: if its image or the model cannot be used, or its prompt is longer than `prompt_length`.
        """
        started, rollout = time.perf_counter(), self.rollout_config
        conversation = Conversation(self._reader, self.server_manager, sampling_params)
        episode = from_json(row["extra_info"]["episode"], Episode)
        (played,) = await roll_out(
            [episode],
            conversation,
            replace(self._agent, temperature=sampling_params["temperature"], top_p=sampling_params["top_p"]),
            self._sources,
            budget=rollout.response_length,
            seeds=[_seed(rollout.seed, row)],
        )
        if played.failure is not None:
            raise InputError(cannot_be_played(episode.sample, played.failure))
        if len(played.prompt) > rollout.prompt_length:
            raise InputError(
                f"the prompt of sample {episode.sample.id} has {len(played.prompt)} tokens, more than prompt_length "
                f"{rollout.prompt_length}; raise it, or set a smaller overview_pixels."
            )
        return output_of(played, conversation.steps, time.perf_counter() - started)


def check_configuration(config: Any) -> None:
    """Refuses a configuration of verl under which the agent cannot play.

    Raises:
        InputError: if not.
    """
    rollout, model, data = config.actor_rollout_ref.rollout, config.actor_rollout_ref.model, config.data
    rules = {
        f"the agent asks vLLM; set actor_rollout_ref.rollout.name to vllm, not {rollout.name}": rollout.name == "vllm",
        "the conversation is written by the checkpoint's own template; leave custom_chat_template out": not model.get(
            "custom_chat_template"
        ),
        "templates get their options from the agent; leave data.apply_chat_template_kwargs out": not data.get(
            "apply_chat_template_kwargs"
        ),
        "the agent sizes its images itself; leave data.mm_processor_kwargs out, and set overview_pixels": not data.get(
            "mm_processor_kwargs"
        ),
    }
    for sentence, holds in rules.items():
        if not holds:
            raise InputError(f"{sentence}.")


def agent_config(model: str, given: Mapping[str, Any]) -> AgentConfig:
    """How the agent runs with a checkpoint, by the settings under `agent`.

    Raises:
        InputError: if one is unknown, decided by verl, or makes no sense.
    """
    for name in given:
        if name in OF_VERL:
            raise InputError(f"agent: leave {name} out; verl's own configuration decides it.")
        if name not in SETTINGS:
            raise InputError(f"agent: {unknown('setting', name, SETTINGS)}")
    found = AgentConfig(
        **{
            **given,
            "model": model,
            "tools": tuple(given.get("tools", ())),
            "system_prompt": read_prompt(given.get("system_prompt")),
        }
    )
    check(found)
    return found


def parts_of(model: str, agent: Mapping[str, Any] | None) -> tuple[AgentConfig, Reader, ZoomEnvironment]:
    """What the conversations of a process share: how the agent runs, its tokens, and decoded images.

    Raises:
        InputError: if a setting is unknown or makes no sense, or the checkpoint cannot be read.
    """
    given = OmegaConf.to_container(agent) if OmegaConf.is_config(agent) else dict(agent or {})
    return _parts(model, tuple(sorted((name, _frozen(value)) for name, value in given.items())))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4)
def _parts(model: str, given: tuple[tuple[str, Any], ...]) -> tuple[AgentConfig, Reader, ZoomEnvironment]:
    """The processor is not verl's: tokenizers refuse to be called from two threads at once, and verl calls its own."""
    path = copy_to_local(model)
    agent = agent_config(path, dict(given))
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        processor: Any = load_processor(path, config)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    overview, zoom = agent.areas
    reader = Reader(
        SimpleNamespace(config=config, generation_config=generation_config_of(path, config)),
        processor,
        name="in training",
        max_pixels=overview,
        zoom_pixels=zoom,
    )
    _check_sizes(agent.settings_for(reader.coordinates, reader.limits).limits, processor.image_processor.size)
    return agent, reader, ZoomEnvironment()


def _check_sizes(shown: PixelLimits, own: Mapping[str, int]) -> None:
    """vLLM, and verl where it trains, resize an image that is outside the limits of the checkpoint's own processor."""
    least, largest = own["shortest_edge"], own["longest_edge"]
    if shown.min_pixels < least or max(shown.max_pixels, shown.zoom_pixels) > largest:
        raise InputError(
            f"the checkpoint's image processor takes areas from {least} to {largest} and resizes others, and the agent shows "
            f"{shown.min_pixels} to {max(shown.max_pixels, shown.zoom_pixels)}; set overview_pixels and zoom_pixels within."
        )


def _seed(seed: int, row: Mapping[str, Any]) -> int:
    """The random number of one rollout: other ones at each step, for each sample and each play of it."""
    place = row.get("session_id", row.get("priority"))
    return Random(f"{seed}:{row.get('global_steps')}:{row['extra_info']['index']}:{place}").getrandbits(31)


@dataclass
class Steps:
    """The versions of the weights that wrote a conversation: the trainer's steps at its first and its last turn."""

    first: int | None = None
    last: int | None = None

    def note(self, told: Mapping[str, Any]) -> None:
        """Takes note of one more turn."""
        if self.first is None:
            self.first = told.get("min_global_steps")
        self.last = told.get("max_global_steps")


class Conversation:
    """A `TokenPolicy` whose turns verl's servers write; all turns of a conversation go to the same server."""

    def __init__(self, reader: Reader, servers: Any, sampling: Mapping[str, Any]) -> None:
        self.name, self.family = reader.name, reader.family
        self.coordinates, self.limits = reader.coordinates, reader.limits
        self.render, self.read, self.turn = reader.render, reader.read, reader.turn
        self.steps = Steps()
        self._reader, self._servers, self._sampling = reader, servers, sampling
        self._id = uuid4().hex

    async def complete(self, prompt: Prompt) -> Generated:
        """The model's next turn.

        Raises:
            PolicyError: if the server broke it off, or wrote nothing.
        """
        reader = self._reader
        request = request_of(prompt, reader.stop_ids, reader.unspeakable)
        # verl's own parameters beside ours; its server takes `logprobs` for whether they are wanted.
        params = {**self._sampling, **request.sampling, "logprobs": self._sampling["logprobs"]}
        found = await self._servers.generate(
            request_id=self._id, prompt_ids=request.ids, sampling_params=params, image_data=request.images
        )
        if found.stop_reason in ("aborted", "abort"):
            raise PolicyError("verl's server broke the turn off.")
        self.steps.note(found.extra_fields)
        reply = Reply(list(found.token_ids), list(found.log_probs or [None] * len(found.token_ids)))
        generated = generated_of(reply, reader.stop_ids, reader.unspeakable)
        if not generated.ids:
            raise PolicyError("verl's server wrote nothing.", transient=False)
        stop = prompt.sampling.stop
        return replace(generated, stopped=generated.stopped or (bool(stop) and stop in reader.text(generated.ids)))


def output_of(played: Rollout, steps: Steps, seconds: float) -> AgentLoopOutput:
    """A rollout as verl takes it. seconds: that it took in all."""
    generating = sum(turn.seconds or 0.0 for turn in played.trajectory.turns)
    return AgentLoopOutput(
        prompt_ids=played.prompt,
        response_ids=played.completion,
        response_mask=played.mask,
        response_logprobs=_known(played.logprobs),
        multi_modal_data={"images": played.images},
        num_turns=2 * len(played.trajectory.turns),
        metrics=AgentLoopMetrics(generate_sequences=generating, tool_calls=max(0.0, seconds - generating)),
        extra_fields={
            "trajectory": to_json(played.trajectory),
            "min_global_steps": steps.first,
            "max_global_steps": steps.last,
            "turn_scores": [],  # these two are in every batch of verl
            "tool_rewards": [],
        },
    )


def _known(logprobs: Sequence[float | None]) -> list[float] | None:
    """Log-probabilities, where the server told them; verl then corrects by them."""
    known = [one for one in logprobs if one is not None]
    return known if len(known) == len(logprobs) else None
