"""RL on vLLM servers whose trainer or server is killed: the run goes on, with the same samples and the right weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.vllm.server import Process, running
from tests.vllm.training import RUN, assert_same_policy, logged, played, told, train, training, until, words


def test_a_server_that_dies_and_comes_back_costs_nothing_but_time(questions: Path, tmp_path: Path) -> None:
    ports, log = [free_port(), free_port()], tmp_path / "log.txt"
    run = RUN | {"vllm_mode": "server", "vllm_group_port": free_port(), "data": questions, "max_steps": 100}
    run |= {"output_dir": tmp_path / "run", "save_steps": 100, "learning_rate": 2e-4}
    serve = [[sys.executable, "-m", "rl.serve", *words(run | {"vllm_server_port": port})] for port in ports]
    servers = [Process(command, port, tmp_path / f"{port}.txt") for command, port in zip(serve, ports, strict=True)]
    trainer = None
    try:
        for server in servers:
            server.wait()
        trainer = training(run | {"vllm_server_hosts": " ".join(f"127.0.0.1:{port}" for port in ports)}, log)
        until(lambda: len(played(run)) > 8, log)
        servers[0].kill()
        servers[0] = Process(serve[0], ports[0], tmp_path / f"{ports[0]}.txt")
        until(lambda: f":{ports[0]} is left out" in log.read_text(), log)
        until(lambda: f":{ports[0]} is there" in log.read_text(), log)
        after = len(told(log)) + 2
        until(lambda: len(told(log)) > after, log)
    finally:
        for server in servers:
            server.kill()
        if trainer is not None:
            trainer.kill()
    assert_same_policy(told(log))
    steps = [one.step for one in played(run)]
    assert steps == [step for step in range(len(steps) // 8) for _ in range(8)]


def batches(run: dict[str, Any]) -> list[tuple[int | None, str]]:
    return [(one.step, one.sample.id) for one in played(run)]


def test_a_step_ahead_survives_the_trainer(scenes: Path, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log.txt"
    run = RUN | {"vllm_mode": "server", "vllm_group_port": free_port(), "data": scenes, "learning_rate": 2e-4}
    run |= {"vllm_server_port": port, "vllm_server_host": "127.0.0.1", "max_steps": 5, "save_steps": 1}
    ahead, plain = (run | {"ahead": number, "output_dir": tmp_path / str(number)} for number in (1, 0))
    with running([sys.executable, "-m", "rl.serve", *words(run)], port, tmp_path / "server.txt"):
        first = training(ahead, log)
        until(lambda: (tmp_path / "1" / "checkpoint-2" / "trainer_state.json").exists(), log)
        first.kill()
        first.wait()
        steps = train(ahead, log)
        train(plain, tmp_path / "plain.txt")
    assert batches(ahead) == batches(plain)
    assert_same_policy(logged(plain))
    stale = [step["ahead/staleness"] for step in steps]
    assert set(stale) == {0, 1}
    assert stale[0] == stale[4] == 0  # the first of an epoch
    assert stale.count(0) <= 3  # and the one after the kill
    for step in steps:
        assert (step["sampling/sampling_logp_difference/max"] < 1e-3) == (step["ahead/staleness"] == 0)
        assert step["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=0.3)
