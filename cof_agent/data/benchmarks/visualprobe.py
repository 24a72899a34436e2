"""VisualProbe: 141 easy, 268 medium and 106 hard questions that take search by trial and error (Mini-o3, arXiv 2509.07969).

Layout, as https://huggingface.co/datasets/Mini-o3/VisualProbe_Hard (and _Easy, _Medium) lists it and public loaders read it:
in each of the three, `val.json`, a list of doc_id, images (a list of one path such as `VisualProbe_Easy/data/1.jpg`, which
the repository has as `data/1.jpg`), problem ("<image>\\n" and the question), solution (free text), data_source. A local copy is
the folder that holds the three, each under its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.benchmarks.layout import Layout, Table
from cof_agent.data.rows import Row
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

HUB = {f"Mini-o3/VisualProbe_{level}": ("val.json", "data/*") for level in ("Easy", "Medium", "Hard")}
PARTS = {"easy": 141, "medium": 268, "hard": 106}

_NAMED = re.compile(r"VisualProbe_(Easy|Medium|Hard)(?![A-Za-z])")
_TABLE = Table(id="doc_id", image="images", question="problem", answer="solution")


def _samples(copy: Copy, row: Row) -> Iterable[Sample]:
    level = _level(row)
    for sample in _TABLE(copy, row):
        yield replace(sample, id=f"{level}-{sample.id}", metadata={"category": level})


def _level(row: Row) -> str:
    """By the image's path, else by the folder: the hub's cache names folders by commit, below the repository's name."""
    for place in (str(row.values["images"]), str(row.file.absolute().parent)):
        found = _NAMED.findall(place)
        if found:
            return str(found[-1]).lower()
    raise InputError(
        f"{row} belongs to no level: give the folder that holds VisualProbe_Easy, VisualProbe_Medium and "
        "VisualProbe_Hard under these names."
    )


LAYOUTS = (Layout(("val.json",), _TABLE.columns, _samples),)
