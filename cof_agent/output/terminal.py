"""The console of every command: what texts say in square brackets is no markup, and control characters are shown escaped."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from cof_agent.output.escape import for_terminal

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
