"""Rows of Parquet and Arrow tables, a batch of bounded size at a time. No image is decoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cof_agent.errors import InputError, said
from cof_agent.output.install import how_to_install

Values = dict[str, Any]

_BATCH_BYTES = 32 << 20  # of rows that are in memory as Python objects at once
_MOST_ROWS = 1024  # in a batch
_READ_AT_ONCE = 1 << 20  # bytes of a Parquet file; row groups of images are most of the file


def parquet_rows(path: Path) -> Iterator[Values]:
    """The rows of a Parquet file.

    Raises:
        InputError: if it cannot be read, or pyarrow is missing.
    """
    pyarrow = _pyarrow(path)
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_READ_AT_ONCE) as table:
            size = _batch_size(table.metadata)
            yield from batch_rows(table.iter_batches(batch_size=size), table.schema_arrow.metadata)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {said(error)}") from None


def arrow_rows(path: Path) -> Iterator[Values]:
    """The rows of an Arrow file or stream, as `datasets` saves a set to disk.

    Raises:
        InputError: if it cannot be read, or pyarrow is missing.
    """
    pyarrow = _pyarrow(path)
    try:
        with pyarrow.memory_map(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file:
                table = pyarrow.ipc.open_file(file)
                batches: Iterable[Any] = (table.get_batch(n) for n in range(table.num_record_batches))
            else:
                table = batches = pyarrow.ipc.open_stream(file)
            yield from batch_rows(batches, table.schema.metadata)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {said(error)}") from None


def batch_rows(batches: Iterable[Any], metadata: dict[bytes, bytes] | None) -> Iterator[Values]:
    """The rows of Arrow batches. Classes that `datasets` describes in the schema's `metadata` are replaced by their names."""
    classes = _class_names(metadata or {})
    for batch in batches:
        rows = max(1, min(_MOST_ROWS, batch.num_rows * _BATCH_BYTES // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, rows):
            for values in batch.slice(start, rows).to_pylist():
                for column, names in classes.items():
                    values[column] = _named(values.get(column), names)
                yield values


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise InputError(f"reading {path} needs the package pyarrow: {how_to_install('pyarrow')}.") from None
    return pyarrow


def _batch_size(metadata: Any) -> int:
    total = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    return int(max(1, min(_MOST_ROWS, _BATCH_BYTES * metadata.num_rows // max(1, total))))


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of the classes of each column that `datasets` keeps as numbers."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        found = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {name: one["names"] for name, one in found.items() if one.get("_type") == "ClassLabel" and one.get("names")}


def _named(value: Any, names: list[str]) -> Any:
    """The name of a class; None for -1, which stands for an unknown one."""
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None
