"""What the name of a model means, and what is refused before anything is loaded."""

from __future__ import annotations

import gc
import shutil
import time
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cof_agent import Agent
from cof_agent.backends.checkpoint import load
from cof_agent.backends.fingerprint import fingerprint, weight_files
from cof_agent.backends.load import check, is_served, split_spec
from cof_agent.backends.local.batching import IDLE
from cof_agent.backends.names import folder_of
from cof_agent.backends.scenes_only import warning_of
from cof_agent.cli import main
from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.nano import WEIGHTS
from cof_agent.output.origin import differences
from cof_agent.trajectory import Sample


def test_a_checkpoint_in_vllm_is_a_local_one(tmp_path: Path) -> None:
    (tmp_path / "dialect.yaml").write_text("name: mine\nend: {zooms: 3}\n")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert AgentConfig(f"vllm:{tmp_path}").zooms == 3
    assert fingerprint(f"vllm:{tmp_path}") == fingerprint(str(tmp_path)) is not None
    assert weight_files(f"vllm:{tmp_path}") == weight_files(str(tmp_path)) != {}
    assert folder_of("vllm:nano") == folder_of("nano") == str(WEIGHTS)
    assert not is_served("vllm:nano") and is_served("openai:vllm")
    assert split_spec("vllm:a/b") == (None, "vllm:a/b")
    assert warning_of("vllm:nano", Sample("1", "photo.jpg", "What?")) == warning_of(
        "nano", Sample("1", "photo.jpg", "What?")
    )


def test_a_folder_without_a_checkpoint_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no checkpoint: it has no config.json\.$"):
        check(str(tmp_path))
    for step in (50, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(InputError, match="the newest inside is .*checkpoint-100"):
        check(f"{tmp_path}")


def test_runs_that_were_made_before_vllm_had_options_go_on() -> None:
    assert differences({"model": "nano"}, {"model": "nano", "vllm_options": AgentConfig().vllm_options}) == ""
    assert "vllm_options" in differences({"model": "x"}, {"model": "x", "vllm_options": ("dtype=float32",)})


def test_what_is_for_another_kind_of_model_is_refused() -> None:
    refused: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("vllm:nano", {"base_url": "http://localhost:1/v1"}, "vllm:nano runs in this process"),
        ("vllm:nano", {"device": "cuda:1"}, "--device is for a model that transformers runs; vLLM has --vllm-options"),
        ("vllm:nano", {"attn": "sdpa"}, "--attn is for a model that transformers runs"),
        (
            "nano",
            {"vllm_options": ("max-num-seqs=8",)},
            "--vllm-options is for a model that runs in vLLM: --model vllm:nano",
        ),
        (
            "nano",
            {"device": "auto"},
            "--device names one device.*--model vllm:nano --vllm-options tensor-parallel-size=N",
        ),
        ("openai:x", {"dtype": "float32"}, "--dtype is for local models"),
        ("nano", {"coordinates": "unit"}, "--coordinates is for served models"),
    )
    for model, given, words in refused:
        with pytest.raises(InputError, match=words):
            check(model, **given)


def test_a_strategy_that_looks_inside_a_model_is_refused_in_vllm() -> None:
    with pytest.raises(InputError, match="coroi reads features inside the model, which vLLM does not tell; name nano"):
        Agent("vllm:nano", strategy="coroi")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_that_is_not_installed_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "samples.jsonl").write_text('{"image": "a.png", "question": "What?"}\n')
    assert main(["eval", "--data", str(tmp_path), "-o", str(tmp_path / "out"), "--model", "vllm:nano"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("cof eval: vllm:nano needs the package vllm: pip install 'vllm")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_lacks_weights_is_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "part")
    held = load_file(folder / "model.safetensors")
    save_file(
        {name: one for name, one in held.items() if "visual" not in name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(InputError, match="part is not whole: .* weights are missing, such as .*visual"):
        load(folder)


def test_what_a_checkpoint_does_not_say_is_one_sentence(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "untold")
    for template in folder.glob("chat_template*"):
        template.unlink()
    with pytest.raises(InputError, match="untold: .*chat template"):
        load(folder)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="is an adapter; fold it into its model first: cof merge"):
        load(adapter)


def test_a_model_that_is_not_used_any_more_is_freed(checkpoint: Callable[[str], Path], picture: Path) -> None:
    agent = Agent(str(checkpoint("qwen2_5_vl")), max_tokens=4)
    agent.ask(str(picture), "What?")
    model = weakref.ref(agent.policy.model)  # type: ignore[attr-defined]
    del agent
    ends = time.monotonic() + 10 * IDLE
    while time.monotonic() < ends and model() is not None:
        gc.collect()
        time.sleep(0.1)
    assert model() is None
