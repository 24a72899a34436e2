"""Speed and memory, each against a named alternative in the same run: `python scripts/bench.py agent|collect|data|...`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benches import agent, collect, data, eval, image, local, rl, sft, update, wire

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[[argparse.Namespace], None]


def main() -> None:
    _reach_all_folders()
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    what = parser.add_subparsers(metavar="WHAT", required=True)

    def add(name: str, summary: str, run: Run) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = what.add_parser(name, help=summary, description=summary)
        one.set_defaults(run=run)
        return one

    _small(add)
    _local(add)
    _rl(add)
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    options.run(options)


Add = Callable[[str, str, Run], argparse.ArgumentParser]


def _small(add: Add) -> None:
    """Those of one or two sizes."""
    best = "the best of so many runs counts (default: 1)"
    one = add(
        "agent",
        "the agent against a plain loop over transformers' generate",
        lambda of: agent.run(of.samples, of.repeats),
    )
    one.add_argument("--samples", type=int, default=64, help="scenes (default: 64)")
    one.add_argument("--repeats", type=int, default=1, help=best)
    one = add(
        "eval",
        "cof eval against a plain loop, and the figures of large runs",
        lambda of: eval.run(of.samples, of.repeats),
    )
    one.add_argument("--samples", type=int, default=48, help="scenes (default: 48)")
    one.add_argument("--repeats", type=int, default=1, help=best)
    add("collect", "the teacher against the ideal, on a server that takes half a second", lambda of: collect.run())
    one = add("data", "cof data on rows with images inside", lambda of: data.run(of.samples))
    one.add_argument("--samples", type=int, default=100_000, help="rows (default: 100,000)")
    one = add("image", "reading images, beside libvips and Pillow", lambda of: image.run(of.repeats))
    one.add_argument("--repeats", type=int, default=1, help=best)
    one = add("wire", "images on their way to a server, against the ideal", lambda of: wire.run(of.samples))
    one.add_argument("--samples", type=int, default=48, help="photographs (default: 48)")
    one = add("sft", "SFT against a bare PyTorch loop", lambda of: sft.run(of.steps))
    one.add_argument("--steps", type=int, default=500, help="of the run whose memory is watched (default: 500)")
    one = add("update", "the update of GRPO against TRL's stock trainer", lambda of: update.run(of.steps))
    one.add_argument("--steps", type=int, default=1, help="compared (default: 1)")


def _local(add: Add) -> None:
    def run(of: argparse.Namespace) -> None:
        sizes = local.Sizes(of.shapes, of.layers, of.tokens, of.images)
        local.run(sizes, of.conversations, of.device, of.dtype, of.attn, steps=of.steps)

    one = add("local", "the local engine against stock generate, at the layer shapes of published models", run)
    one.add_argument("--shapes", choices=tuple(local.SHAPES), default="3b", help="whose layers (default: 3b)")
    one.add_argument("--layers", type=int, help="of the language model (default: all)")
    one.add_argument("--tokens", type=int, default=8000, help="of the longest conversation (default: 8000)")
    one.add_argument("--images", type=int, default=0, help="in each conversation, beside its words (default: 0)")
    one.add_argument("--steps", type=int, default=4, help="tokens timed (default: 4)")
    at_once = "at once, a run for each number (default: 1 8 32)"
    one.add_argument("--conversations", type=int, nargs="+", default=[1, 8, 32], help=at_once)
    one.add_argument("--dtype", help="of the weights (default: what suits the device)")
    one.add_argument("--device", help="such as cuda or cpu (default: the best there is)")
    one.add_argument("--attn", default="sdpa", help="such as flash_attention_2 (default: sdpa)")


def _rl(add: Add) -> None:
    one = add("rl", "GRPO of nano against TRL's own tool loop, or servers against each other", _of_rl)
    one.add_argument("--prompts", type=int, default=8, help="of one step (default: 8)")
    one.add_argument("--rollouts", type=int, default=4, help="of each prompt (default: 4)")
    one.add_argument("--steps", type=int, help="compared (default: 4, with an engine 6)")
    one.add_argument("--repeats", type=int, default=1, help="the best of so many runs counts (default: 1)")
    one.add_argument("--threads", type=int, default=2, help="of the CPU (default: 2)")
    watched = "of a small run whose memory is watched (default: 0, no such run)"
    one.add_argument("--memory-steps", type=int, default=0, help=watched)
    one.add_argument("--engine", choices=("vllm",), help="servers that write the rollouts, in .venv-vllm")
    parts = ("paced", "vllm", "ahead")
    one.add_argument(
        "--parts", nargs="+", choices=parts, default=parts, help="with an engine: what is run (default: all)"
    )
    at_once = "with an engine: at once, a run for each number, multiples of 8 (default: 64)"
    one.add_argument("--conversations", type=int, nargs="+", default=[64], help=at_once)
    one = add("rl-scale", "a step of RL on many GPUs, from rates", _of_scale)
    one.add_argument("--prompts", type=int, default=8, help="of one step, for each GPU (default: 8)")
    one.add_argument("--rollouts", type=int, default=4, help="of each prompt (default: 4)")
    played = "a trajectories.jsonl whose turns are played; --check writes its last run there"
    one.add_argument("--trajectories", type=Path, help=played)
    rates = "seconds as NAME=VALUE, such as token=0.013 (default: those of benches/scale.py)"
    one.add_argument("--rates", nargs="+", default=[], help=rates)
    real = "servers whose real rollouts are compared with the model, in .venv-vllm (default: none)"
    one.add_argument("--check", nargs="+", choices=("paced", "vllm"), default=[], help=real)
    at_once = "with --check: at once, a run for each number, multiples of 8 (default: 16 64)"
    one.add_argument("--conversations", type=int, nargs="+", default=[16, 64], help=at_once)


def _of_rl(of: argparse.Namespace) -> None:
    if of.engine:
        _check_servers(of.conversations)
        from benches import rl_vllm

        for number in of.conversations:
            rl_vllm.run(number, of.repeats, of.steps or 6, of.parts)
        return
    how = {"threads": of.threads, "repeats": of.repeats, "memory_steps": of.memory_steps}
    rl.run(of.prompts, of.rollouts, of.steps or 4, **how)


def _of_scale(of: argparse.Namespace) -> None:
    if of.check:
        if of.rates:
            raise SystemExit("--rates has no effect with --check, which measures them; leave it out")
        _check_servers(of.conversations)
        from benches import scale_check

        scale_check.run(of.check, of.conversations, of.trajectories)
        return
    from benches import rl_scale

    if of.trajectories is None:
        raise SystemExit("rl-scale needs --trajectories FILE, or --check paced vllm")
    rl_scale.run(of.trajectories, of.prompts, of.rollouts, rl_scale.rates_of(of.rates))


def _check_servers(conversations: list[int]) -> None:
    """Ends a benchmark that asks servers without vLLM, whose client TRL's needs, or with other numbers than it can play."""
    if find_spec("vllm") is None:
        raise SystemExit("this needs vLLM: run it with .venv-vllm/bin/python, which scripts/vllm_cpu.sh makes")
    if any(number < 8 or number % 8 for number in conversations):
        raise SystemExit("--conversations must be multiples of 8: eight are about the same question")


def _reach_all_folders() -> None:
    """Some benchmarks use parts of the tests, and start modules of this folder as programs."""
    folders = [str(ROOT), str(ROOT / "scripts")]
    sys.path.extend(folders)
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])


if __name__ == "__main__":
    main()
