"""RL with verl: `python -m rl.verl.train CONFIG [verl's own override ...]`; CONFIG is a name in rl/configs/verl/, without .yaml.

verl goes on without a rollout that fails, and so without any where the configuration is wrong. So what the agent, the rewards and
the data cannot be is found here, before Ray starts; the rest is verl's `main_ppo`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cof_agent.errors import InputError, said
from cof_agent.training.command import explained

FOLDER = Path(__file__).parents[1] / "configs" / "verl"
AGENT = "agent"
"""The file there that is no run."""


def main(arguments: Sequence[str] | None = None) -> None:
    name, *overrides = (sys.argv[1:] if arguments is None else list(arguments)) or [""]
    if find_spec("verl") is None:
        raise InputError("this needs the package verl, which is missing; rl/verl/README.md says how to install it.")
    check(configured(name, overrides))
    from verl.trainer.main_ppo import main as train  # by now in an environment that has it

    sys.argv = [sys.argv[0], "--config-dir", str(FOLDER), "--config-name", name, *overrides]
    train()


def configured(name: str, overrides: Sequence[str] = ()) -> Any:
    """The configuration that verl will read.

    Raises:
        InputError: if there is none of this name, or an override is not verl's.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    known = sorted(file.stem for file in FOLDER.glob("*.yaml") if file.stem != AGENT)
    if name not in known:
        raise InputError(f"there is no configuration {name!r}; those of rl/configs/verl are {', '.join(known)}.")
    with initialize_config_dir(str(FOLDER), version_base=None):
        try:
            return compose(name, ["hydra.searchpath=[pkg://verl.trainer.config]", *overrides])
        except HydraException as error:
            raise InputError(f"verl cannot read the configuration {name}: {said(error)}.") from None


def check(config: Any) -> None:
    """Refuses a configuration under which the agent cannot play, or whose rewards or rows are not there.

    Raises:
        InputError: if not.
    """
    from omegaconf import OmegaConf

    from rl.verl.agent_loop import check_configuration, parts_of
    from rl.verl.reward import functions_of

    check_configuration(config)
    given = config.reward.custom_reward_function.get("reward_kwargs") or {}
    functions_of(**{key: tuple(given[key]) for key in ("rewards", "reward_weights") if given.get(key) is not None})
    for path in (config.data.train_files, config.data.val_files):
        if isinstance(path, str) and not Path(path).exists():
            raise InputError(
                f"there are no rows at {path}; write them with python -m rl.verl.rows --data SPEC -o {path}."
            )
    agents = OmegaConf.load(config.actor_rollout_ref.rollout.agent.agent_loop_config_path)
    for agent in agents:
        parts_of(config.actor_rollout_ref.model.path, agent.get("agent"))


if __name__ == "__main__":
    explained("rl.verl.train", main)
