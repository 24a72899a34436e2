"""The console of every command: what texts say in square brackets is no markup, and control characters are shown escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cof_agent.output.escape import for_terminal

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 120  # characters; a file or a pipe has no width of its own


class _Escaping(Console):
    """Escapes every string that is printed, in tables too. A `Text` is printed as it is; `styled` makes a safe one."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(for_terminal(text, lines=True), **options)

    def on_broken_pipe(self) -> None:
        """Leaves it to the command what happens when its reader has gone; rich would end the process with 1."""
        raise


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """For stdout or stderr, or for nothing if `quiet`."""
    made = _Escaping(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = _WIDTH
    return made


def styled(*parts: str | tuple[str, str]) -> Text:
    """Parts of one text, each alone or with its style; all are escaped."""
    plain = [part if isinstance(part, tuple) else (part, "") for part in parts]
    return Text.assemble(*((for_terminal(text, lines=True), style) for text, style in plain))


_LABEL = 8  # characters of a label's line at least


def figures_table(
    title: str, headings: Sequence[str], sections: Sequence[Sequence[Sequence[str]]], width: int
) -> Table:
    """A table of rows, each a label and its figures. Where `width` characters are too few for it, labels and headings take
    several lines and there are no frames. A figure is always shown whole, if need be beyond the width."""
    from rich import box
    from rich.table import Table

    rows = [headings, *(row for section in sections for row in section)]
    label, *columns = [[cell_len(for_terminal(cell)) for cell in column] for column in zip(*rows, strict=True)]
    framed = max(label) + sum(map(max, columns)) + 3 * len(headings) + 1 <= width
    least = [max(column[1:], default=1) for column in columns]  # without the headings
    words = [max(map(cell_len, heading.split()), default=1) for heading in headings[1:]]
    gaps = 2 * len(columns)
    if _LABEL + gaps + sum(whole := list(map(max, least, words))) <= width:
        least = whole
    table = Table(title=title, title_justify="left")
    if not framed:
        table.box, table.width = box.SIMPLE_HEAD, max(width, _LABEL + gaps + sum(least))
        table.show_edge, table.pad_edge, table.collapse_padding = False, False, True
    table.add_column(headings[0], overflow="fold")
    for heading, cells in zip(headings[1:], least, strict=True):
        table.add_column(heading, justify="right", overflow="fold", width=None if framed else cells, no_wrap=framed)
    for section in sections:
        for row in section:
            table.add_row(*row)
        table.add_section()
    return table
