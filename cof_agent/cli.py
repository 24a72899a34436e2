"""The command line: `cof ask | collect | eval | compare | rollout | spots | view | scenes | regions | sft | rl | merge`.

Parsing only; each command lives in `cof_agent.commands`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from cof_agent import __version__
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem

COORDINATES = [system.value for system in CoordinateSystem]
INTERRUPTED = 130
BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Bad input is one sentence on stderr and code 2."""
    options = _options(arguments)
    try:
        return int(importlib.import_module(f"cof_agent.commands.{options.command}").run(options))
    except InputError as error:
        print(f"cof {options.command}: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        print(f"\ncof {options.command}: interrupted; {str(interrupt) or 'what was done is kept'}.", file=sys.stderr)
        # An interrupt inside exec(), as when an import makes dataclasses, is remembered by CPython as not handled and
        # then ends the process by signal whatever we return; the next exec() that ends well makes it forget.
        exec("")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command in ("sft", "rl"):
        options.training = rest[1:] if rest[:1] == ["--"] else rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cof", description="Agentic visual search in large images.")
    parser.add_argument("--version", action="version", version=f"chain-of-focus {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_ask(commands.add_parser("ask", help="ask a question about one image"))
    _add_collect(commands.add_parser("collect", help="turn questions with known answers into zoom trajectories"))
    _add_eval(commands.add_parser("eval", help="measure a model on a set of samples"))
    _add_compare(commands.add_parser("compare", help="hold runs of eval against each other, question by question"))
    _add_rollout(
        commands.add_parser("rollout", help="play samples several times, keep those neither easy nor hopeless")
    )
    _add_spots(commands.add_parser("spots", help="find the regions that known answers rest on, to train Chain-of-Spot"))
    _add_view(commands.add_parser("view", help="turn trajectories into a page to look at"))
    _add_scenes(commands.add_parser("scenes", help="draw scenes with questions and known answers"))
    _add_regions(commands.add_parser("regions", help="turn a public set with regions into samples to train on"))
    _add_training(commands.add_parser("sft", help="fine-tune a model on zoom trajectories", allow_abbrev=False), "sft")
    _add_training(commands.add_parser("rl", help="train a model on what it plays itself", allow_abbrev=False), "rl")
    _add_merge(commands.add_parser("merge", help="fold a LoRA adapter into its model"))
    return parser


def _add_ask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="path of an image of any size")
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--choice", action="append", default=[], metavar="TEXT", help="a possible answer; repeat")
    parser.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="what <region1>, <region2>, ... in the question mean, in pixels of the image; repeat",
    )
    parser.add_argument(
        "--region-crops", action="store_true", help="also show a crop of each region first; each counts as a zoom"
    )
    _add_model(parser)
    _add_agent(parser)
    parser.add_argument("--save", metavar="DIR", help="write trajectory.jsonl, trajectory.png and report.html there")
    parser.add_argument("--json", action="store_true", help="print the trajectory as one JSON object and nothing else")


def _add_collect(parser: argparse.ArgumentParser) -> None:
    data = _add_data(parser)
    data.add_argument(
        "--export",
        action="append",
        default=[],
        choices=("parquet", "sharegpt"),
        help="also write a training set: Parquet for TRL, ShareGPT for LLaMA-Factory; repeat",
    )
    data.add_argument("--shard", default="1/1", metavar="I/N", help="only part I of N; parts need no coordinator")
    roles = parser.add_argument_group(
        "roles", "SPEC: nano, a directory, a hub id, or PROVIDER:MODEL for a served model"
    )
    roles.add_argument("--teacher", metavar="SPEC", help="plays every role that is not given")
    roles.add_argument("--planner", metavar="SPEC", help="or `rules` (the default)")
    roles.add_argument(
        "--locator", metavar="SPEC", help="or `boxes`, those of the samples (the default), or detector:HUB_ID"
    )
    roles.add_argument("--describer", metavar="SPEC", help="nano by default")
    roles.add_argument("--verifier", metavar="SPEC", help="or `rules` (the default)")
    roles.add_argument("--summariser", metavar="SPEC", help="or `rules` (the default)")
    roles.add_argument("--base-url", metavar="URL", help="where PROVIDER:MODEL is served")
    roles.add_argument("--coordinates", choices=COORDINATES, help="what a served model's boxes mean")
    roles.add_argument(
        "--overview-pixels", type=_count, metavar="N", help="most pixels of an image as the roles see it"
    )
    roles.add_argument("--zoom-pixels", type=_count, metavar="N", help="most pixels of a crop")
    roles.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds for one reply")
    search = parser.add_argument_group("search")
    search.add_argument(
        "--resolutions",
        default="224,336,448,672,1024,1920,2560,3840",
        metavar="N,N,...",
        help="long sides of overviews in pixels, one drawn for each sample",
    )
    search.add_argument("--glances", type=_count, default=3, metavar="K", help="times the overview must suffice")
    search.add_argument("--attempts", type=_count, default=4, metavar="N", help="answers that may be proposed")
    search.add_argument("--concurrency", type=_count, default=8, metavar="N", help="samples under way at once")
    search.add_argument("--ray", type=_count, metavar="WORKERS", help="search on so many workers of a Ray cluster")
    search.add_argument("--gpus", type=float, default=0.0, metavar="N", help="of each of these workers")
    search.add_argument("--seed", type=int, metavar="N", help="of resolutions and of sampled glances; 0 by default")
    _add_agent(parser)


