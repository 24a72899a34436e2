"""What one RL run is made of, beside what every training run is (`cof_agent.training.settings`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cof_agent.errors import InputError
from cof_agent.training import settings
from rl import checks, rewards

if TYPE_CHECKING:
    from trl import GRPOConfig

TRAINER = "GRPOConfig"
"""TRL's part of the configuration, by name: importing TRL takes seconds."""

DECIDED = {
    "dtype": "the engine's precision is the training's (dtype, bf16, fp16)",
    "host": "give --host to rl.serve",
    "port": "set vllm_server_port",
    "tensor-parallel-size": "set vllm_tensor_parallel_size",
    "gpu-memory-utilization": "set vllm_gpu_memory_utilization",
    "max-model-len": "set vllm_max_model_length",
    "logprobs-mode": "training needs the log-probabilities of what was sampled from",
}
"""Options of vLLM that are decided elsewhere, and where or why."""

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Those of `report_to` that show rollouts with their pictures."""

NO_FSDP = "under FSDP the agent cannot play, which takes all weights; use DeepSpeed, or neither."


@dataclass
class RunConfig(settings.RunConfig):
    """What is played and how it is rewarded. The rest is TRL's `GRPOConfig` and `ModelConfig`.

    data: samples, as `cof eval` and `cof collect` take them. Weights of the rewards are `reward_weights`.
    """

    rewards: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={"help": f"any of {', '.join(rewards.NAMES)}, or MODULE:FUNCTION for your own"},
    )
    vllm_options: list[str] = field(
        default_factory=list,
        metadata={
            "metavar": "OPTION",
            "help": "further options of `vllm serve` for the engine, in either vllm_mode, without their dashes, such as "
            "enforce-eager or max-num-seqs=64",
        },
    )
    vllm_server_hosts: list[str] = field(
        default_factory=list,
        metadata={
            "metavar": "HOST:PORT",
            "help": "several servers, each started by rl.serve, in place of vllm_server_host and vllm_server_port",
        },
    )
    ahead: int = field(
        default=0,
        metadata={
            "help": "1: servers play the next step's samples while this step is trained on, with weights that are one update "
            "older (default: 0, the newest weights)"
        },
    )
    redraws: int = field(
        default=0,
        metadata={"help": "times that groups without any variance are played again, with other samples (default: 0)"},
    )
    vision_cache: float = field(
        default=4.0,
        metadata={
            "metavar": "GIB",
            "help": "memory for what a frozen vision tower made of the images of a generation, used by all passes over it; "
            "0 computes it in each of them",
        },
    )
    trajectory_steps: int = field(
        default=0,
        metadata={
            "help": "steps after which four of the rollouts are shown, with their pictures, in those of report_to that are "
            "tensorboard, trackio or wandb (default: 0, never)"
        },
    )
    judge: str | None = field(
        default=None,
        metadata={
            "metavar": "MODEL",
            "help": "model that judges for the reward judge: PROVIDER:MODEL, a folder, or a hub id",
        },
    )
    judge_base_url: str | None = field(
        default=None, metadata={"metavar": "URL", "help": "address of the judge's server"}
    )
    judge_timeout: float = field(default=60.0, metadata={"help": "seconds for one reply of the judge"})
    judge_concurrency: int = field(
        default=8, metadata={"help": "answers that each process has judged at the same time"}
    )


@dataclass(frozen=True)
class Settings(settings.Settings):
    """A run's resolved configuration."""

    run: RunConfig
    training: GRPOConfig

    @property
    def servers(self) -> list[str]:
        """Addresses of the servers, where there are several."""
        return [f"http://{host}" for host in self.run.vllm_server_hosts]


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The settings of `--config FILE [--key value ...]`.

    Raises:
        InputError: if the file cannot be read, a key or value is unknown, or what is asked for makes no sense.
    """
    from trl import GRPOConfig

    run, training, model = settings.parse((RunConfig, GRPOConfig), arguments)
    if not run.rewards:
        raise InputError(
            f"rewards must name at least one of {', '.join(rewards.NAMES)}, or module:function for your own."
        )
    for name in run.rewards:
        rewards.check_name(name)
    _check_judge(run)
    _check_servers(run, training)
    _check_play(run, training)
    _check_trajectories(run, training)
    checks.check(training, model)
    if model.use_peft and model.lora_dropout:
        raise InputError(
            f"rollouts are played without dropout, so they must be scored without it: set lora_dropout to 0, not "
            f"{model.lora_dropout}."
        )
    return Settings(run, training, model)


def _check_play(run: RunConfig, training: GRPOConfig) -> None:
    from cof_agent.strategies.registry import check_trainable  # which imports LangGraph

    check_trainable(run.strategy)
    weights = training.reward_weights
    if weights is not None and len(weights) != len(run.rewards):
        raise InputError(f"reward_weights must be one for each of {', '.join(run.rewards)}; there are {len(weights)}.")
    if training.max_completion_length is None or training.max_completion_length < 1:
        raise InputError(f"max_completion_length must be at least 1, not {training.max_completion_length}.")
    if training.temperature is None or training.temperature <= 0 or not 0 < training.top_p <= 1:
        raise InputError("rollouts are drawn: temperature must be above 0, and top_p above 0 and at most 1.")
    for option in run.vllm_options:
        name = option.partition("=")[0].replace("_", "-")
        if name in DECIDED:
            raise InputError(f"vllm_options: leave {name} out; {DECIDED[name]}.")
    if run.vision_cache < 0:
        raise InputError(f"vision_cache must be at least 0, not {run.vision_cache:g}.")
    if run.redraws < 0:
        raise InputError(f"redraws must be at least 0, not {run.redraws}.")
    if (training.top_k or 0) > 0 or training.min_p is not None or training.repetition_penalty != 1:
        raise InputError("the agent samples by temperature and top_p; leave top_k, min_p and repetition_penalty out.")


def _check_trajectories(run: RunConfig, training: GRPOConfig) -> None:
    if run.trajectory_steps < 0:
        raise InputError(f"trajectory_steps must be at least 0, not {run.trajectory_steps}.")
    if run.trajectory_steps and not set(TRACKERS) & set(training.report_to):
        raise InputError(
            f"trajectory_steps needs a tracker that shows pictures: set report_to to {' or '.join(TRACKERS)}."
        )


def _check_servers(run: RunConfig, training: GRPOConfig) -> None:
    hosts = run.vllm_server_hosts
    if hosts and not (training.use_vllm and training.vllm_mode == "server"):
        raise InputError("vllm_server_hosts are asked only with use_vllm and vllm_mode server.")
    if hosts and training.vllm_server_base_url:
        raise InputError("give vllm_server_hosts or vllm_server_base_url, not both.")
    _check_ahead(run, training)
    for host in hosts:
        name, colon, port = host.rpartition(":")
        if not (name and colon and port.isdigit() and "/" not in name):
            raise InputError(f"vllm_server_hosts: {host} is not HOST:PORT, such as localhost:8000.")
    if len(set(hosts)) < len(hosts):
        raise InputError("vllm_server_hosts: the same server is named twice.")


def _check_ahead(run: RunConfig, training: GRPOConfig) -> None:
    if run.ahead not in (0, 1):
        raise InputError(f"ahead must be 0 or 1, not {run.ahead}.")
    if not run.ahead:
        return
    if not (training.use_vllm and training.vllm_mode == "server"):
        raise InputError("ahead: 1 needs servers that play meanwhile: set use_vllm to true and vllm_mode to server.")
    if not training.vllm_importance_sampling_correction:
        raise InputError("ahead: 1 plays with older weights: leave vllm_importance_sampling_correction true.")
    if training.num_iterations != 1 or training.steps_per_generation != training.gradient_accumulation_steps:
        raise InputError(
            "ahead: 1 plays for one update at a time: set num_iterations to 1, and leave steps_per_generation out."
        )


def _check_judge(run: RunConfig) -> None:
    if rewards.JUDGE in run.rewards and run.judge is None:
        raise InputError("the reward judge needs one: --judge PROVIDER:MODEL, a directory or a hub id.")
    if run.judge is not None and rewards.JUDGE not in run.rewards:
        raise InputError(f"{run.judge} has nothing to judge: name the reward judge, or leave the setting judge out.")
    if run.judge_timeout <= 0 or run.judge_concurrency < 1:
        raise InputError("judge_timeout must be above 0, and judge_concurrency at least 1.")
