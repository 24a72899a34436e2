"""Region embeddings in a real Qwen2.5-VL: where a patch lands, what a box changes, and that nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.vision_utils import get_vision_window_index

from cof_agent.backends.checkpoint import load
from cof_agent.backends.regions.features import SLOT, RegionConfig, RegionExtractor, maps_of, slotted, with_regions
from cof_agent.backends.regions.fourier import waves_of
from cof_agent.backends.regions.policy import RegionPolicy
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.graphs import focus
from cof_agent.graphs.steps import Context
from cof_agent.policy import PolicyError, Sampling
from cof_agent.trajectory import Sample

Loaded = tuple[Any, Any]


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> Loaded:
    model, processor = with_regions(str(checkpoint("qwen2_5_vl")), dtype=torch.float32)
    return model.eval(), processor


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    values = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(values.byte().numpy())


def batch_of(processor: Any, texts: list[str], images: list[Image.Image]) -> dict[str, Tensor]:
    """One image a row; padded on the left, as for generation."""
    rows = [f"<|vision_start|><|image_pad|><|vision_end|>{text}" for text in texts]
    made = processor(text=rows, images=images, padding=True, return_tensors="pt")
    return {**made}


@pytest.fixture(scope="module")
def two(loaded: Loaded) -> dict[str, Tensor]:
    images = [noise((168, 112), 1), noise((112, 140), 2)]
    return batch_of(loaded[1], [f"What is region 1{SLOT}?", f"Is region 1{SLOT} like region 2{SLOT}?"], images)


BOXES = torch.tensor([[0, 10.0, 20.0, 60.0, 70.0], [1, 0.0, 0.0, 56.0, 56.0], [1, 56.0, 70.0, 112.0, 140.0]])


@torch.no_grad()
def test_without_regions_the_logits_are_the_base_models(loaded: Loaded, checkpoint: Callable[[str], Path]) -> None:
    model, processor = loaded
    base: Any = AutoModelForImageTextToText.from_pretrained(checkpoint("qwen2_5_vl"), dtype=torch.float32).eval()
    inputs = batch_of(processor, ["What is red?", "And blue, then?"], [noise((168, 112), 1), noise((112, 140), 2)])
    vocabulary = base.get_input_embeddings().num_embeddings
    ours, theirs = model(**inputs).logits, base(**inputs).logits
    assert model.get_input_embeddings().num_embeddings == vocabulary + 1  # the slot's, which is never said
    assert torch.equal(ours[..., :vocabulary], theirs)
    assert torch.equal(model(**inputs, regions=torch.zeros(0, 5)).logits, ours)


@torch.no_grad()
def test_a_row_does_not_depend_on_the_regions_of_another(loaded: Loaded, two: dict[str, Tensor]) -> None:
    model, processor = loaded
    both = model(**two, regions=BOXES).logits
    alone = batch_of(processor, [f"Is region 1{SLOT} like region 2{SLOT}?"], [noise((112, 140), 2)])
    moved = BOXES[1:] - torch.tensor([1.0, 0, 0, 0, 0])
    length = alone["input_ids"].shape[1]
    torch.testing.assert_close(both[1, -length:], model(**alone, regions=moved).logits[0], atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_what_a_box_holds_changes_what_follows_and_nothing_before(loaded: Loaded, two: dict[str, Tensor]) -> None:
    model, processor = loaded
    other = BOXES.clone()
    other[0, 1:] = torch.tensor([100.0, 40, 160, 100])
    first, second = model(**two, regions=BOXES).logits, model(**two, regions=other).logits
    slot = int((two["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids(SLOT)).nonzero())
    torch.testing.assert_close(first[0, :slot], second[0, :slot])
    torch.testing.assert_close(first[1], second[1], atol=1e-4, rtol=1e-4)
    assert (first[0, slot:] - second[0, slot:]).abs().max() > 1e-3


@torch.no_grad()
def test_a_bright_patch_lands_in_its_place(loaded: Loaded) -> None:
    """Both in one window and in many: the tower's order of windows and merged patches is undone."""
    model, processor = loaded
    vision = model.config.vision_config
    for window in (vision.window_size, 56):
        grid = torch.tensor([[1, 8, 12], [1, 10, 6]])
        order, _ = get_vision_window_index(grid, spatial_merge_size=2, window_size=window, patch_size=14)
        images = [Image.new("RGB", (168, 112)), Image.new("RGB", (84, 140))]
        images[0].paste((255, 255, 255), (9 * 14, 5 * 14, 10 * 14, 6 * 14))
        images[1].paste((255, 255, 255), (2 * 14, 7 * 14, 3 * 14, 8 * 14))
        made = processor.image_processor(images=images, do_resize=False, return_tensors="pt")
        assert made["image_grid_thw"].tolist() == grid.tolist()
        light = made["pixel_values"].sum(1, keepdim=True)
        inside = light.unflatten(0, (-1, 4))[order].flatten(0, 1)  # as `permute_input_for_window_attn` leaves them
        maps = maps_of(inside, torch.argsort(order), grid, 2)
        assert [tuple(one.shape) for one in maps] == [(1, 8, 12), (1, 10, 6)]
        assert [divmod(int(one.argmax()), one.shape[2]) for one in maps] == [(5, 9), (7, 2)]


