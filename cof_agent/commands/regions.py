"""`cof regions BUILDER FOLDER --images DIR -o OUT`: samples with regions, from public sets or drawn."""

from __future__ import annotations

import argparse
from pathlib import Path

from cof_agent.data.region_sets.build import DRAWN, build, draw
from cof_agent.errors import InputError


def run(options: argparse.Namespace) -> int:
    output = Path(options.output)
    if options.builder == DRAWN:
        if options.folder is not None:
            raise InputError(f"drawn scenes are read from no folder; leave {options.folder} out.")
        built = draw(output, count=options.count, seed=options.seed)
    else:
        if options.folder is None:
            raise InputError(f"say where the set is: cof regions {options.builder} FOLDER -o OUT.")
        folder = Path(options.folder)
        built = build(options.builder, folder, Path(options.images or folder), output, limit=options.limit)
    for reason, count in built.left_out.most_common():
        print(f"left out: {count} samples, because {reason}")
    print(f"{built.samples} samples: {output / 'samples.jsonl'}")
    return 0
