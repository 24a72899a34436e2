"""RoIAlign: values that can be worked out by hand, and agreement with torchvision where it is installed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cof_agent.backends.regions.roi_align import plain_roi_align, roi_align


def ramp(height: int, width: int) -> Tensor:
    """A map whose two channels say where a feature's centre lies: x + 0.5 and y + 0.5."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])


def test_detectron2s_own_example() -> None:
    """Its test: the numbers 0 to 24 in rows of five, the box (1, 1, 3, 3), 4 x 4 bins; aligned values by hand: bin centres
    lie at 1.25, 1.75, 2.25, 2.75, so in indices at 0.75 to 2.25, and the value there is 5 y + x."""
    features = torch.arange(25.0).view(1, 5, 5)
    found = plain_roi_align(features, torch.tensor([[1.0, 1, 3, 3]]), size=4, scale=1.0)
    expected = [[4.5, 5.0, 5.5, 6.0], [7.0, 7.5, 8.0, 8.5], [9.5, 10.0, 10.5, 11.0], [12.0, 12.5, 13.0, 13.5]]
    assert found.shape == (1, 1, 4, 4)
    torch.testing.assert_close(found[0, 0], torch.tensor(expected))


@given(
    st.tuples(st.floats(7, 60), st.floats(7, 60), st.floats(1, 80), st.floats(1, 80)),
    st.sampled_from([1, 2, 7, 14]),
    st.integers(1, 4),
)
def test_a_ramp_gives_the_centres_of_the_bins(
    corner_and_sides: tuple[float, float, float, float], size: int, sampling: int
) -> None:
    x, y, width, height = corner_and_sides
    box = torch.tensor([[x, y, x + width, y + height]])  # shown pixels, 14 a feature, well inside
    found = plain_roi_align(ramp(11, 12), box, size=size, scale=1 / 14, sampling=sampling)[0] * 14
    centres = (torch.arange(size) + 0.5) / size
    torch.testing.assert_close(found[0], (x + width * centres).expand(size, size), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found[1], (y + height * centres)[:, None].expand(size, size), atol=1e-3, rtol=1e-4)


def test_outside_the_map_is_nothing_and_near_its_edge_is_the_edge() -> None:
    features = torch.full((1, 4, 4), 3.0)
    boxes = torch.tensor([[10.0, 10, 12, 12], [-0.4, 0, 0.4, 1], [0, 0, 4, 4]])
    found = plain_roi_align(features, boxes, size=1, scale=1.0)
    assert found.flatten().tolist() == [0.0, 3.0, 3.0]


def test_each_box_has_its_own_features_and_gradients_reach_the_map() -> None:
    features = torch.zeros(1, 6, 6)
    features[0, 1, 4] = 1
    features.requires_grad_()
    boxes = torch.tensor([[4.0, 1, 5, 2], [0.0, 3, 2, 5]])
    found = plain_roi_align(features, boxes, size=2, scale=1.0)
    assert found[0].sum() > 0 and not found[1].any()
    found[1].sum().backward()
    assert features.grad is not None and features.grad[0, 3:5, 0:2].min() > 0 and features.grad[0, 1, 4] == 0


@given(st.lists(st.tuples(*[st.floats(-20, 120)] * 2, *[st.floats(0.5, 90)] * 2), min_size=1, max_size=4))
def test_it_agrees_with_torchvision(corners: list[tuple[float, float, float, float]]) -> None:
    pytest.importorskip("torchvision")
    features = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in corners])
    ours = plain_roi_align(features, boxes, size=14, scale=1 / 14)
    torch.testing.assert_close(ours, roi_align(features, boxes, size=14, scale=1 / 14), atol=1e-4, rtol=1e-4)
