"""Lets lmms-eval drive the zoom agent as one of its models; nothing else imports this file.

    python -m lmms_eval --model cof --model_args model=DIR_OR_HUB_ID,max_zooms=6,output=outputs/lmms --tasks vstar_bench

lmms-eval finds the model by the entry point `cof` of the group `lmms_eval.models` (see pyproject.toml). It is a chat model:
the messages of a request become one question about its images. Of a task's generation settings, `temperature`,
`top_p`, `do_sample`, `until` and `max_new_tokens` count, the last only to raise ours (see `sampling`).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from PIL import Image
from pydantic import PositiveInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from cof_agent.agent import Agent
from cof_agent.commands import common
from cof_agent.config import AgentConfig, read_prompt
from cof_agent.data.image_files import kept_image
from cof_agent.data.questions import named_marks
from cof_agent.data.shards import Shard
from cof_agent.errors import InputError
from cof_agent.image import png_of
from cof_agent.output.escape import for_terminal
from cof_agent.policy import Sampling
from cof_agent.strategies.registry import check_images
from cof_agent.trajectory import Sample, StopReason, Trajectory

BATCH = 16
"""Requests for each one under way whose images are on disk at once, where they are not kept."""

_WITHOUT_EFFECT = ("batch_size", "max_batch_size")  # lmms-eval gives them to every model; ours is `concurrency`
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """The model arguments: the fields of `AgentConfig`, where `system_prompt` is a file, and those named here.

    concurrency: requests under way at once. output: a folder in which each task gets `TASK/trajectories.jsonl` for `cof view`,
    and `TASK/images`; the same command goes on from what is there. max_tokens: of one turn; without it see `sampling`.
    """

    agent: AgentConfig
    concurrency: int = 8
    output: str | None = None
    max_tokens: int | None = None


class Own(TypedDict, total=False):
    """The arguments that are not the agent's."""

    concurrency: PositiveInt
    output: str
    max_tokens: PositiveInt


def read_options(given: Mapping[str, Any]) -> Options:
    """The options that the model arguments name.

    Raises:
        InputError: if there is no such argument, or its value is of the wrong kind.
    """
    wanted = {name: value for name, value in given.items() if name not in _WITHOUT_EFFECT and value is not None}
    if isinstance(tools := wanted.get("tools"), str):  # lmms-eval's arguments are separated by commas, so it is one
        wanted["tools"] = (tools,)
    own = Own.__annotations__
    known = sorted({*own, *(field.name for field in fields(AgentConfig))})
    if unknown := sorted(set(wanted) - set(known)):
        raise InputError(f"there is no model argument {unknown[0]!r}; the arguments are {', '.join(known)}.")
    try:
        ours = TypeAdapter(Own).validate_python({name: value for name, value in wanted.items() if name in own})
        agent = TypeAdapter(AgentConfig).validate_python({k: v for k, v in wanted.items() if k not in own})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # a rule of `AgentConfig`, in words already
            raise InputError(str(first["ctx"]["error"])) from None
        raise InputError(
            f"the model argument {first['loc'][0]} cannot be {first['input']!r}: {first['msg']}."
        ) from None
    return Options(replace(agent, system_prompt=read_prompt(agent.system_prompt)), **ours)


def sampling(generation: Mapping[str, Any], options: Options) -> Sampling:
    """How each turn is drawn: greedy at temperature 0, without a temperature, or with `do_sample: false`.

    A task's `max_new_tokens` is measured for a bare answer, often 16, in which neither a thought nor a zoom can be written.
    So a turn may take what the dialect allows (ours 512 tokens), or what the task allows if that is more; the model
    argument replaces both. So do `temperature` and `top_p` among the model arguments.

    Raises:
        InputError: if a setting is no number or out of range.
    """
    own = options.agent
    most = options.max_tokens or max(options.agent.turn_tokens, int(_number(generation, "max_new_tokens", 0)))
    if own.temperature is not None:
        return replace(own.sampling, max_tokens=most)
    temperature = _number(generation, "temperature", 1.0 if generation.get("do_sample") else 0.0)
    if temperature <= 0 or generation.get("do_sample") is False:
        return Sampling(most, stop=own.spoken.call.stop)
    top_p = own.top_p if own.top_p < 1 else _number(generation, "top_p", 1.0)
    if not 0 < top_p <= 1:
        raise InputError(f"the generation setting top_p must be above 0 and at most 1, not {top_p:g}.")
    return Sampling(most, temperature, top_p, own.seed, stop=own.spoken.call.stop)


def _number(generation: Mapping[str, Any], name: str, default: float) -> float:
    value = generation.get(name)
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        raise InputError(f"the generation setting {name} must be a number, not {value!r}.") from None


