"""`cof eval --data SPEC -o DIR`: accuracy with its interval, pointing, zooms and tokens of a model on samples.

`cof eval --benchmark list` prints the published benchmarks.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from cof_agent import scoring
from cof_agent.backends.load import check, in_vllm, is_served, load
from cof_agent.backends.scenes_only import KNOWS
from cof_agent.commands import common, detected
from cof_agent.commands.options import add_agent, add_samples, option
from cof_agent.data import shards
from cof_agent.data.shards import Shard
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError, said
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import write_atomic, write_json
from cof_agent.output.terminal import figures_table
from cof_agent.plugins import load_function
from cof_agent.trajectory import Key, Sample, Trajectory, to_json

if TYPE_CHECKING:
    from cof_agent.config import AgentConfig
    from cof_agent.evaluation.metrics import Score

_log = logging.getLogger(__name__)

LIST = "list"
"""What `--benchmark` says for a table of all benchmarks."""

NEEDED_BUDGET = 6  # zooms the oracle may take when it says how many a sample needs, whatever the run allows
WHOLE = "trajectories.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof eval (--data SPEC | --benchmark NAME) -o DIR [OPTION ...]\n       cof eval --benchmark list"
    parser.epilog = "example:\n  cof eval --data outputs/test --model nano -o outputs/eval"
    what = "a file, a folder, or a dataset of the hub; with --benchmark a copy of it"
    samples = add_samples(parser, data={"required": False, "help": what})
    samples.add_argument(
        "--benchmark",
        metavar="NAME",
        help="published benchmark, such as vstar; it comes from the hub without --data. list: print all of them",
    )
    samples.add_argument(
        "--shuffle-options",
        nargs="?",
        type=int,
        const=0,
        metavar="SEED",
        help="shuffle the choices of each question by this seed (0 if it is left out; default: published order)",
    )
    option(samples, "output", help="folder for trajectories.jsonl and summary.json")
    run = parser.add_argument_group("run")
    option(run, "resolutions", default=())
    option(run, "plays", default=1, help="ask every question K times; needs --seed or --temperature")
    option(run, "crop")
    option(run, "shard", help="answer part I of N only, into the same folder; the part that ends last sums up")
    option(run, "concurrency", default=32)
    detected.add_options(parser)
    score = parser.add_argument_group("scoring")
    score.add_argument(
        "--scoring",
        metavar="MODULE:FUNCTION",
        help="your own rule: a function of a trajectory that returns 0 to 1, or None where it cannot be scored",
    )
    score.add_argument(
        "--judge",
        metavar="MODEL",
        help="model that judges whether an answer that differs from the accepted text means the same",
    )
    score.add_argument("--judge-base-url", metavar="URL", help="address of the judge's server")
    add_agent(parser)


def run(options: argparse.Namespace) -> int:
    if options.benchmark == LIST:
        return _list()
    config = _checked(options)
    output, shard = Path(options.output), _shard(options)
    samples = _samples(options, config, output)
    share = shard.of(samples)
    taken = _asked(share, options)
    if not taken:
        raise InputError(f"there are only {len(samples)} samples, so part {shard.number} of {shard.count} has none.")
    common.warn_if_unknown_to_nano(config.model, samples, config.base_url)
    resumed = common.check_settings(config, output)
    from cof_agent.rollout import check_same_questions, check_same_samples  # which import LangGraph

    every = _asked(samples, options)
    if shard.count == 1:
        check_same_questions(taken, output / WHOLE)
    else:
        check_same_samples(every, shards.found(output, shard), output)
    if options.detector is not None:
        taken = _asked(detected.filled(options, share), options)
    with shards.part(output, shard) if shard.count > 1 else nullcontext(output / WHOLE) as part:
        own = trajectories = common.played(config, taken, part, options, resumed=resumed)
    if shard.count > 1:
        trajectories = shards.sum_up(output, shard, lambda found: _write_whole(found, every, output))
        if left := len(every) - len(trajectories):
            print(f"{for_terminal(part)}: done. {left} questions are left, of other shards.")
            return common.report_errors(own, "and count as wrong")
    elif others := sum(1 for _ in (output / WHOLE).open("rb")) - len(trajectories):
        whose = f"cof eval: {output / WHOLE} also holds {others:,} trajectories of other questions"
        print(f"{for_terminal(whose)}, which `cof view` and `cof compare` read, too.", file=sys.stderr)
    _sum_up(options, trajectories, output)
    return common.report_errors(trajectories, "and count as wrong")


def _checked(options: argparse.Namespace) -> AgentConfig:
    """What is wrong with the options is said before samples are read or a model is loaded."""
    if options.output is None:
        raise InputError("say where to write: -o DIR.")
    config = common.config_of(options)
    detected.check(options)
    if options.benchmark is None and options.data is None:
        raise InputError("say what to measure on: --data SPEC, or --benchmark NAME.")
    if options.benchmark is not None and (options.images or options.column):
        raise InputError("--images and --column describe data of your own; a benchmark has its published layout.")
    if options.plays > 1 and config.sampling.temperature == 0:
        raise InputError("--plays needs answers that are drawn, or all plays would be the same; give --seed N.")
    if options.scoring is not None:
        load_function(options.scoring, "scoring rule")
        if options.judge is not None:
            raise InputError("--scoring and --judge are two ways to score; name one of them.")
    if options.benchmark is not None:
        _check_judge(options)
    if options.judge is None and options.judge_base_url is not None:
        raise InputError("--judge-base-url is the address of a judge; add --judge MODEL, or leave it out.")
    if options.judge is not None:
        check(options.judge, base_url=options.judge_base_url)
        if is_served(options.judge, options.judge_base_url):  # a missing key or package shows now
            load(options.judge, base_url=options.judge_base_url, boxes=False)
    return config


def _check_judge(options: argparse.Namespace) -> None:
    """Refuses a judge for a benchmark that a rule scores, and warns where its authors have one and none is named."""
    from cof_agent.data.benchmarks import RULES, named

    benchmark = named(options.benchmark)
    if options.judge is not None and not benchmark.judge and benchmark.own is None:
        raise InputError(
            f"{benchmark.title} is scored by a rule ({RULES[benchmark.scoring]}), not by a judge; leave --judge out."
        )
    if benchmark.judge and options.judge is None and options.scoring is None:
        _log.warning(
            "the authors of %s let a language model judge answers. Without --judge, other words for the right answer may count "
            "as wrong.",
            benchmark.title,
        )


def _list() -> int:
    """Prints the published benchmarks."""
    from rich.table import Table

    from cof_agent.data.benchmarks import BENCHMARKS, RULES

    table = Table(title="Published benchmarks", title_justify="left")
    for heading in ("name", "questions about", "scored by", "questions", "from", "also"):
        right, whole = heading == "questions", heading in ("name", "from")  # names can be copied
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=whole)
    for name, one in BENCHMARKS.items():
        size = f"{one.size:,}" if one.size else "-"
        table.add_row(name, one.what, RULES[one.scoring], size, "\n".join(one.hub) or "-", one.remarks)
    common.console().print(table)
    return 0


def _sum_up(options: argparse.Namespace, trajectories: Sequence[Trajectory], output: Path) -> None:
    """Writes and prints the figures."""
    from cof_agent.evaluation.metrics import summarise

    score, judge = _score(options, trajectories, output)
    tables = {"by_zooms_needed": _zooms_needed(trajectories[0])}
    summary = summarise(trajectories, score, tables) | common.origin(options, trajectories[0]) | judge
    summary["unreliable"] = sum(one.warning is not None for one in trajectories)
    if options.detector is not None:
        from cof_agent.detection.regions import counts

        summary["regions"] = counts(one.sample for one in trajectories)
    write_json(output / "summary.json", summary)
    _print(summary, output, quiet=options.quiet)


def _zooms_needed(first: Trajectory) -> Callable[[Trajectory], str]:
    """The row of a trajectory in the table by zooms needed: what the oracle takes with the settings of the run, which are
    those of its first trajectory."""
    from cof_agent.environment import ZoomEnvironment, settings_of
    from cof_agent.evaluation.metrics import UNKNOWN
    from cof_agent.scenes.oracle import zooms_needed_by

    settings = replace(settings_of(first), max_zooms=NEEDED_BUDGET, crop="real", resolution=None, tools=())
    environment = ZoomEnvironment(settings)

    def row(trajectory: Trajectory) -> str:
        needed = zooms_needed_by(trajectory, environment)
        return UNKNOWN if needed is None else str(needed)

    return row


def _score(
    options: argparse.Namespace, trajectories: Sequence[Trajectory], output: Path
) -> tuple[Score, dict[str, Any]]:
    """How answers are scored: by the rule of their benchmark, or by the judge that is named, and what is told of it."""
    if options.scoring is not None:
        return _own_rule(options.scoring), {"scoring": options.scoring}
    if options.judge is None:
        return scoring.score, {}
    from cof_agent.evaluation.judge import Judge

    policy = load(options.judge, base_url=options.judge_base_url, boxes=False)
    judge = Judge(policy, cache=output / "judge" / "verdicts.jsonl")
    verdicts = dict(zip((t.key for t in trajectories), judge.verdicts(trajectories), strict=True))

    def score(trajectory: Trajectory) -> float | None:
        verdict = verdicts[trajectory.key]
        return None if verdict is None else float(verdict)

    return score, {"judge": {"name": policy.name, "without_verdict": judge.failures}}


def _own_rule(name: str) -> Score:
    """The user's function.

    Raises:
        InputError: when it is called, if it fails, or returns anything else than None or a number from 0 to 1.
    """
    rule = load_function(name, "scoring rule")

    def score(trajectory: Trajectory) -> float | None:
        sample = f"for sample {trajectory.sample.id}"
        try:
            found = rule(trajectory)
        except Exception as error:  # the function is not ours
            why = f"{type(error).__name__} ({said(error)})"
            raise InputError(f"the scoring rule {name} fails with {why} {sample}.") from error
        if found is not None and not (isinstance(found, SupportsFloat) and 0 <= float(found) <= 1):
            raise InputError(f"the scoring rule {name} returns {found!r} {sample}; it must return 0 to 1, or None.")
        return None if found is None else float(found)

    return score


def _shard(options: argparse.Namespace) -> Shard:
    """The part of this process: what --shard says, or its place among those that a launcher has started."""
    if options.shard is not None:
        return shards.parse(options.shard)
    if (shard := shards.launched()).count > 1 and not common.is_served(options):
        if in_vllm(options.model):
            raise InputError(
                "vLLM takes its GPUs itself; instead of a launcher start one process for each GPU, with CUDA_VISIBLE_DEVICES and "
                "--shard I/N."
            )
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return shard


def _write_whole(found: dict[Key, Trajectory], every: Sequence[Episode], output: Path) -> list[Trajectory]:
    """Those that were found of every question, in their order; written if none is missing.

    Raises:
        InputError: if another part was asked about other samples.
    """
    from cof_agent.rollout import check_same_samples

    check_same_samples(every, found, output)
    trajectories = [found[episode.key] for episode in every if episode.key in found]
    if len(trajectories) == len(every):
        write_atomic(output / WHOLE, "".join(to_json(trajectory) + "\n" for trajectory in trajectories))
    return trajectories


def _samples(options: argparse.Namespace, config: AgentConfig, output: Path) -> list[Sample]:
    from cof_agent.data.benchmarks import load as load_benchmark
    from cof_agent.data.choices import shuffled

    seed, one_image = options.shuffle_options, common.needs_one_image(config)
    if options.benchmark is not None:
        samples = load_benchmark(options.benchmark, options.data, limit=options.samples, shuffle_options=seed)
        return common.of_one_image(samples, config) if one_image else samples
    samples = common.samples(options, output, one_image=one_image)
    return samples if seed is None else shuffled(samples, seed)


def _asked(samples: Sequence[Sample], options: argparse.Namespace) -> list[Episode]:
    """The questions of these samples: each at each resolution, as often as there are plays."""
    return episodes(samples, resolutions=options.resolutions, plays=options.plays, shuffle_seed=options.shuffle_options)


def _print(summary: dict[str, Any], output: Path, *, quiet: bool) -> None:
    from cof_agent.evaluation.metrics import HEADINGS, UNKNOWN, cells, number

    sections = [[["all", *cells(summary)]]]
    for name in () if quiet else ("by_play", "by_category", "by_resolution", "by_zooms_needed"):
        part, rows = name.removeprefix("by_").replace("_", " "), summary.get(name, {})
        if set(rows) != {UNKNOWN}:  # which would say the same as "all"
            sections.append([[f"{part} {row}", *cells(figures)] for row, figures in rows.items()])
    console = common.console()
    title = f"{summary['policy']}, {summary['strategy']}, on {summary['n']} sample{'s' * (summary['n'] != 1)}"
    console.print(figures_table(title, HEADINGS, sections, console.width), crop=False)
    if "accuracy_over_parts" in summary:
        common.console().print(f"accuracy over parts, as the authors average it: {summary['accuracy_over_parts']:.3f}")
    if told := summary.get("yes_and_no"):
        common.console().print(f"F1 of yes: {number(told['f1'], 3)}; answers that say yes: {number(told['yes'], 3)}")
        for row, one in summary.get("yes_and_no_by_category", {}).items():
            common.console().print(f"F1 of yes, {row}: {number(one['f1'], 3)}", markup=False)
    if summary["unreliable"]:
        common.console().print(f"unreliable: {summary['unreliable']} answers; {KNOWS}.")
    details = common.console(quiet=quiet)
    if regions := summary.get("regions"):
        from cof_agent.detection.regions import in_words

        details.print(f"regions: {in_words(regions)}", soft_wrap=True)
    if plays := summary.get("plays"):
        details.print(f"accuracy over plays: mean {plays['mean_accuracy']:.3f}, deviation {plays['sd_accuracy']:.3f}")
    details.print("stop reasons:", ", ".join(f"{name} {n}" for name, n in summary["stop_reasons"].items()))
    details.print(f"written: {output / 'summary.json'}, {output / WHOLE}", soft_wrap=True)
