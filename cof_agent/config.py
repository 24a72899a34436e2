"""`AgentConfig`: THE description of how the agent runs.

The command line, Python, LangGraph Studio, lmms-eval, the evaluations inside SFT and RL and the rollouts of RL all use it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cof_agent.environment import CropMode, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.nano import NANO
from cof_agent.policy import GREEDY, RETRY_SECONDS, Sampling

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
    model: str = _field(NANO, "model that answers: nano, a folder, a hub id, or PROVIDER:MODEL for a served model")
    base_url: str | None = _field(None, "address of the server; a model without a provider is then openai's")
    coordinates: str | None = _field(None, "what the boxes of a served model mean (default: as its name tells)")
    device: str | None = _field(None, "device of a local model, such as cpu or cuda:1 (default: the best there is)")
    dtype: str | None = _field(None, "number type of a local model's weights (default: what suits the device)")
    attn: str | None = _field(
        None, "attention of a local model, such as sdpa or flash_attention_2 (default: transformers' choice)"
    )
    # what it is shown
    overview_pixels: int | None = _field(
        None, "largest area of the overview, in shown pixels (default: the model's own limit)"
    )
    zoom_pixels: int | None = _field(
        None, "largest area of a crop, in shown pixels (default: a quarter of the overview's)"
    )
    max_zooms: int = _field(ZoomSettings.max_zooms, "number of zooms that the agent may make")
    enlarge: float = _field(ZoomSettings.enlarge, "factor by which each box is enlarged before it is cut")
    min_side: int = _field(ZoomSettings.min_side, "shortest side of a crop, in source pixels")
    zoom_scale: float = _field(
        ZoomSettings.zoom_scale, "shown pixels of a crop for each source pixel, as far as --zoom-pixels allows"
    )
    max_source_pixels: int = _field(ZoomSettings.max_source_pixels, "largest image that is opened, in source pixels")
    crop: CropMode = field(
        default="real",
        metadata={
            "help": "what crops show: real, or for a control blank (grey) or shuffled (another place of the image)"
        },
    )
    tools: tuple[str, ...] = _field((), "tool of your own beside the zoom, as MODULE:FUNCTION; repeat for more")
    # how it answers
    strategy: str = _field(
        "focus",
        "how the zooms are spent: focus (the agent), direct (overview only), always-zoom, grid (fixed tiles), tree (where the "
        "model is surest), regions (what the question names, first), spot (Chain-of-Spot), coroi (regions that a trained "
        "scorer chooses), or MODULE:FUNCTION for your own",
    )
    system_prompt: str | None = _field(None, "file with the text that replaces our system prompt")
    max_tokens: int = _field(GREEDY.max_tokens, "largest number of tokens of one turn")
    temperature: float | None = _field(
        None, "temperature at which answers are drawn (default: 0, always the likeliest token; 1 with --seed)"
    )
    top_p: float = _field(1.0, "share of the probability that tokens are drawn from")
    seed: int | None = _field(None, "seed of the random numbers by which answers are drawn")
    timeout: float = _field(600.0, "seconds for one reply of the model, waiting included")
    retry_seconds: float = _field(
        RETRY_SECONDS, "longest time to wait for a server that is down or overloaded, in seconds; 0: ask only once"
    )

    def __post_init__(self) -> None:
        systems = [system.value for system in CoordinateSystem]
        rules = {
            "max_tokens must be at least 1": self.max_tokens >= 1,
            "temperature must be 0 or more": self.temperature is None or self.temperature >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "timeout must be above 0": self.timeout > 0,
            "retry_seconds must be 0 or more": self.retry_seconds >= 0,
            "overview_pixels must be at least 1": self.overview_pixels is None or self.overview_pixels >= 1,
            "zoom_pixels must be at least 1": self.zoom_pixels is None or self.zoom_pixels >= 1,
            f"coordinates must be one of {', '.join(systems)}": self.coordinates is None or self.coordinates in systems,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InputError(f"{rule}.")
        self._settings(CoordinateSystem.ABSOLUTE, PixelLimits())  # whose own rules hold for any model

    def settings(self, policy: Policy) -> ZoomSettings:
        """What the policy is shown.

        Raises:
            InputError: if a value makes no sense.
        """
        return self._settings(policy.coordinates, policy.limits)

    def _settings(self, system: CoordinateSystem, limits: PixelLimits) -> ZoomSettings:
        return ZoomSettings(
            system=system,
            limits=limits,
            max_zooms=self.max_zooms,
            enlarge=self.enlarge,
            min_side=self.min_side,
            zoom_scale=self.zoom_scale,
            max_source_pixels=self.max_source_pixels,
            crop=self.crop,
            tools=self.tools,
        )

    @property
    def sampling(self) -> Sampling:
        """How each assistant message is drawn."""
        temperature = self.temperature if self.temperature is not None else float(self.seed is not None)
        return Sampling(self.max_tokens, temperature, self.top_p, self.seed)


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
