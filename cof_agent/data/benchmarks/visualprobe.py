"""VisualProbe: 141 easy, 268 medium and 106 hard questions that take search by trial and error (Mini-o3, arXiv 2509.07969).

Layout, as https://huggingface.co/datasets/Mini-o3/VisualProbe_Hard (and _Easy, _Medium) lists it and public loaders read it:
in each of the three, `val.json`, a list of doc_id, images (a list of one path such as `VisualProbe_Easy/data/1.jpg`, which
the repository has as `data/1.jpg`), problem ("<image>\\n" and the question), solution (free text), data_source. A local copy is
the folder that holds the three, each under its name.

Answers are free text, which Mini-o3 leaves a language model to judge; scored as exact, they come out lower.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

HUB = {f"Mini-o3/VisualProbe_{level}": ("val.json", "data/*") for level in ("Easy", "Medium", "Hard")}
PARTS = {"easy": 141, "medium": 268, "hard": 106}

_NAMED = re.compile(r"VisualProbe_(Easy|Medium|Hard)(?![A-Za-z])")


def read(copy: Copy) -> Iterator[Sample]:
    for file in copy.files("val.json"):
        for where, row in copy.rows([file], ("doc_id", "images", "problem", "solution")):
            name = row["images"][0] if isinstance(row["images"], list) and row["images"] else row["images"]
            level = _level(name, file, where)
            below = name.removeprefix(f"VisualProbe_{level}/") if isinstance(name, str) else name
            yield Sample(
                id=f"{level.lower()}-{text(row, 'doc_id')}",
                image=copy.named(file.parent, below, where),
                question=text(row, "problem").replace("<image>", "").strip(),
                answers=(text(row, "solution"),),
                metadata={"category": level.lower()},
            )


def _level(name: object, file: Path, where: str) -> str:
    """By the image's path, else by the folder: the hub's cache names folders by commit, below the repository's name."""
    for place in (str(name), str(file.absolute().parent)):
        found = _NAMED.findall(place)
        if found:
            return str(found[-1])
    raise InputError(
        f"{where} belongs to no level: give the folder that holds VisualProbe_Easy, VisualProbe_Medium and "
        "VisualProbe_Hard under these names."
    )
