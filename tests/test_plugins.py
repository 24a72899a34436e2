"""Functions of the user's own, found by name: what is wrong with a name is one sentence."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cof_agent.errors import InputError
from cof_agent.plugins import check_takes_one, is_plugin, load_function


def test_a_name_has_a_module_and_a_function() -> None:
    assert all(is_plugin(spec) for spec in ("module:function", "a.b_2.c:_d", "_m:F1"))
    for spec in (
        "",
        "module",
        "module:",
        ":function",
        "1m:f",
        "m:f.g",
        "m:1f",
        "a/b:f",
        "m:f()",
        "m:f:g",
        "m:f\n",
        " m:f",
    ):
        assert not is_plugin(spec), spec
        with pytest.raises(InputError, match=r"^the reward .* is not of the form module:function\.$"):
            load_function(spec, "reward")


def test_a_module_of_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_part_7.py").write_text("def double(number):\n    return 2 * number\n\nanswer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [place for place in __import__("sys").path if place])
    assert load_function("own_part_7:double", "reward")(21) == 42
    for name in ("triple", "answer"):  # not there, and no function
        with pytest.raises(
            InputError, match=f"^the module own_part_7 has no function {name}, which the reward own_part_7:"
        ):
            load_function(f"own_part_7:{name}", "reward")


def test_a_module_that_cannot_be_imported_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_part_8.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "own_part_9.py").write_text("def broken(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module, reason in {
        "own_part_8": "no_such_module_anywhere",
        "own_part_9": "invalid syntax",
        "own_part_10": "No module named 'own_part_10'",
    }.items():
        with pytest.raises(InputError, match=f"^cannot import the module {module} of the tool {module}:f: .*{reason}"):
            load_function(f"{module}:f", "tool")


class Plain:
    def __init__(self, one: object) -> None: ...

    def __call__(self, one: object) -> float:
        return 1.0


class Late:
    async def __call__(self, one: object) -> float:
        return 1.0


async def late(one: object) -> float:
    return 1.0


def stepwise(one: object) -> Iterator[float]:
    yield 1.0


async def both(one: object) -> AsyncIterator[float]:
    yield 1.0


def test_a_function_of_one_value_returns_its_value_when_it_is_called() -> None:
    wrong: tuple[Callable[..., Any], ...] = (late, stepwise, both, partial(late), Plain, Late())
    for function in wrong:
        with pytest.raises(InputError, match=r"^mine must be a plain function of a trajectory alone, no class"):
            check_takes_one(function, "mine", "a trajectory")
    right: tuple[Callable[..., Any], ...] = (Plain(None), Plain(None).__call__, lambda one, more=0: 1.0, math.sqrt)
    for function in right:
        check_takes_one(function, "mine", "a trajectory")
    with pytest.raises(InputError, match="must be a function of a trajectory alone: missing a required argument"):
        check_takes_one(math.pow, "mine", "a trajectory")
