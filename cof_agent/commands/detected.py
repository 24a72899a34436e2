"""Options of `cof ask` and `cof eval` for regions from a detector."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cof_agent.backends.names import check_name
from cof_agent.commands.options import count, share
from cof_agent.errors import InputError
from cof_agent.output.progress import progress
from cof_agent.trajectory import Sample

REGIONS = 5
_OF_DETECTOR = ("detector_regions", "detector_threshold")


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("regions from a detector")
    group.add_argument(
        "--detector",
        metavar="MODEL|ocr",
        help="find objects or text first, and name them as regions in a question that has none: an object-detection checkpoint "
        "of transformers (a folder or a hub id), or ocr for lines of text (default: no detector)",
    )
    group.add_argument(
        "--detector-regions", type=count, metavar="N", help="largest number of regions of a question (default: 5)"
    )
    group.add_argument(
        "--detector-threshold", type=share, metavar="P", help="least score of an object, up to 1 (default: 0.5)"
    )


def check(options: argparse.Namespace) -> None:
    """What is wrong with these options, before anything is loaded.

    Raises:
        InputError: if the name is none of a checkpoint, or one of the options goes with no detector.
    """
    if options.detector is None:
        if given := next((name for name in _OF_DETECTOR if getattr(options, name) is not None), None):
            raise InputError(f"--{given.replace('_', '-')} needs a detector: --detector MODEL, or --detector ocr.")
    elif options.detector != "ocr":
        check_name(options.detector)


def most(options: argparse.Namespace) -> int:
    """The largest number of regions that the detector gives a question."""
    return (options.detector_regions or REGIONS) if options.detector is not None else 0


def filled(options: argparse.Namespace, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with regions from the detector that the options name; without one, as they are.

    Raises:
        InputError: as `detection.regions.finder`.
    """
    if options.detector is None:
        return list(samples)
    from cof_agent.detection import regions  # which loads what it needs for images
    from cof_agent.environment import ZoomEnvironment, ZoomSettings

    if not any(map(regions.takes_regions, samples)):
        return list(samples)
    finder = regions.finder(options.detector, options.detector_threshold, options.device)
    environment = ZoomEnvironment(ZoomSettings(max_source_pixels=options.max_source_pixels), source_cache=0)
    with progress("Detecting regions", quiet=options.quiet) as tell:
        return regions.filled(samples, finder, environment, most=most(options), on_done=tell)
