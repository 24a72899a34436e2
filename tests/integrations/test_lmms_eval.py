"""lmms-eval's requests become questions of the agent; where lmms-eval is installed (`lmms-eval.txt`), it runs tasks with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageChops

from cof_agent import agent as agents
from cof_agent import cli, protocol, scoring
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.integrations import lmms_eval as lmms
from cof_agent.integrations.lmms_eval import Options, Requests
from cof_agent.policy import PolicyError, Sampling, ScriptedPolicy
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl

RED = Image.new("RGB", (320, 200), "red")
ROOT = Path(__file__).parents[2]


def turn(*parts: Any, role: str = "user") -> dict[str, Any]:
    """A message as tasks of lmms-eval write it: texts, and anything else as an image."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": content}


def image(pixels: Any = RED) -> dict[str, Any]:
    return {"type": "image", "url": pixels}


def request(number: int, *messages: dict[str, Any], task: str = "t", **generation: Any) -> SimpleNamespace:
    """A request as lmms-eval makes it for chat models; its document is `number` itself."""
    return SimpleNamespace(args=("context", lambda document: list(messages), generation, number, task, "test"))


DOCUMENTS = {task: {"test": range(100)} for task in ("t", "other")}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Requests]:
    """The agent over a policy that plays `script`, by default one that answers with the question."""

    def echo(messages: Sequence[protocol.Message]) -> str:
        return f"<answer>{messages[1]['content'][-1]['text']}</answer>"

    def make(script: Any = echo, **options: Any) -> Requests:
        monkeypatch.setattr(agents, "loaded", lambda config: (config, ScriptedPolicy(script)))
        return Requests(lmms.read_options({"model": "scripted", **options}))

    return make


