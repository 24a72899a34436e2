"""With which settings a folder was made: written beside its results, and compared before anything is added to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cof_agent.errors import InputError
from cof_agent.output.files import write_json

_LONGEST = 60  # characters of a value in a sentence


def check_origin(path: Path, made_with: Mapping[str, Any]) -> None:
    """Writes the settings to `path` if it is not there, and compares them with what is there otherwise.

    Raises:
        InputError: naming each setting that differs, with both values; or if the file cannot be read or written.
    """
    earlier = read_origin(path)
    if earlier is None:
        write_origin(path, made_with)
    else:
        refuse_others(path, earlier, made_with)


def write_origin(path: Path, made_with: Mapping[str, Any]) -> None:
    """Writes the settings to `path`.

    Raises:
        InputError: if it cannot be written.
    """
    write_json(path, made_with)


def refuse_others(path: Path, earlier: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    """Compares settings with those that `path` held.

    Raises:
        InputError: naming each setting that differs, with both values.
    """
    if different := differences(earlier, made_with):
        raise InputError(f"{path.parent} was made with other settings: {different}; use another folder.")


def read_origin(path: Path) -> dict[str, Any] | None:
    """The settings that are written there; None if there is no such file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} does not hold the settings of a run; use another folder.")
    return found


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings of `now` that were others then, each with both values; empty if there are none."""
    before, after = dict(_flat(_plain(earlier))), dict(_flat(_plain(now)))
    names = [name for name in after if before.get(name) != after[name]]
    names += [name for name in before if name not in after and name.partition(".")[0] in now]
    return ", ".join(f"{name} was {_value(before.get(name))} and is now {_value(after.get(name))}" for name in names)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
