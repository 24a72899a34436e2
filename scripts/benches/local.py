"""The local engine at the layer shapes of published models against stock `generate`: the same random weights, one run.

Prints for each number of conversations at once how long it takes to read the prompts. Then of one step, which gives each
conversation one token: the time, the calls of torch's operations, the bytes that are held between steps, and the most that
is made in a step and held at once; stock makes its whole cache anew. Then whether the tokens are the same, and how much is
read for the next turn. A conversation is random images and words, of half to all of the words asked for; stock `generate`
pads them to one length, and has the stock vision tower. Seconds on a CPU are those that its cores worked, so that other
programs on the machine count for little: with OMP_NUM_THREADS=1 no core waits for another.
"""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, StoppingCriteria, StoppingCriteriaList

from cof_agent.backends.checkpoint import attention_of, place
from cof_agent.backends.local.decode import Decoder, Generated, Prompt
from cof_agent.backends.local.memory import Picture
from cof_agent.backends.local.vision import speed_up_vision
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
IMAGE = (1, 52, 94)  # patches of an overview of 1316 x 728 pixels
TOWER = 32  # layers of the published vision tower
START, END, PAD = 151652, 151653, 151655  # tokens around an image, and of an image
COUNTED = 2  # steps in which operations are counted
FOLLOWS = 64  # tokens that a next turn adds


@dataclass(frozen=True)
class Sizes:
    """layers: of the language model, by default all. tokens: words of the longest conversation. images: in each conversation,
    each of `IMAGE` patches; without any, the vision tower has one layer."""

    shapes: str
    layers: int | None
    tokens: int
    images: int = 0


def run(
    sizes: Sizes, conversations: Sequence[int], device: str | None, dtype: str | None, attn: str, *, steps: int
) -> None:
    """device, dtype, attn: as for `cof eval`. steps: that are timed."""
    placement = place(device, dtype)
    with torch.device(placement.device):  # on a CPU the random weights of a whole 7B take minutes
        model = _model(sizes, placement.dtype, attn)
    weights = tensors()
    depth = model.config.text_config.num_hidden_layers
    print(
        f"{sizes.shapes} shapes, {depth} layers, {sizes.images} images, {placement.device}, {placement.dtype}, {attn}, "
        f"{gib(weights)} GiB of weights"
    )
    prompts = {count: _prompts(count, sizes) for count in conversations}
    known = {count: _stock(model, asked, steps, weights) for count, asked in prompts.items()}
    speed_up_vision(model)
    for count, asked in prompts.items():
        print(f"\n{count} at once, of {len(asked[0].ids):,} to {len(asked[-1].ids):,} tokens", flush=True)
        print(
            f"{'':10}{'reading':>10}{'a step':>12}{'tokens/s':>10}{'operations':>12}{'held':>12}{'made':>13}{'peak':>13}"
        )
        stock, expected = known[count]
        ours, said, decoder = _ours(model, asked, steps, weights)
        print(stock.line("stock", count), ours.line("ours", count), sep="\n")
        same = sum(one[:-1] == other for one, other in zip(said, expected, strict=True))
        print(f"{same} of {count} get the same {len(expected[0])} tokens")
        _next_turn(decoder, asked, said)


