"""The keys of a training's configuration, on the command line and in YAML: how they may be written, and which there are.

Imports neither TRL nor transformers, which takes seconds: the fields of their configurations are read from their sources.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cof_agent.backends.names import check_name
from cof_agent.data.spec import is_local
from cof_agent.errors import InputError, unknown
from cof_agent.nano import NANO
from cof_agent.training.shipped import shipped
from cof_agent.training.values import check_values

ALIASES = {
    "model": "model_name_or_path",
    "attn": "attn_implementation",
    "output": "output_dir",
    "o": "output_dir",
    "tool": "tools",
}
"""Names that the other commands have for a key."""
REPEATED = ("column", "tools", "mix")  # may be given several times
LISTS = ("rewards", "reward_weights")
"""Keys whose values are given at once: another list may be meant to join the one before or to replace it."""
INSTEAD = {
    "generation_kwargs": "set temperature, top_p and max_tokens",
    "chat_template_kwargs": "the dialect says what the chat template is given",
    "chat_template_path": "put the template into the checkpoint's folder, as chat_template.jinja",
    "max_tool_calling_iterations": "set max_zooms",
    "vllm_structured_outputs_regex": "a reply may have any form, and the reward format values the right one",
    "cache_implementation": "the engine has its own",
    "auto_find_batch_size": "set per_device_train_batch_size; dry_run says how much memory it takes",
    "assistant_only_loss": "what the model wrote is trained on, and nothing else",
    "completion_only_loss": "what the model wrote is trained on, and nothing else",
    "dataset_text_field": "set column",
    "do_eval": "set eval_strategy and eval_data",
    "model_init_kwargs": "set dtype and attn_implementation",
    "dataset_kwargs": "images are prepared as the agent's are",
    "remove_unused_columns": "all columns are kept",
    "eval_packing": "rows are never packed, since packing does not work with images",
    "num_generations_eval": "the agent answers each held-out sample once",
    "lora_task_type": "an adapter is always one of a language model",
    "per_device_eval_batch_size": "the agent answers up to 16 held-out samples at once",
    "bf16_full_eval": "the agent answers as precisely as it is trained",
    "fp16_full_eval": "the agent answers as precisely as it is trained",
    "prediction_loss_only": "an evaluation has the agent's answers, and no loss",
    "eval_accumulation_steps": "an evaluation keeps the agent's answers, and no logits",
    "eval_do_concat_batches": "an evaluation keeps the agent's answers, and no logits",
    "include_for_metrics": "the figures of an evaluation are those of the agent's answers",
    "truncation_mode": "what is longer than max_length is left out, since a cut would go through images",
}
"""Settings of TRL that would do nothing here, and what to do instead."""
INSTEAD_OF = {
    "SFTConfig": {
        "pad_to_multiple_of": "rows are padded to the longest of their batch",
        "shuffle_dataset": "rows are shuffled in each epoch, with train_sampling_strategy random",
    }
}
"""The same of one of TRL's configurations."""
FOREIGN = {
    "torch_dtype": "dtype",
    "lora_rank": "lora_r",
    "dataset": "data",
    "dataset_name": "data",
    "dataset_path": "data",
    "train_file": "data",
    "max_turns": "max_zooms",
    "freeze_aligner": "freeze_projector",
    "freeze_merger": "freeze_projector",
    "freeze_vit": "freeze_vision",
    "freeze_vision_tower": "freeze_vision",
    "freeze_vision_modules": "freeze_vision",
    "reward_funcs": "rewards",
}
"""What other projects call a setting."""
NO_KEYS = ("config", "help", "h", "env")  # `env`, in YAML, holds environment variables
HOMES = {
    "SFTConfig": ("trl", "trainer/sft_config.py"),
    "GRPOConfig": ("trl", "trainer/grpo_config.py"),
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "ModelConfig": ("trl", "trainer/model_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
}
"""Where the configurations of TRL and transformers are defined."""


def key(name: str) -> str:
    """The key that a name means, as in `--max-zooms`, `max-zooms` or `--model`."""
    plain = name.lstrip("-").replace("-", "_")
    return ALIASES.get(plain, plain)


def given(arguments: Iterable[str]) -> dict[str, list[str]]:
    """The values of each key on a command line; of a key that is given several times, the last ones or (`REPEATED`) all.

    Raises:
        InputError: if a value comes before the first key, or one of `LISTS` is given twice.
    """
    found: dict[str, list[str]] = {}
    values: list[str] | None = None
    for word in arguments:
        if word.startswith("--") or word in ("-o", "-h"):
            name, equals, value = word.partition("=")
            if key(name) in LISTS and key(name) in found:
                raise InputError(f"{name} is given twice; give all its values at once, as in {name} A B.")
            earlier = found.get(key(name), []) if key(name) in REPEATED else []
            values = found[key(name)] = [*earlier, *([shipped(value)] if equals else [])]
        elif values is None:
            raise InputError(f"there is no place for {word}; keys are given as in --config FILE.yaml.")
        else:
            values.append(shipped(word))
    return found


def arguments_of(found: Mapping[str, Sequence[str]]) -> list[str]:
    """The command line of these keys, as TRL's parser takes it."""
    return [word for name, values in found.items() for word in (f"--{name}", *values)]


def read_config(path: str) -> dict[str, Any]:
    """The keys of a YAML configuration.

    Raises:
        InputError: if it cannot be read, or is no mapping.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        text = Path(shipped(path)).read_text("utf-8")
        config, twice = yaml.safe_load(text), _twice(yaml.compose(text))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the config {path}: {reason}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"the config {path} is no YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(config, dict):
        raise InputError(f"the config {path} must be keys with values, such as `max_zooms: 6`.")
    named = [key(str(name)) for name in config]
    if twice or len(set(named)) < len(named):
        name = twice or next(name for name in named if named.count(name) > 1)
        raise InputError(f"the config {path} has {name} twice; keep one of them.")
    return dict(zip(named, config.values(), strict=True))


def _twice(node: Any) -> str:
    """A key that stands twice at the top of a YAML document, which its reader does not tell; "" for none."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    names = [str(name.value) for name, _ in pairs]
    return next((name for name in names if names.count(name) > 1), "")


def check(found: Mapping[str, Sequence[str]], run: type[Any], trainer: str) -> dict[str, Any]:
    """All keys with their values, those of the configuration among them.

    run: our own part of the configuration. trainer: TRL's, by name.

    Raises:
        InputError: if there is no such key, or no model or no data is named.
    """
    if not found:
        raise InputError("say what to train: --config FILE.yaml, or --model and --data; --help lists the keys.")
    if "config" in found and not found["config"]:
        raise InputError("--config needs the path of a YAML file.")
    config = read_config(found["config"][-1]) if "config" in found else {}
    known = known_keys(run, trainer)
    for name in (*config, *found):
        if name not in known and name not in NO_KEYS and name.removeprefix("no_") not in known:
            if name in FOREIGN:
                raise InputError(f"there is no setting {name}; did you mean {FOREIGN[name]}?")
            raise InputError(unknown("setting", name, sorted(known)))
    types = types_of(run, trainer)
    check_values(config, types, f"the config {found['config'][-1]}: " if config else "")
    check_values({name: values[0] for name, values in found.items() if len(values) == 1}, types, "--")
    whole = {**config, **{name: values[-1] if values else "" for name, values in found.items()}}
    for name, instead in (INSTEAD | INSTEAD_OF.get(trainer, {})).items():
        if whole.get(name) not in (None, ""):
            raise InputError(f"{name} would do nothing here: {instead}.")
    if not whole.get("model_name_or_path"):
        raise InputError("say which model to train: --model nano, a folder or a hub id.")
    if not whole.get("data"):
        raise InputError("say what to train on: --data FILE, folder or dataset.")
    return whole


def check_places(whole: Mapping[str, Any]) -> None:
    """Refuses a model or data that should be on this machine and are not.

    Raises:
        InputError: if one is not.
    """
    if (model := str(whole["model_name_or_path"])) != NANO:
        check_name(model)
    for name in ("data", "eval_data", "distill"):
        place = str(whole.get(name) or "")
        if is_local(place) and not Path(place).exists():
            raise InputError(f"there is no file or folder {place}, which {name} names.")


def known_keys(run: type[Any], trainer: str) -> frozenset[str]:
    """The keys of a training."""
    return frozenset(types_of(run, trainer))


def types_of(run: type[Any], trainer: str) -> dict[str, str]:
    """The keys of a training with their types, as they are annotated."""
    written = {
        name: str(kind)
        for base in reversed(run.__mro__)
        for name, kind in vars(base).get("__annotations__", {}).items()
    }
    ours = {one.name: written[one.name] for one in fields(run)}  # whose `type` transformers' parser replaces
    return {**fields_of("ModelConfig"), **fields_of(trainer), **ours}


@cache
def fields_of(name: str) -> Mapping[str, str]:
    """The fields of a configuration of `HOMES` with their annotations, inherited ones among them; none where its package is
    missing."""
    package, file = HOMES[name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return {}
    text = (Path(spec.submodule_search_locations[0]) / file).read_text("utf-8")
    found = next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    own = {
        node.target.id: ast.unparse(node.annotation)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _is_field(node)
    }
    bases = [base.id for base in found.bases if isinstance(base, ast.Name) and base.id in HOMES]
    return {**{one: kind for base in bases for one, kind in fields_of(base).items()}, **own}


def _is_field(node: ast.AnnAssign) -> bool:
    """Whether it is a field that can be given."""
    options = node.value.keywords if isinstance(node.value, ast.Call) else []
    hidden = any(one.arg == "init" and isinstance(one.value, ast.Constant) and not one.value.value for one in options)
    return isinstance(node.target, ast.Name) and not hidden and "ClassVar" not in ast.unparse(node.annotation)
