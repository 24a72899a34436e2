"""Questions about regions in rounds: one conversation an image, and what counts as right."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cof_agent import protocol
from cof_agent.cli import main
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box
from cof_agent.policy import ScriptedPolicy
from cof_agent.trajectory import Sample

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import region_rounds


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """All questions about one picture."""
    folder = tmp_path_factory.mktemp("regions")
    assert main(["regions", "drawn", "-o", str(folder), "--samples", "1", "--seed", "5"]) == 0
    return read_samples(folder)


def test_a_conversation_shows_the_image_once_and_what_was_said(samples: list[Sample]) -> None:
    seen: list[Sequence[protocol.Message]] = []
    replies = [
        protocol.write_answer("Seen.", samples[0].answers[0]),
        protocol.write_answer("Seen.", "nothing of the kind"),
        protocol.write_zoom("A look.", Box(0, 0, 50, 50)),
    ]

    def script(messages: Sequence[protocol.Message]) -> str:
        seen.append(list(messages))
        return replies[len(seen) - 1]

    scored = asyncio.run(region_rounds.converse(ScriptedPolicy(script), ZoomEnvironment(), samples[:3]))
    assert [right for *_, right in scored] == [True, False, False]
    assert [number for number, *_ in scored] == ["round 1", "round 2", "round 3"]
    parts = [part for message in seen[-1] for part in message["content"]]
    assert [part["type"] for part in parts].count("image") == 1
    said = [part["text"] for part in parts if part["type"] == "text"]
    assert replies[0] in said and replies[1] in said
    assert [message["role"] for message in seen[-1]] == ["system", "user", "assistant", "user", "assistant", "user"]


def test_the_table_has_rounds_and_categories() -> None:
    lines = region_rounds.table([("round 1", "which", True), ("round 2", "which", False)])
    assert lines[2].startswith("| round 1 | 1 | 1.000 (") and lines[-1].startswith("| all | 2 | 0.500 (")


def test_what_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert region_rounds.main(["--data", str(tmp_path / "none"), "--model", "nano"]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
