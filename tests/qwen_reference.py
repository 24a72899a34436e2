"""qwen-vl-utils as a reference for tests, also where torchvision is not installed."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

_STAND_INS = ("torchvision", "torchvision.io", "torchvision.transforms")


def load() -> Any:
    """The module `qwen_vl_utils.vision_process`.

    It imports torchvision, of which its image functions use nothing. Where torchvision is absent (a CPU build is not
    on every index), empty modules stand in for it, only while the import runs.
    """
    absent = importlib.util.find_spec("torchvision") is None
    if absent:
        for name in _STAND_INS:
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
        sys.modules["torchvision.transforms"].InterpolationMode = object  # type: ignore[attr-defined]
    try:
        return importlib.import_module("qwen_vl_utils.vision_process")
    finally:
        if absent:
            for name in _STAND_INS:
                del sys.modules[name]