def asked(messages: Sequence[Mapping[str, Any]], where: str) -> tuple[str, list[Any]]:
    """The question that the messages of a request come to, and its images: pixels, or paths of files.

    A task's own system message goes before the question; the agent's system message tells of its tool and stays. Of several
    images, those between texts are named there.

    Raises:
        InputError: if that is not one question about images, naming `where`.
    """
    if any(message["role"] == "assistant" for message in messages):
        raise InputError(f"{where} holds earlier answers, but the agent is asked one question.")
    parts = [part for message in messages for part in _parts(message["content"])]
    if other := [part["type"] for part in parts if part["type"] not in ("text", "image")]:
        raise InputError(f"{where} holds {other[0]}, but the agent looks at images only.")
    images = [part["url"] for part in parts if part["type"] == "image"]
    if not images:
        raise InputError(f"{where} holds no image, but the agent looks at one.")
    if not any(part["type"] == "text" and part["text"].strip() for part in parts):
        raise InputError(f"{where} holds no question.")
    if len(images) == 1:
        return "\n".join(part["text"].strip() for part in parts if part["type"] == "text").strip(), images
    marked = (part["text"].strip() if part["type"] == "text" else _MARK for part in parts)
    return named_marks("\n".join(marked)), images


_MARK = "<image>"


