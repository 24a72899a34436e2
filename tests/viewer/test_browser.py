"""The pages in a real browser: nano plays drawn scenes, and headless Chromium runs the script of the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cof_agent.evaluation.compare import compare
from cof_agent.evaluation.runs import Run
from cof_agent.scoring import accuracy
from cof_agent.trajectory import Answer, Malformed, Observation, Trajectory, Turn, Use, Zoom
from cof_agent.viewer.comparison_page import write_comparison
from cof_agent.viewer.notebook import notebook_html
from cof_agent.viewer.report import write_page
from tests.viewer.drawn import NASTY
from tests.viewer.pages import PLAYS, figures, shown

pytest.importorskip(
    "playwright", reason="the pages are tried in a browser only with playwright: pip install playwright"
)

from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow  # the file takes half a minute
SAFE = NASTY.replace("\ud800", "?")
Open = Callable[[Path], Page]


def sort_by(page: Page, heading: str, *, down: bool = False) -> None:
    page.get_by_label("Sort by").select_option(label=f"Sort: {heading}")
    if down:
        page.get_by_role("button", name="Lowest first").click()


def test_a_card_shows_question_answer_zooms_and_rewards(opened: Open, trained: Path, played: list[Trajectory]) -> None:
    page = opened(trained)
    assert shown(page) == list(range(18))
    number, zoomed = next((2 * k, one) for k, one in enumerate(played) if one.zooms)
    page.goto(f"{page.url}#at={number + 1}")
    page.reload()
    card = page.locator(".card.current")
    expect(card.locator(".question")).to_have_text(zoomed.sample.question)
    expect(card.locator(".badge")).to_have_text("Right" if accuracy(zoomed) else "Wrong")
    expect(card.locator(".crop img")).to_have_count(zoomed.zooms)
    widths = card.locator("img").evaluate_all("images => images.map((image) => image.naturalWidth)")
    assert len(widths) == 1 + zoomed.zooms and all(widths), "each image is drawn"
    expect(card.locator(".worth")).to_contain_text("accuracy 1")
    expect(card.locator(".record")).to_contain_text("focus")


def test_what_is_not_scored_says_so_and_is_no_0(opened: Open, trained: Path) -> None:
    page = opened(trained)
    assert figures(page)["mean reward accuracy, 6 not scored"] == "1"
    page.get_by_label("Step", exact=True).first.select_option("2")
    assert figures(page)["mean reward accuracy"] == "not scored"
    worth = page.locator(".card:not([hidden]) .worth").first
    expect(worth).to_contain_text(re.compile(r"accuracy not scored.*format 0.*length 1\.2"))
    expect(worth).not_to_contain_text("Advantage")


def test_filters_by_step_group_reward_and_advantage(opened: Open, trained: Path) -> None:
    page = opened(trained)
    page.get_by_label("Step", exact=True).first.select_option("1")
    assert shown(page) == list(range(6, 12))
    page.get_by_role("button", name="1.0", exact=True).first.click()  # on a card: only its group
    assert shown(page) == [6, 7]
    expect(page.locator("#count")).to_have_text("2 of 18")
    page.reload()
    assert shown(page) == [6, 7], "the address holds the filters"
    page.get_by_role("button", name="Clear").click()
    assert len(shown(page)) == 18

    page.locator("#ranges summary").click()
    page.get_by_label("Reward: length, at least").fill("0.45")
    page.get_by_label("Reward: length, at most").fill("0.85")
    expect(page.locator("#count")).to_have_text("4 of 18")
    assert shown(page) == [5, 6, 7, 8]
    page.get_by_label("Advantage, at least").fill("0")
    expect(page.locator("#count")).to_have_text("2 of 18")
    assert shown(page) == [6, 8]
    expect(page.locator("#ranges summary")).to_have_text("Ranges (2)")
    page.get_by_role("button", name="Clear").click()
    page.locator("#ranges summary").click()
    page.get_by_label("not scored (6)").check()
    assert shown(page) == list(range(12, 18))


def test_sorts_either_way_with_what_is_unknown_last(opened: Open, trained: Path) -> None:
    page = opened(trained)
    advantages = [(-1.0) ** number * number / 4 for number in range(12)]
    rising, unknown = sorted(range(12), key=advantages.__getitem__), list(range(12, 18))
    sort_by(page, "Advantage")
    assert shown(page) == [*rising, *unknown]
    page.get_by_role("button", name="Lowest first").click()
    assert shown(page) == [*rising[::-1], *unknown]
    page.reload()
    assert shown(page) == [*rising[::-1], *unknown], "the address holds the order"
    sort_by(page, "Step")
    assert shown(page) == [*range(12, 18), *range(6, 12), *range(6)]
    sort_by(page, "Group")
    assert shown(page)[:4] == [16, 17, 14, 15]
    sort_by(page, "Reward: length")
    assert shown(page) == list(range(18))[::-1]
    page.get_by_role("button", name="Highest first").click()
    assert shown(page) == list(range(18))


def test_verdicts_facets_and_words_filter_together(opened: Open, trained: Path, played: list[Trajectory]) -> None:
    page = opened(trained)
    right = [k for k in range(18) if accuracy(played[k // PLAYS % len(played)])]
    page.get_by_role("button", name=re.compile("^Right")).click()
    assert shown(page) == right
    page.get_by_label("Search questions, thoughts and answers").fill(played[0].sample.id)
    expect(page.locator("#count")).to_have_text(f"{len([k for k in right if k % 6 < 2])} of 18")
    page.get_by_label("Search questions, thoughts and answers").fill("no such words")
    expect(page.get_by_text("Nothing matches these filters.")).to_be_visible()
    assert "mean zooms" not in figures(page)


def test_the_keyboard_walks_searches_enlarges_and_clears(opened: Open, trained: Path) -> None:
    page = opened(trained)
    sort_by(page, "Reward: length", down=True)
    page.locator("body").click(position={"x": 2, "y": 2})
    for key, number in (("j", 17), ("j", 16), ("j", 15), ("k", 16)):
        page.keyboard.press(key)
        assert page.locator(".card.current").get_attribute("data-index") == str(number)
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    expect(page.locator("dialog img")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("jk/")
    expect(page.get_by_label("Search questions, thoughts and answers")).to_have_value("jk/")
    expect(page.locator("#count")).to_have_text("0 of 18")
    page.keyboard.press("Escape")
    assert shown(page) == list(range(18))[::-1], "the filters are cleared, the order stays"
    page.locator("#ranges summary").click()
    page.get_by_label("Step, at least").fill("1")
    page.keyboard.press("Escape")
    assert page.locator("#ranges").get_attribute("open") is None, "the first one closes the ranges"
    page.keyboard.press("Escape")
    assert len(shown(page)) == 18


def hostile(one: Trajectory) -> Trajectory:
    """Every text of it is an attack."""
    sample = replace(
        one.sample, id=NASTY, question=NASTY, answers=(NASTY,), choices=(NASTY, "b"), metadata={"category": NASTY}
    )
    turn = Turn(NASTY, (Malformed(NASTY),), (Observation(error=NASTY),))
    return replace(
        one,
        sample=sample,
        turns=(*one.turns, turn),
        answer=NASTY,
        error=NASTY,
        policy=NASTY,
        strategy=NASTY,
        group=NASTY,
        settings={"crop": NASTY},
        rewards={NASTY: 1.0, "__proto__": None, "constructor": 2.0},
    )


def test_hostile_text_never_becomes_markup(opened: Open, played: list[Trajectory], tmp_path: Path) -> None:
    zoomed = next(one for one in played if one.zooms)
    attack = hostile(zoomed)
    made = [attack, replace(attack, group="other", rewards={NASTY: 0.5})]
    write_page(made, tmp_path / "page.html", title=NASTY, score=accuracy)
    page = opened(tmp_path / "page.html")
    expect(page.locator("h1")).to_have_text(SAFE)
    expect(page.locator(".question").first).to_have_text(SAFE)
    expect(page.locator(".worth").first).to_contain_text("__proto__ not scored")
    for facet in ("Group", "Sort by"):
        for value in page.get_by_label(facet).locator("option").evaluate_all("all => all.map((one) => one.value)"):
            page.get_by_label(facet).select_option(value)
            page.reload()
            assert page.get_by_label(facet).input_value() == value, "the address brings it back as it was"
    page.keyboard.press("Escape")
    page.locator(".card .crop").first.click()
    expect(page.locator("dialog img")).to_have_count(1)
    assert page.locator("[src=x], [onerror], body > img").count() == 0
    kinds = page.locator("script").evaluate_all("all => all.map((one) => one.type)")
    assert kinds == ["application/json"] * 2 + ["text/plain"] * (1 + zoomed.zooms) + [""]


PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "{{ constructor.constructor('alert(1)')() }} {% raw %} ${alert(1)} #{alert(1)} <%= alert(1) %>",
    "<!-- --!> <![CDATA[ ]]> </title></style></textarea></noscript><iframe srcdoc='<script>alert(1)</script>'>",
    "<base href=//example.org/><link rel=stylesheet href=//example.org/a.css><meta http-equiv=refresh content=0>",
    "__proto__",
    "\x1b[2J\x00\u202e\u2028\ud800",
    "&lt;script&gt; &#x3c;b&#x3e;",
)


def filled(one: Trajectory, payload: str) -> Trajectory:
    """With this text in every field that holds one, as rows of data, a server and tools may bring it."""
    tool = replace(one.views[-1], tool=payload)
    turn = Turn(
        payload,
        (Use(payload, {payload: payload}), Use(payload, {}), Zoom((payload,) * 4), Malformed(payload), Answer(payload)),
        (
            Observation(view=tool, note=payload),
            Observation(text=payload),
            Observation(error=payload),
            Observation(error=payload),
        ),
    )
    changed = replace(hostile(one), turns=(*one.turns, turn), warning=payload, error=f"wrong_answer: {payload}")
    changed = replace(changed, notes=(payload,))
    sample = replace(changed.sample, id=payload, question=payload, choices=(payload, "b"), answers=(payload,))
    sample = replace(sample, metadata={"category": payload, payload: payload})
    settings = {"crop": payload, payload: payload}
    names: dict[str, Any] = {
        "policy": payload,
        "strategy": payload,
        "group": payload,
        "protocol_version": payload,
        "answer": payload,
    }
    return replace(changed, sample=sample, settings=settings, rewards={payload: 0.5}, **names)


def test_no_payload_in_any_field_is_carried_out(opened: Open, played: list[Trajectory], tmp_path: Path) -> None:
    zoomed = next(one for one in played if one.zooms)
    attacks = [filled(zoomed, payload) for payload in PAYLOADS]
    attacks += [
        replace(one, sample=replace(one.sample, image=f"{payload}.png"))
        for one, payload in zip(attacks, PAYLOADS, strict=True)
    ]
    write_page(attacks, tmp_path / "page.html", title=" ".join(PAYLOADS), score=accuracy)
    page = opened(tmp_path / "page.html")
    assert len(shown(page)) == len(attacks)
    for number in range(len(attacks)):
        page.keyboard.press("j")
        card = page.locator(".card.current")
        expect(card).to_have_attribute("data-index", str(number))
        expect(card.locator(".unreliable")).to_be_visible()
        expect(card.get_by_text("Image file")).to_be_visible()
        for button in card.locator("button.more, button.only").all()[:3]:
            button.hover()
        card.locator(".frame").first.hover()
    for value in page.get_by_label("Category").locator("option").evaluate_all("all => all.map((one) => one.value)"):
        page.get_by_label("Category").select_option(value)
        page.reload()
        assert page.get_by_label("Category").input_value() == value
    assert page.locator("main script, main iframe, main base, main link, main svg[onload], [src=x]").count() == 0
    for attack in attacks[: len(PAYLOADS)]:
        (tmp_path / "notebook.html").write_text(notebook_html(attack), "utf-8")
        page = opened(tmp_path / "notebook.html")
        assert page.evaluate("document.scripts.length") == 0 and page.locator("img").count() == 1
        page.close()


def test_the_comparison_and_the_notebook_are_safe_too(opened: Open, played: list[Trajectory], tmp_path: Path) -> None:
    attacks = [replace(hostile(one), sample=replace(hostile(one).sample, id=one.sample.id)) for one in played]
    wrong = [replace(one, answer="b") for one in attacks]
    runs = [Run("base", attacks, summary={"command": NASTY}), Run(NASTY, wrong, summary={"command": "cof eval"})]
    write_comparison(runs, {NASTY: compare(attacks, wrong)}, None, tmp_path / "compared.html")
    page = opened(tmp_path / "compared.html")
    for number in range(len(wrong)):
        page.keyboard.press("j")
        expect(page.locator(".card.current")).to_have_attribute("data-index", str(number))
        expect(page.locator(".card.current .run h3")).to_have_text(["base", SAFE])
    assert SAFE in page.locator("main").inner_text()
    assert page.locator("main script[src], main iframe, [src=x], [onerror]").count() == 0
    for link in page.locator("a.rows").all():
        link.click()
        assert page.locator(".card:not([hidden])").count() > 0
    (tmp_path / "notebook.html").write_text(notebook_html(attacks[0]), "utf-8")
    page = opened(tmp_path / "notebook.html")
    assert page.locator("img").count() == 1 and page.evaluate("document.scripts.length") == 0


def test_no_page_is_wider_than_a_phone(opened: Open, trained: Path, played: list[Trajectory], tmp_path: Path) -> None:
    runs = [Run("base", played), Run("other", [replace(one, answer="no") for one in played])]
    write_comparison(runs, {"other": compare(*(run.trajectories for run in runs))}, None, tmp_path / "compared.html")
    (tmp_path / "notebook.html").write_text(
        '<meta name="viewport" content="width=device-width">' + notebook_html(played[0]), "utf-8"
    )
    for path in (trained, tmp_path / "compared.html", tmp_path / "notebook.html"):
        page = opened(path)
        page.set_viewport_size({"width": 360, "height": 740})
        if path == trained:
            page.locator("#ranges summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path.name


@pytest.mark.parametrize(("width", "height"), [(844, 390), (1000, 700), (1300, 900)])
def test_an_overview_keeps_its_shape_in_any_window(opened: Open, trained: Path, width: int, height: int) -> None:
    page = opened(trained)
    page.set_viewport_size({"width": width, "height": height})
    shown, drawn = page.evaluate(
        """() => {
            const frame = document.querySelector(".card:not([hidden]) .overview .frame"), image = frame.querySelector("img");
            return [frame.clientWidth / frame.clientHeight, image.naturalWidth / image.naturalHeight];
        }"""
    )
    assert shown == pytest.approx(drawn, rel=0.02)
