"""The conversations that published evaluations build, by running their own code from a clone on scripted replies.

Nothing of theirs is copied here: `COF_PUBLISHED` names a folder with the clones, and what they import beside Pillow is put
aside, since only the parts that crop images and write messages are run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image


@dataclass(frozen=True)
class Said:
    """One message as its role and parts; an image is its size."""

    role: str
    parts: tuple[Any, ...]


def said(messages: Sequence[dict[str, Any]], sizes: Sequence[tuple[int, int]]) -> list[Said]:
    """Messages of either side, with `sizes` in place of the images in order; texts that follow each other are one."""
    left = iter(sizes)
    found = []
    for message in messages:
        content = message["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts: list[Any] = []
        for part in content:
            if part["type"] != "text":
                parts.append(next(left))
            elif parts and isinstance(parts[-1], str):
                parts[-1] += part["text"]
            else:
                parts.append(part["text"])
        found.append(Said(message["role"], tuple(parts)))
    return found


@contextlib.contextmanager
def modules(**fakes: Any) -> Iterator[None]:
    """Empty modules in place of what their code imports and does not need here."""
    with mock.patch.dict(sys.modules, {name.replace("__", "."): fake for name, fake in fakes.items()}):
        yield


def load(path: Path, **fakes: Any) -> Any:
    """A module of theirs."""
    spec = importlib.util.spec_from_file_location(f"published_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with modules(**fakes), contextlib.redirect_stdout(io.StringIO()):
        spec.loader.exec_module(module)
    return module


def fake(name: str, **names: Any) -> types.ModuleType:
    """A module with these names, and none else."""
    module = types.ModuleType(name)
    module.__dict__.update(names)
    return module


def noting(encode: Callable[[Image.Image], str], sizes: list[tuple[int, int]]) -> Callable[[Image.Image], str]:
    """Their encoder of images, which notes the size of each one."""

    def noted(picture: Image.Image) -> str:
        sizes.append(picture.size)
        return encode(picture)

    return noted


def chain_of_focus(clone: Path, image: Path, question: str, replies: Sequence[str], smart_resize: Any) -> list[Said]:
    """What `eval/vstar/vllm_inference.py` builds for one question."""
    anything = type("Anything", (), {"__init__": lambda self, *a, **k: None})
    module = load(
        clone / "eval/vstar/vllm_inference.py",
        vllm=fake("vllm", LLM=anything, EngineArgs=anything, SamplingParams=anything),
        qwen_vl_utils=fake("qwen_vl_utils", smart_resize=smart_resize),
        tqdm=fake("tqdm", tqdm=lambda found, **_: found),
    )
    sizes: list[tuple[int, int]] = []
    module.encode_pil_image_to_base64 = noting(module.encode_pil_image_to_base64, sizes)
    script = iter(replies)
    seen: list[dict[str, Any]] = []

    class Model:
        def chat(self, messages: list[dict[str, Any]], sampling: Any) -> list[Any]:
            seen[:] = messages
            reply = types.SimpleNamespace(text=next(script), token_ids=[])
            return [types.SimpleNamespace(outputs=[reply])]

    options = types.SimpleNamespace(
        max_new_tokens=512, vstar_bench_path=str(image.parent), scaleup_factor=2, enlarge_factor=1.5
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        module.run_inference_loop(Model(), [{"image": image.name, "text": question, "label": "A"}], options, 112**2)
    return said(seen, sizes)


def deepeyes(clone: Path, image: Path, question: str, options: Sequence[str], replies: Sequence[str]) -> list[Said]:
    """What `eval/eval_vstar.py` builds for one question; the size of the first image is (0, 0)."""
    import json

    image.with_suffix(".json").write_text(json.dumps({"question": question, "options": list(options)}))
    script = iter(replies)
    seen: list[dict[str, Any]] = []
    sizes: list[tuple[int, int]] = []

    class Completions:
        def create(self, **request: Any) -> Any:
            seen[:] = request["messages"]
            message = types.SimpleNamespace(content=next(script))
            return types.SimpleNamespace(choices=[types.SimpleNamespace(message=message)])

    client = types.SimpleNamespace(chat=types.SimpleNamespace(completions=Completions()))
    arguments = [
        *("eval", "--vstar_bench_path", str(image.parent), "--save_path", str(image.parent / "out")),
        *("--eval_model_name", "x"),
    ]
    with mock.patch.object(sys, "argv", arguments):
        module = load(
            clone / "eval/eval_vstar.py",
            openai=fake("openai", OpenAI=lambda **_: client),
            torch=fake("torch"),
            tqdm=fake("tqdm", tqdm=None),
            requests=fake("requests"),
            multiprocessing=fake("multiprocessing", set_start_method=lambda *a, **k: None),
        )
    module.encode_pil_image_to_base64 = noting(module.encode_pil_image_to_base64, sizes)
    with contextlib.redirect_stdout(io.StringIO()):
        module.process((image.name, str(image.parent)))
    return said(seen, [(0, 0), *sizes])


def mini_o3(clone: Path, picture: Image.Image, boxes: Sequence[tuple[list[float], str]]) -> list[tuple[Any, Any]]:
    """Region and size of each crop that its tools make, one observation after the other; the size is that before the grid."""
    rollout = clone / "verl/workers/rollout/vllm_rollout"
    tools = load(rollout / "function_tools.py", torch=fake("torch", Tensor=None))
    observations, used = [picture], [picture.size]
    found: list[tuple[Any, Any]] = []
    for box, source in boxes:
        try:
            _, (image, edges) = tools.prepare_grounding_inputs_multi_turn(
                [{"bbox_2d": box, "source": source}], observations, used, use_relative_coordinates=True
            )
        except (AssertionError, ValueError) as error:
            found.append((None, str(error)))
            continue
        crop = tools.crop_image(image, edges, used, resize=1)
        observations.append(crop)
        used.append(crop.size)
        found.append((tuple(edges), crop.size))
    return found


def qwen_agent(clone: Path, folder: Path, image: Path, box: list[float]) -> tuple[int, int] | str:
    """The size of the crop that Qwen-Agent's tool for Qwen3-VL makes, or its error."""
    base = type("Base", (), {"_verify_json_format_args": lambda self, given: given})
    item = type(
        "Item", (), {"__init__": lambda self, image=None, text=None: self.__dict__.update(image=image, text=text)}
    )
    module = load(
        clone / "qwen_agent/tools/image_zoom_in_qwen3vl.py",
        requests=fake("requests"),
        qwen_agent=fake("qwen_agent"),
        qwen_agent__llm=fake("qwen_agent.llm"),
        qwen_agent__llm__schema=fake("schema", ContentItem=item),
        qwen_agent__log=fake("log", logger=types.SimpleNamespace(warning=print)),
        qwen_agent__tools=fake("tools"),
        qwen_agent__tools__base=fake(
            "base", BaseToolWithFileAccess=base, register_tool=lambda name: lambda found: found
        ),
        qwen_agent__utils=fake("utils"),
        qwen_agent__utils__utils=fake("utils", extract_images_from_messages=lambda messages: messages),
    )
    tool = module.ImageZoomInToolQwen3VL()
    tool.work_dir = str(folder)
    (found,) = tool.call({"img_idx": 0, "bbox_2d": box, "label": "x"}, messages=[str(image)])
    if found.image is None:
        return str(found.text)
    with Image.open(found.image) as made:
        return made.size
