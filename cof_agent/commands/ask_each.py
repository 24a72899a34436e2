"""`cof ask FOLDER QUESTION`: the same question about each image of a folder or a pattern; the answers as JSON lines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cof_agent.commands import common, detected
from cof_agent.commands.pictures import Pictures
from cof_agent.config import AgentConfig
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError, check_text
from cof_agent.image import file_of, open_source
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl, to_json

UNANSWERED = 3


def each(options: argparse.Namespace, pictures: Pictures) -> int:
    """Prints one line for each image, in order; exit code 3 if no question was answered."""
    _check(options)
    config = common.config_of(options)
    asked = [Sample(_id(path), path, options.question, choices=tuple(options.choice)) for path in pictures.paths]
    samples = detected.filled(options, asked)
    common.warn_if_unknown_to_nano(config.model, samples, config.base_url)
    trajectories = _played(options, config, episodes(samples))
    lines = "".join(json.dumps(_line(one), ensure_ascii=False) + "\n" for one in trajectories)
    if options.output:
        write_atomic(Path(options.output) / "answers.jsonl", lines)
    for line in map(to_json, trajectories) if options.json else lines.splitlines():
        print(for_terminal(line))
    common.report_errors(trajectories, "and have no answer")
    return 0 if any(one.stop is StopReason.ANSWERED for one in trajectories) else UNANSWERED


def _id(path: str) -> str:
    """The path as a record can hold it, by which the answer is found again; a name that is no UTF-8 in escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _check(options: argparse.Namespace) -> None:
    check_text(options.question, "the question")
    if options.more_images:
        raise InputError("each image of a folder is a question of its own; leave --image out.")
    if options.region or options.region_crops:
        raise InputError("--region and --region-crops are of one image; name a file.")
    if options.font is not None:
        raise InputError("--font is for the picture of one image's trajectory; leave it out.")
    detected.check(options)


def _played(options: argparse.Namespace, config: AgentConfig, wanted: Sequence[Episode]) -> list[Trajectory]:
    if options.output:
        output = Path(options.output)
        resumed = common.check_settings(config, output)
        _check_images(wanted, output / "trajectories.jsonl")
        return common.played(config, wanted, output / "trajectories.jsonl", options, resumed=resumed)
    return common.agent_of(config).ask_many(wanted, concurrency=options.concurrency, progress=not options.quiet)


def _check_images(wanted: Sequence[Episode], file: Path) -> None:
    """Refuses images that are not those that the answers in `file` are about, as far as sizes and times tell.

    Raises:
        InputError: if the size of one differs.
    """
    if not file.exists():
        return
    when, newer = file.stat().st_mtime, 0
    played = [one for one in read_jsonl(file, Trajectory) if one.stop is not StopReason.ERROR]  # those are played again
    earlier = {one.sample.image: one.overview for one in played if one.overview is not None}
    for image in (episode.sample.image for episode in wanted if episode.sample.image in earlier):
        try:
            size, newer = open_source(image).size, newer + (os.stat(file_of(image)).st_mtime > when)
        except (InputError, OSError):
            continue  # playing it says what is wrong
        if size != earlier[image].source_size:
            raise InputError(
                f"{image} has {size} pixels, and had {earlier[image].source_size} when its answer was written to {file}: "
                "use another folder."
            )
    if newer:
        print(
            f"cof ask: {newer} of the images are newer than the answers in {file}, which are kept; "
            "use another folder to ask about them again.",
            file=sys.stderr,
        )


def _line(trajectory: Trajectory) -> dict[str, Any]:
    line: dict[str, Any] = {
        "image": trajectory.sample.image,
        "answer": trajectory.answer,
        "stop": trajectory.stop.value,
    }
    if trajectory.warning is not None and trajectory.answer is not None:  # which stderr says in full, once
        line["unreliable"] = True
    return line if trajectory.error is None else line | {"error": trajectory.error}
