"""Speed and memory, each against a named alternative in the same run: `python scripts/bench.py agent|collect|data|...`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benches import agent, collect, data, eval, image, local, rl, sft, update, wire

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    _reach_all_folders()
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    choices = ("agent", "eval", "collect", "data", "image", "local", "sft", "rl", "rl-scale", "update", "wire")
    parser.add_argument("what", choices=choices)
    parser.add_argument(
        "--samples", type=int, help="agent (64), eval (48): scenes; wire (48): photographs; data (100,000): rows"
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="agent, eval, image, rl: the best of so many runs counts (default: 1)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="sft: steps of the run whose memory is watched (500); rl: compared (4, with an engine 6), as update (1); "
        "local: tokens timed (4)",
    )
    parser.add_argument(
        "--prompts", type=int, default=8, help="rl: of one step; rl-scale: of one step, for each GPU (default: 8)"
    )
    parser.add_argument("--rollouts", type=int, default=4, help="rl, rl-scale: of each prompt (default: 4)")
    parser.add_argument("--threads", type=int, default=2, help="rl: of the CPU (default: 2)")
    parser.add_argument(
        "--memory-steps",
        type=int,
        default=0,
        help="rl: of a small run whose memory is watched (default: 0, no such run)",
    )
    parser.add_argument("--shapes", choices=tuple(local.SHAPES), default="3b", help="local: whose layers (default: 3b)")
    parser.add_argument("--layers", type=int, help="local: of the language model (default: all)")
    parser.add_argument("--tokens", type=int, default=8000, help="local: of the longest conversation (default: 8000)")
    parser.add_argument(
        "--conversations",
        type=int,
        nargs="+",
        help="at once, a run for each number: local (1 8 32), rl with an engine (64), rl-scale with --check (16 64); "
        "of the last two multiples of 8",
    )
    parser.add_argument("--dtype", help="local: of the weights (default: what suits the device)")
    parser.add_argument("--device", help="local: such as cuda or cpu (default: the best there is)")
    parser.add_argument("--attn", default="sdpa", help="local: such as flash_attention_2 (default: sdpa)")
    parser.add_argument(
        "--images", type=int, default=0, help="local: in each conversation, beside its words (default: 0)"
    )
    parser.add_argument("--engine", choices=("vllm",), help="rl: servers that write the rollouts, in .venv-vllm")
    parts = ("paced", "vllm", "ahead")
    parser.add_argument(
        "--parts", nargs="+", choices=parts, default=parts, help="rl with an engine: what is run (default: all)"
    )
    parser.add_argument(
        "--trajectories",
        help="rl-scale: a trajectories.jsonl whose turns are played; --check writes its last run there",
    )
    parser.add_argument(
        "--rates",
        nargs="+",
        default=[],
        help="rl-scale: seconds as NAME=VALUE, such as token=0.013 (default: those of benches/scale.py)",
    )
    parser.add_argument(
        "--check",
        nargs="+",
        choices=("paced", "vllm"),
        default=[],
        help="rl-scale: servers whose real rollouts are compared with the model, in .venv-vllm (default: none)",
    )
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    if options.what == "agent":
        agent.run(options.samples or 64, options.repeats)
    elif options.what == "eval":
        eval.run(options.samples or 48, options.repeats)
    elif options.what == "collect":
        collect.run()
    elif options.what == "data":
        data.run(options.samples or 100_000)
    elif options.what == "local":
        sizes = local.Sizes(options.shapes, options.layers, options.tokens, options.images)
        placed = (options.device, options.dtype, options.attn)
        local.run(sizes, options.conversations or [1, 8, 32], *placed, steps=options.steps or 4)
    elif options.what == "image":
        image.run(options.repeats)
    elif options.what == "wire":
        wire.run(options.samples or 48)
    elif options.what == "update":
        update.run(options.steps or 1)
    elif options.what == "sft":
        sft.run(options.steps or 500)
    elif options.what == "rl-scale":
        _scale(options)
    elif options.engine:
        numbers = _played_on_servers(options.conversations or [64])
        from benches import rl_vllm

        for number in numbers:
            rl_vllm.run(number, options.repeats, options.steps or 6, options.parts)
    else:
        rl.run(
            options.prompts,
            options.rollouts,
            options.steps or 4,
            threads=options.threads,
            repeats=options.repeats,
            memory_steps=options.memory_steps,
        )


def _reach_all_folders() -> None:
    """Some benchmarks use parts of the tests, and start modules of this folder as programs."""
    folders = [str(ROOT), str(ROOT / "scripts")]
    sys.path.extend(folders)
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])


def _played_on_servers(conversations: list[int]) -> list[int]:
    """Numbers of conversations, for a benchmark that asks servers; without vLLM, whose client TRL's needs, it ends here."""
    if find_spec("vllm") is None:
        raise SystemExit("this needs vLLM: run it with .venv-vllm/bin/python, which scripts/vllm_cpu.sh makes")
    if any(number < 8 or number % 8 for number in conversations):
        raise SystemExit("--conversations must be multiples of 8: eight are about the same question")
    return conversations


def _scale(options: argparse.Namespace) -> None:
    if options.check:
        numbers = _played_on_servers(options.conversations or [16, 64])
        from benches import scale_check

        scale_check.run(options.check, numbers, options.trajectories and Path(options.trajectories))
        return
    from benches import rl_scale

    if options.trajectories is None:
        raise SystemExit("rl-scale needs --trajectories FILE, or --check paced vllm")
    rates = rl_scale.rates_of(options.rates)
    rl_scale.run(Path(options.trajectories), options.prompts, options.rollouts, rates)


if __name__ == "__main__":
    main()