def test_the_messages_of_a_request_become_one_question() -> None:
    messages = [turn("Answer briefly.", role="system"), turn(image(), "What is it? ", "A. red\nB. blue")]
    assert lmms.asked(messages, "t/1") == ("Answer briefly.\nWhat is it?\nA. red\nB. blue", [RED])
    plain = [{"role": "system", "content": "Be brief."}, turn("What?", image("picture.png"))]
    assert lmms.asked(plain, "t/1") == ("Be brief.\nWhat?", ["picture.png"])
    two = [turn("Is this", image(), "older than", image("picture.png"), "?")]
    assert lmms.asked(two, "t/1") == ("Is this\npicture 1\nolder than\npicture 2\n?", [RED, "picture.png"])
    assert lmms.asked([turn(image(), image(), "Which?")], "t/1") == ("Which?", [RED, RED])


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([turn("What?")], "t/1 holds no image, but the agent looks at one."),
        (
            [turn(image(), {"type": "video", "url": "a.mp4"}, "What?")],
            "t/1 holds video, but the agent looks at images only.",
        ),
        ([turn(image(), "  ")], "t/1 holds no question."),
        (
            [turn(image(), "One?"), turn("1", role="assistant"), turn("Two?")],
            "t/1 holds earlier answers, but the agent is asked one question.",
        ),
    ],
)
def test_what_is_no_question_about_images_is_said(messages: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        lmms.asked(messages, "t/1")
    assert str(error.value) == sentence


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pixels_are_written_without_loss_and_once(mode: str, tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (40, 30), bytes(range(240)) * 15).convert(mode)
    path = lmms.image_path(noise, "t/1", tmp_path / "images")
    assert lmms.image_path(noise.copy(), "t/2", tmp_path / "images") == path
    with Image.open(path) as written:
        assert written.format == "PNG"
        assert ImageChops.difference(written.convert("RGBA"), noise.convert("RGBA")).getbbox() is None


def test_an_image_of_a_path_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RED.save(tmp_path / "red.jpg")
    monkeypatch.chdir(tmp_path)
    assert lmms.image_path("red.jpg", "t/1", tmp_path / "images") == str(tmp_path / "red.jpg")
    assert not (tmp_path / "images").exists()
    with pytest.raises(InputError, match=r"t/1 names an image that is no file here: https://host/red.jpg\."):
        lmms.image_path("https://host/red.jpg", "t/1", tmp_path)
    with pytest.raises(InputError, match="t/1 holds an image as dict, but only pixels and paths can be read"):
        lmms.image_path({"bytes": b""}, "t/1", tmp_path)


@pytest.mark.parametrize(
    ("generation", "options", "expected"),
    [
        ({}, {}, Sampling(512)),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": None, "do_sample": False}, {}, Sampling(512)),
        ({"max_new_tokens": 1024, "temperature": 0.0, "top_p": 0.5}, {"seed": 3}, Sampling(1024)),
        ({"max_new_tokens": 49152}, {"max_tokens": 300}, Sampling(300)),
        ({"temperature": 0.7, "top_p": 0.9}, {"seed": 3}, Sampling(512, 0.7, 0.9, 3)),
        ({"temperature": 0.7, "do_sample": False}, {}, Sampling(512)),
        ({"do_sample": True}, {}, Sampling(512, 1.0)),
        ({"do_sample": True}, {"top_p": 0.5}, Sampling(512, 1.0, 0.5)),
        ({"temperature": 0.2, "do_sample": False}, {"temperature": 0.7, "seed": 3}, Sampling(512, 0.7, 1.0, 3)),
    ],
)
def test_generation_settings(generation: dict[str, Any], options: dict[str, Any], expected: Sampling) -> None:
    assert lmms.sampling(generation, lmms.read_options(options)) == expected


def test_generation_settings_that_make_no_sense_are_said() -> None:
    with pytest.raises(InputError, match="the generation setting temperature must be a number, not 'hot'"):
        lmms.sampling({"temperature": "hot"}, Options(AgentConfig()))
    with pytest.raises(InputError, match="top_p must be above 0 and at most 1, not 2"):
        lmms.sampling({"temperature": 1, "top_p": 2}, Options(AgentConfig()))


def test_an_answer_ends_at_the_first_stop() -> None:
    assert lmms.cut("red\n\nfor sure", ["</s>", "\n\n", ""]) == "red"
    assert lmms.cut("red. Or blue", "Or") == "red."
    assert lmms.cut(" red ", None) == lmms.cut("red", []) == "red"


def test_model_arguments() -> None:
    given = {"model": "dir", "max_zooms": 3, "enlarge": 2, "concurrency": "4", "batch_size": 1, "tools": "a:b"}
    assert lmms.read_options(given) == Options(
        AgentConfig("dir", max_zooms=3, enlarge=2.0, tools=("a:b",)), concurrency=4
    )
    with pytest.raises(InputError, match="there is no model argument 'max_zoom'; the arguments are attn, base_url"):
        lmms.read_options({"max_zoom": 3})
    with pytest.raises(
        InputError, match="the model argument max_zooms cannot be 'six': Input should be a valid integer"
    ):
        lmms.read_options({"max_zooms": "six"})
    with pytest.raises(InputError, match="coordinates must be one of absolute, thousand, thousand-yx, unit, padded"):
        lmms.read_options({"coordinates": "relative"})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strategy": "spiral"}, "there is no strategy 'spiral'"),
        ({"system_prompt": "missing.txt"}, "cannot read the system prompt missing.txt"),
        ({"enlarge": 0.5}, "enlarge must be between 1 and 100"),
    ],
)
def test_options_that_name_nothing_are_said(
    agent: Callable[..., Requests], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        agent(**options)


def test_answers_come_in_the_order_of_the_requests(agent: Callable[..., Requests]) -> None:
    tasks = ["t", "other", "t", "other", "t"]
    requests = [
        request(number, turn(image(), f"Number {number}?"), task=task, until=["?"]) for number, task in enumerate(tasks)
    ]
    assert agent(concurrency=2).answer(requests, DOCUMENTS) == [f"Number {number}" for number in range(5)]
    assert agent().answer([], DOCUMENTS) == []


def test_images_that_are_not_kept_are_on_disk_for_a_batch_at_a_time(
    agent: Callable[..., Requests], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(lmms, "BATCH", 2)
    most: list[int] = []

    def script(messages: Sequence[protocol.Message]) -> str:
        most.append(len(list(tmp_path.rglob("*.png"))))
        return "<answer>yes</answer>"

    requests = [request(n, turn(image(Image.new("RGB", (64, 64), (n, 0, 0))), "?")) for n in range(5)]
    assert agent(script, concurrency=1).answer(requests, DOCUMENTS) == ["yes"] * 5
    assert max(most) == 2
    assert not list(tmp_path.iterdir())


def test_trajectories_are_kept_for_view_and_gone_on_from(agent: Callable[..., Requests], tmp_path: Path) -> None:
    requests = [request(number, turn(image(), f"Number {number}")) for number in (4, 4, 5)]
    out = tmp_path / "out"
    assert agent(output=str(out)).answer(requests, DOCUMENTS) == ["Number 4", "Number 4", "Number 5"]
    kept = list(read_jsonl(out / "t" / "trajectories.jsonl", Trajectory))
    assert [(one.sample.id, one.answer) for one in kept] == [
        ("t/4", "Number 4"),
        ("t/4#2", "Number 4"),
        ("t/5", "Number 5"),
    ]
    assert len(list((out / "t" / "images").iterdir())) == 1
    assert cli.main(["view", str(out / "t" / "trajectories.jsonl"), "-o", str(tmp_path / "page.html")]) == 0

    never = agent(script=["<answer>asked again</answer>"], output=str(out))
    assert never.answer(requests[::2], DOCUMENTS) == ["Number 4", "Number 5"]


def test_each_process_has_a_file_of_its_own(agent: Callable[..., Requests], tmp_path: Path) -> None:
    agent(output=str(tmp_path)).answer([request(1, turn(image(), "?"))], DOCUMENTS, rank=1, ranks=2)
    assert (tmp_path / "t" / "shard-0002-of-0002.jsonl").exists()


def test_requests_that_cannot_be_asked_get_an_empty_answer_and_a_warning(
    agent: Callable[..., Requests], caplog: pytest.LogCaptureFixture
) -> None:
    requests = [
        request(1, turn(image(), image(), "Both?")),
        request(2, turn(image(), "One?")),
        request(3, turn("None?")),
    ]
    assert agent().answer(requests, DOCUMENTS) == ["Both?", "One?", ""]
    assert caplog.messages == [
        "1 of 3 requests of t are not asked; the first: t/3 holds no image, but the agent looks at one."
    ]
    caplog.clear()
    assert agent(strategy="grid").answer(requests, DOCUMENTS)[0] == ""
    assert (
        "2 of 3 requests of t are not asked; the first: t/1 has 2 images, but the strategy grid looks at one"
        in caplog.text
    )


def test_a_task_of_which_nothing_can_be_asked_is_an_error(agent: Callable[..., Requests]) -> None:
    with pytest.raises(
        InputError, match=r"none of the requests of t can be asked \(1\); the first: t/1 holds no image"
    ):
        agent().answer([request(1, turn("None?"))], DOCUMENTS)
    assert agent().answer([request(1, turn("None?"))], DOCUMENTS, rank=1, ranks=2) == [""]


def test_questions_without_an_answer_are_counted(
    agent: Callable[..., Requests], caplog: pytest.LogCaptureFixture
) -> None:
    def script(messages: Sequence[protocol.Message]) -> str | PolicyError:
        question = messages[1]["content"][-1]["text"]
        if question == "gone":
            return PolicyError("The server is gone.", transient=False)
        return "What?" if question == "lost" else "<answer>1</answer>"

    requests = [request(number, turn(image(), text)) for number, text in enumerate(["gone", "fine", "lost"])]
    assert agent(script).answer(requests, DOCUMENTS) == ["", "1", ""]
    assert caplog.messages == ["2 of 3 questions of t got no answer: error 1, malformed 1 (The server is gone.)"]
    with pytest.raises(InputError, match=r"every run of t failed \(1\); the first: The server is gone\."):
        agent(script).answer(requests[:1], DOCUMENTS)


def test_a_device_is_for_local_models(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="--device is named as torch does, .*, not 'tpu7'"):
        Requests(lmms.read_options({"device": "tpu7"}))
    given = {"model": str(checkpoint("qwen2_5_vl")), "device": "cpu", "overview_pixels": 28 * 28 * 64}
    local = Requests(lmms.read_options(given))
    assert local._agent.environment.settings.limits.max_pixels == 28 * 28 * 64


def test_nothing_else_knows_of_lmms_eval() -> None:
    others = [path for path in (ROOT / "cof_agent").rglob("*.py") if path.name != "lmms_eval.py"]
    assert not [path for path in others if "lmms_eval" in path.read_text()]
    with pytest.raises(AttributeError, match="has no attribute 'Coffee'"):
        lmms.Coffee  # noqa: B018


# From here on with the installed lmms-eval.


def test_lmms_eval_finds_and_makes_the_model() -> None:
    registry = pytest.importorskip("lmms_eval.models.registry_v2").ModelRegistryV2()
    registry.register_manifest(lmms.manifest())
    model = registry.get_model_class("cof")
    with pytest.raises(InputError, match="there is no model argument 'max_zoom'"):
        model.create_from_arg_string("model=nano,max_zoom=3")
    made = model.create_from_arg_string("model=nano,max_zooms=0", {"batch_size": 1, "device": "cpu"})
    with pytest.raises(NotImplementedError, match="writes answers and gives no likelihoods; choose another task"):
        made.loglikelihood([])
    with pytest.raises(NotImplementedError, match="one question, not several rounds; choose another task"):
        made.generate_until_multi_round([])
    assert made.generate_until([]) == []


TASK = """\
task: {name}
dataset_path: {kind}
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function looks.{visual}
doc_to_text: !function looks.question
doc_to_target: answer
process_results: !function looks.score
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
LOOKS = """\
def pixels(document):
    return [document["image"].convert("RGB")]


def path(document):
    return [document["image"]]


def question(document, settings=None):
    return document["question"]


def score(document, results):
    return {"acc": float(results[0].strip().lower() == document["answer"].lower())}
"""


@pytest.fixture
def tasks(tmp_path: Path) -> list[Sample]:
    """Two tasks of the same scenes in `tmp_path / "tasks"`: one whose Parquet file holds the images, one that names them."""
    pytest.importorskip("lmms_eval")
    datasets = pytest.importorskip("datasets")

    write_scenes(tmp_path / "scenes", count=3, seed=1, size=Size(640, 360), split="test")
    samples = read_samples(tmp_path / "scenes")
    rows = [{"image": one.image, "question": protocol.question_text(one), "answer": one.answers[0]} for one in samples]
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "looks.py").write_text(LOOKS)
    table = datasets.Dataset.from_list(rows)
    table.to_json(folder / "named.json")
    images = table.map(lambda row: {"image": {"bytes": Path(row["image"]).read_bytes(), "path": None}})
    images.cast_column("image", datasets.Image()).to_parquet(folder / "held.parquet")
    for name, kind, visual in (("held", "parquet", "pixels"), ("named", "json", "path")):
        data = folder / f"{name}.{kind}"
        (folder / f"{name}.yaml").write_text(TASK.format(name=f"cof_{name}", kind=kind, data=data, visual=visual))
    return samples


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Offline, with caches of its own, and with the entry point even where the package was installed before it had one."""
    found = tmp_path / "found"
    if not any(point.name == "cof" for point in entry_points(group="lmms_eval.models")):
        info = found / "cof_for_lmms-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cof-for-lmms\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[lmms_eval.models]\ncof = cof_agent.integrations.lmms_eval:manifest\n")
    caches = {name: str(tmp_path / "cache") for name in ("HF_HOME", "LMMS_EVAL_DATASETS_CACHE")}
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(found)])}
    return {**os.environ, **caches, **offline}


