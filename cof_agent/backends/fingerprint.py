"""Which weights a local model has, for the record of a result."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cof_agent.backends.names import folder_of

_WEIGHTS = ("*.safetensors", "*.bin")


def fingerprint(model: str) -> str | None:
    """Of nano or a directory, `sha256:` and the first 16 digits of the hash over its weight files in the order of their
    names; of a model of the hub, `commit:` and the commit that was loaded. None where neither can be found."""
    folder = Path(folder_of(model))
    if not folder.is_dir():
        return _commit(folder_of(model))
    files = _files(folder)
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def weight_files(model: str) -> dict[str, list[int]]:
    """Size in bytes and time of change in nanoseconds of each weight file of nano or a directory: while these stay the same,
    so does the fingerprint. Empty for any other model."""
    folder = Path(folder_of(model))
    found = ((file.name, file.stat()) for file in _files(folder)) if folder.is_dir() else ()
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found}


def _files(folder: Path) -> list[Path]:
    return sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))


def _commit(model: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json")
    return f"commit:{Path(found).parent.name}" if isinstance(found, str) else None
