"""The local backend against transformers' own generation, alone and in company, for all families."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from cof_agent.agent import Agent
from cof_agent.backends.checkpoint import load, place
from cof_agent.backends.families import FAMILIES
from cof_agent.backends.local.cpu import speed_up_training
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.local.processor import load_processor, prepare_images
from cof_agent.backends.local.stock import StockDecoder
from cof_agent.backends.local.vision import speed_up_vision
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.graphs import focus
from cof_agent.graphs.steps import Context
from cof_agent.nano import NANO
from cof_agent.policy import Completion, PolicyError, Sampling
from cof_agent.protocol import Message
from cof_agent.trajectory import Sample, Tokens

ALL_GRIDS = {model_type: family.vision.grid for family in FAMILIES for model_type in family.model_types}
GRIDS = {model_type: grid for model_type, grid in ALL_GRIDS.items() if not model_type.endswith(("_moe", "_exp"))}
"""Experts change nothing of what the engine does, so that most tests leave them out; the last family has transformers' engine."""
SHORT = Sampling(max_tokens=12)
Conversation = tuple[list[Message], list[Image.Image]]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def conversation(grid: int, crops: int, seed: int) -> Conversation:
    """A question about a noise image with some crops already seen; longer with every crop."""
    rng = random.Random(seed)

    def noise(width: int, height: int) -> Image.Image:
        return Image.frombytes("RGB", (width * grid, height * grid), rng.randbytes(3 * width * height * grid**2))

    images = [noise(7, 4), *(noise(3, 2 + crop) for crop in range(crops))]
    question = {"role": "user", "content": [{"type": "image", "view": 0}, text("What is written there? " * (1 + seed))]}
    messages: list[Message] = [{"role": "system", "content": [text("You answer.")]}, question]
    for crop in range(crops):
        messages.append({"role": "assistant", "content": [text("<think>closer</think>")]})
        messages.append({"role": "user", "content": [{"type": "image", "view": crop + 1}, text(f"Image {crop + 1}.")]})
    return messages, images


def answers(policy: LocalPolicy, conversations: Sequence[Conversation], sampling: Sampling = SHORT) -> list[Completion]:
    async def all_at_once() -> list[Completion]:
        return await asyncio.gather(*(policy.generate(*one, sampling) for one in conversations))

    return asyncio.run(all_at_once())


@pytest.fixture(scope="module")
def policy(checkpoint: Callable[[str], Path]) -> LocalPolicy:
    return load(checkpoint("qwen2_5_vl"), device="cpu", dtype="float32")


EXPERTS = [pytest.param(family, marks=pytest.mark.slow) for family in ALL_GRIDS if family not in GRIDS]


@pytest.mark.parametrize("family", [*GRIDS, *EXPERTS])
def test_greedy_text_and_token_counts_are_those_of_transformers(checkpoint: Callable[[str], Path], family: str) -> None:
    directory, grid = checkpoint(family), ALL_GRIDS[family]
    policy = load(directory, device="cpu", dtype="float32")
    conversations = [conversation(grid, seed % 3, seed) for seed in range(6)]
    model: Any = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    processor: Any = load_processor(str(directory))
    expected = []
    for messages, images in conversations:
        inputs = processor(text=[policy.render(messages)], images=images, return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        suppressed = list(policy.unspeakable)
        new = model.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=suppressed)[0, length:]
        ended = int(new[-1]) == processor.tokenizer.eos_token_id  # one of Qwen3-VL's does
        said = policy.opened + processor.decode(new, skip_special_tokens=True)
        expected.append((said, length, len(new), not ended))
    for found in (answers(policy, conversations), [answers(policy, [one])[0] for one in conversations]):
        assert [(c.text, c.tokens.prompt, c.tokens.completion, c.truncated) for c in found] == expected


@pytest.mark.parametrize("family", GRIDS)
def test_a_beginning_is_gone_on_from(checkpoint: Callable[[str], Path], family: str) -> None:
    policy = load(checkpoint(family), device="cpu", dtype="float32")
    messages, images = conversation(GRIDS[family], 1, 3)
    beginning = "<think>It is [1, 2]</think>\n<answer>"
    begun = [*messages, {"role": "assistant", "content": [text(beginning)]}]
    rendered = policy.render(messages).removesuffix(policy.opened) + beginning
    assert policy.render(begun) == rendered
    ids, pictures = policy.read(rendered, images)
    expected = asyncio.run(policy.complete(Prompt(ids, pictures, SHORT)))
    (found,) = answers(policy, [(begun, images)])
    assert found.text == beginning + policy.text(expected.ids)
    assert found.tokens == Tokens(len(ids), len(expected.ids))


