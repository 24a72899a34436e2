"""What the paper would run, what it costs and what is missing, before a GPU is touched: `bash scripts/paper.sh 7b --plan`."""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from paper_dry import Figures, dry_run, environment_of, said_by, write_expected
from paper_stages import COLLECTED, NANO, PLAYED, RECIPES, Asked, Stage, benchmark_of, launched

from cof_agent.data.benchmarks import load as load_benchmark
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError, said
from cof_agent.output.install import how_to_install
from cof_agent.training import keys

TRAINING = ("trl", "peft", "accelerate", "datasets", "pyarrow")
GIB = 2**30
SCENE, EIGHT_SIZES = 5.5e6, 12e6  # bytes of the pictures of a scene, in 4K and in eight sizes
SAVED = 14  # bytes in a checkpoint for each weight that is trained: itself, a float32 copy, and AdamW's two values
HALF = 2  # bytes of a weight in bfloat16
WAIT = 10  # seconds for the teacher's server to answer


def show(asked: Asked, stages: Sequence[Stage]) -> int:
    """Prints the plan; returns the exit code, 2 if something is missing."""
    print(f"{asked.recipe}: {len(stages)} stages, whose results go to {asked.folder}")
    for stage in stages:
        print(f"\n{described(stage)}")
    print(flush=True)
    missing = [*missing_here(asked), *([] if asked.recipe == NANO else _missing_for(asked, stages))]
    for sentence in missing:
        print(f"missing: {sentence}", file=sys.stderr)
    print("nothing is missing" if not missing else f"missing: {len(missing)}")
    return 2 if missing else 0


def described(stage: Stage) -> str:
    """A stage with what is known of its cost, and its command on a line of its own."""
    return f"{stage.name}{f' ({stage.cost})' if stage.cost else ''}:\n  {shlex.join(launched(stage.command))}"


def missing_here(asked: Asked) -> list[str]:
    """What this machine lacks, in sentences: packages, GPUs, and for nano room on the disk."""
    if asked.recipe == NANO:
        scenes = SCENE * (asked.questions + asked.played) + EIGHT_SIZES * asked.tested
        return [*_packages(TRAINING), *_room(asked.folder, {"scenes": scenes, "checkpoints": GIB})]
    gpus = RECIPES[asked.recipe].gpus
    return [*_packages((*TRAINING, "vllm", *(["deepspeed"] if gpus > 1 else []))), *_gpus(gpus)]


def _packages(names: Sequence[str]) -> list[str]:
    lost = [name for name in names if find_spec(name) is None]
    return [f"packages are not installed ({', '.join(lost)}): {how_to_install(*lost)}."] if lost else []


def _gpus(wanted: int) -> list[str]:
    """A sentence if there are too few; what there are is printed."""
    found = _cards()
    print(f"GPUs: {', '.join(f'{card.name}, {card.total_memory / GIB:.0f} GiB' for card in found) or 'none'}")
    return (
        [f"{wanted} GPU{'s are' if wanted > 1 else ' is'} needed; here are {len(found)}."]
        if len(found) < wanted
        else []
    )


@cache
def _cards() -> list[Any]:
    """The GPUs of this machine, as CUDA describes them."""
    import torch

    return [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]


def _room(folder: Path, needed: Mapping[str, float]) -> list[str]:
    """A sentence if the disk has too little room; what is needed is printed."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, total = shutil.disk_usage(there).free, sum(needed.values())
    parts = ", ".join(f"{what} {bytes / GIB:,.0f}" for what, bytes in needed.items())
    print(f"disk, GiB: {total / GIB:,.0f} ({parts}); free are {free / GIB:,.0f}")
    return (
        [f"{total / GIB:,.0f} GiB are needed on the disk of {folder}, {free / GIB:,.0f} are free."]
        if free < total
        else []
    )


def _missing_for(asked: Asked, stages: Sequence[Stage]) -> list[str]:
    """What a real checkpoint lacks: a teacher, data, the model, memory, and room on the disk."""
    unread = _unread(asked)
    missing = [*_teacher(asked.collect), *unread.values()]
    model = asked.model or RECIPES[asked.recipe].model
    trainings = {stage.name: stage for stage in stages if stage.name in ("sft", "rl")}
    found: dict[str, Figures] = {}
    try:
        environment = environment_of(model)
        with TemporaryDirectory() as folder:
            for name, data in _trained_on(asked, unread, environment, Path(folder)).items():
                found[name] = dry_run(trainings[name], model, data, on_cpu=not _cards())
                print(f"{name}: {found[name]}", flush=True)
    except InputError as error:
        missing.append(str(error))
    written = {what: size for name, one in found.items() for what, size in _written(asked, trainings[name], one)}
    return [*missing, *_too_large(found), *(_room(asked.folder, written) if written else [])]


def _unread(asked: Asked) -> dict[str, str]:
    """A sentence for each set of questions that cannot be read; the others are shown."""
    found = {}
    name, played = benchmark_of(asked), asked.data or PLAYED
    for spec in (played, name or str(asked.test)):
        try:
            if spec == name:
                print(f"{name}: {len(load_benchmark(name, asked.test)):,} questions")
            else:
                print(said_by("data", spec, "--quiet"))
        except InputError as error:
            found[spec] = str(error)
    return found


def _teacher(words: Sequence[str]) -> list[str]:
    """A sentence if the teacher's server does not answer; whatever it says is an answer."""
    reader = argparse.ArgumentParser(add_help=False)
    reader.add_argument("--base-url")
    if (url := reader.parse_known_args(words)[0].base_url) is None:
        return []
    url = url.rstrip("/")
    try:
        urlopen(f"{url}/models", timeout=WAIT).close()
    except HTTPError:
        pass
    except (OSError, ValueError) as error:
        return [f"the teacher's server does not answer at {url} ({said(error)})."]
    return []


def _trained_on(asked: Asked, unread: Container[str], environment: ZoomEnvironment, folder: Path) -> dict[str, str]:
    """The data of the dry runs: trajectories that are still to be collected are replaced by expected ones in `folder`."""
    if asked.data is None:
        return {"sft": COLLECTED, **({} if PLAYED in unread else {"rl": PLAYED})}
    if asked.data in unread:
        return {}
    collected = Path(asked.at("collected"))
    if not (collected / "trajectories.jsonl").exists():
        write_expected(asked.data, asked.questions or None, environment, collected := folder)
        print("sft is reckoned as if each question became a trajectory with one zoom, into half of its image")
    return {"sft": str(collected), "rl": asked.data}


def _too_large(found: Mapping[str, Figures]) -> list[str]:
    """A sentence for each training that the smallest of the GPUs has no memory for."""
    least = min((card.total_memory / GIB for card in _cards()), default=math.inf)
    large = {name: one.training for name, one in found.items() if one.training > least}
    return [f"{name} takes {gib:g} GiB of each GPU, which has {least:.0f}." for name, gib in large.items()]


def _written(asked: Asked, training: Stage, found: Figures) -> Iterator[tuple[str, float]]:
    """Bytes on the disk: the checkpoints, one more than are kept, and the whole model."""
    whole = training.name == "rl" and not RECIPES[asked.recipe].rl_adapter
    one = SAVED * found.trained + whole * HALF * (found.weights - found.trained)
    config = keys.read_config(training.command[training.command.index("--config") + 1])
    yield f"checkpoints of {training.name}", (config["save_total_limit"] + 1) * one
    yield f"model after {training.name}", HALF * found.weights
