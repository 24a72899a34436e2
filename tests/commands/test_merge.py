"""`cof merge`: the same logits with the adapter folded in, nothing left of what went wrong; `cof sft`, `cof rl`: pass all on."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.backends.local.processor import load_processor
from cof_agent.cli import main
from cof_agent.commands import launch, rl, sft

COF = str(Path(sys.executable).with_name("cof"))
LANGUAGE = r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
TOWER = r"model\.visual\.blocks\..*\.(qkv|attn\.proj|gate_proj|up_proj|down_proj|linear_fc1|linear_fc2)"
PROJECTORS = {
    "qwen2_5_vl": ["merger"],
    "qwen3_vl": ["merger", "deepstack_merger_list.0", "deepstack_merger_list.1"],
}
READ_BY_A_STOCK_PROCESSOR = {
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}


@dataclass(frozen=True)
class Adapted:
    base: Path
    adapter: Path
    model: Any  # the base with the adapter beside it, as it was trained


@pytest.fixture(scope="module")
def adapted(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Adapted]:
    """A checkpoint of a family with an adapter that changes its language model, its tower and its projectors."""
    made: dict[str, Adapted] = {}

    def make(family: str) -> Adapted:
        if family not in made:
            folder = tmp_path_factory.mktemp(f"adapter-{family}")
            made[family] = Adapted(checkpoint(family), folder, _adapt(checkpoint(family), folder, PROJECTORS[family]))
        return made[family]

    return make


def _adapt(base: Path, folder: Path, projectors: list[str]) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    config = LoraConfig(r=4, target_modules=f"({LANGUAGE}|{TOWER})", modules_to_save=projectors, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model.eval()


def stock(checkpoint: Path) -> Any:
    """As anybody loads it; no weight is missing or left over."""
    from transformers import AutoModelForImageTextToText

    model, found = AutoModelForImageTextToText.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(found.values()), found
    return model.eval()


def logits(model: Any, checkpoint: Path, picture: Path) -> Any:
    """Of a text with one small image."""
    import torch

    processor: Any = load_processor(str(checkpoint))
    content = [{"type": "image"}, {"type": "text", "text": "What colour is the small object?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image = Image.open(picture).resize((128, 96))
    with torch.no_grad():
        return model(**processor(images=[image], text=[text], return_tensors="pt")).logits


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_merged_checkpoint_is_the_adapted_model(
    family: str,
    adapted: Callable[[str], Adapted],
    picture: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import torch

    one, output = adapted(family), tmp_path / "deep" / "merged"
    capfd.readouterr()  # of making the adapter
    assert main(["merge", str(one.adapter), "-o", str(output)]) == 0
    shown = capfd.readouterr()
    assert shown.out == f"{output} holds the merged model: cof ask IMAGE QUESTION --model {output}\n"
    assert shown.err == ""
    expected = logits(one.model, one.base, picture)
    assert torch.allclose(logits(stock(output), output, picture), expected, atol=1e-4)
    assert not torch.allclose(logits(stock(one.base), one.base, picture), expected, atol=0.1)
    assert names(output) == names(one.base) | {"README.md"}  # of PEFT
    for name in READ_BY_A_STOCK_PROCESSOR & names(one.base):
        if name != "tokenizer_config.json":  # written anew, with where it was loaded from
            read = json.loads if name.endswith(".json") else str
            assert read((output / name).read_text()) == read((one.base / name).read_text())
    assert names(tmp_path / "deep") == {"merged"}
    assert stat.S_IMODE((output / "model.safetensors").stat().st_mode) & 0o444 == 0o444  # a server may be another user


def _older(name: str) -> str:
    """As transformers before 4.52 named it."""
    return name.replace("model.language_model.", "model.").replace("model.model.visual.", "model.visual.")


OLDER_TARGETS: dict[str, Any] = {
    "pattern": r"(model\.layers\..*|visual\.blocks\..*)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|proj)",
    "suffixes": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv", "attn.proj"],
}


@pytest.mark.parametrize("targets", OLDER_TARGETS)
def test_names_of_an_older_transformers_are_brought_up_to_date(
    targets: str, adapted: Callable[[str], Adapted], picture: Path, tmp_path: Path
) -> None:
    import torch

    one, adapter = adapted("qwen2_5_vl"), tmp_path / "adapter"
    shutil.copytree(one.adapter, adapter)
    _rewritten(adapter, lambda weights: {_older(name): value for name, value in weights.items()})
    _configured(adapter, target_modules=OLDER_TARGETS[targets])
    assert main(["merge", str(adapter), "-o", str(tmp_path / "out")]) == 0
    merged = logits(stock(tmp_path / "out"), tmp_path / "out", picture)
    assert torch.allclose(merged, logits(one.model, one.base, picture), atol=1e-4)


def test_ranks_by_older_names_are_kept(adapted: Callable[[str], Adapted], tmp_path: Path) -> None:
    """Without its rank the wider layer would not fit."""
    import torch

    adapter, layer = tmp_path / "adapter", "layers.0.self_attn.q_proj"
    shutil.copytree(adapted("qwen2_5_vl").adapter, adapter)

    def widened(weights: dict[str, Any]) -> dict[str, Any]:
        doubled = {
            name: torch.cat([value, 0 * value], dim=0 if ".lora_A." in name else 1)
            for name, value in weights.items()
            if f"language_model.{layer}." in name
        }
        assert len(doubled) == 2
        return {_older(name): value for name, value in (weights | doubled).items()}

    _rewritten(adapter, widened)
    _configured(adapter, rank_pattern={f"model.{layer}": 8}, alpha_pattern={f"model.{layer}": 16})
    assert main(["merge", str(adapter), "-o", str(tmp_path / "out")]) == 0


def test_the_type_is_the_bases_own_or_the_one_asked_for(adapted: Callable[[str], Adapted], tmp_path: Path) -> None:
    """nano has the architecture of the test checkpoint, in bfloat16."""
    from safetensors import safe_open

    adapter = str(adapted("qwen2_5_vl").adapter)
    for asked, expected in ((), "bfloat16"), (("--dtype", "float16"), "float16"):
        output = tmp_path / expected
        output.mkdir()  # an empty folder is not in the way
        assert main(["merge", adapter, "-o", str(output), "--model", "nano", *asked]) == 0
        config = json.loads((output / "config.json").read_text())
        assert [config["dtype"], config["text_config"]["dtype"], config["vision_config"]["dtype"]] == [expected] * 3
        with safe_open(output / "model.safetensors", "pt") as weights:
            assert {str(weights.get_tensor(name).dtype) for name in weights.keys()} == {f"torch.{expected}"}  # noqa: SIM118
        assert {"processor_class", "video_processor_type"} <= set(
            json.loads((output / "video_preprocessor_config.json").read_text())
        )


def test_what_was_saved_with_the_adapter_comes_along(adapted: Callable[[str], Adapted], tmp_path: Path) -> None:
    """Image sizes and template of the training, under class names that a stock loader knows; the card, with a line."""
    adapter, output = tmp_path / "adapter", tmp_path / "merged"
    shutil.copytree(adapted("qwen3_vl").adapter, adapter)
    processor: Any = load_processor(str(adapted("qwen3_vl").base))
    processor.image_processor.size = {"shortest_edge": 4096, "longest_edge": 65536}
    processor.chat_template = "{# ours #}" + processor.chat_template
    processor.save_pretrained(adapter)
    told = json.loads((adapter / "tokenizer_config.json").read_text()) | {"processor_class": "ImageOnlyProcessor"}
    (adapter / "tokenizer_config.json").write_text(json.dumps(told))
    (adapter / "README.md").write_text("---\nlibrary_name: transformers\n---\n\n# A zoom agent\n\nFor scenes.\n")
    assert main(["merge", str(adapter), "-o", str(output)]) == 0
    merged: Any = load_processor(str(output))
    assert merged.image_processor.size["longest_edge"] == 65536
    assert merged.chat_template.startswith("{# ours #}")
    assert "ImageOnlyProcessor" not in "".join(path.read_text() for path in output.glob("*.json"))
    card = (output / "README.md").read_text()
    assert card.startswith(
        "---\nlibrary_name: transformers\n---\n\nThis is the whole model: the LoRA adapter was folded"
    )
    assert card.endswith("\n\n# A zoom agent\n\nFor scenes.\n")


def test_a_tokenizer_alone_comes_along(adapted: Callable[[str], Adapted], tmp_path: Path) -> None:
    adapter, output = tmp_path / "adapter", tmp_path / "merged"
    shutil.copytree(adapted("qwen2_5_vl").adapter, adapter)
    processor: Any = load_processor(str(adapted("qwen2_5_vl").base))
    processor.tokenizer.add_tokens(["<zoomed>"])
    processor.tokenizer.save_pretrained(adapter)
    (adapter / "chat_template.jinja").write_text("{# ours #}" + processor.chat_template)
    assert main(["merge", str(adapter), "-o", str(output)]) == 0
    merged: Any = load_processor(str(output))
    assert len(merged.tokenizer.encode("<zoomed>", add_special_tokens=False)) == 1
    assert merged.chat_template.startswith("{# ours #}")


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["q_proj", "embed_tokens"], ["lm_head", "embed_tokens"]])
def test_a_tied_head_is_untied_where_either_is_adapted(
    targets: list[str], checkpoint: Callable[[str], Path], picture: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForImageTextToText

    base = shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "base")
    model = AutoModelForImageTextToText.from_pretrained(base, tie_word_embeddings=True)
    model.save_pretrained(base)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    wrapped: Any = get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    expected = logits(PeftModel.from_pretrained(stock(base), tmp_path / "adapter").eval(), base, picture)
    assert main(["merge", str(tmp_path / "adapter"), "-o", str(tmp_path / "out"), "--model", str(base)]) == 0
    assert torch.allclose(logits(stock(tmp_path / "out"), tmp_path / "out", picture), expected, atol=1e-3)


def test_rounding_down_is_done_once(adapted: Callable[[str], Adapted], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    adapter = str(adapted("qwen3_vl").adapter)
    for dtype in ("float32", "bfloat16"):
        assert main(["merge", adapter, "-o", str(tmp_path / dtype), "--dtype", dtype]) == 0
    exact = load_file(tmp_path / "float32" / "model.safetensors")
    for name, weights in load_file(tmp_path / "bfloat16" / "model.safetensors").items():
        assert torch.equal(weights, exact[name].to(torch.bfloat16))


def _rewritten(adapter: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from safetensors.torch import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def _configured(adapter: Path, **fields: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (shutil.rmtree, "there is no adapter in"),
    "no_json": (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json is damaged"),
    "kind": (lambda folder: _configured(folder, peft_type="IA3"), "no LoRA adapter but IA3"),
    "field": (lambda folder: _configured(folder, task_type="PAINT"), "adapter_config.json is damaged"),
    "no_weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "the weights of the adapter are miss",
    ),
    "cut": (lambda folder: os.truncate(folder / "adapter_model.safetensors", 5000), "cannot be merged into"),
    "no_base": (lambda folder: _configured(folder, base_model_name_or_path=None), "name it with --model"),
    "base_gone": (lambda folder: _configured(folder, base_model_name_or_path="/no/where"), "cannot read the base"),
    "rank": (lambda folder: _configured(folder, r=8), "size mismatch"),
    "fewer_layers": (
        lambda folder: _rewritten(folder, lambda weights: {k: v for k, v in weights.items() if ".layers.2." not in k}),
        "14 weights have no counterpart",
    ),
    "more_layers": (
        lambda folder: _rewritten(
            folder, lambda weights: weights | {k.replace("layers.2", "layers.9"): v.clone() for k, v in weights.items()}
        ),
        "14 weights have no counterpart",
    ),
    "not_a_number": (
        lambda folder: _rewritten(folder, lambda weights: {k: v * float("nan") for k, v in weights.items()}),
        "NaNs detected",
    ),
}


def refused(arguments: list[str], sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()  # what making the adapter said, which may have been just now
    assert main(["merge", *arguments]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("cof merge: ")
    assert shown.err.count("\n") == 1, shown.err
    assert sentence in shown.err


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_adapter_is_one_sentence_and_leaves_nothing(
    case: str, adapted: Callable[[str], Adapted], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(adapted("qwen3_vl").adapter, adapter)
    do, sentence = BROKEN[case]
    do(adapter)
    refused([str(adapter), "-o", str(tmp_path / "deep" / "out")], sentence, capfd)
    assert names(tmp_path) <= {"adapter"}


def test_a_wrong_base_or_folder_is_one_sentence(
    adapted: Callable[[str], Adapted], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, other, output = adapted("qwen2_5_vl"), adapted("qwen3_vl"), str(tmp_path / "out")
    (tmp_path / "file").write_text("here first")
    refused([str(ours.adapter), "-o", output, "--model", str(other.base)], "cannot be merged into", capfd)
    refused([str(ours.adapter), "-o", output, "--model", str(other.adapter)], "is itself an adapter", capfd)
    refused([str(ours.adapter), "-o", str(tmp_path)], "is not empty", capfd)
    refused([str(ours.adapter), "-o", str(tmp_path / "file")], "is a file", capfd)
    refused([str(ours.adapter), "-o", str(tmp_path / "file" / "out")], "cannot write", capfd)
    assert names(tmp_path) == {"file"}
    assert (tmp_path / "file").read_text() == "here first"


def test_a_full_disk_leaves_nothing(
    adapted: Callable[[str], Adapted], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter, output = str(adapted("qwen3_vl").adapter), tmp_path / "deep" / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    capfd.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        refused([adapter, "-o", str(output)], f"cannot write {output} (File too large", capfd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == set()


def test_an_interrupt_leaves_nothing(
    adapted: Callable[[str], Adapted],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    adapter = adapted("qwen3_vl").adapter
    monkeypatch.setattr(Path, "rename", interrupted)  # the last thing that is done
    capfd.readouterr()
    assert main(["merge", str(adapter), "-o", str(tmp_path / "out")]) == 130
    assert capfd.readouterr().err == "\ncof merge: interrupted; nothing was written.\n"
    assert names(tmp_path) == set()


def chosen(processes: int | None, accelerate: str | None = None, gpus: int = 0) -> list[str]:
    training = ["--config", "x", "--k", "-1"]
    options = argparse.Namespace(command="rl", processes=processes, accelerate=accelerate, training=training)
    arguments = launch.launcher_arguments("rl.train", options, gpus)
    assert arguments[-6:] == ["-m", "rl.train", *training]
    return arguments[:-6]


def test_processes_are_as_many_as_asked_for_or_as_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    assert chosen(None, gpus=4) == ["--multi_gpu", "--num_processes", "4", *plain]
    threads = ["--num_cpu_threads_per_process", "3"]
    assert chosen(2) == ["--multi_gpu", "--num_processes", "2", *plain, *threads]
    assert chosen(None, "zero3.yaml", gpus=4) == ["--config_file", "zero3.yaml"]
    assert chosen(16, "z.yaml") == ["--num_processes", "16", "--config_file", "z.yaml"]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that is run in place of the training: what it was given, and exit code 7."""
    path = tmp_path / "stand_in.py"
    # One write, so that the lines of two processes never mingle; print() under torchrun writes word by word.
    path.write_text(
        "import os, sys\nline = ' '.join([os.environ.get('RANK', '-'), *sys.argv[1:]])\n"
        "os.write(1, f'{line}\\n'.encode())\nsys.exit(7)\n"
    )
    for command in (sft, rl):
        monkeypatch.setattr(command, "MODULE", path.stem)
    (tmp_path / "a.yaml").write_text("model: nano\ndata: owner/set\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    yield path
    for number, handler in handlers.items():  # which the launcher has changed
        signal.signal(number, handler)


@pytest.mark.parametrize("arguments", [["sft"], ["sft", "--processes", "1"], ["rl"], ["rl", "--processes", "1"]])
def test_training_commands_pass_options_and_the_exit_code_on(
    arguments: list[str], stand_in: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["--config", "a.yaml", "--max-zooms", "2", "-o", "out", "--max_steps", "-1", "--report-to=none", "--quiet"]
    assert main([*arguments, *given]) == 7
    passed_on = "--config a.yaml --max_zooms 2 --output_dir out --max_steps -1 --report_to none --quiet"
    assert capfd.readouterr().out == f"- {passed_on}\n"


@pytest.mark.slow
def test_several_processes_end_with_the_exit_code_of_the_first_that_failed(
    stand_in: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", "--processes", "2", "--config", "a.yaml"]) == 7
    shown = capfd.readouterr()
    assert set(shown.out.splitlines()) <= {"0 --config a.yaml", "1 --config a.yaml"}
    assert shown.err == ""


@pytest.mark.slow
def test_a_process_that_was_killed_is_named(stand_in: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert main(["rl", "--processes", "2", "--config", "a.yaml"]) == 128 + signal.SIGKILL
    assert capfd.readouterr().err in {
        f"cof rl: process {rank} of the training was ended by SIGKILL.\n" for rank in "01"
    }


def interrupted(arguments: list[str], started: list[Path]) -> int:
    """The exit code of `cof`, which is interrupted as soon as these files are there."""

    def interrupt() -> None:
        while not all(path.exists() for path in started):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    return main(arguments)


WAITING = """
import os, time
started = 'started' + os.environ.get('RANK', '')
open(started + '.part', 'w').write(str(os.getpid()))
os.rename(started + '.part', started)
time.sleep(600)
"""


@pytest.mark.parametrize("command", ["sft", "rl"])
def test_an_interrupt_is_one_sentence(command: str, stand_in: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in.write_text(WAITING)
    assert interrupted([command, "--config", "a.yaml"], [stand_in.with_name("started")]) == 130
    said = f"\ncof {command}: interrupted; the same command goes on from the last whole checkpoint.\n"
    assert capfd.readouterr().err == said


@pytest.mark.slow
def test_an_interrupt_ends_several_processes_too(stand_in: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in.write_text(WAITING)
    started = [stand_in.with_name(f"started{rank}") for rank in (0, 1)]
    assert interrupted(["sft", "--processes", "2", "--config", "a.yaml"], started) == 130
    said = "\ncof sft: interrupted; the same command goes on from the last whole checkpoint.\n"
    assert capfd.readouterr().err == said
    for path in started:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


@pytest.mark.parametrize("command", ["sft", "rl"])
def test_training_commands_say_what_is_missing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--accelerate", str(tmp_path / "none.yaml")]) == 2
    assert "there is no file" in capfd.readouterr().err
    monkeypatch.setattr(launch, "NEEDED", ("peft", "no_such_package"))
    assert main([command]) == 2
    assert "(no_such_package): pip install 'no_such_package'." in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("command", "processes"), [("sft", "2"), ("rl", "1")])
def test_a_wrong_value_is_one_sentence_of_the_training(command: str, processes: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model_name_or_path: nano\ndata: curriculum\nsamples: 8\nuse_cpu: true\nbf16: false\n")
    arguments = [COF, command, "--processes", processes, "--config", str(config), "--learning-rate", "fast"]
    found = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    (said,) = found.stderr.splitlines()  # before any process of the training is started
    assert said == f"cof {command}: --learning_rate must be a number, not 'fast'."