def test_the_probability_of_a_message_is_that_of_its_tokens(checkpoint: Callable[[str], Path]) -> None:
    directory = checkpoint("qwen2_5_vl")
    policy = load(directory, device="cpu", dtype="float32")
    conversations = [conversation(28, crops, crops + 5) for crops in range(3)]
    assert all(found.logprob is None for found in answers(policy, conversations))
    model: Any = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    processor: Any = load_processor(str(directory))
    for sampling in (SHORT, replace(SHORT, temperature=0.7, top_p=0.9, seed=1)):
        told = answers(policy, conversations, replace(sampling, logprobs=True))
        for (messages, images), completion in zip(conversations, told, strict=True):
            ids, pictures = policy.read(policy.render(messages), images)
            new = asyncio.run(policy.complete(Prompt(ids, pictures, sampling))).ids
            inputs = processor(text=[policy.render(messages)], images=images, return_tensors="pt")
            inputs["input_ids"] = torch.tensor([ids + new])
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
            with torch.no_grad():
                logits = model(**inputs).logits[0, len(ids) - 1 : -1].clone()
            logits[:, list(policy.unspeakable)] = -torch.inf
            expected = logits.log_softmax(-1).gather(1, torch.tensor(new)[:, None]).mean()
            assert completion.logprob == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("family", "coordinates"),
    [
        ("qwen2_vl", CoordinateSystem.THOUSAND),
        ("qwen2_5_vl", CoordinateSystem.ABSOLUTE),
        ("qwen3_vl", CoordinateSystem.THOUSAND),
        ("qwen3_5", CoordinateSystem.THOUSAND),
    ],
)
def test_coordinates_and_grid_follow_the_family(
    checkpoint: Callable[[str], Path], family: str, coordinates: CoordinateSystem
) -> None:
    policy = load(checkpoint(family), device="cpu")
    assert policy.coordinates is coordinates
    assert policy.limits.grid == GRIDS[family]


def test_limits_come_from_the_checkpoint_unless_given(checkpoint: Callable[[str], Path]) -> None:
    directory = checkpoint("qwen2_5_vl")
    assert load(directory).limits == PixelLimits(28, 3136, 123_904, 30_976)
    assert load(directory, max_pixels=50_000).limits == PixelLimits(28, 3136, 50_000, 12_500)
    assert load(directory, zoom_pixels=1_000).limits == PixelLimits(28, 1_000, 123_904, 1_000)
    with pytest.raises(InputError, match="--overview-pixels must be at least 784"):
        load(directory, max_pixels=500)


def test_sampling_repeats_with_its_seed_in_any_company(policy: LocalPolicy) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=3)
    conversations = [conversation(28, seed % 3, seed) for seed in range(5)]
    together = answers(policy, conversations, sampling)
    assert [answers(policy, [one], sampling)[0] for one in conversations] == together
    other = answers(policy, conversations, Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=4))
    assert all(first.text != second.text for first, second in zip(together, other, strict=True))


@pytest.mark.parametrize("family", GRIDS)
def test_what_was_read_before_changes_no_text(checkpoint: Callable[[str], Path], family: str) -> None:
    grid = GRIDS[family]
    policy = load(checkpoint(family), device="cpu", dtype="float32")
    messages, images = conversation(grid, 0, 1)
    other_question = [messages[0], {"role": "user", "content": [messages[1]["content"][0], text("And what colour?")]}]
    turns: list[Conversation] = [(messages, images), (other_question, images)]
    for turn in range(3):
        said = answers(policy, [(messages, images)])[0].text
        crop = conversation(grid, 0, 10 + turn)[1][0]
        shown = {"role": "user", "content": [{"type": "image", "view": len(images)}, text("Image.")]}
        messages = [*messages, {"role": "assistant", "content": [text(said)]}, shown]
        images = [*images, crop]
        turns.append((messages, images))
    again = [answers(policy, [one])[0] for one in reversed(turns)]
    fresh = [answers(load(checkpoint(family), device="cpu", dtype="float32"), [one])[0] for one in turns]
    assert again[::-1] == fresh


