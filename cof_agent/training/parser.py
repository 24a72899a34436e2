"""TRL's parser of configurations with our keys; what is wrong is one sentence, not the usage of several hundred options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from trl import ModelConfig, TrlParser

from cof_agent.errors import InputError, said
from cof_agent.training import keys
from cof_agent.training.shipped import shipped


class KeyParser(TrlParser):
    """TRL's parser for our part of a configuration, TRL's own, and the model's."""

    def __init__(self, run: type[Any], training: type[Any]) -> None:
        super().__init__((run, training, ModelConfig), allow_abbrev=False)
        (trackers,) = (action for action in self._actions if action.dest == "report_to")
        trackers.nargs = "+"  # of which transformers' parser takes only one
        if any(action.dest == "num_generations_eval" for action in self._actions):
            self.set_defaults(num_generations_eval=1)  # the agent answers once; TRL asks that it divides the batch

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}.")

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        """As TRL does it; a configuration may name another one that is shipped, such as DeepSpeed's."""
        lists = {action.dest for action in self._actions if action.nargs in ("+", "*")}
        named = {keys.key(key): shipped(value) if isinstance(value, str) else value for key, value in config.items()}
        numbers = {action.dest for action in self._actions if action.type is int}
        for key in numbers & set(named):
            if isinstance(named[key], float):  # a whole number, as `keys.check` has seen
                named[key] = int(named[key])
        for key in ("run_name", "split"):
            if isinstance(named.get(key), int):
                named[key] = str(named[key])
        for key in lists & set(named):
            if isinstance(named[key], str | int | float):  # one in place of a list of one
                named[key] = [named[key]]
        unknown: list[str] = super().set_defaults_with_config(**named)
        return unknown

    def read(self, arguments: Sequence[str], *, planned: bool = False) -> tuple[Any, Any, ModelConfig]:
        """The three parts of `--config FILE [--key value ...]`. planned: for a dry run, which a machine without a GPU can make,
        too, such as a cluster's login node.

        Raises:
            InputError: if a value is wrong, or values exclude each other.
        """
        try:
            run, training, model = self.parse_args_and_config(args=list(arguments))
        except InputError:
            raise
        except Exception as error:  # values that exclude each other
            if "use_cpu" in str(error):
                if planned:
                    return self.read([*arguments, "--use_cpu", "true"])
                raise InputError("there is no GPU here; to train on the CPU, add --use-cpu true.") from None
            raise InputError(f"the configuration is not right: {said(error)}") from None
        return run, training, model
