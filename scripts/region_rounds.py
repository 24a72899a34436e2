"""Questions about regions in rounds: all samples of one image are asked one after the other, as one conversation.

    python scripts/region_rounds.py --data outputs/regions-val --model outputs/nano-told

`cof eval` asks each question by itself. Here the model sees the image once, and before each question the ones before it with what
it answered. No crop is cut: a reply that asks for one counts as wrong. Prints accuracy by round and by category.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from cof_agent import protocol
from cof_agent.backends.load import load
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.evaluation.metrics import grouped, interval
from cof_agent.policy import Policy, Sampling
from cof_agent.scoring.answer_match import matches
from cof_agent.trajectory import Answer, Sample

Scored = tuple[str, str, bool]
"""Round, category, and whether the answer is right."""


async def converse(policy: Policy, environment: ZoomEnvironment, samples: Sequence[Sample]) -> list[Scored]:
    """One conversation about the image of the samples."""
    view, scored = environment.reset(samples[0]), list[Scored]()
    images, messages = [environment.image(samples[0], view)], list[protocol.Message]()
    for number, sample in enumerate(samples, 1):
        opened = protocol.opening(sample, view, system=policy.coordinates)
        if messages:
            *_, asked = opened
            words = [part for part in asked["content"] if part["type"] != "image"]
            opened = [{**asked, "content": words}]
        messages += opened
        reply = (await policy.generate(messages, images, Sampling(max_tokens=96))).text
        messages.append(protocol.assistant(reply))
        (action, *_) = protocol.parse(reply, system=policy.coordinates)
        right = isinstance(action, Answer) and matches(action.text, sample)
        scored.append((f"round {number}", str(sample.metadata.get("category", "")), right))
    return scored


def table(scored: Iterable[Scored]) -> list[str]:
    """Accuracy with its 95 % interval, by round, by category, and of all."""
    every = list(scored)
    groups = [*grouped(every, lambda one: one[0]), *grouped(every, lambda one: one[1]), ("all", every)]
    lines = ["| | n | accuracy |", "|---|---|---|"]
    for name, group in groups:
        low, high = interval([float(right) for *_, right in group]) or (0.0, 0.0)
        share = sum(right for *_, right in group) / len(group)
        lines.append(f"| {name} | {len(group)} | {share:.3f} ({low:.3f} to {high:.3f}) |")
    return lines


async def ask(model: str, data: Path) -> list[Scored]:
    """Raises:
    InputError: if the model or the data cannot be read.
    """
    samples = read_samples(data)
    policy = load(model)
    environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
    images = [list(own) for _, own in groupby(samples, key=lambda one: one.image)]
    return [one for own in images for one in await converse(policy, environment, own)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", required=True, type=Path, help="folder or file of samples, those of one image together"
    )
    parser.add_argument("--model", required=True, help="checkpoint")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(table(asyncio.run(ask(options.model, options.data)))))
    except InputError as error:
        print(f"region_rounds.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
