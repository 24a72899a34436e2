"""`Source`: which samples a command reads, from what its options or its configuration say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cof_agent.data.boxes import FORMS
from cof_agent.data.samples import read_samples
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample


@dataclass
class Source:
    """Samples and how to read them. Every command that reads samples has these fields as options."""

    data: str = field(
        default="",
        metadata={
            "metavar": "SPEC",
            "help": "a folder, a file (JSON, JSONL, CSV, TSV, Parquet) or a dataset of the hub; see `cof data`",
        },
    )
    images: str | None = field(
        default=None,
        metadata={"metavar": "DIR", "help": "folder that image paths are relative to (default: that of the file)"},
    )
    column: list[str] = field(
        default_factory=list,
        metadata={
            "metavar": "NAME=COLUMN",
            "help": "what one of our columns is called in the data, such as question=query or question=extra_info.question; "
            "repeat for more",
        },
    )
    split: str | None = field(
        default=None, metadata={"metavar": "NAME", "help": "split of a dataset (default: train, or the only one)"}
    )
    samples: int | None = field(
        default=None, metadata={"metavar": "N", "help": "only the first N samples (default: all)"}
    )
    boxes: str | None = field(
        default=None,
        metadata={
            "metavar": "FORM",
            "help": f"what the numbers of boxes mean: {', '.join(FORMS)}, or none to pass boxes over (default: recognised)",
        },
    )
    download: bool = field(
        default=False,
        metadata={"help": "fetch images that are named by URL, from public addresses only (default: fetch nothing)"},
    )
    strict: bool = field(
        default=False, metadata={"help": "refuse data with a row that cannot be used (default: leave it out)"}
    )

    @property
    def columns(self) -> dict[str, str]:
        """Our names of columns, and what the data calls them.

        Raises:
            InputError: if one is not of the form NAME=COLUMN.
        """
        return dict(_mapping(pair) for pair in self.column)

    def read(
        self, *, keep_images: Path | None = None, left_out: Path | None = None, one_image: bool = False
    ) -> list[Sample]:
        """The samples. keep_images: the folder for images that a dataset holds itself. left_out: the file that lists the rows
        that cannot be used. one_image: whether samples of several images are among these.

        Raises:
            InputError: as `read_samples`.
        """
        return read_samples(self.data, **self.reading, keep_images=keep_images, left_out=left_out, one_image=one_image)

    @property
    def reading(self) -> dict[str, Any]:
        """How the samples are read, as arguments of `samples.read`.

        Raises:
            InputError: if a column is not of the form NAME=COLUMN.
        """
        return {
            "images": self.images,
            "columns": self.columns,
            "split": self.split,
            "limit": self.samples,
            "boxes": self.boxes,
            "download": self.download,
            "strict": self.strict,
        }


def _mapping(pair: str) -> tuple[str, str]:
    ours, equals, theirs = pair.partition("=")
    if not (ours and equals and theirs):
        raise InputError(f"--column must be NAME=COLUMN, as in question=query, not {pair!r}.")
    return ours, theirs