@pytest.mark.parametrize("family", GRIDS)
def test_a_group_reads_its_prompt_once_and_says_what_each_would_alone(
    checkpoint: Callable[[str], Path], family: str
) -> None:
    decoder = load(checkpoint(family), device="cpu", dtype="float32")._decoder
    reads: list[int] = []
    decoder._model.model.register_forward_pre_hook(lambda *_: reads.append(1))
    policy = load(checkpoint(family), device="cpu", dtype="float32")
    other, first = (policy._prompt(*conversation(GRIDS[family], *one), SHORT) for one in ((2, 2), (1, 1)))
    # As in another thread: its images are objects of its own.
    again = [policy._prompt(*conversation(GRIDS[family], 1, 1), SHORT) for _ in range(3)]
    group = [replace(one, sampling=Sampling(12, 2.0, seed=seed)) for seed, one in enumerate([first, *again])]

    def spoken(prompts: Sequence[Prompt]) -> list[Generated]:
        """Each joins a step after the one before."""
        keys: list[int] = []
        done: dict[int, Generated] = {}
        for prompt in prompts:
            keys.append(decoder.admit(prompt))
            done |= decoder.step()
        while len(done) < len(keys):
            done |= decoder.step()
        return [done[key] for key in keys]

    together = spoken([other, *group])
    assert len(reads) == 2
    alone = []
    for prompt in group:
        decoder.forget()
        alone += spoken([prompt])
    assert len(reads) == 2 + len(group)
    assert together[1:] == alone
    assert len({tuple(one.ids) for one in alone}) == len(group)


