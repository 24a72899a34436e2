"""Rows of Parquet and Arrow tables, a batch of bounded size at a time. No image is decoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cof_agent.errors import InputError, said
from cof_agent.output.install import how_to_install

Values = dict[str, Any]

_BATCH_BYTES = 8 << 20  # of rows that are in memory as Python objects at once
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
            yield from batch_rows(_ahead(table.iter_batches(batch_size=size)), table.schema_arrow.metadata)
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
    classes = _classes(metadata or {})
    for batch in map(_in_short_decimals, batches):
        rows = max(1, min(_MOST_ROWS, batch.num_rows * _BATCH_BYTES // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, rows):
            for values in batch.slice(start, rows).to_pylist():
                yield _named(values, classes) if classes else values


def _in_short_decimals(batch: Any) -> Any:
    """A batch whose columns of small floats hold the numbers that were meant: 0.1, and not 0.10000000149011612."""
    import pyarrow

    small = (pyarrow.float16(), pyarrow.float32())
    for place, column in enumerate(batch.schema):
        if column.type in small:
            exact = batch.column(place).cast(pyarrow.float32()).cast(pyarrow.string()).cast(pyarrow.float64())
            batch = batch.set_column(place, column.name, exact)
    return batch


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches, of which the next is read while one is used."""
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = reader.submit(next, batches, None)
            yield batch


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


def _classes(metadata: dict[bytes, bytes]) -> Any:
    """Where `datasets` keeps classes as numbers: their names, in objects by field; None where it keeps none."""
    try:
        return _classes_in(json.loads(metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return None


def _classes_in(feature: Any) -> Any:
    if isinstance(feature, list):  # how older versions describe a list
        return _classes_in(feature[0]) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return feature.get("names") or None
    if "feature" in feature and "_type" in feature:
        return _classes_in(feature["feature"])
    return {name: found for name, inner in feature.items() if (found := _classes_in(inner))} or None


def _named(value: Any, classes: Any) -> Any:
    """A value with the names of its classes; None for -1, which stands for an unknown one."""
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    if isinstance(value, dict) and isinstance(classes, dict):
        return value | {name: _named(value[name], inner) for name, inner in classes.items() if name in value}
    if not isinstance(value, int) or not isinstance(classes, list):
        return value
    return classes[value] if 0 <= value < len(classes) else None
