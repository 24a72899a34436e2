"""What looks like a place on this machine is not looked for on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from cof_agent.agent import Agent
from cof_agent.data.samples import read_samples
from cof_agent.data.spec import is_local
from cof_agent.errors import InputError


def test_places_and_names_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    for place in ("outputs", "outputs/typo", "./x", "../x", "/x", "~/x", "x.jsonl", "owner/rows.Parquet"):
        assert is_local(place), place
    for name in ("owner/set", "Qwen/Qwen2.5-VL-7B-Instruct", "nano", "curriculum", ""):
        assert not is_local(name), name


def test_the_hub_is_not_asked_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refused(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    with pytest.raises(InputError, match="there is no model directory outputs/typo"):
        Agent("outputs/typo")
    with pytest.raises(InputError, match="there is no file or folder outputs/typo"):
        read_samples("outputs/typo")
