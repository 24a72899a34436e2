"""Collecting many trajectories: resumption, shards, a served teacher with faults, exports, and the command."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent import scoring
from cof_agent.cli import main
from cof_agent.config import in_dialect
from cof_agent.data.export import EXPORTS, LLAMA_FACTORY_PIXELS, MARKS, conversation, to_parquet, to_sharegpt
from cof_agent.data.shards import Shard
from cof_agent.environment import ZoomEnvironment, ZoomSettings, settings_of
from cof_agent.episodes import Episode, drawn
from cof_agent.errors import InputError
from cof_agent.geometry import Box, PixelLimits
from cof_agent.teacher.accept import Refusal, refusal
from cof_agent.teacher.collect import collect, refused_unseen
from cof_agent.teacher.graph import Search
from cof_agent.trajectory import Sample, Trajectory, Zoom, read_jsonl, to_json
from tests import dialects
from tests.loopback import serving
from tests.scripted_teacher import MODEL, Server
from tests.teacher.players import LIMITS, SETTINGS, Reader, cast

RESOLUTIONS = (224, 448)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    """A dozen pictures with a red patch each, and two questions that cannot be collected from."""
    folder, rng = tmp_path_factory.mktemp("pictures"), random.Random(3)
    made = []
    for number in range(12):
        side = rng.randint(20, 160)
        x, y = rng.randint(0, 1280 - side), rng.randint(0, 720 - side)
        image = Image.new("RGB", (1280, 720), (30, 90, 60))
        image.paste((230, 20, 20), (x, y, x + side, y + side))
        path = folder / f"{number}.png"
        image.save(path)
        made.append(
            Sample(
                f"p{number}",
                str(path),
                f"What colour is patch {number}?",
                ("red",),
                boxes=(Box(x, y, x + side, y + side),),
            )
        )
    made.append(replace(made[0], id="again", question="what colour is patch 0"))
    made.append(replace(made[1], id="unknown", question="What else?", answers=()))
    return drawn(made, RESOLUTIONS, 0)


def gather(samples: list[Episode], output: Path, **given: Any) -> dict[str, Any]:
    search = Search(cast(Reader()), SETTINGS)
    return asyncio.run(collect(samples, search, output, progress=False, **given))


def written(output: Path) -> dict[str, bytes]:
    names = ("trajectories.jsonl", "rejected.jsonl", "summary.json")
    return {name: (output / name).read_bytes() for name in names}


def kept(output: Path) -> list[Trajectory]:
    return list(read_jsonl(output / "trajectories.jsonl", Trajectory))


def test_what_is_kept_and_what_is_not(samples: list[Episode], tmp_path: Path) -> None:
    summary = gather(samples, tmp_path)
    assert (summary["n"], summary["kept"], summary["left"]) == (14, 12, 0)
    assert summary["rejections"] == {"duplicate": 1, "no_truth": 1}
    assert summary["by_resolution"]["224"]["mean_zooms"] > summary["by_resolution"]["448"]["mean_zooms"]
    assert summary["cost"]["calls"] > 12
    for trajectory in kept(tmp_path):
        assert refusal(trajectory, ZoomEnvironment(settings_of(trajectory))) is None


@pytest.mark.parametrize("name", ["chain-of-focus", "mini-o3", "qwen3-zoom"])
def test_another_dialect(name: str, samples: list[Episode], tmp_path: Path) -> None:
    dialect = dialects.spoken(name)
    settings = in_dialect(replace(SETTINGS, system=dialect.coordinates or SETTINGS.system), dialect)
    settings = replace(settings, limits=LIMITS)
    search = Search(cast(Reader()), settings, dialect=dialect)
    summary = asyncio.run(collect(samples[:4], search, tmp_path, progress=False))
    assert summary["kept"] == 4 and sum(one.zooms for one in kept(tmp_path)) >= 2
    for trajectory in kept(tmp_path):
        assert trajectory.dialect == name and scoring.well_formed(trajectory)
        assert refusal(trajectory, ZoomEnvironment(settings_of(trajectory)), dialect) is None
        assert all(
            action.image == 0 for turn in trajectory.turns for action in turn.actions if isinstance(action, Zoom)
        )


def test_the_same_whatever_the_concurrency(samples: list[Episode], tmp_path: Path) -> None:
    for concurrency in (1, 5):
        gather(samples, tmp_path / str(concurrency), concurrency=concurrency)
    assert written(tmp_path / "1") == written(tmp_path / "5")


def test_shards_make_the_whole(samples: list[Episode], tmp_path: Path) -> None:
    gather(samples, tmp_path / "whole")
    left = [gather(samples, tmp_path / "parts", shard=Shard(number, 3))["left"] for number in (2, 3, 1)]
    assert left == [8, 4, 0]
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_a_run_is_completed_and_not_repeated(samples: list[Episode], tmp_path: Path) -> None:
    gather(samples, tmp_path / "whole")
    gather(samples, tmp_path / "cut")
    path = Shard().path(tmp_path / "cut")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:40])
    (tmp_path / "cut" / "trajectories.jsonl").unlink()
    gather(samples, tmp_path / "cut")
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_another_way_of_collecting_is_refused(samples: list[Episode], tmp_path: Path) -> None:
    gather(samples, tmp_path)
    with pytest.raises(InputError, match="attempts was 4 and is now 2; use another folder"):
        asyncio.run(collect(samples, Search(cast(Reader()), SETTINGS, attempts=2), tmp_path, progress=False))


def test_a_refused_command_leaves_all_as_it_is(samples: list[Episode], tmp_path: Path) -> None:
    gather(samples, tmp_path)
    before = written(tmp_path)
    other = replace(samples[0], sample=replace(samples[0].sample, question="What is beside patch 0?"))
    with pytest.raises(InputError, match="questions was .* and is now .*; use another folder"):
        gather([other, *samples[1:]], tmp_path)
    with pytest.raises(InputError, match="shard-0001-of-0001.jsonl, which is none of 2 parts"):
        gather(samples, tmp_path, shard=Shard(1, 2))
    assert written(tmp_path) == before


def test_pictures_may_move(samples: list[Episode], tmp_path: Path) -> None:
    gather(samples[:4], tmp_path / "out")
    moved = [
        replace(one, sample=one.sample.with_images([shutil.copy(one.sample.image, str(tmp_path))]))
        for one in samples[:4]
    ]
    assert gather(moved, tmp_path / "out")["left"] == 0
    assert {Path(one.sample.image).parent for one in kept(tmp_path / "out")} == {tmp_path}


def test_questions_that_only_look_alike_are_asked(samples: list[Episode]) -> None:
    first = replace(samples[0].sample, question="What is <region1>?", regions=(Box(0, 0, 50, 50),))
    asked = [
        first,
        replace(first, id="region", regions=(Box(50, 50, 99, 99),)),
        replace(first, id="choices", choices=("red", "blue")),
        replace(first, id="again", question="what is <region1>"),
        replace(first, id="box", metadata={"scoring": "iou"}),
    ]
    refused = refused_unseen([Episode(one) for one in asked])
    assert {id: reason for id, (reason, _) in refused.items()} == {"again": Refusal.DUPLICATE, "box": Refusal.BOX}


def test_a_first_look_is_not_said_to_add_nothing(samples: list[Episode], tmp_path: Path) -> None:
    blind = Search(cast(Reader(least=10**9)), SETTINGS, attempts=1)
    asyncio.run(collect(samples[:3], blind, tmp_path, progress=False))
    rejected = list(read_jsonl(tmp_path / "rejected.jsonl", Trajectory))
    looked = [seen for one in rejected for turn in one.turns for seen in turn.observations]
    assert looked and not [seen.note for seen in looked if seen.note]


def test_exports(samples: list[Episode], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    gather(samples, tmp_path)
    assert to_parquet(kept(tmp_path), tmp_path / "train.parquet") == 12
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train")
    rows_written, left_out = to_sharegpt(kept(tmp_path), tmp_path / "sharegpt")
    shared = json.loads((tmp_path / "sharegpt" / "sharegpt.json").read_text())
    assert (rows_written, left_out, len(shared)) == (12, [], 12)
    for row, flat, trajectory in zip(rows, shared, kept(tmp_path), strict=True):
        messages, pngs = conversation(trajectory, ZoomEnvironment())
        assert [message["role"] for message in row["messages"]] == [message["role"] for message in messages]
        shown = [(view.shown_size.width, view.shown_size.height) for view in trajectory.views]
        assert [image.size for image in row["images"]] == shown
        assert "".join(turn["value"] for turn in flat["conversations"]).count("<image>") == len(pngs)
        assert [(tmp_path / "sharegpt" / name).read_bytes() for name in flat["images"]] == pngs
        assert flat["conversations"][-1] == {"from": "gpt", "value": trajectory.turns[-1].text}


def test_a_question_with_the_mark_of_an_image_is_left_out(samples: list[Episode], tmp_path: Path) -> None:
    for mark in MARKS:
        asked = replace(samples[0], sample=replace(samples[0].sample, question=f"What is in {mark}?"))
        gather([asked], tmp_path / mark)
        assert to_sharegpt(kept(tmp_path / mark), tmp_path / "sharegpt") == (0, ["p0"])


def test_llama_factory_is_told_how_large_images_are(samples: list[Episode], tmp_path: Path) -> None:
    search = Search(cast(Reader()), ZoomSettings(limits=PixelLimits(28, 56 * 56, 1280 * 720, 224 * 224)))
    asyncio.run(collect([replace(one, resolution=None) for one in samples[:2]], search, tmp_path, progress=False))
    area = max(view.shown_size.area for one in kept(tmp_path) for view in one.views)
    assert area > LLAMA_FACTORY_PIXELS
    assert f"Set image_max_pixels: {area} in LLaMA-Factory" in EXPORTS["sharegpt"](kept(tmp_path), tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(faults=True)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def folder_of(samples: list[Episode], path: Path) -> Path:
    path.mkdir()
    (path / "samples.jsonl").write_text("".join(to_json(one.sample) + "\n" for one in samples))
    return path


def command(data: Path, output: Path, url: str, *more: str) -> list[str]:
    roles = ["--teacher", f"openai:{MODEL}", "--base-url", url, "--timeout", "1", "--resolutions", "224,448"]
    return ["collect", "--data", str(data), "-o", str(output), *roles, *more]


@pytest.mark.slow
def test_a_served_teacher_with_every_fault(
    samples: list[Episode], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*samples, replace(samples[2], sample=replace(samples[2].sample, id="no", question="Is it forbidden?"))]
    data = folder_of(asked, tmp_path / "data")
    assert main(command(data, tmp_path / "faults", server.url)) == 0
    summary = json.loads((tmp_path / "faults" / "summary.json").read_text())
    assert summary["rejections"] == {"duplicate": 1, "no_truth": 1, "policy": 1}
    assert "content policy" in (tmp_path / "faults" / "rejected.jsonl").read_text()
    assert {trajectory.answer for trajectory in kept(tmp_path / "faults")} == {"red"}
    assert max(server.seen.values()) > 1, "no fault was met"
    # No fault leaves a mark on what is kept.
    server.faults = False
    assert main(command(data, tmp_path / "calm", server.url, "--concurrency", "3")) == 0
    assert (tmp_path / "calm" / "trajectories.jsonl").read_bytes() == (
        tmp_path / "faults" / "trajectories.jsonl"
    ).read_bytes()
    assert "12 of 15 samples became trajectories" in capsys.readouterr().out


@pytest.mark.slow
def test_a_server_that_is_gone_and_comes_back(samples: list[Episode], tmp_path: Path) -> None:
    data = folder_of(samples[:3], tmp_path / "data")
    assert main(command(data, tmp_path / "out", "http://127.0.0.1:9/v1", "--retry-seconds", "0")) == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["rejections"] == {"policy": 3}
    calm = Server()
    threading.Thread(target=calm.serve_forever, daemon=True).start()
    assert main(command(data, tmp_path / "out", calm.url)) == 0
    calm.shutdown()
    assert len(kept(tmp_path / "out")) == 3


@pytest.mark.slow
def test_killed_six_times(samples: list[Episode], tmp_path: Path) -> None:
    """The finished set is that of an undisturbed run."""
    slow = Server(latency=0.05)
    threading.Thread(target=slow.serve_forever, daemon=True).start()
    data = folder_of(samples, tmp_path / "data")
    assert main(command(data, tmp_path / "calm", slow.url)) == 0
    rng = random.Random(5)
    whole = [sys.executable, "-m", "cof_agent.cli", *command(data, tmp_path / "killed", slow.url, "--concurrency", "2")]
    path = Shard().path(tmp_path / "killed")
    for _ in range(6):
        process = subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, deadline = path.stat().st_size if path.exists() else 0, time.monotonic() + 30
        # Somewhere between the first request of the run and a little after its first new line.
        while time.monotonic() < deadline and process.poll() is None:
            if path.exists() and (path.stat().st_size > before or rng.random() < 0.02):
                break
            time.sleep(0.02)
        time.sleep(rng.random() * 0.1)
        process.send_signal(rng.choice((signal.SIGKILL, signal.SIGINT)))
        process.wait(30)
    assert subprocess.run(whole, capture_output=True).returncode == 0
    slow.shutdown()
    assert written(tmp_path / "killed") == written(tmp_path / "calm")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--resolutions", "big"], "argument --resolutions: resolutions are pixels"),
        (["--resolutions", "448,448"], "argument --resolutions: '448,448' names a resolution twice"),
        (["--shard", "4/3"], "--shard must be I/N"),
        (["--column", "question"], "--column must be NAME=COLUMN"),
        (["--describer", "./nowhere"], "there is no model directory"),
        (["--base-url", "http://localhost:1/v1"], "--base-url reaches no model of a role; name one"),
        (["--describer", "openai:a", "--device", "cpu"], "--device reaches no model of a role; name one"),
        (["--vllm-options", "enforce-eager"], "as in --teacher vllm:FOLDER"),
        (["--jpeg", "80"], "there is no option --jpeg"),
    ],
)
def test_bad_options(
    samples: list[Episode], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    data = folder_of(samples[:1], tmp_path / "data")
    assert main(["collect", "--data", str(data), "-o", str(tmp_path / "out"), *more]) == 2
    assert sentence in capsys.readouterr().err


def test_a_served_teacher_thinks_as_much_as_asked(
    samples: list[Episode], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(samples[:1], tmp_path / "data")
    with serving(lambda path, body: (400, {"error": {"message": "No."}})) as (url, asked):
        assert main(command(data, tmp_path / "out", url, "--reasoning", "low", "--retry-seconds", "0")) == 1
        assert asked and {body["reasoning_effort"] for body in asked} == {"low"}
        assert main(command(data, tmp_path / "out", url, "--reasoning", "high", "--retry-seconds", "0")) == 2
    assert 'reasoning was "low" and is now "high"' in capsys.readouterr().err


def test_limits_of_the_reader_are_those_of_the_student(samples: list[Episode], tmp_path: Path) -> None:
    gather(samples[:2], tmp_path)
    for trajectory in kept(tmp_path):
        settings = settings_of(trajectory)
        assert isinstance(settings, ZoomSettings) and settings.limits.zoom_pixels == LIMITS.zoom_pixels


@pytest.mark.slow
def test_on_a_local_ray_with_two_workers(samples: list[Episode], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from cof_agent.teacher.ray import collect_on_ray

    gather(samples, tmp_path / "here")
    environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        for _ in range(2):  # the second time nothing is left to do
            collect_on_ray(samples, reading, tmp_path / "ray", workers=2, concurrency=3)
    finally:
        ray.shutdown()
    assert written(tmp_path / "ray") == written(tmp_path / "here")
    with pytest.raises(InputError, match="which is none of 2 parts"):  # before it asks Ray
        collect_on_ray(samples, reading, tmp_path / "ray", workers=2, shard=Shard(1, 2))


def reading() -> Search:
    """Made on a worker."""
    return Search(cast(Reader()), SETTINGS)
