"""Parts of the user's own, named as `module:function`: rewards, scoring rules, benchmarks, strategies, tools.

A plugin is the user's code and runs with the user's rights. Names come from options and configurations only, never from model
output or data.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from cof_agent.errors import InputError, said

_MAKE_OBJECTS = (
    inspect.isclass,
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)
"""Whether calling it makes an object, which is no value or has yet to be run."""
_SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_plugin(spec: str) -> bool:
    """Whether `spec` has the form `module:function`."""
    return _SPEC.fullmatch(spec) is not None


def load_function(spec: str, what: str) -> Callable[..., Any]:
    """The function of `module:function`; modules in the working directory are found too.

    what: how the error names the function, such as "reward".

    Raises:
        InputError: if the module cannot be imported, or has no such function.
    """
    if not is_plugin(spec):
        raise InputError(f"the {what} {spec!r} is not of the form module:function.")
    module, _, name = spec.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise InputError(f"cannot import the module {module} of the {what} {spec}: {said(error)}.") from error
    if not callable(found):
        raise InputError(f"the module {module} has no function {name}, which the {what} {spec} names.")
    function: Callable[..., Any] = found
    return function


def check_takes_one(function: Callable[..., Any], name: str, what: str) -> None:
    """Refuses a function that cannot be called with one value alone, or then returns no value, before its first call.

    name: how the error names it. what: the value.

    Raises:
        InputError: if it cannot.
    """
    if any(makes_object(part) for part in (function, type(function).__call__) for makes_object in _MAKE_OBJECTS):
        raise InputError(f"{name} must be a plain function of {what} alone, no class, and without async and yield.")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise InputError(f"{name} must be a function of {what} alone: {said(error)}.") from None
    except ValueError:  # of functions in C, which say nothing of themselves
        pass
