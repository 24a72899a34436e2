"""What a name of data or of a model means: a place on this machine, or something of the hub."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = (
    ".json",
    ".jsonl",
    ".parquet",
    ".arrow",
    ".csv",
    ".tsv",
    ".txt",
    ".yaml",
    ".yml",
    ".safetensors",
    ".bin",
    ".gguf",
)


IN_VLLM = "vllm:"
"""Stands before a checkpoint that vLLM runs in this process."""


def checkpoint_of(model: str) -> str:
    """The checkpoint that the name of a local model means, whatever runs it."""
    return model.removeprefix(IN_VLLM)


def is_local(spec: str) -> bool:
    """Whether a name looks like a path of this machine, so that the hub is not asked for it: the first part of it exists, it
    starts like a path, or it ends like a file."""
    if not spec:
        return False
    first = Path(spec).parts[0]
    return spec.startswith((".", "/", "~", os.sep)) or spec.lower().endswith(SUFFIXES) or Path(first).exists()
