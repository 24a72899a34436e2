"""RL of a few steps with vLLM as sampler: after each update both sides give the same log-probabilities."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.vllm.server import running
from tests.vllm.training import RUN, STEPS, assert_same_policy, played, train, words

PROJECTOR = {"freeze_vision": "true", "freeze_projector": "false"}
LORA = {"use_peft": "true", "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
SENDING = "POST /start_weight_update"  # in the server's log, once for each time that weights are sent


@pytest.fixture(scope="module")
def served(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Path]]:
    """A run whose server is there, and the server's log."""
    port, folder = free_port(), tmp_path_factory.mktemp("served")
    run = RUN | PROJECTOR | {"vllm_mode": "server", "vllm_group_port": free_port(), "data": questions}
    serve = [sys.executable, "-m", "rl.serve", *words(run | {"vllm_server_port": port, "output_dir": folder})]
    with running(serve, port, folder / "server.txt") as url:
        yield run | {"vllm_server_base_url": url}, folder / "server.txt"


@pytest.fixture(scope="module")
def alone(
    served: tuple[dict[str, Any], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """That run by one process, and what was logged of its steps."""
    folder = tmp_path_factory.mktemp("alone")
    run = served[0] | {"output_dir": folder / "run"}
    return run, train(run, folder / "log.txt")


def assert_trained(run: dict[str, Any], steps: list[dict[str, float]]) -> None:
    assert_same_policy(steps)
    assert len(steps) == STEPS
    assert any(step["grad_norm"] > 0 for step in steps[:-1])  # so that there were new weights to send
    assert max(one.zooms for one in played(run)) > 0


@pytest.mark.parametrize("weights", [PROJECTOR, LORA], ids=["projector", "lora"])
def test_a_colocated_sampler_and_the_trainer_agree_after_each_update(
    weights: dict[str, Any], questions: Path, tmp_path: Path
) -> None:
    run = RUN | weights | {"vllm_mode": "colocate", "data": questions, "output_dir": tmp_path / "run"}
    assert_trained(run, train(run, tmp_path / "log.txt"))


def test_a_server_and_the_trainer_agree_after_each_update(
    alone: tuple[dict[str, Any], list[dict[str, float]]],
) -> None:
    assert_trained(*alone)


def test_two_processes_play_what_one_plays(
    served: tuple[dict[str, Any], Path], alone: tuple[dict[str, Any], list[dict[str, float]]], tmp_path: Path
) -> None:
    """Each asks the server for its own half, and the weights are sent once for both."""
    sent = served[1].read_text().count(SENDING)
    run = served[0] | {"per_device_train_batch_size": 4, "output_dir": tmp_path / "run"}
    assert_trained(run, train(run, tmp_path / "log.txt", processes=2))
    assert served[1].read_text().count(SENDING) - sent == STEPS
    together, single = played(run), played(alone[0])
    assert [(one.step, one.sample.id) for one in together] == [(one.step, one.sample.id) for one in single]
    # Later weights are those of one process but for rounding.
    first = [[turn.text for turn in one.turns] for one in together if one.step == 0]
    assert first == [[turn.text for turn in one.turns] for one in single if one.step == 0]
