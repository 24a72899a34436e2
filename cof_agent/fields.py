"""How fields of a record stand in a file: one that says nothing is left out; what is one or several has a name for each.

So a file of samples with one image each is the same as before samples could have several, and older files are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Write = Callable[[Any, Callable[[Any], dict[str, Any]]], dict[str, Any]]


def omitting(schema: Any, handler: Any, **defaults: Any) -> Any:
    """The pydantic schema of a data class whose fields are not written where they have these values."""

    def write(record: Any, plain: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in plain(record).items() if name not in defaults or value != defaults[name]}

    return _written_by(write, schema, handler)


def one_or_several(schema: Any, handler: Any, one: str, further: str, several: str) -> Any:
    """The pydantic schema of a data class that holds the first of something in the field `one` and the others in `further`:
    a file has `one` where there are no others, and else a list under the name `several`."""
    from pydantic_core import core_schema  # as slow to import as pydantic, which `cof --help` need not pay

    def write(record: Any, plain: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        values = plain(record)
        others = values.pop(further)
        return {several: [values[one], *others], **{k: v for k, v in values.items() if k != one}} if others else values

    def read(value: Any) -> Any:
        listed = value.get(several) if isinstance(value, Mapping) else None
        if not isinstance(listed, list | tuple) or not listed:
            return value
        if one in value:
            raise ValueError(f"{one} and {several} are both given")
        return {**{name: part for name, part in value.items() if name != several}, one: listed[0], further: listed[1:]}

    return core_schema.no_info_before_validator_function(read, _written_by(write, schema, handler))


def _written_by(write: Write, schema: Any, handler: Any) -> Any:
    from pydantic_core import core_schema

    # On the definition itself, which all places share that hold such a record.
    handler.resolve_ref_schema(schema)["serialization"] = core_schema.wrap_serializer_function_ser_schema(write)
    return schema
