"""The agent against a plain sequential loop over transformers' `generate`.

Prints: the time of `cof --help`; wall time and peak memory of a cold `cof ask` on a 4K scene; trajectories per second at
concurrency 1, 8 and 32, and what the images alone leave possible; and which share of the time is the model, images and our own
code.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.local.processor import load_processor
from cof_agent.data.samples import read_samples
from cof_agent.geometry import Size
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.policy import Completion, Policy, Sampling
from cof_agent.protocol import Message
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import Sample, Tokens, Trajectory

COF = str(Path(sys.executable).with_name("cof"))
MAX_TOKENS = 96  # of a turn


class SequentialTransformers:
    """The plain alternative: stock `generate` on one conversation at a time, everything read again each turn."""

    def __init__(self, like: Policy, directory: Path) -> None:
        self.name, self.coordinates, self.limits = "sequential transformers", like.coordinates, like.limits
        self._processor = load_processor(str(directory))
        self._model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()

    async def generate(
        self, messages: Sequence[Message], images: Sequence[Image.Image], sampling: Sampling
    ) -> Completion:
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = self._processor(text=[text], images=[list(images)], return_tensors="pt")
        with torch.inference_mode():
            ids = self._model.generate(**inputs, max_new_tokens=sampling.max_tokens, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        spoken = self._processor.tokenizer.decode(new, skip_special_tokens=True)
        return Completion(spoken, Tokens(inputs["input_ids"].shape[1], len(new)))


class Clock:
    """CPU seconds, over all threads, spent inside wrapped calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                with self._lock:
                    self.seconds += time.thread_time() - started

        return timed


def run(count: int, repeats: int) -> None:
    """count: scenes. repeats: of each measurement, the best of which counts."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_scenes(data, count=count, seed=11, size=Size(3840, 2160), split="test")
        samples = read_samples(data)
        _commands(samples[0])
        policy = load(NANO)
        plain, _ = rate(samples, SequentialTransformers(policy, WEIGHTS), 1, repeats)
        print(f"sequential transformers     {plain:6.2f} trajectories/s    1.0 x")
        for concurrency in (1, 8, 32):
            reached, trajectories = rate(samples, policy, concurrency, repeats)
            print(f"cof, concurrency {concurrency:2}         {reached:6.2f} trajectories/s  {reached / plain:5.1f} x")
        bound = max(_images_alone(trajectories, policy) for _ in range(repeats))
        print(f"a model that takes no time  {bound:6.2f} trajectories/s  {bound / plain:5.1f} x")
        turns = sum(len(trajectory.turns) for trajectory in trajectories)
        print(f"({turns / count:.1f} turns and {sum(t.zooms for t in trajectories) / count:.1f} zooms a trajectory)")
        _shares(samples, policy)


def _commands(sample: Sample) -> None:
    helping = min(_wall([COF, "--help"])[0] for _ in range(3))
    print(f"cof --help                  {helping:6.2f} s")
    wall, peak = _wall([COF, "ask", sample.image, sample.question])
    print(f"cold cof ask on a 4K scene  {wall:6.2f} s, peak {peak / 1024:.0f} MiB")


_MEASURE = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _wall(command: list[str]) -> tuple[float, int]:
    """Wall seconds and peak memory in KiB. Started from a small process: a child's peak begins with its parent's."""
    measured = subprocess.run([sys.executable, "-c", _MEASURE, *command], check=True, capture_output=True, text=True)
    seconds, peak = measured.stdout.split()
    return float(seconds), int(peak)


def rate(samples: list[Sample], policy: Policy, concurrency: int, repeats: int) -> tuple[float, list[Trajectory]]:
    """Trajectories per second, the best of `repeats`; sources are decoded anew each time."""
    best, trajectories = 0.0, []
    for _ in range(repeats):
        agent = Agent(policy=policy, max_tokens=MAX_TOKENS)
        if isinstance(policy, LocalPolicy):
            policy.forget()  # nothing read in an earlier run may be reused
        started = time.perf_counter()
        trajectories = agent.ask_many(samples, concurrency=concurrency, progress=False)
        best = max(best, len(samples) / (time.perf_counter() - started))
    return best, trajectories


def _images_alone(trajectories: list[Trajectory], policy: Policy) -> float:
    """Trajectories per second of nothing but decoding sources and making overviews and crops, as all at once as they come."""
    environment = Agent(policy=policy).environment

    async def everything() -> None:
        await asyncio.gather(*(environment.images(one.sample, one.views) for one in trajectories))

    started = time.perf_counter()
    asyncio.run(everything())
    return len(trajectories) / (time.perf_counter() - started)


def _shares(samples: list[Sample], policy: Any) -> None:
    """CPU time at concurrency 32: the model with its tokenizer and pixel normalisation, image work, and the rest.

    Model threads that torch starts itself are not on the clocks of the calls; the rest of the process is measured by
    what Python's own threads spend outside of both.
    """
    agent = Agent(policy=policy, max_tokens=MAX_TOKENS)
    policy.forget()
    model, images, parsing = Clock(), Clock(), Clock()
    engine = policy._batcher._engine
    engine.step, engine.admit, policy._prompt = (model.wrap(f) for f in (engine.step, engine.admit, policy._prompt))
    agent.environment.image = images.wrap(agent.environment.image)  # type: ignore[method-assign]
    protocol.parse = parsing.wrap(protocol.parse)
    before = time.process_time()
    agent.ask_many(samples, concurrency=32, progress=False)
    total = time.process_time() - before
    own = max(0.0, total - model.seconds - images.seconds)
    shares = {"model": model.seconds, "image": images.seconds, "own code, LangGraph included": own}
    print("CPU time at 32: " + ", ".join(f"{name} {100 * part / total:.1f} %" for name, part in shares.items()))
    print(f"(parsing of model text {100 * parsing.seconds / total:.2f} %)")
