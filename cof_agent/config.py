"""`AgentConfig`: THE description of how the agent runs.

The command line, Python, LangGraph Studio, lmms-eval, the evaluations inside SFT and RL and the rollouts of RL all use it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cof_agent.data.spec import checkpoint_of
from cof_agent.environment import CropMode, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import OF_MODELS, CoordinateSystem, PixelLimits
from cof_agent.nano import NANO
from cof_agent.policy import REASONING, RETRY_SECONDS, Sampling, is_reasoning
from cof_agent.protocol.dialects import OURS, Dialect, beside, dialect, names

if TYPE_CHECKING:
    from cof_agent.policy import Policy

Value = TypeVar("Value")


def _field(default: Value, help: str) -> Value:
    made: Value = field(default=default, metadata={"help": help})
    return made


@dataclass(frozen=True)
class AgentConfig:
    """How the agent runs. The defaults are those of Chain-of-Focus (arXiv 2505.15436).

    The help texts in the metadata are those of the command line, where every field is an option.

    Raises:
        InputError: if a value makes no sense.
    """

    # the model
    model: str = _field(
        NANO,
        "model that answers: nano, a folder, a hub id, or PROVIDER:MODEL for a served model; vllm:FOLDER or vllm:HUB_ID runs a "
        "checkpoint in vLLM",
    )
    base_url: str | None = _field(
        None, "address of the server; a model without a provider is then asked in OpenAI's format"
    )
    coordinates: str | None = _field(
        None, "what the boxes of a served model mean (default: as its checkpoint, the server or its name says)"
    )
    image_folder: str | None = _field(
        None,
        "folder in which a served model on this machine finds images as files, in place of images inside each request (vLLM: "
        "--allowed-local-media-path)",
    )
    jpeg: int | None = _field(
        None, "send images to a served model as JPEG of this quality, 1 to 100, which changes pixels (default: PNG)"
    )
    reasoning: str | None = _field(
        None,
        "how much a served model thinks before it answers: none, low, medium, high, or a number of tokens, beside --max-tokens "
        "(default: the server's or provider's own)",
    )
    device: str | None = _field(None, "device of a local model, such as cpu or cuda:1 (default: the best there is)")
    dtype: str | None = _field(
        None, "data type of a local model's weights, such as bfloat16 (default: what suits the device)"
    )
    attn: str | None = _field(
        None,
        "attention implementation of a local model, such as sdpa or flash_attention_2 (default: transformers' choice)",
    )
    vllm_options: tuple[str, ...] | None = _field(
        None,
        "options of the engine of a model in vLLM, as those of `vllm serve` without dashes, such as max-num-seqs=64",
    )
    # what it is shown
    overview_pixels: int | None = _field(
        None, "largest area of the overview, in shown pixels (default: the model's own limit)"
    )
    zoom_pixels: int | None = _field(
        None, "largest area of a crop, in shown pixels (default: a quarter of the overview's)"
    )
    max_zooms: int | None = _field(None, "number of zooms that the agent may make (default: 6, or as the dialect says)")
    enlarge: float | None = _field(
        None, "factor by which each box is enlarged before it is cut (default: 1.5, or as the dialect says)"
    )
    min_side: int | None = _field(
        None, "shortest side of a crop, in source pixels (default: 28, or as the dialect says)"
    )
    zoom_scale: float | None = _field(
        None,
        "shown pixels of a crop for each source pixel, as far as --zoom-pixels allows (default: 2, or as the dialect says)",
    )
    max_source_pixels: int = _field(
        ZoomSettings.max_source_pixels, "largest image that is decoded whole, in source pixels"
    )
    crop: CropMode = field(
        default="real",
        metadata={
            "help": "what crops show: real, or for a control blank (grey) or shuffled (another place of the image)"
        },
    )
    tools: tuple[str, ...] = _field((), "tool of your own beside the zoom, as MODULE:FUNCTION; repeat for more")
    # how it answers
    dialect: str | None = _field(
        None,
        f"words and rules that the model was trained with: {', '.join(names())}, or a file (`cof dialect --help`; default: "
        "those recorded beside a local checkpoint, else ours)",
    )
    strategy: str = _field(
        "focus",
        "how the zooms are spent: focus (the agent), direct (overview only), always-zoom, grid (fixed tiles), tree (where the "
        "model is surest), regions (what the question names, first), spot (Chain-of-Spot), coroi (regions that a trained "
        "scorer chooses), or MODULE:FUNCTION for your own",
    )
    system_prompt: str | None = _field(None, "file with the text that replaces our system prompt")
    max_tokens: int | None = _field(None, "largest number of tokens of one turn (default: 512, or as the dialect says)")
    temperature: float | None = _field(
        None, "temperature at which answers are drawn (default: 0, always the likeliest token; 1 with --seed)"
    )
    top_p: float = _field(1.0, "nucleus sampling: draw from the likeliest tokens that together have this probability")
    seed: int | None = _field(None, "seed of the random numbers by which answers are drawn")
    timeout: float = _field(600.0, "seconds for one reply of the model, waiting included")
    retry_seconds: float = _field(
        RETRY_SECONDS, "longest time to wait for a server that is down or overloaded, in seconds; 0: ask only once"
    )

    def __post_init__(self) -> None:
        self._check_numbers()
        for name in ("tools", "vllm_options"):  # JSON has lists, by which no model can be looked up
            if isinstance(given := getattr(self, name), list | str):
                object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        systems = [system.value for system in OF_MODELS]
        rules = {
            "max_tokens must be at least 1": self.max_tokens is None or self.max_tokens >= 1,
            "temperature must be 0 or more": self.temperature is None or self.temperature >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "timeout must be above 0": self.timeout > 0,
            "jpeg must be from 1 to 100": self.jpeg is None or 1 <= self.jpeg <= 100,
            "jpeg and image_folder are two ways to send images; name one of them": None
            in (self.jpeg, self.image_folder),
            f"reasoning must be {', '.join(REASONING)} or a number of tokens": self.reasoning is None
            or is_reasoning(self.reasoning),
            "retry_seconds must be 0 or more": self.retry_seconds >= 0,
            "overview_pixels must be at least 1": self.overview_pixels is None or self.overview_pixels >= 1,
            "zoom_pixels must be at least 1": self.zoom_pixels is None or self.zoom_pixels >= 1,
            f"coordinates must be one of {', '.join(systems)}": self.coordinates is None or self.coordinates in systems,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InputError(f"{rule}.")
        self.settings_for(CoordinateSystem.ABSOLUTE, PixelLimits())  # whose own rules hold for any model

    def _check_numbers(self) -> None:
        """Python gives a field a value of any type."""
        for one in fields(self):
            kinds, value = set(re.findall(r"\w+", str(one.type))), getattr(self, one.name)
            if not kinds <= {"int", "float", "None"} or (value is None and "None" in kinds):
                continue
            is_number = isinstance(value, Real) and not isinstance(value, bool)  # numpy's numbers are some, too
            whole = isinstance(value, int) or (is_number and float(value).is_integer())
            if not is_number or ("float" not in kinds and not whole):
                wanted = "a number" if "float" in kinds else "a whole number"
                raise InputError(f"{one.name} must be {wanted}, not {value!r}.")
            if "float" not in kinds and type(value) is not int:  # 1e6, or numpy's
                object.__setattr__(self, one.name, int(value))

    @cached_property
    def spoken(self) -> Dialect:
        """The dialect itself.

        Raises:
            InputError: if there is none of this name, or its words have still to be fetched.
        """
        return dialect(self.dialect or str(beside(checkpoint_of(self.model)) or OURS))

    @property
    def zooms(self) -> int:
        """The number of zooms that the agent may make."""
        return self.spoken.end.zooms if self.max_zooms is None else self.max_zooms

    @property
    def turn_tokens(self) -> int:
        """The largest number of tokens of one turn."""
        return self.spoken.end.tokens if self.max_tokens is None else self.max_tokens

    def filled(self) -> AgentConfig:
        """The same with the values of the dialect where none was given."""
        return replace(self, max_tokens=self.turn_tokens, **self._views())

    def _views(self) -> dict[str, Any]:
        """How it zooms, as given, else as the dialect says."""
        given = {name: getattr(self, name) for name in ("enlarge", "min_side", "zoom_scale")}
        rule = self.spoken.crop
        said = {name: getattr(rule, name) if value is None else value for name, value in given.items()}
        return {"max_zooms": self.zooms, **said}

    @property
    def areas(self) -> tuple[int | None, int | None]:
        """The largest area of the overview and of a crop in shown pixels, where something but the model says it."""
        spoken = self.spoken
        return self.overview_pixels or spoken.overview.max_pixels, self.zoom_pixels or spoken.crop.max_pixels

    def settings(self, policy: Policy) -> ZoomSettings:
        """What the policy is shown.

        Raises:
            InputError: if a value makes no sense.
        """
        return self.settings_for(policy.coordinates, policy.limits)

    def settings_for(self, system: CoordinateSystem, limits: PixelLimits) -> ZoomSettings:
        """What a model with these coordinates and limits is shown.

        Raises:
            InputError: if a value makes no sense.
        """
        plain = ZoomSettings(
            system=self.spoken.coordinates or system,
            limits=limits,
            max_source_pixels=self.max_source_pixels,
            crop=self.crop,
            tools=self.tools,
        )
        return replace(in_dialect(plain, self.spoken), **self._views())

    @property
    def sampling(self) -> Sampling:
        """How each assistant message is drawn."""
        given = self.spoken.temperature if self.seed is None else 1.0
        temperature = given if self.temperature is None else self.temperature
        return Sampling(self.turn_tokens, temperature, self.top_p, self.seed, stop=self.spoken.call.stop)


def in_dialect(settings: ZoomSettings, dialect: Dialect, *, zooms: int = 0) -> ZoomSettings:
    """The settings by the rules of a dialect. zooms: that it has to allow at least, as for a conversation that was held."""
    rule = dialect.crop
    return replace(
        settings,
        limits=dialect.limits(settings.limits),
        max_zooms=max(dialect.end.zooms, zooms),
        enlarge=rule.enlarge,
        min_side=rule.min_side,
        zoom_scale=rule.zoom_scale,
        rule=dialect.rule,
        counts_from=dialect.call.counts_from,
        box_name=dialect.call.box,
    )


def read_prompt(path: str | None) -> str | None:
    """The text of a system prompt's file, None without one.

    Raises:
        InputError: if it cannot be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the system prompt {path}: {reason}.") from None
