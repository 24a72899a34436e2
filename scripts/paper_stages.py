"""The stages of the paper, from questions to one report: which command makes what. `paper.py` runs them, `paper_plan.py` checks
them before."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof_agent.errors import InputError
from cof_agent.training import keys

NANO = "nano"
RESOLUTIONS = "224,336,448,672,1024,1920,2560,3840"
EVEN = "224,336,672,448,1024,1920,3840,2560"
"""The same; in this order two processes that answer every other question have the same work."""
LARGEST = 3840 * 3840
"""Shown pixels of the largest overview."""
COLLECTED, PLAYED = "data/CoF-SFT-Data-5.4k", "data/CoF-RL-Data"
"""Where the configurations expect the paper's own sets, as they are published."""
VSTAR = "vstar"
MEASURE = "scripts/measure.sh"
OVERVIEW, GREY = ("--strategy", "direct"), ("--crop", "blank")
"""The controls: the overview alone, and crops that show nothing."""
SERVED = "rl/configs/qwen2.5-vl-7b-2node-server.yaml"


@dataclass(frozen=True, slots=True)
class Stage:
    """name: also that of its result's folder below the paper's. command: as a user types it. cost: what is known of it.
    whole: whether its folder is there only once it is complete."""

    name: str
    command: tuple[str, ...]
    cost: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a size of the model takes: the checkpoint, GPUs, and configurations, for sets of one's own and for published ones."""

    model: str
    gpus: int
    sft: str
    rl: str
    published_sft: tuple[str, ...]
    published_rl: str
    rl_adapter: bool  # RL trains an adapter, too


