"""The vision tower in fewer calls: windows of one size attend together, and what comes out is the stock tower's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from cof_agent.backends.checkpoint import attention_of, load
from cof_agent.backends.local.vision import _groups, speed_up_vision
from cof_agent.nano import NANO

WINDOWED, FULL = 3, 1  # layers of the tower
GRID = (1, 20, 28)  # patches; windows of 8 x 8 and smaller ones at the right and lower edge


def model_of(attention: str) -> Any:
    """The published heads and windows of Qwen2.5-VL, in a tower of an eighth of the width; the same weights each time."""
    torch.manual_seed(0)
    text = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 64,
    }
    vision = {
        "depth": WINDOWED + FULL,
        "hidden_size": 160,
        "num_heads": 2,
        "intermediate_size": 320,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [WINDOWED],
    }
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    config = Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


@torch.inference_mode()
def features(model: Any, dtype: torch.dtype) -> torch.Tensor:
    grids = torch.tensor([GRID, (1, 4, 6), (1, 4, 6)])
    patches = torch.randn(int(grids.prod(1).sum()), 1176, generator=torch.Generator().manual_seed(1))
    found: torch.Tensor = torch.cat(model.to(dtype).get_image_features(patches.to(dtype), grids).pooler_output)
    return found.float()


def test_features_are_the_stock_towers() -> None:
    exact = features(model_of("sdpa"), torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        stock, ours = model_of("sdpa"), model_of("sdpa")
        speed_up_vision(ours)
        wrong = (features(ours, dtype) - exact).norm()
        assert wrong < (
            1e-5 * exact.norm() if dtype is torch.float32 else 1.2 * (features(stock, dtype) - exact).norm()
        )


def test_a_layer_calls_its_attention_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[tuple[int, int]] = Counter()
    kernel = F.scaled_dot_product_attention

    def counted(query: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        calls[query.shape[0], query.shape[2]] += 1
        return kernel(query, *rest, **options)

    ours = model_of("sdpa")
    speed_up_vision(ours)
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    features(ours, torch.float32)
    small = {(2, 24): WINDOWED + FULL}  # the two small images, each of them one window
    assert calls == {(6, 64): WINDOWED, (5, 32): WINDOWED, (1, 16): WINDOWED, (1, 560): FULL} | small


def test_windows_are_sorted_by_size_and_back() -> None:
    ends = torch.tensor([0, 3, 5, 8, 8, 10])
    sizes, order, back = _groups(ends)
    assert sizes == [(2, 2), (2, 3)]
    assert order is not None and back is not None
    assert order.tolist() == [3, 4, 8, 9, 0, 1, 2, 5, 6, 7]
    assert order[back].tolist() == list(range(10))
    assert _groups(torch.tensor([0, 4, 8])) == ([(2, 4)], None, None)


def test_flash_attention_is_left_to_the_tower() -> None:
    ours = model_of("sdpa")
    ours.model.visual.config._attn_implementation = "flash_attention_2"
    stock = [type(block.attn) for block in ours.model.visual.blocks]
    speed_up_vision(ours)
    assert [type(block.attn) for block in ours.model.visual.blocks] == stock
    assert isinstance(ours.model.visual, Qwen2_5_VisionTransformerPretrainedModel)


def test_which_part_gets_which_attention() -> None:
    assert attention_of("flash_attention_2") == {"text_config": "sdpa", "vision_config": "flash_attention_2"}
    model = load(NANO, attn="eager").model
    assert model.model.language_model.config._attn_implementation == "eager"
    assert model.model.visual.config._attn_implementation == "eager"
    assert load(NANO).model.model.language_model.config._attn_implementation == "sdpa"
