"""Tables of figures at any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cof_agent.output.terminal import figures_table

HEADINGS = ("", "n", "accuracy", "95 %", "tokens in")
LONG = "category " + "of many words " * 4
ROWS = [
    ["all", "6,000 (12 unscored)", "1.000", "0.610 to 1.000", "12,420"],
    [LONG, "2", "0.500", "0.342 to 1.000", "-"],
]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_figures_are_whole_at_any_width_and_labels_too(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(figures_table("title", HEADINGS, [ROWS[:1], ROWS[1:]], width), crop=False)
    lines = file.getvalue().splitlines()
    for row in ROWS:
        assert any(all(figure in line for figure in row[1:]) for line in lines)
    if width >= 60:
        assert max(map(len, lines)) <= width
    assert "ofmanywords" in "".join("".join(lines).split())
    assert any("┃" in line for line in lines) == (width == 200)
