"""`Source`: which samples a command reads, from what its options or its configuration say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cof_agent.data.samples import read_samples
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample


@dataclass
class Source:
    """Samples and how to read them. Every command that reads samples has these fields as options."""

    data: str = field(
        default="",
        metadata={"metavar": "SPEC", "help": "a folder, a JSON, JSONL or Parquet file, or a dataset of the hub"},
    )
    images: str | None = field(
        default=None,
        metadata={"metavar": "DIR", "help": "folder that image paths are relative to (default: that of the file)"},
    )
    column: list[str] = field(
        default_factory=list,
        metadata={
            "metavar": "NAME=COLUMN",
            "help": "what one of our columns is called in the data, such as question=query; repeat for more",
        },
    )
    split: str = field(default="train", metadata={"metavar": "NAME", "help": "split of a dataset"})
    samples: int | None = field(
        default=None, metadata={"metavar": "N", "help": "only the first N samples (default: all)"}
    )

    @property
    def columns(self) -> dict[str, str]:
        """Our names of columns, and what the data calls them.

        Raises:
            InputError: if one is not of the form NAME=COLUMN.
        """
        return dict(_mapping(pair) for pair in self.column)

    def read(self, *, keep_images: str | Path | None = None) -> list[Sample]:
        """The samples. keep_images: the folder for images that a dataset holds itself.

        Raises:
            InputError: as `read_samples`.
        """
        return read_samples(
            self.data,
            images=self.images,
            keep_images=keep_images,
            columns=self.columns,
            split=self.split,
            limit=self.samples,
        )


def _mapping(pair: str) -> tuple[str, str]:
    ours, equals, theirs = pair.partition("=")
    if not (ours and equals and theirs):
        raise InputError(f"--column must be NAME=COLUMN, as in question=query, not {pair!r}.")
    return ours, theirs
