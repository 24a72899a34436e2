"""The words of a dialect's authors, read from the user's own clone of their repository. Nothing of it is executed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cof_agent.errors import InputError
from cof_agent.protocol.dialects.read import with_words, without_file
from cof_agent.protocol.dialects.record import Dialect, Place

_LARGEST = 4 * 2**20  # bytes of a source file


def fetch(dialect: Dialect, clone: Path, brought: Mapping[str, str]) -> Dialect:
    """The dialect with its words.

    clone: a folder with the repository of its authors. brought: words by name that the user brings; they win.

    Raises:
        InputError: if a file or a constant is not there, or words are needed that stand in no file.
    """
    if unknown := sorted(brought.keys() - dialect.words.keys()):
        raise InputError(f"the dialect {dialect.name} has no words {unknown[0]}; it has {', '.join(dialect.words)}.")
    if lacking := [name for name in without_file(dialect) if name not in brought]:
        raise InputError(
            f"the words {lacking[0]} of {dialect.name} stand in no file of its repository; bring them by "
            f"--word {lacking[0]}=FILE."
        )
    found = {
        name: _words(place, clone)
        for name, place in dialect.words.items()
        if isinstance(place, Place) and name not in brought
    }
    return with_words(dialect, {**found, **brought})


def _words(place: Place, clone: Path) -> str:
    path = clone / place.file
    if not path.resolve().is_relative_to(clone.resolve()):
        raise InputError(f"the dialect names the file {place.file!r}, which lies outside {clone}; it is not read.")
    tree = _parsed(path, clone)
    text = _named(tree, place.name, path) if place.name else _ending(tree, place.ends, path)
    for old, new in place.replace.items():
        text = text.replace(old, new)
    return text


def _parsed(path: Path, clone: Path) -> ast.Module:
    place = path.relative_to(clone)
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is too large for a file of words.")
        return ast.parse(path.read_text("utf-8"))
    except OSError:
        raise InputError(f"{clone} has no file {place}: is it a clone of the repository?") from None
    except (SyntaxError, ValueError, RecursionError):
        raise InputError(f"{path} cannot be read as Python.") from None


def _named(tree: ast.AST, name: str, path: Path) -> str:
    """The constant of this name; of several with one name, the last."""
    inside: ast.AST = tree
    *classes, last = name.split(".")
    for wanted in classes:
        match = [node for node in ast.walk(inside) if isinstance(node, ast.ClassDef) and node.name == wanted]
        if not match:
            raise InputError(f"{path} has no class {wanted}.")
        inside = match[-1]
    values = [
        node.value
        for node in ast.walk(inside)
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == last for to in node.targets)
    ]
    values = [value for value in values if _is_literal(value)]
    if not values:
        raise InputError(f"{path} has no constant {name}.")
    value = ast.literal_eval(values[-1])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True


def _ending(tree: ast.AST, ends: str, path: Path) -> str:
    """The only string that ends so."""
    found = {text for text in _strings(tree) if text.endswith(ends)}
    if len(found) != 1:
        raise InputError(f"{path} has {len(found)} strings that end in {ends!r}, where there should be one.")
    return found.pop()


def _strings(tree: ast.AST) -> Iterator[str]:
    """Every string of a file, and the fixed parts of its f-strings."""
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