def _parts(content: str | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def image_path(image: Any, where: str, folder: Path) -> str:
    """The absolute path of an image; pixels are written to `folder` first, as PNG under a name made of their content.

    Raises:
        InputError: if it is neither pixels nor the path of a file, naming `where`.
    """
    if isinstance(image, str | Path):
        if not Path(image).is_file():
            raise InputError(f"{where} names an image that is no file here: {str(image)[:80]}.")
        return str(Path(image).absolute())
    if not isinstance(image, Image.Image):
        raise InputError(f"{where} holds an image as {type(image).__name__}, but only pixels and paths can be read.")
    return kept_image(png_of(image), where, folder)


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text up to the first of the stops, as lmms-eval expects it of a model."""
    stops = [until] if isinstance(until, str) else until or ()
    return text[: min((text.index(stop) for stop in stops if stop and stop in text), default=None)].strip()


class Request(Protocol):
    """`lmms_eval.api.instance.Instance` of a chat model: (context, document to messages, generation settings, number of
    the document, task, split)."""

    @property
    def args(self) -> tuple[Any, ...]: ...


def identified(requests: Sequence[Request]) -> Iterator[tuple[str, Request]]:
    """The requests with the ids of their samples: `TASK/DOCUMENT`, and `TASK/DOCUMENT#2` where one is asked again."""
    times: Counter[str] = Counter()
    for request in requests:
        id = f"{request.args[4]}/{request.args[3]}"
        times[id] += 1
        yield (id if times[id] == 1 else f"{id}#{times[id]}"), request


class Requests:
    """Answers requests by the agent that `options` describe.

    Raises:
        InputError: if the options name a model, strategy or system prompt that cannot be had, or contradict each other.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._agent = Agent(options.agent)

    def answer(
        self, requests: Sequence[Request], documents: Mapping[str, Any], *, rank: int = 0, ranks: int = 1
    ) -> list[str]:
        """One text a request, in their order: empty where there was no answer or no way to ask, which warnings count.

        documents: by task, split and number. rank: which of so many `ranks` (processes) this is.

        Raises:
            InputError: as `sampling` and `rollout` do; also if no request of a task can be asked or every run failed,
                unless there are several processes, of which the others would wait for this one.
        """
        named = list(identified(requests))
        tasks: dict[tuple[str, Sampling], list[tuple[str, Request]]] = {}
        for id, request in named:
            tasks.setdefault((request.args[4], sampling(request.args[2], self.options)), []).append((id, request))
        texts: dict[str, str] = {}
        for (task, how), group in tasks.items():
            file = self._file(task, Shard(rank + 1, ranks))
            trajectories, refused = self._run(group, documents, how, file, progress=rank == 0)
            _tell(task, trajectories, refused, alone=ranks == 1)
            texts |= {trajectory.sample.id: trajectory.answer or "" for trajectory in trajectories}
        return [cut(texts.get(id, ""), request.args[2].get("until")) for id, request in named]

    def _file(self, task: str, shard: Shard) -> Path | None:
        """Where the trajectories of a task are kept. Each process has a file of its own: none may reorder another's."""
        if self.options.output is None:
            return None
        folder = Path(self.options.output) / re.sub(r"[^\w.-]", "_", task)
        return shard.path(folder) if shard.count > 1 else folder / "trajectories.jsonl"

    def _run(
        self,
        requests: Sequence[tuple[str, Request]],
        documents: Mapping[str, Any],
        how: Sampling,
        file: Path | None,
        *,
        progress: bool,
    ) -> tuple[list[Trajectory], list[str]]:
        """The trajectories of what can be asked, and the sentences about what cannot."""
        trajectories: list[Trajectory] = []
        refused: list[str] = []
        size = BATCH * self.options.concurrency if file is None else len(requests)
        for start in range(0, len(requests), size):
            with _images(file) as folder:
                samples: list[Sample] = []
                for id, request in requests[start : start + size]:
                    try:
                        sample = _sample(id, request, documents, Path(folder))
                        check_images(self.options.agent.strategy, self.options.agent.spoken, [sample])
                        samples.append(sample)
                    except InputError as error:
                        refused.append(str(error))
                if samples and not trajectories:
                    common.warn_if_unknown_to_nano(self.options.agent.model, samples, self.options.agent.base_url)
                trajectories += self._played(samples, how, file, progress)
        return trajectories, refused

    def _played(self, samples: Sequence[Sample], how: Sampling, file: Path | None, progress: bool) -> list[Trajectory]:
        config = replace(
            self._agent.config,
            max_tokens=how.max_tokens,
            temperature=how.temperature,
            top_p=how.top_p,
            seed=how.seed,
        )
        agent = self._agent.changed(config)
        output = file if samples else None
        return agent.ask_many(samples, output=output, concurrency=self.options.concurrency, progress=progress)


def _images(file: Path | None) -> AbstractContextManager[Path | str]:
    """The folder for images that come as pixels: beside the trajectories, or one that is removed on leaving."""
    return TemporaryDirectory(prefix="cof-lmms-") if file is None else nullcontext(file.parent / "images")


def _sample(id: str, request: Request, documents: Mapping[str, Any], folder: Path) -> Sample:
    _, to_messages, _, number, task, split = request.args
    question, images = asked(to_messages(documents[task][split][number]), id)
    first, *others = [image_path(image, id, folder) for image in images]
    return Sample(id, first, question, metadata={"task": task}, more_images=tuple(others))


def _tell(task: str, trajectories: Sequence[Trajectory], refused: Sequence[str], *, alone: bool) -> None:
    """Warns of what was not asked or not answered; a task of which there is nothing else is an error."""
    done, failed = len(trajectories), [one.error for one in trajectories if one.stop is StopReason.ERROR]
    if alone and refused and not done:
        raise InputError(f"none of the requests of {task} can be asked ({len(refused)}); the first: {refused[0]}")
    if alone and failed and len(failed) == done:
        raise InputError(f"every run of {task} failed ({done}); the first: {failed[0]}")
    if refused:
        total = done + len(refused)
        _log.warning(
            "%d of %d requests of %s are not asked; the first: %s", len(refused), total, task, for_terminal(refused[0])
        )
    silent = Counter(one.stop for one in trajectories if one.answer is None)
    if silent:
        reasons = ", ".join(f"{stop.value} {n}" for stop, n in silent.items()) + (f" ({failed[0]})" if failed else "")
        _log.warning("%d of %d questions of %s got no answer: %s", silent.total(), done, task, for_terminal(reasons))


def manifest() -> Any:
    """What lmms-eval reads from the entry point: the model's name, and where its class is."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore

    return ModelManifest(model_id="cof", chat_class_path=f"{__name__}.Cof")


def __getattr__(name: str) -> Any:
    """`Cof`, the class that `manifest` names, which lmms-eval alone asks for."""
    if name == "Cof":
        return _model()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _model() -> type:
    """Made when it is asked for: lmms-eval may be missing, or be in the middle of its own imports."""
    from lmms_eval.api.model import lmms  # type: ignore

    class Cof(lmms):
        """The zoom agent as a model of lmms-eval; the arguments are `Options`."""

        is_simple = False

        def __init__(self, **arguments: Any) -> None:
            super().__init__()
            self._requests = Requests(read_options(arguments))

        @property
        def device(self) -> Any:
            """Where the evaluator puts the counts that several processes exchange."""
            from accelerate import PartialState

            return PartialState().device

        def generate_until(self, requests: list[Request]) -> list[str]:
            """The agent's answers, see `Requests.answer`."""
            return self._requests.answer(requests, self.task_dict, rank=self.rank, ranks=self.world_size)

        def generate_until_multi_round(self, requests: list[Request]) -> list[str]:
            raise NotImplementedError("the zoom agent is asked one question, not several rounds; choose another task.")

        def loglikelihood(self, requests: list[Request]) -> list[tuple[float, bool]]:
            raise NotImplementedError("the zoom agent writes answers and gives no likelihoods; choose another task.")

    Cof.__qualname__ = "Cof"
    return Cof