_3B = "qwen2.5-vl-3b-lora-1gpu.yaml"
RECIPES = {
    "3b": Recipe(
        model="Qwen/Qwen2.5-VL-3B-Instruct",
        gpus=1,
        sft=f"sft/configs/{_3B}",
        rl=f"rl/configs/{_3B}",
        published_sft=(f"sft/configs/{_3B}", "--boxes", "pixels-xyxy"),
        published_rl=f"rl/configs/{_3B}",
        rl_adapter=True,
    ),
    "7b": Recipe(
        model="Qwen/Qwen2.5-VL-7B-Instruct",
        gpus=8,
        sft="sft/configs/qwen2.5-vl-7b-lora.yaml",
        rl="rl/configs/qwen2.5-vl-7b-8gpu.yaml",
        published_sft=("sft/configs/chain-of-focus-7b-lora.yaml",),
        published_rl="rl/configs/chain-of-focus-7b.yaml",
        rl_adapter=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for.

    questions, played, tested: how many are collected, filtered and measured; 0 for all. start, steps: rows of nano's start, and
    steps of RL. collect, sft, rl, play: further options of these commands, `play` of those that play a trained model.
    """

    recipe: str
    folder: Path
    questions: int = 0
    start: int = 0
    played: int = 0
    tested: int = 0
    steps: int = 0
    model: str | None = None
    data: str | None = None
    test: str | None = None
    benchmark: str | None = None
    collect: tuple[str, ...] = ()
    sft: tuple[str, ...] = ()
    rl: tuple[str, ...] = ()
    play: tuple[str, ...] = ()

    def at(self, name: str) -> str:
        """The folder of a stage's result."""
        return str(self.folder / name)

    def made(self, name: str, *words: object, cost: str = "", whole: bool = False) -> Stage:
        """The stage of a command of `cof` that takes its folder by -o."""
        return Stage(name, ("cof", *map(str, words), "-o", self.at(name)), cost, whole)


def stages_of(asked: Asked) -> list[Stage]:
    """All stages, in the order in which they run."""
    return [*(_nano(asked) if asked.recipe == NANO else _checkpoint(RECIPES[asked.recipe], asked))]


def _nano(asked: Asked) -> Iterator[Stage]:
    """nano unlearns part of what it can (`nano-imperfect.yaml`), then goes through the paper's stages on drawn scenes."""
    steps = asked.start // 16
    yield _scenes(asked, "questions", asked.questions, 41, "train")
    yield asked.made(
        "start",
        *("sft", "--config", "sft/configs/nano-imperfect.yaml", "--samples", asked.start),
        cost=f"{steps:,} steps; 300 take 6 minutes on two cores",
    )
    # The teacher is the nano that ships; SFT leaves out what it answers wrong. Boxes and thoughts by the rules of `cof collect`
    # are so unlike nano's own that SFT on them costs it its sight (EXPERIMENTS.md, "The paper's stages on nano").
    words = ("--data", asked.at("questions"), "--model", NANO, "--resolutions", "224,448")
    yield _in_two_processes(asked, "collected", 2 * asked.questions, *words)
    yield asked.made(
        "sft",
        *("sft", "--config", "sft/configs/nano.yaml", "--model", asked.at("start"), "--data", asked.at("collected")),
        *("--learning-rate", "2e-4", "--num-train-epochs", "2", "--warmup-steps", "10"),
        *("--train-sampling-strategy", "random", *asked.sft),
        cost=f"at most {math.ceil(2 * 2 * asked.questions / 16):,} steps; 114 take 4 minutes on two cores",
    )
    yield _scenes(asked, "played", asked.played, 42, "train")
    yield _filtered(asked, asked.at("played"), asked.at("sft"), asked.play)
    yield asked.made(
        "rl",
        *("rl", "--config", "rl/configs/nano.yaml", "--model", asked.at("sft"), "--data", asked.at("hard")),
        *("--max-steps", asked.steps, *asked.rl),
        cost=f"{asked.steps:,} steps; 125 take 18 minutes on two cores",
    )
    yield _scenes(asked, "test", asked.tested, 51, "test", "--resolutions", EVEN)
    yield from _measured(asked, asked.at("start"), asked.at("sft"), asked.at("rl"))


def _scenes(asked: Asked, name: str, count: int, seed: int, split: str, *more: str) -> Stage:
    words = ("scenes", "--samples", count, "--seed", seed, "--split", split, *more)
    return asked.made(name, *words, cost=f"{count:,} scenes, {'of eight sizes' if more else 'of 4K'}")


def _checkpoint(recipe: Recipe, asked: Asked) -> Iterator[Stage]:
    """A real checkpoint: trajectories of a teacher about `asked.data`, or the sets that the paper's authors published."""
    base, data, own = asked.model or recipe.model, asked.data or PLAYED, asked.data is not None
    few = ("--samples", str(asked.questions)) if asked.questions else ()
    if own:
        yield asked.made("collected", "collect", "--data", data, *few, *asked.collect)
    config, *more = (recipe.sft,) if own else recipe.published_sft
    words = ("--data", asked.at("collected") if own else COLLECTED, *more, *(() if own else few), *asked.sft)
    yield _trained(asked, recipe, "sft", config, base, words)
    yield asked.made("zoom", "merge", asked.at("sft"), whole=True)
    config = recipe.rl if own else recipe.published_rl
    yield _filtered(asked, data, f"vllm:{asked.at('zoom')}", (*_as_played(config), *asked.play))
    words = ("--data", asked.at("hard"), *(("--max-steps", str(asked.steps)) if asked.steps else ()), *asked.rl)
    yield _trained(asked, recipe, "rl", config, asked.at("zoom"), words)
    if recipe.rl_adapter:
        yield asked.made("zoom-rl", "merge", asked.at("rl"), whole=True)
    best = asked.at("zoom-rl" if recipe.rl_adapter else "rl")
    yield from _measured(asked, *(f"vllm:{model}" for model in (base, asked.at("zoom"), best)))


def _trained(asked: Asked, recipe: Recipe, name: str, config: str, model: str, words: Sequence[str]) -> Stage:
    """SFT or RL on the GPUs of the recipe."""
    return asked.made(name, name, "--config", config, "--processes", recipe.gpus, "--model", model, *words)


def launched(command: Sequence[str]) -> Sequence[str]:
    """The command as it is run here: within a Slurm job of several machines, a training on whole machines takes all of them."""
    whole = "--processes" in command and command[command.index("--processes") + 1] != "1"
    if not whole or int(os.environ.get("SLURM_NNODES", "1")) < 2:
        return command
    _, name, _, config, *words = command
    where = words.index("--processes")
    del words[where : where + 2]
    machines = int(os.environ["SLURM_NNODES"])
    script, config, trainers = ("grpo", SERVED, machines - 1) if name == "rl" else ("sft", config, machines)
    return ("bash", f"scripts/slurm/{script}.sbatch", config, *words, *_as_many_rows(config, words, trainers))


def _as_many_rows(config: str, words: Sequence[str], machines: int) -> Sequence[str]:
    """The option by which several machines take as many rows for an update as the configuration does on one.

    Raises:
        InputError: if they cannot.
    """
    option = "--gradient-accumulation-steps"
    if machines == 1 or option in words:
        return ()
    steps = int(keys.read_config(config)["gradient_accumulation_steps"])
    if steps % machines:
        raise InputError(
            f"{config} accumulates {steps} steps, which {machines} machines cannot share evenly; give {option} yourself, or "
            "another number of machines."
        )
    return (option, str(steps // machines))


def _as_played(config: str, **instead: int) -> tuple[str, ...]:
    """How the agent plays in an RL run of this configuration, as options of `cof rollout` and `cof eval`."""
    given: dict[str, Any] = keys.read_config(config) | instead
    names = ("overview_pixels", "zoom_pixels", "max_zooms", "max_tokens")
    return tuple(word for name in names for word in (f"--{name.replace('_', '-')}", str(given[name])))


def _filtered(asked: Asked, data: str, model: str, more: Sequence[str]) -> Stage:
    few = ("--samples", str(asked.played)) if asked.played and asked.recipe != NANO else ()
    words = ("rollout", "--data", data, *few, "--model", model, "--plays", 8, "--keep", "0,1", *more)
    return asked.made(
        "hard", *words, cost=f"{8 * asked.played:,} rollouts" if asked.played else "8 rollouts a question"
    )


def _measured(asked: Asked, start: str, sft: str, rl: str) -> Iterator[Stage]:
    """Each model at eight resolutions, what was trained last also in two controls, and the comparison of all."""
    runs = {"start": (start,), "sft": (sft,), "rl": (rl,), "rl-overview": (rl, *OVERVIEW), "rl-grey": (rl, *GREY)}
    for name, (model, *more) in runs.items():
        yield _asked_about(asked, f"runs/{name}", "--model", model, *more)
    published = ("--published",) if benchmark_of(asked) else ()
    folders = [asked.at(f"runs/{name}") for name in runs]
    yield asked.made("compared", "compare", *folders, "--cards", 200, *published, "--quiet")


def _asked_about(asked: Asked, name: str, *model: str) -> Stage:
    if asked.recipe == NANO:
        return _in_two_processes(asked, name, 8 * asked.tested, "--data", asked.at("test"), *model, *asked.play)
    shown = _as_played(RECIPES[asked.recipe].rl, overview_pixels=LARGEST)
    words = (*_test(asked), *model, "--resolutions", RESOLUTIONS, *shown, *asked.play)
    return asked.made(name, "eval", *words, cost="each question at eight resolutions")


def _in_two_processes(asked: Asked, name: str, count: int, *words: str) -> Stage:
    """So many questions, which nano plays in two processes."""
    cost = f"{count:,} questions; about 8 a second on two cores"
    return Stage(name, ("bash", MEASURE, asked.at(name), *words), cost)


def benchmark_of(asked: Asked) -> str | None:
    """The published benchmark that is measured, None where questions of one's own are."""
    return asked.benchmark or (VSTAR if asked.test is None and asked.recipe != NANO else None)


def _test(asked: Asked) -> tuple[str, ...]:
    """The questions that are measured, as options of `cof eval`."""
    name = benchmark_of(asked)
    named = ("--benchmark", name, "--shuffle-options") if name else ()
    given = ("--data", asked.test) if asked.test else ()
    return (*named, *given, *(("--samples", str(asked.tested)) if asked.tested else ()))