def evaluate(tmp_path: Path, environment: dict[str, str], *arguments: str, model: str = "cof") -> str:
    """What `python -m lmms_eval --model MODEL` says on both streams."""
    options = ("--model", model, "--include_path", str(tmp_path / "tasks"), *arguments)
    command = [sys.executable, "-m", "lmms_eval", *options]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.slow
def test_lmms_eval_runs_a_task_with_the_agent(tmp_path: Path, tasks: list[Sample], environment: dict[str, str]) -> None:
    said = evaluate(
        tmp_path,
        environment,
        *("--tasks", "cof_held,cof_named", "--model_args", "model=nano,max_zooms=2,output=kept"),
        *("--output_path", "results", "--log_samples"),
    )
    held, named = (
        list(read_jsonl(tmp_path / "kept" / task / "trajectories.jsonl", Trajectory))
        for task in ("cof_held", "cof_named")
    )
    assert [one.stop for one in held] == [StopReason.ANSWERED] * 3
    assert [[turn.text for turn in one.turns] for one in held] == [[turn.text for turn in one.turns] for one in named]
    assert [one.sample.image for one in named] == [str(Path(one.image).absolute()) for one in tasks]

    right = [scoring.matches(one.answer or "", sample) for one, sample in zip(held, tasks, strict=True)]
    (results,) = (json.loads(path.read_text()) for path in tmp_path.glob("results/**/*_results.json"))
    for task in ("cof_held", "cof_named"):
        assert results["results"][task]["acc,none"] == pytest.approx(sum(right) / 3)
        (logged,) = tmp_path.glob(f"results/**/*_samples_{task}.jsonl")
        answers = [json.loads(line)["filtered_resps"] for line in logged.read_text().splitlines()]
        assert answers == [one.answer for one in held], said


@pytest.mark.slow
def test_lmms_evals_own_client_of_openai_asks_our_server(
    tmp_path: Path, tasks: list[Sample], environment: dict[str, str]
) -> None:
    pytest.importorskip("nicegui", reason="the server needs the extra serve")
    from tests.server.running import running

    with running() as (url, _):
        given = f"model_version=nano,base_url={url}/v1,api_key=none"
        said = evaluate(
            tmp_path,
            environment,
            *("--tasks", "cof_held", "--model_args", given, "--output_path", "results", "--log_samples"),
            model="openai",
        )
    logs = list(tmp_path.glob("results/**/*_samples_cof_held.jsonl"))
    assert logs, said
    answers = [json.loads(line)["filtered_resps"] for line in logs[0].read_text().splitlines()]
    agent = agents.Agent("nano")
    assert answers == [agent.ask(one.image, protocol.question_text(one)).answer for one in tasks]