def test_what_a_group_shares_is_a_copy_to_the_last_bit(policy: LocalPolicy) -> None:
    decoder, prompt = policy._decoder, policy._prompt(*conversation(28, 1, 1), SHORT)
    same_words = replace(prompt, pictures=policy._prompt(*conversation(28, 1, 2), SHORT).pictures)
    decoder.forget()
    with torch.inference_mode():
        read = decoder._read(prompt)
        key = decoder.admit(prompt)
        decoder.step()
        shared = decoder._read_before(prompt)
        assert decoder._read_before(same_words) is None
        decoder.drop(key)
        assert decoder._read_before(prompt) is None
        read.logits[:, decoder._unspeakable] = -torch.inf
    assert shared is not None and shared.position == read.position
    assert torch.equal(shared.logits, read.logits)
    for ours, theirs in zip(shared.layers, read.layers, strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_the_stock_engine_says_the_same(policy: LocalPolicy) -> None:
    """Greedy, with a seed, and up to a stop text; whatever the generation config of the checkpoint asks for."""
    stock = StockDecoder(policy.model, policy.stop_ids, list(policy.unspeakable), capacity=2, text=policy.text)
    greedy = replace(SHORT, logprobs=True)
    prompts = [policy._prompt(*conversation(28, crops, crops), greedy) for crops in range(2)]
    said = policy.text(asyncio.run(policy.complete(prompts[0])).ids)
    drawn = replace(greedy, temperature=1.0, top_p=0.9, seed=7)
    prompts += [replace(prompts[0], sampling=replace(greedy, stop=said[2:5])), replace(prompts[1], sampling=drawn)]
    policy.model.generation_config.repetition_penalty = 5.0
    try:
        keys = [stock.admit(prompt) for prompt in prompts]
        stock.drop(stock.admit(prompts[0]))
        found = {key: one for _ in prompts for key, one in stock.step().items()}
        assert not stock.step()
    finally:
        policy.model.generation_config.repetition_penalty = 1.0
    for key, prompt in zip(keys, prompts, strict=True):
        expected = asyncio.run(policy.complete(prompt))
        assert (found[key].ids, found[key].stopped) == (expected.ids, expected.stopped)
        assert found[key].logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert found[keys[2]].stopped and len(found[keys[2]].ids) < len(found[keys[0]].ids)


def test_layers_that_the_engine_does_not_know_are_told(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    policy = load(checkpoint("qwen4_exp"), device="cpu", dtype="float32")
    assert isinstance(policy._decoder, StockDecoder)
    assert "(qwen4_exp) are not known to our engine: transformers answers one conversation at a time" in caplog.text


def test_a_tiny_top_p_is_greedy(policy: LocalPolicy) -> None:
    one = conversation(28, 1, 0)
    assert answers(policy, [one], Sampling(max_tokens=12, temperature=1.0, top_p=1e-6)) == answers(policy, [one])


def test_conversations_may_ask_for_different_lengths(policy: LocalPolicy) -> None:
    async def mixed() -> list[Completion]:
        one = conversation(28, 1, 0)
        return await asyncio.gather(*(policy.generate(*one, Sampling(max_tokens=n)) for n in (1, 150, 5, 200)))

    found = asyncio.run(mixed())
    assert [c.tokens.completion for c in found] == [1, 150, 5, 200]
    assert all(c.truncated for c in found)
    longest = found[3].text
    assert all(longest.startswith(c.text.rstrip("\ufffd")) for c in found)


def test_more_callers_than_rows_are_all_answered(checkpoint: Callable[[str], Path]) -> None:
    policy = load(checkpoint("qwen2_5_vl"), device="cpu", dtype="float32", capacity=2)
    conversations = [conversation(28, seed % 3, seed) for seed in range(7)]
    assert answers(policy, conversations) == [answers(policy, [one])[0] for one in conversations]


def test_a_conversation_without_images(policy: LocalPolicy) -> None:
    found = answers(policy, [([{"role": "user", "content": [text("Is 7 the same as seven?")]}], [])])[0]
    assert found.tokens.completion == SHORT.max_tokens


def test_the_image_token_as_text_is_refused(policy: LocalPolicy) -> None:
    messages, images = conversation(28, 0, 0)
    messages[1]["content"][1]["text"] = "What does <|image_pad|> mean?"
    with pytest.raises(PolicyError, match="image_pad"):
        answers(policy, [(messages, images)])


def test_an_image_off_the_grid_is_refused(policy: LocalPolicy) -> None:
    messages, _ = conversation(28, 0, 0)
    with pytest.raises(ValueError, match="not on the grid"):
        answers(policy, [(messages, [Image.new("RGB", (100, 84))])])
    assert prepare_images([Image.new("RGB", (56, 84))], policy.limits)[0].size == (56, 84)


@pytest.mark.parametrize("family", GRIDS)
def test_the_processor_would_not_resize_what_the_environment_shows(
    checkpoint: Callable[[str], Path], picture: Path, family: str
) -> None:
    policy = load(checkpoint(family), device="cpu")
    environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
    sample = Sample("shapes", str(picture), "?")
    shown = environment.image(sample, environment.reset(sample))
    processor: Any = load_processor(str(checkpoint(family)))
    own = processor.image_processor(images=[shown], return_tensors="pt")
    ours = policy._picture(shown)
    assert tuple(own["image_grid_thw"][0].tolist()) == ours.grid
    assert torch.equal(own["pixel_values"], ours.patches)


def test_the_agent_runs_with_a_model_in_any_company(policy: LocalPolicy, picture: Path) -> None:
    environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
    samples = [Sample(f"s{number}", str(picture), f"What is number {number}?") for number in range(6)]
    alone = asyncio.run(focus.run(samples[2], Context(policy, environment, sampling=SHORT)))
    agent = Agent(policy=policy, max_tokens=SHORT.max_tokens)
    together = agent.ask_many(samples, concurrency=6, progress=False)
    assert [turn.text for turn in together[2].turns] == [turn.text for turn in alone.turns]


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/no/such/place", "a b/c", ""])
def test_a_directory_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match="there is no model directory"):
        load(name)


def test_what_looks_like_a_name_of_the_hub_is_said_to_be_no_directory_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"nobody-at-all/nowhere: there is no such directory here, and as a model of the hub .*\)\.$"
    ):
        load("nobody-at-all/nowhere")


def test_directories_that_hold_no_model_of_ours(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="is a gpt2 model"):
        load(tmp_path)
    for file in checkpoint("qwen2_5_vl").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot load the model"):
        load(tmp_path)


@pytest.mark.parametrize("family", GRIDS)
@pytest.mark.parametrize("training", [False, True])
def test_the_fast_vision_tower_is_the_stock_one(checkpoint: Callable[[str], Path], family: str, training: bool) -> None:
    """Images of mixed sizes, some alike in a row; features, and the gradients that training takes."""
    torch.manual_seed(3)
    outcomes = []
    grids = torch.tensor([[1, 6, 4], [1, 4, 4], [1, 4, 4], [1, 2, 8]])
    patches: torch.Tensor | None = None
    for fast in (False, True):
        model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint(family), dtype=torch.float32)
        if fast:
            speed_up_vision(model)
        size = model.model.visual.patch_embed.proj.weight[0].numel()
        patches = torch.randn(int(grids.prod(1).sum()), size) if patches is None else patches
        with torch.set_grad_enabled(training):
            features = torch.cat(model.get_image_features(patches, grids).pooler_output)
        outcomes.append([features.detach()])
        if training:
            features.square().sum().backward()
            outcomes[-1] += [weight.grad for weight in model.model.visual.parameters() if weight.grad is not None]
    for stock, ours in zip(*outcomes, strict=True):
        assert torch.allclose(stock, ours, atol=1e-4 * float(stock.abs().max()))


