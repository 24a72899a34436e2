"""Writes trajectories as one self-contained HTML page that opens from disk: `cof view FILE -o PAGE.html`.

The markup, the style and the scripts of the page stand in `page/`. Text of models and data reaches the page only as JSON in
data blocks, from which the script builds text nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Trajectory
from cof_agent.viewer import templates
from cof_agent.viewer.embedded import MAX_TRAJECTORIES, Missing, embed
from cof_agent.viewer.record import Origin, json_text
from cof_agent.viewer.templates import cut

MAX_PAGE_BYTES = 60_000_000
"""No page is larger. The more images there are, the smaller each is embedded; very long texts are cut, and say so."""


def write_page(
    trajectories: Iterable[Trajectory],
    output: Path,
    *,
    title: str,
    score: Callable[[Trajectory], bool | None],
    origins: Sequence[Origin] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Missing]:
    """Write the page, whole, to `output`; at most `MAX_PAGE_BYTES`, with the first `MAX_TRAJECTORIES`; it
    says how many there were.

    A source that is missing, broken or larger than the run allowed stops nothing; its cards say what is wrong. The other
    arguments are those of `embed`.

    Returns:
        what is wrong with each source image that the page has to do without.

    Raises:
        InputError: if `output` cannot be written.
    """
    everything = list(trajectories)
    shown = everything[:MAX_TRAJECTORIES]
    embedded = embed(shown, score, origins=origins[:MAX_TRAJECTORIES], progress=progress)
    content = templates.page(
        "trajectories.html",
        scripts=templates.scripts("trajectories.js"),
        title=cut(title, 200),
        head=json_text(embedded.head | {"total": len(everything), "chosen": "the first"}),
        embedded=embedded,
    )
    write_atomic(output, content)
    return embedded.missing
