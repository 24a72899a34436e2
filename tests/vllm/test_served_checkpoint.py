"""What `cof merge` writes gives the same figures on a server as in this process, with no word about what its boxes mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.merged import evaluated, merged
from tests.ports import free_port
from tests.vllm.server import VLLM, running

FLOAT32 = ("--host", "127.0.0.1", "--dtype", "float32")


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merged(scenes, tmp_path_factory.mktemp("merged"))


@pytest.fixture(scope="module")
def here(scenes: Path, whole: Path) -> tuple[Any, list[Any]]:
    summary, records = evaluated(scenes, whole.parent / "here", "--model", str(whole))
    assert {record["dialect"] for record in records} == {"wide"}
    assert max(len(record["turns"]) for record in records) > 1
    return summary, records


def test_vllm_serve(scenes: Path, whole: Path, here: tuple[Any, list[Any]], tmp_path: Path) -> None:
    """By another name: the server says where the checkpoint lies."""
    port = free_port()
    options = ["--served-model-name", "mine", "--enforce-eager", "--max-model-len", "8192", "--max-num-seqs", "8"]
    command = [*VLLM, "serve", str(whole), "--port", str(port), *FLOAT32, *options]
    with running(command, port, tmp_path / "log.txt") as url:
        assert evaluated(scenes, tmp_path / "there", "--model", "openai:mine", "--base-url", f"{url}/v1") == here


def test_transformers_serve(scenes: Path, whole: Path, here: tuple[Any, list[Any]], tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tests.vllm.transformers_serve", str(whole), "--port", str(port), *FLOAT32]
    with running([*command, "--device", "cpu"], port, tmp_path / "log.txt") as url:
        assert evaluated(scenes, tmp_path / "there", "--model", f"openai:{whole}", "--base-url", f"{url}/v1") == here
