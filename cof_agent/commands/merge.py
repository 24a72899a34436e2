"""`cof merge ADAPTER -o DIR`: PEFT folds a LoRA adapter into its model; the result loads like any other checkpoint."""

from __future__ import annotations

import argparse
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cof_agent.backends import families
from cof_agent.backends.load import quiet
from cof_agent.commands.options import option
from cof_agent.errors import InputError, first_sentence, said
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.output.escape import for_terminal
from cof_agent.output.install import how_to_install
from cof_agent.protocol import dialects

PEFT_PREFIX = "base_model.model."  # of the weights of an adapter
_ADAPTED = re.compile(r"(.*)\.lora_(?:embedding_)?A(?:\.weight)?")
CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof merge ADAPTER -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof merge outputs/adapter -o outputs/whole"
    parser.add_argument("adapter", metavar="ADAPTER", help="folder of a LoRA adapter, as `cof sft` and PEFT write it")
    option(parser, "output", required=True, help="new folder for the whole model")
    option(
        parser, "model", default=None, help="folder or hub id of the model that was adapted (default: as ADAPTER says)"
    )
    option(parser, "dtype", help="data type of the merged weights (default: that of the model)")


def run(options: argparse.Namespace) -> int:
    output, adapter = Path(options.output).resolve(), Path(options.adapter)
    if find_spec("peft") is None:
        raise InputError(f"merging needs the package peft: {how_to_install('peft')}.")
    above, config = _folder_above(output), _adapter_config(adapter)
    base, revision = (options.model, None) if options.model else (config.base_model_name_or_path, config.revision)
    if not base:
        raise InputError(f"{adapter} does not say which model it is for; name it with --model.")
    base = str(WEIGHTS) if base == NANO else base
    try:
        with quiet(), warnings.catch_warnings(action="ignore"), _becoming(output, above) as folder:
            model = _base(base, revision, options.dtype)
            _save(_folded(model, config, adapter, base), options.dtype or model.dtype, folder)
            _write_processor(adapter, base, revision, model.config, folder)
            _write_card(adapter, base, folder)
    except OSError as error:
        raise InputError(
            f"cannot write {options.output} ({error.strerror or said(error)}); nothing is left of it."
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    written = for_terminal(options.output)
    print(f"{written} holds the merged model: cof ask IMAGE QUESTION --model {written}")
    return 0


def _folder_above(output: Path) -> Path:
    """The nearest folder above `output` that exists.

    Raises:
        InputError: if something is in the way of `output`.
    """
    try:
        above = next(path for path in output.parents if path.exists())
        if not above.is_dir():
            raise InputError(f"cannot write {output}: {above} is a file.")
        if output.is_file():
            raise InputError(f"{output} is a file; name a new folder with -o.")
        if output.exists() and any(output.iterdir()):
            raise InputError(f"{output} is not empty; name a new folder with -o.")
    except OSError as error:
        raise InputError(f"cannot look into {output}: {error.strerror}.") from None
    return above


def _adapter_config(adapter: Path) -> Any:
    """PEFT's configuration of a LoRA adapter whose weights are there.

    Raises:
        InputError: if there is no such adapter, or it is of another kind.
    """
    path = adapter / CONFIG
    if not path.is_file():  # PEFT would ask the hub
        raise InputError(f"there is no adapter in {adapter} (no {CONFIG}); name the folder that the training wrote.")
    if not any((adapter / name).is_file() for name in ADAPTER_WEIGHTS):
        raise InputError(f"the weights of the adapter are missing: there is no {ADAPTER_WEIGHTS[0]} in {adapter}.")
    from peft import PeftConfig

    try:
        with warnings.catch_warnings(action="ignore"):  # of fields that this kind, or this version, does not know
            config = PeftConfig.from_pretrained(str(adapter))
    except Exception as error:  # fields of any kind may be wrong
        raise InputError(f"{path} is damaged: {first_sentence(error)}.") from None
    if config.peft_type != "LORA":
        kind = getattr(config.peft_type, "value", "something else")
        raise InputError(f"{path} describes no LoRA adapter but {kind}; only LoRA can be merged.")
    return config


@contextmanager
def _becoming(output: Path, above: Path) -> Iterator[Path]:
    """A folder in `above` that becomes `output` when all went well, and else is gone."""
    with TemporaryDirectory(prefix=f".{output.name}.", dir=above, ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / output.name
        folder.mkdir()  # open to others as far as the user's own folders are, which the temporary one is not
        yield folder
        output.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(output)


def _base(base: str, revision: str | None, dtype: str | None) -> Any:
    """The model to merge into: in float32 where that is asked for, else in its own type, so that a narrower one rounds once.

    Raises:
        InputError: if it cannot be read, or cannot be merged into.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    if (Path(base) / CONFIG).exists():
        raise InputError(f"{base} is itself an adapter; name the model that it is for with --model.")
    own = {"revision": revision, "dtype": "float32" if dtype == "float32" else "auto", "output_loading_info": True}
    try:
        config = AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            raise InputError(
                f"{base} is quantized, and merging would round twice; name the unquantized model by --model."
            )
        model, found = AutoModelForImageTextToText.from_pretrained(base, **own, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        raise InputError(f"cannot read the base model {base}: {first_sentence(error)}; name it with --model.") from None
    from cof_agent.backends.checkpoint import check_whole  # which imports torch

    check_whole(found, base)
    return model


def _folded(model: Any, config: Any, adapter: Path, base: str) -> Any:
    """The model with the adapter in it. Names of an older transformers are brought up to date.

    Raises:
        InputError: if PEFT cannot merge the two, or a weight of the adapter has no place in the model, or a place no weight, of
            which PEFT would only warn.
    """
    from peft import get_peft_model
    from peft.utils.save_and_load import load_peft_weights

    try:
        names = [name.removeprefix(PEFT_PREFIX) for name in load_peft_weights(str(adapter), device="cpu")]
        renamed = _renamed(model, config, names)
        _untie(model, names)
        wrapped = get_peft_model(model, config)
        result = wrapped.load_adapter(str(adapter), "default", torch_device="cpu", key_mapping=renamed)
        strange = [*result.unexpected_keys, *result.missing_keys]
        merged = None if strange else wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:  # weights that are cut off, of another shape, or not a number
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else first_sentence(error)
        raise InputError(f"the adapter {adapter} cannot be merged into {base}: {reason}.") from None
    if strange:
        raise InputError(
            f"the names of the adapter {adapter} and of {base} differ: {len(strange)} weights have no counterpart, such "
            f"as {strange[0]}; name the model that it was trained for with --model, or load both as its own program does."
        )
    return merged


def _untie(model: Any, names: Sequence[str]) -> None:
    """Gives the head weights of its own where it shares those of the embeddings and the adapter changes either: what is added to
    one would be added to both."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    changed = re.compile(r"(?:^|\.)(?:lm_head|embed_tokens)\.lora_")
    if head is None or head.weight is not embeddings.weight or not any(map(changed.search, names)):
        return
    head.weight = type(head.weight)(head.weight.detach().clone())
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def _renamed(model: Any, config: Any, names: Sequence[str]) -> dict[str, str]:
    """What brings the adapter's names up to date, if they are older (`Modules.older_names`); `config` is changed accordingly."""
    modules = families.of(model.config).modules
    if all(modules.current(name) == name for name in names):
        return {}
    # The modules by their whole names: a pattern that found them under the older names may find none, or others.
    found = (_ADAPTED.match(modules.current(name)) for name in names)
    config.target_modules = {one[1] for one in found if one}
    config.exclude_modules = None
    for patterns in ("rank_pattern", "alpha_pattern"):
        given = getattr(config, patterns) or {}
        setattr(config, patterns, {modules.current(name): value for name, value in given.items()})
    return modules.older_names


def _save(model: Any, dtype: Any, folder: Path) -> None:
    """Writes the weights in this type. Raises OSError if it cannot."""
    import torch
    from safetensors import SafetensorError

    model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    for name in model.config.sub_configs:  # servers read the type there too
        getattr(model.config, name).dtype = model.dtype
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(None, str(error).split("I/O error: ")[-1]) from None
    mode = (folder / "config.json").stat().st_mode
    for weights in folder.glob("*.safetensors"):
        weights.chmod(mode)  # safetensors lets nobody else read them, such as the user of a server


def _write_processor(adapter: Path, base: str, revision: str | None, config: Any, folder: Path) -> None:
    """Tokenizer, template and image sizes as the adapter was trained with, where it brings its own, else the base's.
    config: the model's.

    Raises:
        InputError: if they cannot be read.
    """
    from cof_agent.backends.local.processor import FILES, load_processor

    brought = [path for name in (*FILES, *_OF_TOKENIZER) for path in adapter.glob(name)]
    try:
        if any(path.name in FILES for path in brought):
            processor = load_processor(str(adapter), config)
        else:
            processor = load_processor(base, config, revision=revision)
            if brought:  # a tokenizer or a template alone, as some trainers leave them
                with TemporaryDirectory() as together:
                    processor.save_pretrained(together)
                    for path in brought:
                        shutil.copy(path, together)
                    processor = load_processor(together, config)
    except Exception as error:  # as when a checkpoint is loaded
        where = f"{adapter} and {base}" if brought else base
        raise InputError(f"cannot read the processor of {where}: {first_sentence(error)}.") from None
    processor.save_pretrained(folder)
    if recorded := dialects.beside(adapter):
        dialects.record(dialects.dialect(str(recorded)), folder)


_OF_TOKENIZER = (
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.*",
)
"""Files of a tokenizer and of a template."""


def _write_card(adapter: Path, base: str, folder: Path) -> None:
    """The adapter's `README.md`, if it has one, with a line below its front matter that it was merged."""
    card = adapter / "README.md"
    if not card.is_file():
        return
    text = card.read_text("utf-8", errors="replace")
    line = f"This is the whole model: the LoRA adapter was folded into `{base}` by `cof merge`."
    head, mark, body = text.partition("\n---\n") if text.startswith("---\n") else ("", "", text)
    (folder / card.name).write_text(f"{head}{mark}\n{line}\n\n{body.lstrip()}".lstrip("\n"), "utf-8")
