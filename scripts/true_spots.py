"""Both turns of Chain-of-Spot with the true region of drawn scenes: what `cof spots` writes with regions that it has found.

    python scripts/true_spots.py --data outputs/spot-scenes -o outputs/spot-true

The answer is the known one. The folder gets `trajectories.jsonl`, for `cof sft --data`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from cof_agent.agent import load_policy
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError
from cof_agent.graphs.steps import Context
from cof_agent.policy import ScriptedPolicy
from cof_agent.rollout import play_all
from cof_agent.scenes import oracle
from cof_agent.strategies.spot import protocol as spot
from cof_agent.strategies.spot.graph import SPOT, settings_for
from cof_agent.trajectory import Trajectory

MODEL = "nano"


def write(data: Path, output: Path) -> list[Trajectory]:
    """One trajectory for each scene, in views of nano's sizes.

    Raises:
        InputError: if the samples cannot be read, or one is no scene.
    """
    config = AgentConfig(model=MODEL)
    policy = load_policy(config)
    environment = ZoomEnvironment(settings_for(config.settings(policy)))
    samples = read_samples(data)
    if other := next((sample for sample in samples if "looks" not in sample.metadata), None):
        raise InputError(
            f"{other.id} is no drawn scene, so its true region is not known; give a folder of `cof scenes`."
        )

    async def one(episode: Episode) -> Trajectory:
        sample = episode.sample
        overview = environment.reset(sample)
        box = oracle.pointing_box(overview, oracle.region(sample, overview), spot.SYSTEM)
        lines = (spot.write_region(box), sample.answers[0])
        told = ScriptedPolicy(lines, name=f"{policy.name}, true regions", limits=policy.limits)
        return await SPOT.run(sample, Context(told, environment, strategy="spot"))

    return asyncio.run(play_all(episodes(samples), one, output=output / "trajectories.jsonl", concurrency=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of `cof scenes`")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for trajectories.jsonl")
    options = parser.parse_args()
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        print(f"{len(write(options.data, options.output))} trajectories")
    except InputError as error:
        print(f"true_spots.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
