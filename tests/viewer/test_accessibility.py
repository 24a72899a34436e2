"""Pages in a real browser against WCAG 2.2 AA: contrast of every text that is shown, and the size of every target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cof_agent.scoring import accuracy
from cof_agent.teacher.accept import Refusal
from cof_agent.trajectory import Malformed, Observation, Trajectory, Turn
from cof_agent.viewer.report import write_page

pytest.importorskip(
    "playwright", reason="the pages are tried in a browser only with playwright: pip install playwright"
)

from playwright.sync_api import Page

pytestmark = pytest.mark.slow
Open = Callable[[Path], Page]

CONTRASTS = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((level, k) => level * a + below[k] * (1 - a));
  const ground = (node) => {
    if (!node) return [255, 255, 255];
    const colour = numbers(getComputedStyle(node).backgroundColor);
    return colour.length === 3 ? colour : over(colour, ground(node.parentElement));
  };
  const opacity = (node) => (node ? Number(getComputedStyle(node).opacity) * opacity(node.parentElement) : 1);
  const luminance = (colour) => {
    const [r, g, b] = colour.map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].filter((one) => one.nodeType === 3).map((one) => one.data.trim()).join("");
    if (!text || !node.checkVisibility() || node.closest("script, option, svg")) continue;
    const below = ground(node);
    const [r, g, b, a = 1] = numbers(getComputedStyle(node).color);
    const levels = [luminance(over([r, g, b, a * opacity(node)], below)), luminance(below)].sort((one, other) => one - other);
    found.push([(levels[1] + 0.05) / (levels[0] + 0.05), `${node.tagName}.${node.className}: ${text.slice(0, 40)}`]);
  }
  return found;
}"""

TARGETS = """() => [...document.querySelectorAll("a, button, select, input, summary")]
  .filter((node) => node.checkVisibility())
  .map((node) => [node, (node.type === "checkbox" ? node.closest("label") : node).getBoundingClientRect()])
  .map(([node, box]) => [Math.min(box.width, box.height),
    `${node.tagName}.${node.className} ${node.textContent.slice(0, 30)}`])"""


@pytest.fixture
def rejected(played: list[Trajectory], tmp_path: Path) -> Path:
    """A page of what was rejected, with each kind of message."""
    broken = Turn("no tags", (Malformed("there is no action"),), (Observation(error="There is no action."),))
    made = [
        replace(played[0], error=f"{Refusal.WRONG.value}: the answer is another"),
        replace(played[1], error=f"{Refusal.DUPLICATE.value}: asked before", turns=(), answer=None, overview=None),
        replace(played[2], error="the server is gone", turns=(*played[2].turns, broken), warning="no scene of ours"),
    ]
    write_page(made, tmp_path / "rejected.html", title="rejected.jsonl", score=accuracy)
    return tmp_path / "rejected.html"


def low(found: list[tuple[float, str]], least: float) -> list[str]:
    return sorted({f"{value:.2f} {where}" for value, where in found if value < least - 0.01})


def test_texts_and_targets_keep_to_aa(opened: Open, trained: Path, compared: Path, rejected: Path) -> None:
    for path in (trained, compared, rejected):
        page = opened(path)
        for scheme, width in (("light", 1300), ("dark", 1300), ("dark", 390)):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": 900})
            page.locator("#ranges summary").click()
            page.locator(".card").first.scroll_into_view_if_needed()
            page.locator(".card.built .question").first.wait_for()
            measured: list[tuple[float, str]] = page.evaluate(CONTRASTS)
            assert len(measured) > 40 and low(measured, 4.5) == [], (path.name, scheme)
            targets: list[tuple[float, Any]] = page.evaluate(TARGETS)
            assert len(targets) > 8 and low(targets, 24) == [], (path.name, width)
        page.close()


def test_reasons_of_rejections_are_filtered(opened: Open, rejected: Path) -> None:
    page = opened(rejected)
    reasons = page.get_by_role("group", name="Rejected for").get_by_role("button")
    assert reasons.all_inner_texts() == ["All3", "duplicate1", "wrong answer1", "not rejected1"]
    reasons.nth(1).click()
    cards = page.locator(".card:not([hidden])")
    assert cards.count() == 1 and cards.locator(".badge").all_inner_texts() == ["Rejected: duplicate"]
    assert "asked before" in cards.inner_text() and "was not shown to the model" in cards.inner_text()
    reasons.first.click()
    page.get_by_role("button", name="wrong answer", exact=True).first.click()  # on the card
    assert cards.locator(".badge").all_inner_texts() == ["Rejected: wrong answer", "Right"]
