"""The page of `cof compare` in a real browser: filters, links of rows, plots in the dark, and a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cof_agent.trajectory import Trajectory
from tests.viewer.pages import figures, shown

pytest.importorskip(
    "playwright", reason="the pages are tried in a browser only with playwright: pip install playwright"
)

from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
Open = Callable[[Path], Page]


def test_kinds_of_questions_are_filtered_for_any_two_runs(opened: Open, compared: Path) -> None:
    page = opened(compared)
    kinds = {"Mended": [4, 6], "Broken": [1, 3], "Both wrong": [5, 7], "Both right": [0, 2], "All": list(range(8))}
    for kind, numbers in kinds.items():
        page.get_by_role("button", name=re.compile(f"^{kind}")).click()
        assert shown(page) == numbers, kind
        expect(page.locator("#count")).to_have_text(f"{len(numbers)} of 8")
    page.get_by_role("button", name=re.compile("^Mended")).click()
    expect(page.locator(".card:not([hidden]) .badge.mended")).to_have_text(["Mended"] * 2)
    assert page.locator(".card:not([hidden])").first.locator(".run .badge").all_inner_texts() == [
        "Wrong",
        "Right",
        "Right",
    ]
    page.reload()
    assert shown(page) == [4, 6], "the address holds the filter"
    page.get_by_label("First run").select_option(label="after")
    page.get_by_label("Second run").select_option(label="before")
    assert shown(page) == [1, 3], "in the other direction the broken ones are mended"
    page.get_by_label("Second run").select_option(label="part")
    assert shown(page) == [1, 3, 5]
    page.get_by_role("button", name=re.compile("^Not compared")).click()
    assert shown(page) == [6, 7]
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("before: any verdict").select_option("wrong")
    page.get_by_label("Category").select_option("a b")
    assert shown(page) == [4, 6]
    assert figures(page) == {
        "before, right of 2": "0.0 %",
        "after, right of 2": "100.0 %",
        "part, right of 1": "100.0 %",
    }


def test_a_card_shows_the_runs_side_by_side(opened: Open, compared: Path, played: list[Trajectory]) -> None:
    page = opened(compared)
    page.goto(f"{page.url}#at=1")
    page.reload()
    card = page.locator(".card.current")
    columns = card.locator(".run")
    expect(columns.locator("h3")).to_have_text(["before", "after", "part"])
    zooms = played[0].zooms
    widths = card.locator("img").evaluate_all("images => images.map((image) => image.naturalWidth)")
    assert len(widths) == 3 * (1 + zooms) and all(widths)
    expect(columns.first.locator(".outcome")).to_contain_text("A. red")
    expect(card.locator(".inside > .choices li")).to_have_count(2)
    expect(columns.locator(".choices")).to_have_count(0)
    tops = columns.evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
    assert max(tops) - min(tops) < 1, "side by side"
    page.goto(f"{page.url.partition('#')[0]}#at=8")
    card = page.locator(".card.current")
    expect(card.locator(".run .choices")).to_have_count(2)  # in another order in one run
    expect(card.locator(".run").last).to_contain_text("This run was not asked.")


def test_rows_lead_to_the_questions_that_they_count(opened: Open, compared: Path) -> None:
    page = opened(compared)
    links = page.locator("a.rows")
    assert links.count() > 30
    for link in links.all():
        row, text = link.locator("xpath=ancestor::tr"), link.inner_text()
        counted = re.search(r"\((\d+)\)$|^[+-](\d+)$|^(\d+) \(", text)
        n = row.locator("td[data-of=n]")
        wanted = int(next(filter(None, counted.groups()))) if counted else int(n.inner_text()) if n.count() else None
        if re.fullmatch(r"[\d.]+ \(\d+\)", text) and n.count():
            wanted = None  # accuracy with its tokens
        link.click()
        if wanted is not None:
            expect(page.locator("#count"), row.inner_text()).to_have_text(f"{wanted} of 8")
        expect(page.locator("#browse")).to_be_in_viewport()
    page.get_by_role("link", name="Settings").click()
    expect(page.locator("#part-settings")).to_be_in_viewport()
    before = shown(page)
    page.go_back()
    assert shown(page) == before, "a place on the page is no filter"


def test_plots_follow_the_dark(opened: Open, compared: Path) -> None:
    pytest.importorskip("matplotlib")
    page = opened(compared)
    plots = page.locator(".plot").all()
    assert plots
    for scheme, source in (("light", "one.src"), ("dark", "one.previousElementSibling.srcset")):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for plot in plots:
            expect(plot).to_have_js_property("currentSrc", plot.evaluate(f"one => {source}"))


def test_a_phone_shows_rows_as_lists(opened: Open, compared: Path) -> None:
    page = opened(compared)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = page.locator(".scroll").evaluate_all("all => all.map((one) => one.scrollWidth - one.clientWidth)")
    assert boxes and max(boxes) <= 0, "no table scrolls sideways"
    for link in page.locator("a.rows").all()[:8]:
        link.click()
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
