"""Flickr30k Entities (Plummer et al., arXiv 1505.04870): sentences whose phrases have boxes.

`Sentences/<id>.txt` marks each phrase `[/EN#<chain>/<kind> words]`, `Annotations/<id>.xml` has the boxes of the chains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from cof_agent.data.region_sets.instructions import SCENE, drawn, listed
from cof_agent.data.region_sets.read import SPLIT, box_of, row
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample

_PHRASE = re.compile(r"\[/EN#(\d+)/\S+ ([^\]]*)\]")


def samples(folder: Path) -> Iterator[Sample]:
    """See `region_sets.build.samples_of`. One sample a sentence; a phrase without a box, or with several, is words only."""
    files = sorted((folder / "Sentences").glob("*.txt"))
    if not files:
        raise InputError(f"{folder} has no Sentences/*.txt, as Flickr30k Entities does.")
    split_of = {id: split for split in ("train", "val", "test") for id in _listed_in(folder / f"{split}.txt")}
    for path in files:
        boxes = _boxes(folder / "Annotations" / f"{path.stem}.xml")
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"cannot read {path}, or it is not UTF-8 text.") from None
        for number, line in enumerate(lines):
            made = _sample(f"flickr30k-{path.stem}-{number}", f"{path.stem}.jpg", line, boxes)
            if made is not None:
                split = split_of.get(path.stem)
                yield made if split is None else replace(made, metadata={SPLIT: split})


def _listed_in(path: Path) -> list[str]:
    """The ids of a split; none where the set has been published without its file."""
    try:
        return path.read_text("utf-8").split()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError):
        raise InputError(f"cannot read {path}, or it is not UTF-8 text.") from None


def _sample(name: str, image: str, line: str, boxes: dict[str, list[Box]]) -> Sample | None:
    known: list[str] = []

    def words(found: re.Match[str]) -> str:
        chain, phrase = found.groups()
        if len(boxes.get(chain, ())) != 1:
            return phrase
        if chain not in known:
            known.append(chain)
        return f"{phrase} (region {known.index(chain) + 1})"

    answer = _PHRASE.sub(words, line).strip()
    if not known:
        return None
    question = drawn(SCENE, name).format(listed(len(known)))
    return Sample(name, image, question, (answer,), regions=tuple(boxes[chain][0] for chain in known))


def _boxes(path: Path) -> dict[str, list[Box]]:
    """The boxes of each chain. A file that declares entities, which could grow without end or name other files, is refused."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    if b"<!" in content.replace(b"<!--", b"") or b"\0" in content:  # in UTF-16 the mark would not be seen
        raise InputError(f"{path} declares a document type, which no file of the set does; it is not read.")
    try:
        tree = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        raise InputError(f"{path} is no XML, or only a part of it; get the file again.") from None
    found: dict[str, list[Box]] = {}
    for number, thing in enumerate(tree.iter("object"), 1):
        frame = thing.find("bndbox")
        if frame is None:
            continue  # of the whole scene, or not to be seen
        with row(path, number):
            x0, y0, x1, y1 = (float(frame.findtext(edge) or "none") for edge in ("xmin", "ymin", "xmax", "ymax"))
            box = box_of(x0, y0, x1 - x0, y1 - y0)
        for name in thing.findall("name"):
            if box is not None:
                found.setdefault(str(name.text), []).append(box)
    return found
