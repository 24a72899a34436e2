"""Writes samples as the Parquet rows that verl reads: `python -m rl.verl.rows --data SPEC -o FILE.parquet`.

A row names its image by its path, so the images must lie where all machines of the run read them. verl itself decodes none: the
agent opens each where it plays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from cof_agent.commands.options import add_samples, option
from cof_agent.data.source import Source
from cof_agent.episodes import Episode, Resolutions, drawn
from cof_agent.errors import InputError
from cof_agent.output.files import make_folder
from cof_agent.protocol import question_text
from cof_agent.training.command import explained
from cof_agent.trajectory import to_json

AGENT = "cof"
"""The name of the agent loop in a row, and in the file that `agent_loop_config_path` names."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="rl.verl.rows", description=(__doc__ or "").strip())
    group = add_samples(parser)
    option(
        group,
        "resolutions",
        default=Resolutions(),
        help="long sides of the overview in shown pixels, one drawn for each sample",
    )
    parser.add_argument("--seed", type=int, default=42, help="by which resolutions are drawn (default: 42)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the Parquet file")
    options = parser.parse_args(arguments)
    path = Path(options.output)
    source = Source(**{field.name: getattr(options, field.name) for field in fields(Source)})
    read = source.read(keep_images=path.parent / "images", left_out=path.parent / "left_out.jsonl")
    wanted = drawn([sample for sample in read if sample.answers], options.resolutions, options.seed)
    if not wanted:
        raise InputError(f"no sample of {source.data} has a known answer, so that nothing can be rewarded.")
    make_folder(path.parent)
    parquet.write_table(
        pyarrow.Table.from_pylist([row_of(one, number, source.data) for number, one in enumerate(wanted)]), path
    )
    print(f"written: {path}, {len(wanted)} rows; left out without a known answer: {len(read) - len(wanted)}")


def row_of(episode: Episode, number: int, source: str) -> dict[str, Any]:
    """An episode as a row of verl. The prompt is what verl's logs show: the conversation opens as the agent's does."""
    sample = episode.sample
    placed = sample.with_images([str(Path(image).resolve()) for image in sample.images])
    return {
        "data_source": source,
        "agent_name": AGENT,
        "prompt": [{"role": "user", "content": question_text(sample)}],
        "reward_model": {"style": "rule", "ground_truth": sample.answers[0]},
        "extra_info": {"index": number, "episode": to_json(Episode(placed, episode.resolution))},
    }


if __name__ == "__main__":
    explained("rl.verl.rows", main)