@pytest.mark.parametrize("family", GRIDS)
def test_the_attention_of_training_in_16_bit_is_the_stock_one(
    checkpoint: Callable[[str], Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 70 tokens, in blocks of 32: logits and gradients, as near to float32's as those of the kernel are."""
    monkeypatch.setattr("cof_agent.backends.local.cpu._BLOCK", 32)
    torch.manual_seed(4)
    ids = torch.randint(3, 200, (2, 70))
    outcomes = []
    for fast, dtype in ((False, torch.float32), (False, torch.bfloat16), (True, torch.bfloat16)):
        model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint(family), dtype=torch.float32)
        if fast:
            speed_up_training(model)
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        logits.float().square().mean().backward()
        layers = model.model.language_model.layers
        full = [layer.self_attn for layer in layers if hasattr(layer, "self_attn")]
        outcomes.append([logits.float().detach(), *(attention.k_proj.weight.grad for attention in full)])
    for exact, stock, ours in zip(*outcomes, strict=True):
        assert not torch.equal(stock, ours), "the attention is not the one that is tested"
        assert (ours - exact).norm() < 2 * (stock - exact).norm()


def test_the_attention_of_training_is_the_kernel_where_there_is_a_mask_or_no_gradient(
    checkpoint: Callable[[str], Path],
) -> None:
    stock: Any = AutoModelForImageTextToText.from_pretrained(checkpoint("qwen2_5_vl"), dtype=torch.bfloat16)
    ours: Any = AutoModelForImageTextToText.from_pretrained(checkpoint("qwen2_5_vl"), dtype=torch.bfloat16)
    speed_up_training(ours)
    ids, mask = torch.randint(3, 200, (2, 40)), torch.ones(2, 40, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(stock(input_ids=ids).logits, ours(input_ids=ids).logits)
    mask[0, :7] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    assert torch.equal(stock(**given).logits, ours(**given).logits)
    chosen: Any = AutoModelForImageTextToText.from_pretrained(checkpoint("qwen2_5_vl"), attn_implementation="eager")
    speed_up_training(chosen)
    assert chosen.model.language_model.config._attn_implementation == "eager"


def test_eager_attention_sees_no_column_of_another_row() -> None:
    """Rows of several lengths: what stands before a row is masked, in the way that eager attention takes a mask."""
    drawn = random.Random(0)
    prompts = [[drawn.randrange(10, 500) for _ in range(length)] for length in (5, 120, 33, 250)]
    texts = []
    for attention in ("sdpa", "eager"):
        policy = load(NANO, attn=attention)

        async def asked(policy: LocalPolicy = policy) -> list[list[int]]:
            wanted = (policy.complete(Prompt(ids, [], Sampling(max_tokens=24))) for ids in prompts)
            return [one.ids for one in await asyncio.gather(*wanted)]

        texts.append(asyncio.run(asked()))
    assert texts[0] == texts[1]


def test_devices_and_precisions() -> None:
    assert place("cpu", "float32").dtype is torch.float32
    assert place("cpu").dtype in (torch.float32, torch.bfloat16)
    assert place("cpu", small=True).dtype is torch.float32
    with pytest.raises(InputError, match="no device 'warp'"):
        place("warp")
    with pytest.raises(InputError, match="no device 'meta'"):
        place("meta")
    with pytest.raises(InputError, match="no precision"):
        place("cpu", "int8")


def test_a_model_never_writes_the_token_of_an_image(checkpoint: Callable[[str], Path], picture: Path) -> None:
    """However likely: in the next turn it would be an image that nobody gave."""
    policy = load(checkpoint("qwen2_5_vl"))
    image_token = policy._image_token_id
    with torch.no_grad():
        policy._decoder._model.lm_head.weight[image_token] *= 100
    ids, pictures = policy.read(policy.render([{"role": "user", "content": [{"type": "text", "text": "What?"}]}]), [])
    for sampling in (Sampling(40), Sampling(40, temperature=2.0, seed=1)):
        assert image_token not in asyncio.run(policy.complete(Prompt(ids, pictures, sampling))).ids
