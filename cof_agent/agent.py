"""The agent, ready to ask: an `AgentConfig` and a policy.

agent = Agent("nano")
trajectory = agent.ask("photo.jpg", "What is written on the red sign?", choices=["STOP", "SLOW"])
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
import warnings
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from cof_agent.backends.load import check as check_model
from cof_agent.backends.load import is_served, load, split_spec
from cof_agent.backends.scenes_only import IN_PYTHON, UnknownPicture, warning_for, warning_of
from cof_agent.config import AgentConfig
from cof_agent.data.image_files import kept_image
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError, check_text, unknown
from cof_agent.geometry import CoordinateSystem
from cof_agent.graphs.steps import Context, Event
from cof_agent.image import png_of
from cof_agent.policy import Policy, Retries
from cof_agent.region_refs import check_regions
from cof_agent.rollout import Done, rollout
from cof_agent.strategies import registry
from cof_agent.tools import load_tool
from cof_agent.trajectory import Sample, Trajectory, shown_by, to_box

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")
Picture: TypeAlias = "str | Path | Image"
"""An image to ask about: its path, or pixels."""


class Agent:
    """Answers questions about images.

    model: `nano`, a folder, a hub id, `PROVIDER:MODEL` for a served model, or a whole `AgentConfig`. overrides: fields of
    the configuration. policy: a model that is loaded already, in place of the one that the configuration names.
    environment: whose decoded images are shared.

    Raises:
        InputError: if the model or the strategy cannot be had, or a value makes no sense.
    """

    def __init__(
        self,
        model: str | AgentConfig = AgentConfig.model,
        *,
        policy: Policy | None = None,
        environment: ZoomEnvironment | None = None,
        **overrides: Any,
    ) -> None:
        settings = [one.name for one in fields(AgentConfig)]
        if wrong := next((name for name in overrides if name not in settings), None):
            raise InputError(unknown("setting", wrong, settings))
        config = model if isinstance(model, AgentConfig) else AgentConfig(model=str(model))
        self.config = replace(config, **overrides)
        check(self.config)
        strategy = registry.by_name(self.config.strategy)
        if policy is None:
            self.config, policy = loaded(self.config)
        self.policy = policy
        self._way = strategy(self.policy, self.config.settings(self.policy))
        self._retries = Retries(self.config.retry_seconds)
        self.environment = (
            ZoomEnvironment(self._way.settings)
            if environment is None
            else environment.with_settings(self._way.settings)
        )

    def changed(self, config: AgentConfig) -> Agent:
        """An agent with the same model, images and patience with its server, and these settings."""
        other = Agent(config, policy=self.policy, environment=self.environment)
        other._retries = self._retries
        return other

    def ask(
        self,
        image: Picture | Sequence[Picture],
        question: str,
        *,
        choices: Sequence[str | float] = (),
        regions: Sequence[Sequence[float]] = (),
        on_event: Callable[[Event], None] | None = None,
    ) -> Trajectory:
        """Asks one question about an image, or a list of images; the record has the answer and every step.

        image: a path, or a picture of Pillow's; or several of them, in order. choices: possible answers. regions: what
        `<region1>`, `<region2>`, ... in the question mean, each as x0, y0, x1, y1 in source pixels. on_event: called as
        things happen.

        Raises:
            InputError: if the question and its regions do not belong to each other, the strategy does not take several
                images, or a served model refuses the key. What else fails, such as an image that cannot be opened, is on the
                record (`stop`, `error`).
        """
        return _run(self.aask(image, question, choices=choices, regions=regions, on_event=on_event))

    async def aask(
        self,
        image: Picture | Sequence[Picture],
        question: str,
        *,
        choices: Sequence[str | float] = (),
        regions: Sequence[Sequence[float]] = (),
        on_event: Callable[[Event], None] | None = None,
    ) -> Trajectory:
        """As `ask`, for code that runs in an event loop."""
        check_text(question, "the question")
        if isinstance(choices, str) or not all(isinstance(one, str | int | float) for one in choices):
            raise InputError(f"choices is a list of texts or numbers, not {choices!r}.")
        for choice in choices:
            check_text(str(choice), "a choice")
        first, *others = await asyncio.to_thread(_paths_of, image)
        named = Path(first).name
        sample = Sample(
            named,
            first,
            question,
            choices=tuple(map(str, choices)),
            regions=tuple(map(to_box, regions)),
            more_images=tuple(others),
        )
        check_regions(sample)
        self._warn([sample])
        return await self.play(Episode(sample), on_event=on_event)

    async def play(self, episode: Episode, *, on_event: Callable[[Event], None] | None = None) -> Trajectory:
        """Plays one episode and returns the record, whatever the end was.

        Raises:
            InputError: if it has several images, and the strategy looks at one or the dialect names one.
        """
        registry.check_images(self.config.strategy, self.config.spoken, [episode.sample])
        return await self._way.graph.run(episode.sample, self.context(episode), on_event=on_event)

    def ask_many(
        self,
        samples: Iterable[Sample | Episode],
        *,
        concurrency: int = 32,
        output: str | Path | None = None,
        progress: bool = True,
        retry_errors: bool = True,
        on_done: Done | None = None,
    ) -> list[Trajectory]:
        """One record for each sample, in their order.

        concurrency: samples under way at once. output: a JSONL file to which each record is appended as soon as it is there,
        and which the same call completes after an interruption. retry_errors: play those of `output` again that failed.

        Raises:
            InputError: as `rollout`, or if something is no sample, or has several images, and the strategy looks at one or
                the dialect names one.
        """
        return _run(
            self.aask_many(
                samples,
                concurrency=concurrency,
                output=output,
                progress=progress,
                retry_errors=retry_errors,
                on_done=on_done,
            )
        )

    async def aask_many(
        self,
        samples: Iterable[Sample | Episode],
        *,
        concurrency: int = 32,
        output: str | Path | None = None,
        progress: bool = True,
        retry_errors: bool = True,
        on_done: Done | None = None,
    ) -> list[Trajectory]:
        """As `ask_many`, for code that runs in an event loop."""
        samples = list(samples)
        if other := next((one for one in samples if not isinstance(one, Sample | Episode)), None):
            raise InputError(f"a question of many is a Sample(id, image, question), not {type(other).__name__}.")
        wanted = [one if isinstance(one, Episode) else episodes([one])[0] for one in samples]
        samples_of = [episode.sample for episode in wanted]
        registry.check_images(self.config.strategy, self.config.spoken, samples_of)
        self._warn(samples_of)
        return await rollout(
            wanted,
            self._way.graph,
            self.context,
            output=output,
            concurrency=concurrency,
            progress=progress,
            retry_errors=retry_errors,
            on_done=on_done,
        )

    def _warn(self, samples: Sequence[Sample]) -> None:
        """Warns where nano is asked about pictures that it does not know; the records are marked, too."""
        if (sentence := warning_for(self.policy.name, samples)) is not None:
            warnings.warn(f"{sentence} {IN_PYTHON}", UnknownPicture, stacklevel=2)

    def context(self, episode: Episode) -> Context:
        """What a run of this episode needs beside its state."""
        return Context(
            self._way.policy,
            self.environment.at(episode.resolution),
            self.config.sampling,
            self.config.system_prompt,
            self.config.timeout,
            strategy=self.config.strategy,
            details={**self._way.details, **self._asking},
            play=episode.play,
            shuffle_seed=episode.shuffle_seed,
            warning=warning_of(self.policy.name, episode.sample),
            retries=self._retries,
            dialect=self.config.spoken,
        )

    @property
    def _asking(self) -> dict[str, Any]:
        """How a served model is asked, as far as answers depend on it, for the record."""
        given = {name: getattr(self.config, name) for name in ("jpeg", "reasoning")}
        return {name: value for name, value in given.items() if value is not None}


def _notebook_html(trajectory: Trajectory) -> str:
    from cof_agent.viewer.notebook import notebook_html  # the viewer is loaded when a notebook asks

    return notebook_html(trajectory)


shown_by(_notebook_html)


def check(config: AgentConfig) -> None:
    """What can be known of a configuration without a model.

    Raises:
        InputError: if the strategy, the dialect or a tool cannot be had, or the dialect or model is not for the strategy.
    """
    registry.by_name(config.strategy)
    registry.check_dialect(config.strategy, config.spoken.name)
    registry.check_model(config.strategy, config.model)
    registry.check_budget(config.strategy, {"max_zooms": config.max_zooms, "enlarge": config.enlarge})
    for tool in config.tools:
        load_tool(tool)


def load_policy(config: AgentConfig) -> Policy:
    """The model that a configuration names.

    Raises:
        InputError: if it cannot be loaded or reached as described.
    """
    return loaded(config)[1]


def loaded(config: AgentConfig) -> tuple[AgentConfig, Policy]:
    """The model that a configuration names, and the configuration in the dialect that the model was trained with: of a served
    model, the server may say where its checkpoint lies.

    Raises:
        InputError: if it cannot be loaded or reached as described.
    """
    if is_served(config.model, config.base_url):
        return _served(config)
    if given := next((name for name in _OF_SERVED if getattr(config, name) is not None), None):
        raise InputError(f"--{given.replace('_', '-')} is for served models; {_OF_SERVED[given]}.")
    overview, zoom = config.areas
    policy = load(
        config.model,
        coordinates=config.coordinates,  # refused
        overview_pixels=overview,
        zoom_pixels=zoom,
        device=config.device,
        dtype=config.dtype,
        attn=config.attn,
        vllm_options=config.vllm_options or (),
    )
    return config, policy


_OF_SERVED = {
    "image_folder": "a local one gets the pixels themselves",
    "jpeg": "a local one gets the pixels themselves",
    "reasoning": "a local one thinks as its chat template has it",
}
"""Fields that say how a served model is asked, and why a local one needs none."""


def _served(config: AgentConfig) -> tuple[AgentConfig, Policy]:
    from cof_agent.backends.chat import reach

    placed = {name: getattr(config, name) for name in ("device", "dtype", "attn")}
    check_model(config.model, base_url=config.base_url, vllm_options=config.vllm_options or (), **placed)
    provider, name = split_spec(config.model)
    reached = reach(
        name,
        provider=provider or "openai",
        base_url=config.base_url,
        timeout=config.timeout,
        reasoning=config.reasoning,
    )
    if config.dialect is None and reached.known.dialect is not None:
        config = replace(config, dialect=str(reached.known.dialect))
        check(config)
    system = config.coordinates or config.spoken.coordinates
    overview, zoom = config.areas
    coordinates = CoordinateSystem(system) if system else None
    return config, reached.policy(
        coordinates=coordinates,
        max_pixels=overview,
        zoom_pixels=zoom,
        image_folder=config.image_folder,
        jpeg=config.jpeg,
    )


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs to the end, in a thread of its own where an event loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def told() -> Result:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, told())
        try:
            return done.result()
        except BaseException:  # an interrupt of the cell, else what the work itself raised
            if not done.done():
                loop, task = begun.result()
                if task is not None:
                    loop.call_soon_threadsafe(task.cancel)
            raise


def _paths_of(image: Picture | Sequence[Picture]) -> list[str]:
    """The paths of one image or several; pixels are written to a folder that lasts as long as the process."""
    images = list(image) if isinstance(image, Sequence) and not isinstance(image, str) else [image]
    if not images:
        raise InputError("there is no image to ask about: the list of images is empty.")
    return [_path_of(one) for one in images]


def _path_of(image: Picture) -> str:
    if isinstance(image, str | Path):
        return str(image)
    from PIL.Image import Image as Pillow

    if not isinstance(image, Pillow):
        raise InputError(f"an image is a path or a picture of Pillow's, not {type(image).__name__}.")
    return kept_image(png_of(image), "the image", _folder())


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cof-images-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