@torch.no_grad()
def test_the_maps_of_the_tower_are_those_that_its_blocks_give(loaded: Loaded) -> None:
    model, processor = loaded
    images = [noise((168, 112), 1), noise((168, 112), 1)]
    images[1].paste((255, 255, 255), (126, 70, 140, 84))
    made = processor.image_processor(images=images, do_resize=False, return_tensors="pt")
    grid = made["image_grid_thw"]
    with model._levels() as taken:
        model.model.get_image_features(made["pixel_values"], grid, return_dict=True)
    shallow = model._maps(taken, grid)[0]
    change = (shallow[1] - shallow[0]).norm(dim=0)
    assert divmod(int(change.argmax()), change.shape[1]) == (5, 9)


@torch.no_grad()
def test_another_thread_at_the_tower_leaves_the_levels_alone(loaded: Loaded, two: dict[str, Tensor]) -> None:
    """A conversation without regions is read meanwhile."""
    model, processor = loaded
    other = batch_of(processor, ["What is red?"], [noise((280, 280), 3)])

    def seen_by(inputs: dict[str, Tensor]) -> None:
        model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)

    with model._levels() as taken:
        seen_by(two)
        before = dict(taken)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(seen_by, other).result()
        assert taken and all(taken[level] is output for level, output in before.items())


def test_the_levels_are_the_papers_where_the_tower_is_deep_enough() -> None:
    deep = RegionConfig.for_tower(32, 1280, 7)
    assert (deep.levels, deep.scales, deep.width, deep.feature, deep.bins, deep.rounds) == (
        (21, 24, 27, 30),
        (8, 4, 2, 1),
        1024,
        1024,
        14,
        5,
    )
    assert RegionConfig.for_tower(4, 128, 7).levels == (0, 1, 2, 3)


def test_boxes_a_step_of_the_raster_apart_are_told_apart() -> None:
    box = torch.tensor([[100.0, 60, 140, 100]]) / 448
    moved = box + torch.tensor([[4.0, 0, 4, 0]]) / 448
    apart = (waves_of(box, 7) - waves_of(moved, 7)).abs()
    assert apart.shape == (1, 8 * 7)
    assert (box - moved).abs().max() < 0.01 and apart.max() > 1


def test_every_part_of_the_extractor_learns_and_the_tower_need_not(loaded: Loaded) -> None:
    config = RegionConfig(0, (0, 1, 2, 3), (2, 1, 0.5, 0.25), width=16, feature=24, bins=3, groups=4)
    torch.manual_seed(0)
    extractor = RegionExtractor(config, tower=12, language=20)
    maps = [torch.randn(2, 12, 9, 13) for _ in range(4)]
    levels = extractor.pyramid(maps)
    assert [tuple(level.shape) for level in levels] == [(2, 16, 18, 26), (2, 16, 9, 13), (2, 16, 4, 6), (2, 16, 2, 3)]
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.2, 1.0, 0.9], [0.0, 0.0, 1.0, 1.0]])
    embedded = extractor([level[0] for level in levels], boxes)
    assert embedded.shape == (3, 20)
    embedded.square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in extractor.parameters())


def test_too_few_regions_or_a_wrong_image_is_an_error(loaded: Loaded, two: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="3 slots for 2 regions"):
        loaded[0](**two, regions=BOXES[:2])
    with pytest.raises(ValueError, match="there are 2"):
        loaded[0](**two, regions=BOXES + torch.tensor([5.0, 0, 0, 0, 0]))


