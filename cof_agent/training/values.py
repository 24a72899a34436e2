"""Whether the values of a configuration are of the type of their key, told before TRL is imported.

YAML and the command line give a value of any type to a key of any type; the parsers of TRL and transformers take some of these as
they are, and fail over them much later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cof_agent.errors import InputError

_NAMES = re.compile(r"[A-Za-z_]\w*")
_BASIC = {"int", "float", "bool", "str", "list", "dict", "tuple", "Sequence"}
_TRUE_OR_FALSE = ("true", "false", "yes", "no", "y", "n", "t", "f", "1", "0")
_AS_TEXTS = ("run_name", "split", "fsdp", "report_to", "debug")
"""Keys of texts that a number, or a list, may stand for."""
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
}


class JsonMapping(dict[str, Any]):
    """A mapping, in the configuration as YAML's, on the command line as JSON.

    Raises:
        InputError: if it is neither.
    """

    def __init__(self, given: Any = ()) -> None:
        try:
            super().__init__(json.loads(given) if isinstance(given, str) else given)
        except (ValueError, TypeError) as error:
            raise InputError(
                f'a mapping is written as JSON, such as {{"spot": 0.8}}, and not as {given!r}: {error}.'
            ) from None


def check_values(values: Mapping[str, Any], types: Mapping[str, str], where: str) -> None:
    """Refuses a value that is not of its key's type. types: the annotations of the keys, as written; of others nothing is said.

    Raises:
        InputError: naming `where` and the key of the first that is not.
    """
    for name, value in values.items():
        kinds = {found.lower() if found in ("List", "Dict") else found for found in _NAMES.findall(types.get(name, ""))}
        if name in _AS_TEXTS and isinstance(value, int | float | list):
            continue
        if kinds <= _BASIC | {"None", "Optional", "Union"} and kinds & _BASIC and not _fits(value, kinds):
            wanted = " or ".join(words for kind, words in _WORDS.items() if kind in kinds)
            raise InputError(f"{where}{name} must be {wanted}, not {value!r}.")


def _fits(value: Any, kinds: set[str]) -> bool:
    match value:
        case None:
            return True
        case bool():
            return bool(kinds & {"bool", "str"})  # `eval_strategy: no` is false in YAML
        case int():
            return bool(kinds & {"int", "float"}) or ("bool" in kinds and value in (0, 1))
        case float():
            return "float" in kinds or ("int" in kinds and value.is_integer())
        case str():
            return bool(kinds & {"str", "dict"}) or _is_written(value, kinds)
        case dict():
            return "dict" in kinds
    inner = kinds - {"list", "tuple", "Sequence"}
    return inner != kinds and all(_fits(one, inner) for one in value)


def _is_written(text: str, kinds: set[str]) -> bool:
    """Whether a text is a number, or a truth value, as it may be written on a command line."""
    if "bool" in kinds and text.lower() in _TRUE_OR_FALSE:
        return True
    if kinds & {"None", "Optional"} and text.lower() in ("none", "null"):
        return True
    if not kinds & {"int", "float"}:
        return False
    try:
        number = float(text)
    except ValueError:
        return False
    return "float" in kinds or (number.is_integer() and re.fullmatch(r"\s*[+-]?[\d_]+\s*", text) is not None)
