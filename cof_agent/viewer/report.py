"""Writes trajectories as one self-contained HTML page that opens from disk: `cof view FILE -o PAGE.html`.

The markup, the style and the scripts of the page stand in `page/`. Text of models and data reaches the page only as JSON in
data blocks, from which the script builds text nodes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cof_agent.image import file_of
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Trajectory
from cof_agent.viewer import templates
from cof_agent.viewer.images import PageImages, limit_of
from cof_agent.viewer.picture import PALETTE
from cof_agent.viewer.record import MOST_VIEWS, fitted_record, json_text
from cof_agent.viewer.templates import cut

MAX_PAGE_BYTES = 60_000_000
"""No page is larger. The more images there are, the smaller each is embedded; very long texts are cut, and say so."""

MAX_TRAJECTORIES = 5_000
"""So many are shown, the first ones; the page says how many there were."""

_TEXT_BYTES = 14_000_000
_MOST_REWARDS = 24  # names of rewards; any more are left out
_STYLES = ("base.css", "trajectories.css")
_SCRIPTS = ("data.js", "pictures.js", "cards.js", "filters.js", "controls.js", "browse.js")


def write_page(
    trajectories: Iterable[Trajectory],
    output: Path,
    *,
    title: str,
    score: Callable[[Trajectory], bool | None],
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write the page, whole, to `output`; at most `MAX_PAGE_BYTES`.

    Each distinct image of each source is embedded once; each source is decoded once, a few at a time. A source that is
    missing, broken or larger than the run allowed stops nothing; its cards say what is wrong. `score` returns right, wrong
    or (None) not scored. `progress` is called with the number of source images that are done, and of all.

    Returns:
        what is wrong with each source image that the page has to do without.

    Raises:
        InputError: if `output` cannot be written.
    """
    everything = list(trajectories)
    shown = everything[:MAX_TRAJECTORIES]
    images = PageImages(limit_of(shown))
    rewards = {name: number for number, name in enumerate(_reward_names(shown))}
    most_bytes = _TEXT_BYTES // max(1, len(shown))
    records = [fitted_record(one, score(one), _numbers(one, images), rewards, most_bytes) for one in shown]
    encoded = images.encode(progress)
    head = {
        "total": len(everything),
        "palette": PALETTE,
        "rewards": [cut(name, 60) for name in rewards],
        "problems": list(images.problems.items()),
    }
    blocks = [{"number": number, "base64": base64.b64encode(image).decode()} for number, image in encoded.items()]
    content = templates.page(
        "trajectories.html",
        styles=_STYLES,
        scripts=_SCRIPTS,
        title=cut(title, 200),
        head=json_text(head),
        records=records,
        images=blocks,
    )
    write_atomic(output, content)
    return list(images.problems)


def _reward_names(trajectories: Sequence[Trajectory]) -> list[str]:
    return list(dict.fromkeys(name for one in trajectories for name in one.rewards))[:_MOST_REWARDS]


def _numbers(trajectory: Trajectory, images: PageImages) -> list[int]:
    paths, opened = trajectory.sample.images, len(trajectory.overviews)
    views = enumerate(trajectory.views[:MOST_VIEWS])
    return [images.add(paths[view.source], view, overview=k < opened) for k, view in views]


def located(trajectory: Trajectory, folder: Path, images: Path | None = None) -> Trajectory:
    """The trajectory with its images found. One that is not at its path is looked for in `folder`, where the path is relative,
    and then in `images`, by its path or by its name."""
    sample = trajectory.sample
    return replace(trajectory, sample=sample.with_images(_found(path, folder, images) for path in sample.images))


def _found(path: str, folder: Path, images: Path | None) -> str:
    image = Path(path)
    places = [] if image.is_absolute() else [folder / image]
    if images is not None:
        places += [images / image.name] if image.is_absolute() else [images / image, images / image.name]
    return next((str(place) for place in (image, *places) if Path(file_of(str(place))).exists()), path)
