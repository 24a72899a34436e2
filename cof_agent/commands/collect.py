"""`cof collect --data SPEC -o DIR`: questions with known answers become verified zoom trajectories."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.backends.load import in_vllm, split_spec
from cof_agent.commands import common
from cof_agent.commands.options import VIEWS, add_agent, add_samples, at_least, count, option
from cof_agent.config import AgentConfig
from cof_agent.data import shards
from cof_agent.episodes import Episode, Resolutions, drawn
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.nano import NANO
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import make_folder
from cof_agent.output.install import how_to_install
from cof_agent.output.progress import track
from cof_agent.teacher.ocr import OCR, is_text_question
from cof_agent.teacher.rules import (
    BOXES,
    RULES,
    AnnotatedBoxes,
    RulePlanner,
    RuleSummariser,
    RuleVerifier,
    nested_boxes,
)
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl

if TYPE_CHECKING:
    from cof_agent.ocr.lines import Engine
    from cof_agent.policy import Policy
    from cof_agent.teacher.graph import Search
    from cof_agent.teacher.roles import Cast, Locator

DETECTOR = "detector:"
ROLES = {  # and who plays each by default
    "planner": RULES,
    "locator": BOXES,
    "describer": NANO,
    "verifier": RULES,
    "summariser": RULES,
}
OF_SERVED = ("base_url", "coordinates", "image_folder", "reasoning")
OF_LOCAL = ("device", "dtype", "attn")
OF_VLLM = ("dtype", "vllm_options")
OTHERS = {
    "locator": f"{BOXES} (those of the samples), {OCR} (reads text, extra `ocr`), {DETECTOR}HUB_ID",
    "describer": f"{OCR} (reads the answers of `cof data --make text-questions`)",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof collect --data SPEC -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof collect --data outputs/train -o outputs/collected --export parquet"
    option(add_samples(parser), "output", required=True, help="folder for trajectories.jsonl and rejected.jsonl")
    parser.add_argument(
        "--export",
        action="append",
        default=[],
        choices=("parquet", "sharegpt"),
        help="also write a training set: parquet for TRL, sharegpt for LLaMA-Factory; repeat for both",
    )
    option(parser, "shard", default="1/1", help="work on part I of N only; the parts need no coordinator")
    roles = parser.add_argument_group(
        "roles",
        "MODEL is nano, a folder, a hub id, or PROVIDER:MODEL for a served model, as in --teacher openai:my-model.",
    )
    roles.add_argument("--teacher", metavar="MODEL", help="plays every role that is not given")
    for role, default in ROLES.items():
        others = OTHERS.get(role, RULES)
        help = f"who plays the {role}: a model, or {others} (default: {default})"
        roles.add_argument(f"--{role}", metavar="MODEL", help=help)
    search = parser.add_argument_group("search")
    option(
        search,
        "resolutions",
        default=Resolutions("224,336,448,672,1024,1920,2560,3840"),
        help="long sides of overviews in shown pixels, one drawn for each sample",
    )
    search.add_argument(
        "--glances",
        type=count,
        default=3,
        metavar="K",
        help="times that the overview, or the crops, must lead to the answer",
    )
    search.add_argument(
        "--attempts",
        type=count,
        default=4,
        metavar="N",
        help="number of answers that may be proposed, fewer than there are choices",
    )
    option(search, "concurrency", default=8)
    search.add_argument(
        "--ray", type=count, metavar="WORKERS", help="search on so many workers of a Ray cluster (default: here)"
    )
    search.add_argument(
        "--gpus", type=at_least(0, float), default=0.0, metavar="N", help="GPUs of each Ray worker (default: 0)"
    )
    add_agent(
        parser,
        without=("model", "jpeg", "strategy", "system_prompt", "max_tokens", "temperature", "top_p"),
        seed={"default": 0, "help": "seed of the resolutions and of the sampled glances (default: 0)"},
    )


def run(options: argparse.Namespace) -> int:
    if "parquet" in options.export and find_spec("pyarrow") is None:
        raise InputError(f"--export parquet needs the package pyarrow: {how_to_install('pyarrow')}.")
    output, shard = Path(options.output), shards.parse(options.shard)
    _check_reached(options)
    _check_output(output)
    samples = common.samples(options, output, one_image=True)  # the teacher points into one overview
    wanted = drawn(samples, options.resolutions, options.seed)
    _check_roles(options, [episode.sample for episode in wanted])
    make_folder(output)
    summary = _collected(options, wanted, output, shard)
    _print(summary, output, quiet=options.quiet)
    code = _report_errors(summary, output)
    if options.export and summary["left"]:
        print("not exported: some samples are left; the run that completes them exports all.")
        return code
    if not summary["kept"] and not summary["left"]:
        print("cof collect: no sample became a trajectory, so that there is nothing to train on.", file=sys.stderr)
        return 1
    for name in options.export:
        _export(name, summary["kept"], output, quiet=options.quiet)
    return code


def _check_output(output: Path) -> None:
    """What is summed up from the files of the shards replaces no trajectories that stand in none of them.

    Raises:
        InputError: if the folder holds some.
    """
    written = output / "trajectories.jsonl"
    if written.exists() and written.stat().st_size and not any(map(shards.is_part, output.glob("*.jsonl"))):
        raise InputError(f"{written} was written by another command, or by version 0.1; use another folder.")


def _report_errors(summary: dict[str, Any], output: Path) -> int:
    """As `common.report_errors`, of the samples that were searched; those that are refused unseen are none of them."""
    if not summary["errors"]:
        return 0
    rejected = read_jsonl(output / "rejected.jsonl", Trajectory)
    searched = [one for one in rejected if one.failure or one.stop is not StopReason.ERROR]
    return common.report_errors(searched, "and are rejected", others=summary["kept"])


def _check_roles(options: argparse.Namespace, samples: Sequence[Sample]) -> None:
    """What the players of the roles cannot do with these samples is said before a model is loaded.

    Raises:
        InputError: if no sample has the boxes that the locator reads, or some have no text that the describer could read.
    """
    if _player(options, "locator") == BOXES:
        without = sum(not nested_boxes(sample) for sample in samples)
        others = f"name a model that finds things: --teacher MODEL, --locator MODEL or --locator {DETECTOR}HUB_ID"
        if without == len(samples):
            raise InputError(f"the locator reads the boxes of the samples, and none of them has any; {others}.")
        if without:
            sentence = f"{without:,} of {len(samples):,} samples have no boxes for the locator to read; {others}."
            print(f"cof collect: {sentence}", file=sys.stderr)
    if _player(options, "describer") == OCR:
        _check_text(samples)
    common.warn_if_unknown_to_nano(_player(options, "describer"), samples, options.base_url)


def _check_text(samples: Sequence[Sample]) -> None:
    if others := sum(not is_text_question(sample) for sample in samples):
        raise InputError(
            f"{others:,} of {len(samples):,} samples are no questions of `cof data --make text-questions`, the only ones that "
            "the describer ocr answers; name a model with --describer MODEL."
        )


def _player(options: argparse.Namespace, role: str) -> str:
    return str(getattr(options, role) or options.teacher or ROLES[role])


def _collected(
    options: argparse.Namespace, wanted: Sequence[Episode], output: Path, shard: shards.Shard
) -> dict[str, Any]:
    if options.ray:
        from cof_agent.teacher.ray import collect_on_ray

        build = partial(search_of, options)
        return collect_on_ray(
            wanted,
            build,
            output,
            workers=options.ray,
            concurrency=options.concurrency,
            gpus=options.gpus,
            shard=shard,
        )
    from cof_agent.teacher import collect

    search = search_of(options)
    return asyncio.run(
        collect.collect(
            wanted, search, output, concurrency=options.concurrency, shard=shard, progress=not options.quiet
        )
    )


def _export(name: str, count: int, output: Path, *, quiet: bool) -> None:
    from cof_agent.data.export import EXPORTS

    kept = read_jsonl(output / "trajectories.jsonl", Trajectory)
    written = EXPORTS[name](track(kept, f"Exporting {name}", count, quiet=quiet), output)
    print(for_terminal(written))


def search_of(options: argparse.Namespace) -> Search:
    """The search that the options describe, its models loaded.

    Raises:
        InputError: if a model cannot be loaded or reached as described.
    """
    from cof_agent.agent import check
    from cof_agent.policy import Retries
    from cof_agent.teacher.graph import Search

    cast, system = _cast(options)
    views = {name: getattr(options, name) for name in VIEWS}
    config = AgentConfig(**views, dialect=options.dialect, tools=tuple(options.tools))
    check(config)
    settings = config.settings_for(system, cast.describer.limits)
    return Search(
        cast,
        settings,
        options.glances,
        options.attempts,
        options.seed,
        options.timeout,
        _player(options, "describer"),
        Retries(options.retry_seconds),
        config.spoken,
        _models(options),
    )


def _models(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """How each model that plays a role is loaded, by its spec; what only says where it runs is left out."""
    from cof_agent.backends.fingerprint import fingerprint

    found: dict[str, dict[str, Any]] = {}
    for spec in sorted({_player(options, role) for role in ROLES}):
        if names := _options_of(spec):
            how = {name: getattr(options, name) for name in (*names, "overview_pixels", "zoom_pixels")}
            how["weights"] = None if names == OF_SERVED else fingerprint(spec)
            found[spec] = {
                name: how[name] for name in sorted(how) if how[name] is not None and name not in common.WHERE
            }
    return found


def _cast(options: argparse.Namespace) -> tuple[Cast, CoordinateSystem]:
    """Who plays what, and the coordinates in which the student writes."""
    from cof_agent.agent import load_policy
    from cof_agent.teacher.ocr import OcrDescriber
    from cof_agent.teacher.prompted import DESCRIBE, AskedPlanner, AskedSummariser, AskedVerifier, PolicyDescriber
    from cof_agent.teacher.roles import Cast

    @cache
    def policy(spec: str) -> Policy:
        return load_policy(_config(options, spec))

    @cache
    def engine() -> Engine:
        from cof_agent.ocr.rapid import RapidOcr

        return RapidOcr()

    planner, locator, describer, verifier, summariser = (_player(options, role) for role in ROLES)
    cast = Cast(
        RulePlanner() if planner == RULES else AskedPlanner(policy(planner)),
        _locator(locator, policy, engine),
        OcrDescriber(engine())
        if describer == OCR
        else PolicyDescriber(policy(describer), prompt=None if describer == NANO else DESCRIBE),
        RuleVerifier() if verifier == RULES else AskedVerifier(policy(verifier)),
        RuleSummariser() if summariser == RULES else AskedSummariser(policy(summariser)),
    )
    return cast, CoordinateSystem.ABSOLUTE if describer == OCR else policy(describer).coordinates


def _config(options: argparse.Namespace, spec: str) -> AgentConfig:
    """The model that plays a role. Options of served models do not reach local ones, and the other way round."""
    names = (*_options_of(spec), "overview_pixels", "zoom_pixels", "timeout")
    given = {name: getattr(options, name) for name in names}
    if engine := given.get("vllm_options"):
        given["vllm_options"] = tuple(engine)
    return AgentConfig(model=spec, **given)


def _options_of(spec: str) -> tuple[str, ...]:
    """The options that say how the player of a role runs; none for what is no model of ours."""
    if in_vllm(spec):
        return OF_VLLM
    if spec in (RULES, BOXES, OCR) or spec.startswith(DETECTOR):
        return ()
    return OF_LOCAL if split_spec(spec)[0] is None else OF_SERVED


def _check_reached(options: argparse.Namespace) -> None:
    """Refuses an option of a model where no part has that model.

    Raises:
        InputError: if one has none.
    """
    for role in ROLES:
        if _player(options, role) == DETECTOR:
            raise InputError(f"--{role} {DETECTOR} names no detector: {DETECTOR}HUB_ID, or a folder.")
    reached = {name for role in ROLES for name in _options_of(_player(options, role))}
    for example, names in {"openai:NAME": OF_SERVED, "FOLDER": OF_LOCAL, "vllm:FOLDER": OF_VLLM}.items():
        if lost := [name for name in names if getattr(options, name) is not None and name not in reached]:
            option = lost[0].replace("_", "-")
            raise InputError(
                f"--{option} reaches no model of a role; name one that takes it, as in --teacher {example}."
            )


def _locator(spec: str, policy: Callable[[str], Policy], engine: Callable[[], Engine]) -> Locator:
    from cof_agent.teacher.ocr import OcrLocator
    from cof_agent.teacher.prompted import AskedLocator

    if spec == BOXES:
        return AnnotatedBoxes()
    if spec == OCR:
        return OcrLocator(engine())
    if spec.startswith(DETECTOR):
        from cof_agent.teacher.detector import DetectorLocator

        return DetectorLocator(spec.removeprefix(DETECTOR))
    return AskedLocator(policy(spec))


def _print(summary: dict[str, Any], output: Path, *, quiet: bool) -> None:
    from rich.table import Table

    console, details = common.console(), common.console(quiet=quiet)
    table = Table(title=f"{summary['kept']} of {summary['n']} samples became trajectories", title_justify="left")
    for heading in ("resolution", "n", "kept", "yield", "zooms"):
        table.add_column(heading, justify="right")
    rows = {**({} if quiet else summary["by_resolution"]), "all": summary}
    for name, row in rows.items():
        zooms = "-" if row["mean_zooms"] is None else f"{row['mean_zooms']:.2f}"
        share = "-" if row["yield"] is None else f"{row['yield']:.3f}"
        table.add_row(name, str(row["n"]), str(row["kept"]), share, zooms)
    console.print(table)
    cost = summary["cost_per_kept"]
    if summary["kept"]:
        details.print(
            f"per kept trajectory: {cost['calls']} calls, {cost['prompt_tokens']} tokens in, "
            f"{cost['completion_tokens']} out"
        )
    for reason, number in summary["rejections"].items():
        details.print(f"rejected, {reason}: {number}")
    if summary["left"]:
        console.print(f"{summary['left']} samples are left, of other shards or of a run that was interrupted.")
    details.print(f"written: {output / 'trajectories.jsonl'}, {output / 'rejected.jsonl'}", soft_wrap=True)
