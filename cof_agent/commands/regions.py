"""`cof regions BUILDER --data FOLDER --images DIR -o DIR`: samples with regions, from public sets or drawn."""

from __future__ import annotations

import argparse
from pathlib import Path

from cof_agent.commands.options import option
from cof_agent.data.region_sets.build import ALL, BUILDERS, DRAWN, TRAIN, build, draw, no_builder
from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal

DRAWN_SAMPLES = 100  # by default


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof regions BUILDER --data FOLDER -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof regions refcoco --data refcoco+ --images train2014 -o outputs/refcoco"
    parser.add_argument("builder", metavar="BUILDER", help=f"one of {', '.join([*BUILDERS, DRAWN])}")
    option(
        parser, "data", metavar="FOLDER", help="the set as it is published, or scenes of `cof scenes`; drawn needs none"
    )
    option(parser, "images", help="folder with the images of the set (default: that of --data)")
    option(
        parser,
        "split",
        metavar="NAME",
        help=f"of a set that says of which each sample is (default: {TRAIN}); {ALL} takes every one",
    )
    scenes = f"scenes (default: {DRAWN_SAMPLES}), of several samples each"
    option(parser, "samples", help=f"only the first N samples (default: all); of {DRAWN} N {scenes}")
    option(parser, "seed", help="seed by which scenes are drawn (default: 0)")
    option(parser, "output", required=True, help="folder for samples.jsonl")


def run(options: argparse.Namespace) -> int:
    output = Path(options.output)
    if options.builder == DRAWN:
        if options.data is not None:
            raise InputError(f"drawn scenes are read from no folder; leave --data {options.data} out.")
        if options.images is not None:
            raise InputError(f"drawn scenes bring their images; leave --images {options.images} out.")
        if options.split is not None:
            raise InputError(f"drawn scenes have no splits; leave --split {options.split} out.")
        built = draw(output, count=options.samples or DRAWN_SAMPLES, seed=options.seed or 0)
    else:
        if options.builder not in BUILDERS:
            raise no_builder(options.builder)
        if options.data is None:
            raise InputError(f"say where the set is: cof regions {options.builder} --data FOLDER -o DIR.")
        if options.seed is not None:
            raise InputError(f"nothing is drawn by chance for {options.builder}; leave --seed {options.seed} out.")
        folder = Path(options.data)
        images, split = Path(options.images or folder), options.split or TRAIN
        built = build(options.builder, folder, images, output, split=split, limit=options.samples)
    for reason, count in [] if options.quiet else built.left_out.most_common():
        print(f"left out: {count} samples, because {for_terminal(reason)}")
    print(f"{built.samples} samples: {for_terminal(output / 'samples.jsonl')}")
    return 0
