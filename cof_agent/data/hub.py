"""Sets of the hub, as the package `datasets` loads them; their images stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cof_agent.data.rows import Row
from cof_agent.data.tables import batch_rows
from cof_agent.errors import InputError, said
from cof_agent.output.install import how_to_install


def hub_rows(spec: str, split: str | None) -> Iterator[Row]:
    """The rows of `owner/name`, or of its configuration in `owner/name/CONFIGURATION`.

    Raises:
        InputError: if there is no such set or split, it cannot be loaded, or the package datasets is missing.
    """
    table = _loaded(spec, split).data
    for number, values in enumerate(batch_rows(table.to_batches(), table.schema.metadata), 1):
        yield Row(values, number, Path(spec))


def _loaded(spec: str, split: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError(f"reading {spec} needs the package datasets: {how_to_install('datasets')}.") from None
    owner, name, *configuration = spec.split("/")
    given = (f"{owner}/{name}", *configuration)
    try:
        if split is None:
            split = chosen_split(datasets.get_dataset_split_names(*given), spec)
        return datasets.load_dataset(*given, split=split)
    except InputError:
        raise
    except Exception as error:  # what a missing set or a connection makes the loaders raise is not limited
        raise InputError(f"cannot load the dataset {spec}, which is no file or folder here: {said(error)}") from None


def chosen_split(splits: list[str], where: str) -> str:
    """The split that is read where none is named: the training split, or the only one.

    Raises:
        InputError: if there are several others.
    """
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else splits[0]
    raise InputError(f"{where} has the splits {', '.join(splits)}; name one with --split.")
