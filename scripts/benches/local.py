"""The local engine at the layer shapes of published models against stock `generate`: the same random weights, one run.

Prints for each number of conversations at once how long it takes to read the prompts. Then of one step, which gives each
conversation one token: the time, the calls of torch's operations, the bytes that are held between steps, and the most that
is made in a step and held at once; stock makes its whole cache anew. Then whether the tokens are the same, and how much is
read for the next turn. A conversation is random words, of half to all of the tokens asked for; stock `generate` pads them to
one length. Seconds on a CPU are those that its cores worked, so that other programs on the machine count for little: with
OMP_NUM_THREADS=1 no core waits for another.
"""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, StoppingCriteria, StoppingCriteriaList

from cof_agent.backends.checkpoint import place
from cof_agent.backends.local.decode import Decoder, Generated, Prompt
from cof_agent.policy import Sampling

SHAPES: dict[str, dict[str, Any]] = {
    "3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
"""Of Qwen2.5-VL, by the configurations that are published with it."""

WORDS = (1000, 150_000)  # ids of plain tokens
COUNTED = 2  # steps in which operations are counted
FOLLOWS = 64  # tokens that a next turn adds


def run(
    shapes: str, layers: int | None, tokens: int, conversations: Sequence[int], steps: int, dtype: str | None
) -> None:
    """layers: of the language model, by default all. tokens: of the longest conversation. steps: that are timed."""
    placement = place(dtype=dtype)
    model = _model(shapes, layers, placement.dtype).to(placement.device)
    weights = tensors()
    depth = model.config.text_config.num_hidden_layers
    print(f"{shapes} shapes, {depth} layers, {placement.device}, {placement.dtype}, {gib(weights)} GiB of weights")
    for count in conversations:
        prompts = _prompts(count, tokens)
        print(f"\n{count} at once, of {len(prompts[0]):,} to {len(prompts[-1]):,} tokens", flush=True)
        print(f"{'':10}{'reading':>10}{'a step':>12}{'operations':>12}{'held':>12}{'made':>13}")
        stock, expected = _stock(model, prompts, steps, weights)
        ours, said, decoder = _ours(model, prompts, steps, weights)
        print(stock.line("stock"), ours.line("ours"), sep="\n")
        same = sum(one[:-1] == other for one, other in zip(said, expected, strict=True))
        print(f"{same} of {count} get the same {len(expected[0])} tokens")
        _next_turn(decoder, prompts, said)


def _model(shapes: str, layers: int | None, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    text = SHAPES[shapes] | {"max_position_embeddings": 128_000}
    text["num_hidden_layers"] = layers or text["num_hidden_layers"]
    text["layer_types"] = ["full_attention"] * text["num_hidden_layers"]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    vision = {"depth": 1, "hidden_size": 1280, "out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [0]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=text["tie_word_embeddings"])
    model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def _prompts(count: int, tokens: int) -> list[list[int]]:
    drawn = random.Random(count)
    lengths = [tokens - (tokens // 2) * (count - 1 - number) // max(1, count - 1) for number in range(count)]
    return [[drawn.randrange(*WORDS) for _ in range(length)] for length in lengths]


@dataclass
class Measured:
    """Seconds (see `seconds`) of reading and of a step; operations of a step; bytes held between steps, and made in one."""

    reading: float = 0.0
    step: float = 0.0
    operations: int = 0
    held: int = 0
    made: int = 0

    def line(self, name: str) -> str:
        return (
            f"{name:10}{self.reading:8.2f} s{1000 * self.step:9.1f} ms{self.operations:12,}"
            f"{gib(self.held):>8} GiB{gib(self.made):>9} GiB"
        )


@dataclass
class Watch:
    """Watches a loop of steps: call it after reading and after each step; it says whether that was the last."""

    steps: int
    weights: int
    found: Measured = field(default_factory=Measured)
    _started: float = field(default_factory=lambda: seconds())
    _calls: int = -1
    _counter: Operations | None = None

    def __call__(self) -> bool:
        self._calls += 1
        passed = seconds() - self._started
        if self._calls == 0:
            self.found.reading, self._started = passed, seconds()
        elif self._calls == self.steps:
            self.found.step, self.found.held = passed / self.steps, tensors() - self.weights
            self._counter = Operations()
            self._counter.__enter__()
        elif self._calls == self.steps + COUNTED and self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.found.operations, self.found.made = self._counter.count // COUNTED, self._counter.most
            return True
        return False


class Operations(TorchDispatchMode):
    """Counts operations, and the bytes of what they make that are held at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.most = 0
        self._made: dict[int, weakref.ref[Tensor]] = {}
        self._own: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += 1
        given = {_place(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                self._own |= {_place(one)} - given
                self._made[id(one)] = weakref.ref(one)
        self._made = {key: ref for key, ref in self._made.items() if ref() is not None}
        self.most = max(
            self.most, _bytes([one for ref in self._made.values() if (one := ref()) is not None], self._own)
        )
        return result


def seconds() -> float:
    """A clock: of the wall, where there is a GPU, once that has finished; else of the cores' work."""
    if not torch.accelerator.is_available():
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(held: Sequence[Tensor], places: set[int] | None = None) -> int:
    """Of all storages of these tensors, or of those at some places."""
    sizes = {_place(one): one.untyped_storage().nbytes() for one in held}
    return sum(size for place, size in sizes.items() if places is None or place in places)


def tensors() -> int:
    """Bytes of all tensors of this process."""
    gc.collect()
    return _bytes([one for one in gc.get_objects() if type(one) in (Tensor, torch.nn.Parameter)])


def gib(size: float) -> str:
    return f"{size / 2**30:.3f}"


class _Each(StoppingCriteria):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((len(input_ids),), self._watch(), device=input_ids.device, dtype=torch.bool)


@torch.inference_mode()
def _stock(model: Any, prompts: Sequence[list[int]], steps: int, weights: int) -> tuple[Measured, list[list[int]]]:
    longest = len(prompts[-1])
    ids = torch.tensor([[0] * (longest - len(one)) + one for one in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=model.device)
    watch = Watch(steps, weights)
    whole = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=steps + COUNTED + 1,
        stopping_criteria=StoppingCriteriaList([_Each(watch)]),
    )
    return watch.found, whole[:, longest:].tolist()


def _ours(
    model: Any, prompts: Sequence[list[int]], steps: int, weights: int
) -> tuple[Measured, list[list[int]], Decoder]:
    decoder = Decoder(model, set(), [], capacity=len(prompts), text=lambda _: "")
    watch = Watch(steps, weights)
    sampling = Sampling(max_tokens=steps + COUNTED + 2)  # what is kept at the end of a turn is no part of a step
    keys = [decoder.admit(Prompt(one, [], sampling)) for one in prompts]
    done: dict[int, Generated] = {}
    watch()
    while not done:
        done = decoder.step()
        watch()
    return watch.found, [done[key].ids for key in keys], decoder


def _next_turn(decoder: Decoder, prompts: Sequence[list[int]], said: Sequence[list[int]]) -> None:
    read, drawn = 0, random.Random(0)

    def count(_: Any, __: Any, given: dict[str, Any]) -> None:
        nonlocal read
        read += given["input_ids"].shape[1]

    turns = [
        one + told[:-1] + [drawn.randrange(*WORDS) for _ in range(FOLLOWS)]
        for one, told in zip(prompts, said, strict=True)
    ]
    hook = decoder._model.model.register_forward_pre_hook(count, with_kwargs=True)
    for one in turns:
        decoder.admit(Prompt(one, [], Sampling(max_tokens=1)))
    decoder.step()
    hook.remove()
    print(f"the next turn adds {FOLLOWS} tokens to each; ours reads {read:,}, stock {sum(map(len, turns)):,}")