def _add_data(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    parser.add_argument(
        "samples", metavar="SAMPLES", help="a folder of `cof scenes`, a JSON, JSONL or Parquet file, or a dataset"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR")
    data = parser.add_argument_group("data")
    data.add_argument("--images", metavar="DIR", help="what image paths are relative to; by default the file's folder")
    data.add_argument(
        "--column", action="append", default=[], metavar="NAME=COLUMN", help="a set's own column name; repeat"
    )
    data.add_argument("--split", default="train", help="of a dataset")
    data.add_argument("--limit", type=_count, metavar="N", help="only the first N samples")
    return data


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", metavar="DIR", help="folder with samples.jsonl, as `cof scenes` writes, or a copy of the benchmark"
    )
    parser.add_argument(
        "--benchmark", metavar="NAME", help="a published one, such as vstar; without --data from the hub"
    )
    parser.add_argument(
        "--shuffle-options",
        nargs="?",
        type=int,
        const=0,
        metavar="SEED",
        help="the choices of each question in an order drawn by this seed (default: 0)",
    )
    parser.add_argument(
        "--resolutions",
        metavar="N,N,...",
        help="ask every question at each of these long sides of the overview, in pixels as the model sees it",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="trajectories.jsonl and summary.json go there"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N samples")
    parser.add_argument(
        "--strategy",
        default="focus",
        metavar="NAME",
        help="focus (the agent), or to hold it against: direct (overview only), always-zoom (never without), grid (fixed "
        "tiles), tree (the parts where the model is surest), regions (what the question names, first), spot (Chain-of-Spot: "
        "one region, then the answer), coroi (regions that a trained scorer chooses)",
    )
    parser.add_argument(
        "--crop", choices=("real", "blank", "shuffled"), default="real", help="control: what crops show"
    )
    parser.add_argument(
        "--runs", type=_count, default=1, metavar="K", help="ask every question K times, with drawn answers (--seed)"
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="only part I of N, into the same folder; the one that ends last sums up"
    )
    parser.add_argument("--concurrency", type=_count, default=32, metavar="N", help="samples under way at once")
    parser.add_argument(
        "--scoring",
        metavar="MODULE:FUNCTION",
        help="your own rule: a function of a trajectory that returns 0 to 1, or None where it cannot be scored",
    )
    parser.add_argument(
        "--judge",
        metavar="SPEC",
        help="asked whether an answer that is not the accepted text means the same: a directory, a hub id, or PROVIDER:MODEL",
    )
    parser.add_argument("--judge-base-url", metavar="URL", help="where the judge is served")
    _add_model(parser)
    _add_agent(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders that `cof eval` wrote; the others are held against the first"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="tables, plots and report.html go there")


def _add_rollout(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("-n", "--plays", type=_count, default=8, metavar="N", help="times each sample is played")
    parser.add_argument("--temperature", type=_positive, default=1.0, metavar="T")
    parser.add_argument(
        "--keep", default="0,1", metavar="LOW,HIGH", help="samples whose pass rate is strictly between; 0,1 by default"
    )
    parser.add_argument("--concurrency", type=_count, default=32, metavar="N", help="plays under way at once")
    _add_model(parser, seed="of the random numbers; 0 by default")
    parser.set_defaults(seed=0)
    _add_agent(parser)


def _add_spots(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--pictures", action="store_true", help="draw each map over its overview, with the region")
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="nano", metavar="NAME", help="nano, a directory or a hub id")
    group.add_argument(
        "--overview-pixels", type=_count, metavar="N", help="most pixels of the overview as the model sees it"
    )
    group.add_argument("--zoom-pixels", type=_count, metavar="N", help="most pixels of a crop as the model sees it")
    group.add_argument("--enlarge", type=_factor, default=1.5, metavar="F", help="widen each region by this factor")
    parser.set_defaults(base_url=None, coordinates=None, seed=None)


def _add_view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trajectories", metavar="TRAJECTORIES.jsonl")
    parser.add_argument("-o", "--output", default="report.html", metavar="PAGE.html")
    parser.add_argument("--title", help="headline of the page; by default the file's name")
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N trajectories")


def _add_scenes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUT", help="folder for samples.jsonl and images/")
    parser.add_argument("--count", type=_count, default=10, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--size", default="3840x2160", metavar="WxH", help="pixels; drawn at 3840 and resized")
    parser.add_argument(
        "--resolutions", metavar="N,N,...", help="write every scene with each of these long sides instead, in pixels"
    )
    parser.add_argument("--split", choices=("train", "val", "test", "hard"), default="test")
    parser.add_argument(
        "--parts",
        default="1",
        metavar="F,F,...",
        help="of a whole scene's sides, one drawn for each: 0.5 is a quarter of it",
    )
    parser.add_argument("--processes", type=_count, metavar="N", help="that draw; one for each core by default")


def _add_regions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "builder", metavar="BUILDER", help="coco, refcoco, visual-genome, flickr30k, vcr, scenes, or drawn"
    )
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="the set as it is published, or scenes of `cof scenes`"
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for samples.jsonl")
    parser.add_argument("--images", metavar="DIR", help="the images of the set; by default FOLDER")
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N samples")
    parser.add_argument("--count", type=_count, default=100, metavar="N", help="scenes to draw")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the scenes")


def _add_training(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = f"cof {name} [--processes N] [--accelerate FILE] --config NAME.yaml [--key value ...]"
    parser.description = (
        f"Runs {name}.train, in several processes where there are several GPUs. All other options go to it as they are: "
        f"--config names a YAML file, --key value overrides a key of it, and `cof {name} -- --help` lists the keys."
    )
    parser.add_argument("--processes", type=_count, metavar="N", help="one for each GPU by default")
    parser.add_argument("--accelerate", metavar="FILE", help="as `accelerate config` writes: DeepSpeed, FSDP, machines")


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="ADAPTER", help="folder of a LoRA adapter, as `cof sft` and PEFT write")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="a new folder for the whole model")
    parser.add_argument(
        "--model",
        metavar="BASE",
        help="directory or hub id of the model that was adapted; by default what ADAPTER says",
    )
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), help="of the weights; the base's own by default"
    )


def _add_model(
    parser: argparse.ArgumentParser, seed: str = "draw answers at temperature 1 with this seed; else greedy"
) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="nano", metavar="NAME", help="nano, a directory, a hub id, or PROVIDER:MODEL")
    group.add_argument("--base-url", metavar="URL", help="where the model is served")
    group.add_argument(
        "--coordinates",
        choices=COORDINATES,
        help="what the model's boxes mean, where its name does not tell",
    )
    group.add_argument(
        "--overview-pixels", type=_count, metavar="N", help="most pixels of the overview as the model sees it"
    )
    group.add_argument("--zoom-pixels", type=_count, metavar="N", help="most pixels of a crop as the model sees it")
    group.add_argument("--seed", type=int, metavar="N", help=seed)
    group.add_argument("--max-tokens", type=_count, default=512, metavar="N", help="per turn")
    group.add_argument("--system-prompt", metavar="FILE", help="replaces ours, for checkpoints trained with their own")


def _add_agent(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("agent")
    group.add_argument("--max-zooms", type=_whole, default=6, metavar="N")
    group.add_argument("--enlarge", type=_factor, default=1.5, metavar="F", help="widen each box by this factor")
    group.add_argument(
        "--tool",
        dest="tools",
        action="append",
        metavar="MODULE:FUNCTION",
        help="a tool of your own beside the zoom; repeat",
    )
    group.add_argument("--max-source-pixels", type=_count, metavar="N", help="largest image to open")


def _count(text: str) -> int:
    return int(_at_least(text, 1))


def _whole(text: str) -> int:
    return int(_at_least(text, 0))


def _factor(text: str) -> float:
    return _at_least(text, 1, whole=False)


def _positive(text: str) -> float:
    value = _at_least(text, 0, whole=False)
    if not value:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _at_least(text: str, least: int, *, whole: bool = True) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if whole else ''}number") from None
    if not least <= value < 1e12:
        raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
