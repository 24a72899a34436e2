"""`cof merge ADAPTER -o DIR`: folds a LoRA adapter into its model; the result loads like any other checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cof_agent.errors import InputError, first_sentence
from cof_agent.nano import NANO, WEIGHTS

TRAIN_EXTRA = 'pip install "chain-of-focus[train]"'
CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")


def run(options: argparse.Namespace) -> int:
    output, adapter = Path(options.output).resolve(), Path(options.adapter)
    if find_spec("peft") is None:
        raise InputError(f"merging needs the package peft: {TRAIN_EXTRA}.")
    _check_free(output)
    recorded = _adapter_config(adapter)
    base, revision = options.model, None
    if base is None:
        base, revision = recorded.get("base_model_name_or_path"), recorded.get("revision")
    if not base:
        raise InputError(f"{adapter} does not say which model it is for; name it with --model.")
    base = str(WEIGHTS) if base == NANO else str(base)
    try:
        with _quiet(), _becoming(output) as folder:
            merged = _merged(adapter, base, revision, options.dtype)
            _save(merged, folder)
            _write_processor(adapter, base, revision, merged.config, folder)
            _write_card(adapter, base, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("I/O error: ")[-1]
        raise InputError(f"cannot write {options.output} ({reason}); nothing is left of it.") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    print(f"{options.output} holds the merged model: cof ask IMAGE QUESTION --model {options.output}")
    return 0


def _check_free(output: Path) -> None:
    """Raises InputError if something is in the way."""
    try:
        if output.exists() and not output.is_dir():
            raise InputError(f"{output} is a file; name a new folder with -o.")
        if output.is_dir() and any(output.iterdir()):
            raise InputError(f"{output} is not empty; name a new folder with -o.")
    except OSError as error:
        raise InputError(f"cannot look into {output}: {error.strerror}.") from None


def _adapter_config(adapter: Path) -> dict[str, Any]:
    """What `adapter_config.json` says, of a LoRA adapter whose weights are there.

    Raises:
        InputError: if there is no such adapter, or it is of another kind.
    """
    path = adapter / CONFIG
    if not path.is_file():
        raise InputError(f"there is no adapter in {adapter} (no {CONFIG}); name the folder that the training wrote.")
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError:
        raise InputError(f"{path} is damaged: it is no JSON.") from None
    kind = found.get("peft_type") if isinstance(found, dict) else None
    if kind != "LORA":
        raise InputError(f"{path} describes no LoRA adapter but {kind or 'something else'}; only LoRA can be merged.")
    if not any((adapter / name).is_file() for name in ADAPTER_WEIGHTS):
        raise InputError(f"the weights of the adapter are missing: there is no {ADAPTER_WEIGHTS[0]} in {adapter}.")
    return dict(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what libraries print, some of it on stdout: what matters is checked here and said in one sentence."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _becoming(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its name when all went well, and else is gone with the parents made for it."""
    folder = output.with_name(f".{output.name}.{os.getpid()}.part")
    made = [parent for parent in output.parents if not parent.exists()]  # nearest first
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


def _merged(adapter: Path, base: str, revision: str | None, dtype: str | None) -> Any:
    """The base model with the adapter folded in, of the type asked for or the base's own.

    Raises:
        InputError: if one of the two cannot be read, or they do not belong together.
    """
    import torch

    # In float32 from the start where that is asked for; a narrower type only at the end, so that it rounds once.
    model = _base(base, revision, torch.float32 if dtype == "float32" else "auto")
    target = getattr(torch, dtype) if dtype else model.dtype
    merged = _folded(model, adapter, base).to(target)
    for name in merged.config.sub_configs:  # servers read the type there too
        getattr(merged.config, name).dtype = target
    return merged


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    mode = (folder / "config.json").stat().st_mode
    for weights in folder.glob("*.safetensors"):
        weights.chmod(mode)  # safetensors lets nobody else read them, such as the user of a server


def _base(base: str, revision: str | None, dtype: Any) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    if (Path(base) / CONFIG).exists():
        raise InputError(f"{base} is itself an adapter; name the model that it is for with --model.")
    try:
        config = AutoConfig.from_pretrained(base, revision=revision)
        if getattr(config, "quantization_config", None) is None:
            model, found = AutoModelForImageTextToText.from_pretrained(
                base, revision=revision, dtype=dtype, output_loading_info=True
            )
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        raise InputError(f"cannot read the base model {base}: {first_sentence(error)}; name it with --model.") from None
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{base} is quantized, and merging would round twice; name the unquantized model by --model.")
    if found["missing_keys"]:
        raise InputError(f"the base model {base} is not whole: it has no {min(found['missing_keys'])}.")
    return model


def _folded(model: Any, adapter: Path, base: str) -> Any:
    """Raises InputError if any weight of the adapter has no place in the model, or a place no weight."""
    from peft import LoraConfig, get_peft_model

    try:
        config = LoraConfig.from_pretrained(str(adapter))
    except Exception as error:  # fields of any kind may be wrong
        raise InputError(f"{adapter / CONFIG} is damaged: {first_sentence(error)}.") from None
    try:
        wrapped = get_peft_model(model, config)
        result = wrapped.load_adapter(str(adapter), "default", torch_device="cpu")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights of {adapter}: {first_sentence(error)}.") from None
    except KeyError as error:  # of a module that was trained in full
        raise InputError(f"the adapter {adapter} does not fit {base}: it has no {error.args[0]}.") from None
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"the adapter {adapter} does not fit {base}: {first_sentence(error)}.") from None
    if strange := [*result.unexpected_keys, *result.missing_keys]:
        raise InputError(
            f"the adapter {adapter} is for another model than {base}: {len(strange)} weights have no counterpart, such "
            f"as {strange[0]}; name its own model with --model."
        )
    try:
        return wrapped.merge_and_unload(safe_merge=True)
    except ValueError as error:  # not a number
        raise InputError(f"the adapter {adapter} cannot be merged: {first_sentence(error)}.") from None


def _write_processor(adapter: Path, base: str, revision: str | None, config: Any, folder: Path) -> None:
    """Tokenizer, template and image sizes as the adapter was trained with, where it brings its own, else the base's.
    config: the model's.

    Raises:
        InputError: if they cannot be read.
    """
    from cof_agent.backends.local.processor import FILES, load_processor

    own = any((adapter / name).is_file() for name in FILES)
    try:
        processor = load_processor(str(adapter), config) if own else load_processor(base, config, revision=revision)
    except Exception as error:  # as when a checkpoint is loaded
        raise InputError(f"cannot read the processor of {adapter if own else base}: {first_sentence(error)}.") from None
    processor.save_pretrained(folder)


def _write_card(adapter: Path, base: str, folder: Path) -> None:
    """The adapter's `README.md`, if it has one, with a line below its front matter that it was merged."""
    card = adapter / "README.md"
    if not card.is_file():
        return
    text = card.read_text("utf-8", errors="replace")
    line = f"This is the whole model: the LoRA adapter was folded into `{base}` by `cof merge`."
    head, mark, body = text.partition("\n---\n") if text.startswith("---\n") else ("", "", text)
    (folder / card.name).write_text(f"{head}{mark}\n{line}\n\n{body.lstrip()}".lstrip("\n"), "utf-8")