def _model(sizes: Sizes, dtype: torch.dtype, attn: str) -> Any:
    torch.manual_seed(0)
    text = SHAPES[sizes.shapes] | {"max_position_embeddings": 128_000}
    text["num_hidden_layers"] = sizes.layers or text["num_hidden_layers"]
    text["layer_types"] = ["full_attention"] * text["num_hidden_layers"]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    depth = min(TOWER, sizes.layers or TOWER) if sizes.images else 1
    vision = {"depth": depth, "hidden_size": 1280, "out_hidden_size": text["hidden_size"]}
    vision["fullatt_block_indexes"] = [layer for layer in range(depth) if layer % 8 == 7] or [depth - 1]
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=text["tie_word_embeddings"])
    chosen = attention_of(attn)
    model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=chosen).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def _prompts(count: int, sizes: Sizes) -> list[Prompt]:
    """Images first, no two alike, then words."""
    drawn, tokens = random.Random(count), sizes.tokens
    cells = IMAGE[1] * IMAGE[2] // 4
    lengths = [tokens - (tokens // 2) * (count - 1 - number) // max(1, count - 1) for number in range(count)]
    made = []
    for number, length in enumerate(lengths):
        ids = [token for _ in range(sizes.images) for token in (START, *[PAD] * cells, END)]
        pictures = [_picture(1000 * count + 10 * number + image) for image in range(sizes.images)]
        words = [drawn.randrange(*WORDS) for _ in range(length)]
        made.append(Prompt(ids + words, pictures, Sampling(max_tokens=1)))
    return made


def _picture(seed: int) -> Picture:
    def patches() -> Tensor:
        return torch.randn(IMAGE[1] * IMAGE[2], 1176, generator=torch.Generator().manual_seed(seed))

    return Picture(seed.to_bytes(8, "big"), IMAGE, Image.new("RGB", (1, 1)), patches)


@dataclass
class Measured:
    """Seconds (see `seconds`) of reading and of a step; operations of a step; bytes held between steps, and made in one; the
    most that a GPU had allocated since the reading began, weights included."""

    reading: float = 0.0
    step: float = 0.0
    operations: int = 0
    held: int = 0
    made: int = 0
    peak: int = 0

    def line(self, name: str, conversations: int) -> str:
        peak = f"{gib(self.peak):>9} GiB" if self.peak else f"{'-':>13}"
        return (
            f"{name:10}{self.reading:8.2f} s{1000 * self.step:9.1f} ms{conversations / self.step:10.1f}{self.operations:12,}"
            f"{gib(self.held):>8} GiB{gib(self.made):>9} GiB{peak}"
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
            self.found.peak = torch.accelerator.max_memory_allocated() if torch.accelerator.is_available() else 0
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


def begin() -> None:
    """Counts the peak of a GPU's memory from here on."""
    if torch.accelerator.is_available():
        torch.accelerator.reset_peak_memory_stats()


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
def _stock(model: Any, prompts: Sequence[Prompt], steps: int, weights: int) -> tuple[Measured, list[list[int]]]:
    longest = len(prompts[-1].ids)
    ids = torch.tensor([[0] * (longest - len(one.ids)) + one.ids for one in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(one.ids)) + [1] * len(one.ids) for one in prompts], device=model.device)
    begin()
    watch = Watch(steps, weights)
    whole = model.generate(
        input_ids=ids,
        attention_mask=mask,
        **_pixels(model, [picture for one in prompts for picture in one.pictures], ids),
        do_sample=False,
        max_new_tokens=steps + COUNTED + 1,
        stopping_criteria=StoppingCriteriaList([_Each(watch)]),
    )
    return watch.found, whole[:, longest:].tolist()


def _pixels(model: Any, pictures: Sequence[Picture], ids: Tensor) -> dict[str, Tensor]:
    if not pictures:
        return {}
    return {
        "pixel_values": torch.cat([picture.process() for picture in pictures]).to(model.device, model.dtype),
        "image_grid_thw": torch.tensor([picture.grid for picture in pictures], device=model.device),
        "mm_token_type_ids": (ids == PAD).int(),
    }


def _ours(model: Any, prompts: Sequence[Prompt], steps: int, weights: int) -> tuple[Measured, list[list[int]], Decoder]:
    decoder = Decoder(model, set(), [], capacity=len(prompts), text=lambda _: "")
    begin()
    watch = Watch(steps, weights)
    sampling = Sampling(max_tokens=steps + COUNTED + 2)  # what is kept at the end of a turn is no part of a step
    keys = [decoder.admit(replace(one, sampling=sampling)) for one in prompts]
    done: dict[int, Generated] = {}
    watch()
    while not done:
        done = decoder.step()
        watch()
    return watch.found, [done[key].ids for key in keys], decoder


def _next_turn(decoder: Decoder, prompts: Sequence[Prompt], said: Sequence[list[int]]) -> None:
    read, drawn = 0, random.Random(0)

    def count(_: Any, __: Any, given: dict[str, Any]) -> None:
        nonlocal read
        read += given["input_ids"].shape[1]

    turns = [
        replace(one, ids=one.ids + told[:-1] + [drawn.randrange(*WORDS) for _ in range(FOLLOWS)])
        for one, told in zip(prompts, said, strict=True)
    ]
    hook = decoder._model.model.register_forward_pre_hook(count, with_kwargs=True)
    for one in turns:
        decoder.admit(one)
    decoder.step()
    hook.remove()
    print(
        f"the next turn adds {FOLLOWS} tokens to each; ours reads {read:,}, stock {sum(len(one.ids) for one in turns):,}"
    )
