"""What the local engine keeps, by the memory that is free: enough that nothing is read twice, and never more than its share."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.budget import FEATURES, PAST, Budget, Limit
from cof_agent.backends.local.decode import Decoder, Generated, Prompt
from cof_agent.backends.local.free_memory import UNKNOWN, FreeMemory, Machine
from cof_agent.backends.local.layers import Attention, Layers, Pool, Recurrent
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.nano import NANO
from cof_agent.policy import PolicyError, Sampling

MIB = 2**20
SHORT = Sampling(max_tokens=4)


class Memory:
    """A device with so many bytes, of which the tensors of a test take theirs; `full` for one on which nothing more fits."""

    def __init__(self, size: int) -> None:
        self.size, self.full = size, False

    def free(self) -> int:
        if self.full:
            raise torch.OutOfMemoryError("full")
        return self.size


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return load(NANO, device="cpu")


def decoder(policy: LocalPolicy, memory: Memory, capacity: int = 8) -> Decoder:
    budget = Budget(memory.free, capacity)
    return Decoder(
        policy.model, policy.stop_ids, list(policy.unspeakable), capacity=capacity, text=policy.text, budget=budget
    )


def prompt(policy: LocalPolicy, number: int, words: str = "What is written there?") -> Prompt:
    size = (3 * policy.limits.grid, 2 * policy.limits.grid)
    pixels = random.Random(number).randbytes(3 * size[0] * size[1])
    ids, pictures = policy.read(
        f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{number} {words}<|im_end|>\n<|im_start|>assistant\n",
        [Image.frombytes("RGB", size, pixels)],
    )
    return Prompt(ids, pictures, SHORT)


def answers(engine: Decoder, prompts: Sequence[Prompt]) -> list[Generated]:
    keys, done = [engine.admit(one) for one in prompts], dict[int, Generated]()
    while len(done) < len(keys):
        done |= engine.step()
    return [done[key] for key in keys]


def turns(policy: LocalPolicy, engine: Decoder, conversations: int) -> tuple[list[list[Generated]], int, int]:
    """Three turns of so many conversations at once: what was said, the tokens that were read, and how many these would be if
    none were read twice."""
    seen = 0

    def count(_: Any, args: Any, given: dict[str, Any]) -> None:
        nonlocal seen
        seen += given["input_ids"].shape[1]

    hook = policy.model.model.register_forward_pre_hook(count, with_kwargs=True)
    prompts, said = [prompt(policy, number) for number in range(conversations)], list[list[Generated]]()
    once = 0
    more = policy.ids("<|im_end|>\n<|im_start|>user\nAnd below?<|im_end|>\n<|im_start|>assistant\n")
    for _ in range(3):
        once += len(more) * len(prompts) if said else sum(len(one.ids) for one in prompts)
        said.append(answers(engine, prompts))
        prompts = [
            Prompt(one.ids + told.ids[:-1] + more, one.pictures, SHORT)
            for one, told in zip(prompts, said[-1], strict=True)
        ]
    hook.remove()
    return said, seen, once


def tensors() -> int:
    """Bytes of all tensors that there are."""
    held = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive()}
    return sum(held.values())


def alive() -> list[torch.Tensor]:
    return [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]


def test_the_rule_keeps_what_can_come_back_in_a_share_of_what_is_free() -> None:
    limit = Limit(share=1 / 2, enough=2, little=100)

    def kept(free: int, sizes: Sequence[int], capacity: int = 3) -> int:
        return len(sizes) - Budget(lambda: free, capacity).surplus(sizes, limit)

    assert kept(10_000, [50] * 9) == 6  # two for each conversation, though there is room for more
    assert kept(10_000, [5] * 20) == 20  # 100 bytes are little
    assert kept(10_000, [5] * 21) == 20
    assert kept(200, [50] * 6) == 5  # 5 x 50 of the 500 that are free or held
    assert kept(0, [50] * 6) == 3
    assert kept(0, [50]) == 1
    assert kept(-5_000, [50] * 6) == 1  # the newest stays
    assert kept(10_000, []) == 0


def test_at_7b_32_conversations_of_8000_tokens_fit_an_80_gb_card_and_few_a_small_one() -> None:
    one = 8000 * 28 * 2 * 512 * 2  # layers, keys and values, 4 heads of 128, 16 bit
    weights, pool = 16.6e9, 32 * 9024 * one // 8000
    for free, least, most in ((80e9 - weights - pool, 32, 128), (2 * 2**30, 1, 3)):
        held = 0
        for _ in range(100):  # each that is kept takes from what is free
            held += 1
            held -= Budget(lambda free=int(free), held=held: free - held * one, 32).surplus([one] * held, PAST)  # type: ignore[misc]
        assert least <= held <= most, free


@pytest.mark.parametrize("family", [NANO, "qwen3_vl"])
def test_no_conversation_is_read_twice_where_there_is_memory(
    family: str, policy: LocalPolicy, checkpoint: Callable[[str], Path]
) -> None:
    mine = policy if family == NANO else load(checkpoint(family), device="cpu", dtype="float32")
    ample, seen, once = turns(mine, decoder(mine, Memory(64 * 2**30)), 8)
    assert seen == once
    scarce, again, _ = turns(mine, decoder(mine, Memory(0)), 8)
    assert again > 2 * once
    assert [[one.ids for one in turn] for turn in scarce] == [[one.ids for one in turn] for turn in ample]


def test_features_of_images_follow_what_is_free(policy: LocalPolicy) -> None:
    pictures = [prompt(policy, number).pictures[0] for number in range(6)]
    size = 6 * policy.model.config.get_text_config().hidden_size * 4
    for free, kept in ((64 * MIB, 6), (0, 1), (2 * size * 7, 2)):
        engine = decoder(policy, Memory(free))
        engine.features(pictures)
        assert [engine.knows(one) for one in pictures] == [False] * (6 - kept) + [True] * kept, free
    assert FEATURES.share < PAST.share


@pytest.mark.slow
def test_forgetting_leaves_nothing_but_the_model(policy: LocalPolicy) -> None:
    """As training does after rollouts and evaluations."""
    mine = LocalPolicy(policy.model, policy._processor, name="nano")

    async def answered() -> None:
        await asyncio.gather(*(mine.complete(prompt(mine, number)) for number in range(5)))

    gc.collect()
    before = tensors()
    asyncio.run(answered())
    assert tensors() > before + MIB
    mine.forget()
    assert tensors() == before


class Zeros(TorchDispatchMode):
    """Counts the bytes of tensors of zeros, of which a pool is made: those that are held, and the most at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[torch.Tensor]] = []
        self.most = 0

    @property
    def held(self) -> int:
        return sum(one.nbytes for ref in self.made if (one := ref()) is not None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.new_zeros:
            self.made.append(weakref.ref(made))
            self.most = max(self.most, self.held)
        return made


def test_a_resize_holds_one_pool_and_a_layer() -> None:
    """Of attention and of linear attention; `make_room` is told before what the resize takes."""
    asked: list[int] = []
    layer = torch.zeros(4, 70, 64)
    one: Layers = [Attention(layer, layer), Recurrent(layer[:, :1], layer[:, :64]), *[Attention(layer, layer)] * 6]
    with Zeros() as zeros:
        pool = Pool(asked.append)
        for _ in range(4):
            pool.insert(one, 70, 70)
        before, largest = zeros.held, max(sum(part.nbytes for part in held) for held in pool._layers)
        pool.insert(one, 70, 70)
    assert zeros.held == 2 * before
    assert zeros.most == zeros.held + largest == before + asked[-1]
    assert len(asked) == 4  # for 1, 2, 4 and 8 rows


def test_the_pool_is_given_back_when_nobody_is_answered(policy: LocalPolicy) -> None:
    engine = decoder(policy, Memory(0))
    with Zeros() as zeros:
        for key in [engine.admit(prompt(policy, number)) for number in range(3)]:
            assert zeros.held > 0
            engine.drop(key)
    assert zeros.held == 0


def test_a_pool_that_cannot_grow_ends_all_conversations_and_no_later_one(policy: LocalPolicy) -> None:
    """Half moved, it would be read as if it were whole."""
    memory = Memory(64 * 2**30)
    engine = decoder(policy, memory)
    expected = answers(engine, [prompt(policy, 0), prompt(policy, 1)])
    engine.admit(prompt(policy, 0))
    memory.full = True
    with pytest.raises(torch.OutOfMemoryError):
        engine.admit(prompt(policy, 1))
    memory.full = False
    late = engine.admit(prompt(policy, 2))
    engine.drop(late)
    with pytest.raises(torch.OutOfMemoryError, match="could not grow"):
        engine.step()
    engine.reset()
    assert answers(engine, [prompt(policy, 0), prompt(policy, 1)]) == expected


def test_callers_hear_of_a_pool_that_cannot_grow(policy: LocalPolicy) -> None:
    mine = LocalPolicy(policy.model, policy._processor, name="nano")
    memory = Memory(64 * 2**30)
    mine._decoder._budget = Budget(memory.free, 8)

    async def both() -> list[Any]:
        first = asyncio.create_task(
            mine.complete(Prompt(prompt(mine, 0).ids, prompt(mine, 0).pictures, Sampling(5000)))
        )
        while not mine._decoder._rows:
            await asyncio.sleep(0.01)
        memory.full = True
        found = await asyncio.gather(first, mine.complete(prompt(mine, 1)), return_exceptions=True)
        memory.full = False
        return [*found, await mine.complete(prompt(mine, 1))]

    first, second, later = asyncio.run(both())
    assert isinstance(first, PolicyError) and isinstance(second, PolicyError)
    assert "ran out of memory" in str(first)
    assert later == answers(decoder(policy, memory), [prompt(policy, 1)])[0]


def test_what_is_kept_gives_way_to_what_is_read(policy: LocalPolicy) -> None:
    engine = decoder(policy, Memory(64 * 2**30))
    said = answers(engine, [prompt(policy, 0)])
    tries = []

    def short(*_: Any) -> None:
        tries.append(len(engine._past._kept))
        if tries[-1]:
            raise torch.OutOfMemoryError("full")

    hook = policy.model.model.register_forward_pre_hook(short)
    try:
        assert answers(engine, [prompt(policy, 0)]) == said
    finally:
        hook.remove()
    assert tries == [1, 0]


def test_free_memory_is_what_the_machine_and_its_groups_leave(policy: LocalPolicy, tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    assert Machine(tmp_path).free() == UNKNOWN
    write("proc/meminfo", "MemTotal:  16384 kB\nMemFree:  100 kB\nMemAvailable:   8192 kB\n")
    assert Machine(tmp_path).free() == 8 * MIB
    write("proc/self/cgroup", "0::/job/step\n")
    write("sys/fs/cgroup/job/memory.max", f"{4 * MIB}\n")
    write("sys/fs/cgroup/job/memory.current", f"{3 * MIB}\n")
    write("sys/fs/cgroup/job/memory.stat", f"active_file 5\ninactive_file {MIB}\n")
    write("sys/fs/cgroup/job/step/memory.max", "max\n")
    assert Machine(tmp_path).free() == 2 * MIB
    write("proc/self/cgroup", "9:cpuset:/\n4:cpu,memory:/box\n0::/\n")
    assert Machine(tmp_path).free() == 8 * MIB
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", f"{5 * MIB}\n")
    write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", f"{2 * MIB}\n")
    write("sys/fs/cgroup/memory/box/memory.stat", "total_inactive_file 0\n")
    assert Machine(tmp_path).free() == 3 * MIB
    write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", f"{6 * MIB}\n")
    assert Machine(tmp_path).free() == 0
    assert FreeMemory(policy.model)() > 0
