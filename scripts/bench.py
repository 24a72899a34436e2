"""Speed and memory, each against a named alternative in the same run: `python scripts/bench.py agent|collect|sft`."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version

from benches import agent, collect, sft


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("what", choices=("agent", "collect", "sft"))
    parser.add_argument("--samples", type=int, default=64, help="agent: scenes")
    parser.add_argument("--repeats", type=int, default=1, help="agent: the best of so many runs counts")
    parser.add_argument("--steps", type=int, default=500, help="sft: steps of the run whose memory is watched")
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    if options.what == "agent":
        agent.run(options.samples, options.repeats)
    elif options.what == "collect":
        collect.run()
    else:
        sft.run(options.steps)


if __name__ == "__main__":
    main()
