"""What a served model is: by its checkpoint's files, by the server's list of models, by its name, or else refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.backends.chat import connect
from cof_agent.backends.chat.identity import identify
from cof_agent.backends.families import QWEN2_5_VL, QWEN3_VL
from cof_agent.cli import main
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.protocol import dialects
from cof_agent.protocol.dialects import record
from tests import loopback
from tests.dialects import spoken
from tests.loopback import saying
from tests.ports import free_port


def checkpoint(folder: Path, model_type: str = "qwen2_5_vl", **limits: Any) -> Path:
    """The files of a checkpoint that say what it is."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vision_config": {"patch_size": 12}}))
    if limits:
        (folder / "preprocessor_config.json").write_text(json.dumps(limits))
    return folder


@contextmanager
def listing(reply: Any, status: int = 200) -> Iterator[str]:
    """A server that tells this of its models, and answers every question."""
    answer = saying("<think>I see.</think>\n<answer>red</answer>")
    with loopback.serving(lambda path, body: (status, reply) if body is None else answer) as (url, _):
        yield f"{url}/v1"


def entries(*models: Mapping[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(models)}


def test_files_beside_the_checkpoint_come_first(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "Qwen3-VL-by-name", min_pixels=576, max_pixels=57_600)
    found = identify(str(folder))
    assert found.vision is not None and found.own == (576, 57_600)
    assert (found.vision.coordinates, found.vision.grid) == (CoordinateSystem.ABSOLUTE, 24)
    nested = checkpoint(tmp_path / "nested", "qwen3_vl")
    size = {"shortest_edge": 1024, "longest_edge": 4096}
    small = {"model_type": "qwen3_vl", "text_config": {"vocab_size": 900}}
    (nested / "config.json").write_text(json.dumps(small))
    (nested / "processor_config.json").write_text(json.dumps({"image_processor": {"size": size}}))
    assert (identify(str(nested)).own, identify(str(nested)).phrases, found.phrases) == ((1024, 4096), True, False)


def test_an_adapter_is_what_its_base_is(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", "qwen3_vl")
    for name in (str(base), "Qwen/Qwen3-VL-8B-Instruct"):
        adapter = tmp_path / f"adapter-{len(name)}"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
        vision = identify(str(adapter)).vision
        assert vision is not None and vision.coordinates is QWEN3_VL.vision.coordinates


def test_the_server_s_list(tmp_path: Path) -> None:
    folder = str(checkpoint(tmp_path / "zoom-7b"))
    by_root: list[dict[str, Any]] = [{"id": "zoom", "root": folder}, {"id": "other", "root": "Qwen/Qwen3-VL-8B"}]
    adapter = [{"id": "lora", "root": "/not/here", "parent": "base"}, {"id": "base", "root": "Qwen/Qwen3-VL-8B"}]
    for model, listed, coordinates in (
        ("zoom", by_root, CoordinateSystem.ABSOLUTE),
        ("other", by_root, CoordinateSystem.THOUSAND),
        ("default", by_root[:1], CoordinateSystem.ABSOLUTE),
        ("lora", adapter, CoordinateSystem.THOUSAND),
        ("Qwen2.5-VL-7B", [{"id": "Qwen2.5-VL-7B", "root": "acme/thing"}], CoordinateSystem.ABSOLUTE),
    ):
        vision = identify(model, listed).vision
        assert vision is not None and vision.coordinates is coordinates, model
    nothing: list[list[dict[str, Any]]] = [
        by_root,
        [],
        [{"id": 5, "root": None}],
        [{"root": "\0"}],
        [{"id": "x", "parent": "x"}],
    ]
    for listed in nothing:
        assert identify("default", listed).vision is None


def test_names_of_published_checkpoints() -> None:
    for name, family in (
        ("xintongzhang/Chain-of-Focus-7B", QWEN2_5_VL),
        ("Mini-o3-7B-v1", QWEN2_5_VL),
        ("TIGER-Lab/PixelReasoner-RL-v1", QWEN2_5_VL),
        ("sensenova/SenseNova-MARS-8B", QWEN3_VL),
    ):
        assert identify(name).vision == family.vision


def test_whatever_the_list_is_an_unknown_model_is_refused_in_a_sentence() -> None:
    lists: list[Any] = [b"", b"[" * 100_000, [], {"data": "x"}, {"data": [5, None]}, entries({"id": "mystery"})]
    for reply in lists:
        with (
            listing(reply) as url,
            pytest.raises(InputError, match=r"boxes of mystery at http.* --coordinates: absolute"),
        ):
            connect("mystery", base_url=url)
    with listing(entries({"id": "mystery", "root": "Qwen/Qwen3-VL-8B"}), status=500) as url:
        with pytest.raises(InputError, match="--coordinates"):
            connect("mystery", base_url=url)
        assert connect("mystery", base_url=url, coordinates=CoordinateSystem.UNIT).coordinates is CoordinateSystem.UNIT
        assert connect("mystery", base_url=url, boxes=False).limits.grid == 28
    with pytest.raises(InputError, match="--coordinates"):
        connect("mystery", base_url=f"http://127.0.0.1:{free_port()}/v1")


def test_the_agent_speaks_the_dialect_that_is_recorded_where_the_server_says(tmp_path: Path) -> None:
    image = tmp_path / "red.png"
    Image.new("RGB", (84, 56), "red").save(image)
    folder = checkpoint(tmp_path / "zoom-7b")
    record(spoken("deepeyes"), folder)
    with listing(entries({"id": "zoom", "root": str(folder)})) as url:
        found = Agent("zoom", base_url=url).ask(image, "Which colour?")
        assert (found.answer, found.dialect) == ("red", "deepeyes")
        assert Agent("zoom", base_url=url, dialect=dialects.OURS).ask(image, "?").dialect == "ours"
        with pytest.raises(InputError, match="writes turns in our own dialect"):
            Agent("zoom", base_url=url, strategy="grid")


def test_a_dialect_that_states_what_boxes_mean_asks_for_no_coordinates(tmp_path: Path) -> None:
    path = tmp_path / "deepeyes.yaml"
    path.write_text(dialects.to_yaml(spoken("deepeyes")))
    with listing(entries({"id": "mystery"})) as url:
        assert Agent("mystery", base_url=url, dialect=str(path)).policy.coordinates is CoordinateSystem.SOURCE


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "red.png"
    Image.new("RGB", (84, 56), "red").save(image)
    with listing(entries({"id": "mystery"})) as url:
        given = ["ask", str(image), "Which colour?", "--model", "openai:mystery", "--base-url", url]
        assert main(given) == 2
        assert "--coordinates" in capsys.readouterr().err
        assert main([*given, "--coordinates", "thousand"]) == 0
