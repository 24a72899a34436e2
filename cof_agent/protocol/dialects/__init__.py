"""The dialects: in which words and by which rules a checkpoint holds its conversations."""

from cof_agent.protocol.dialects import words
from cof_agent.protocol.dialects.read import (
    OURS,
    beside,
    described,
    dialect,
    dialect_of,
    from_plain,
    names,
    ours,
    record,
    recorded,
    to_plain,
    to_yaml,
)
from cof_agent.protocol.dialects.record import Call, Dialect, End, Opening, Reply, Shown, filled

__all__ = [
    "OURS",
    "Call",
    "Dialect",
    "End",
    "Opening",
    "Reply",
    "Shown",
    "beside",
    "described",
    "dialect",
    "dialect_of",
    "filled",
    "from_plain",
    "names",
    "ours",
    "record",
    "recorded",
    "to_plain",
    "to_yaml",
    "words",
]
