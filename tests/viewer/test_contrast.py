"""Colours of pages and pictures against WCAG AA: text 4.5 to 1, edges of controls and marks 3 to 1. What a browser makes of them
is measured in `test_browser_accessibility.py`."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from cof_agent.viewer.picture import PALETTE, contrast, ink_on
from cof_agent.viewer.plots import DARK, LIGHT

TEXT, MARK = 4.5, 3.0
GROUNDS = ("ground", "card", "sunk", "right-ground", "wrong-ground", "none-ground", "warn-ground")


def themes() -> dict[str, dict[str, str]]:
    """The variables of the style sheet, light and dark."""
    css = (files("cof_agent.viewer") / "page" / "base.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": light | dark}


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the example of WCAG's own text


def test_text_can_be_read_on_every_ground_that_it_stands_on() -> None:
    for theme, colours in themes().items():
        for ink in ("ink", "soft"):
            for ground in GROUNDS:
                assert contrast(colours[ink], colours[ground]) >= TEXT, (theme, ink, ground)
        for ink in ("right", "wrong", "none", "warn"):
            for ground in (f"{ink}-ground", "card"):
                assert contrast(colours[ink], colours[ground]) >= TEXT, (theme, ink, ground)
        for mark in ("edge", "focus"):
            for ground in ("card", "ground"):
                assert contrast(colours[mark], colours[ground]) >= MARK, (theme, mark, ground)


def test_numbers_can_be_read_on_their_tags() -> None:
    grounds = [*PALETTE, *(f"#{level:02x}{level:02x}{level:02x}" for level in range(256))]
    assert min(contrast(ink_on(ground), ground) for ground in grounds) >= TEXT


def test_lines_and_words_of_plots_stand_out() -> None:
    for theme in (LIGHT, DARK):
        ground = theme["axes.facecolor"]
        assert contrast(theme["text.color"], ground) >= TEXT
        assert all(contrast(colour, ground) >= MARK for colour in theme["axes.prop_cycle"])