@torch.no_grad()
def test_generation_reads_the_regions_once(loaded: Loaded, two: dict[str, Tensor]) -> None:
    """Greedy, cached, against whole forward passes that read everything again."""
    model, _ = loaded
    made = model.generate(**two, regions=BOXES, max_new_tokens=4, do_sample=False, suppress_tokens=None)
    inputs = dict(two)
    for _ in range(4):
        best = model(**inputs, regions=BOXES).logits[:, -1].argmax(-1, keepdim=True)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], best], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(best)], dim=1)
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(best)], dim=1)
        if (best == model.generation_config.eos_token_id).any():
            break
    assert made[:, : inputs["input_ids"].shape[1]].tolist() == inputs["input_ids"].tolist()


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same_and_a_policy(
    loaded: Loaded, two: dict[str, Tensor], tmp_path: Path, picture: Path
) -> None:
    model, processor = loaded
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, known = with_regions(str(tmp_path), dtype=torch.float32)
    torch.testing.assert_close(again.eval()(**two, regions=BOXES).logits, model(**two, regions=BOXES).logits)
    assert known.tokenizer.encode(SLOT) == [model.config.region_config["token_id"]]

    policy = load(tmp_path, dtype="float32")
    assert isinstance(policy, RegionPolicy) and model.config.region_config["token_id"] in policy.unspeakable
    environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits, max_zooms=1))

    def said(box: Box | None, seed: int | None = None) -> str:
        question = "What is <region1>?" if box else "What is it?"
        sample = Sample("one", str(picture), question, regions=(box,) if box else ())
        sampling = Sampling(max_tokens=6, temperature=1.0 if seed is not None else 0.0, seed=seed)
        played = asyncio.run(focus.run(sample, Context(policy, environment, sampling=sampling)))
        assert played.error is None
        return played.turns[0].text

    here, there = Box(0, 0, 100, 100), Box(600, 400, 800, 600)
    assert said(here) == said(here) and said(here, 3) == said(here, 3)
    assert len({said(here, seed) for seed in range(3)}) > 1
    assert said(there) and said(None)

    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "view": 0}, {"type": "text", "text": "Is region 1 at [0, 0, 9, 9] red?"}],
        }
    ]

    def drawn(**sampling: Any) -> str:
        return asyncio.run(policy.generate(messages, [noise((56, 56), 1)], Sampling(max_tokens=6, **sampling))).text

    assert len({drawn(temperature=1.0) for _ in range(4)}) > 1, "without a seed each draw is another"
    policy._context = 20
    with pytest.raises(PolicyError, match="context length"):
        drawn()


def test_a_lora_adapter_trains_beside_the_extractor(loaded: Loaded, two: dict[str, Tensor], tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    base, _ = with_regions(_saved(loaded, tmp_path / "base"), dtype=torch.float32)
    adapter: Any = get_peft_model(
        base, LoraConfig(r=2, target_modules=r".*language_model.*q_proj", modules_to_save=["region_extractor"])
    )
    optimiser = torch.optim.SGD([value for value in adapter.parameters() if value.requires_grad], lr=0.01)
    for _ in range(2):  # in the first, half of LoRA has no gradient
        loss = adapter(**two, regions=BOXES, labels=two["input_ids"]).loss
        loss.backward()
        optimiser.step()
    moved = {name for name, value in adapter.named_parameters() if value.grad is not None and value.grad.any()}
    assert any("region_extractor" in name for name in moved) and any("lora_B" in name for name in moved)
    assert not any("visual" in name for name in moved)
    adapter.save_pretrained(tmp_path / "adapter")
    fresh, _ = with_regions(str(tmp_path / "base"), dtype=torch.float32)
    whole = PeftModel.from_pretrained(fresh, tmp_path / "adapter").merge_and_unload().eval()
    with torch.no_grad():
        expected = adapter.eval()(**two, regions=BOXES).logits
        torch.testing.assert_close(whole(**two, regions=BOXES).logits, expected, atol=1e-4, rtol=1e-4)


def _saved(loaded: Loaded, path: Path) -> str:
    loaded[0].save_pretrained(path)
    loaded[1].save_pretrained(path)
    return str(path)


def test_slots_stand_where_the_boxes_were() -> None:
    text, boxes = slotted("Is region 2 at [0, 4, 8, 16] on region 1 at [1, 2, 3, 4]?")
    assert text == f"Is region 2{SLOT} on region 1{SLOT}?"
    assert boxes == [[0, 4, 8, 16], [1, 2, 3, 4]]


def test_a_message_with_the_slots_own_text_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    policy = load(_saved(loaded, tmp_path), dtype="float32")
    message = {"role": "user", "content": [{"type": "text", "text": f"What is {SLOT}?"}]}
    with pytest.raises(PolicyError, match="which stands for a region; remove it"):
        asyncio.run(policy.generate([message], [], Sampling()))


def test_another_family_is_one_sentence(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else the hub is waited for
    with pytest.raises(InputError, match=r"is a qwen2_vl model; regions are learned by Qwen2\.5-VL only\."):
        with_regions(str(checkpoint("qwen2_vl")))
    with pytest.raises(InputError, match="cannot load the model"):
        with_regions("nowhere/nothing")
