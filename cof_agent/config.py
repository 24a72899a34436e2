"""`AgentConfig`: THE description of how the agent runs.

The command line, Python, LangGraph Studio, lmms-eval, the evaluations inside SFT and RL and the rollouts of RL all use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cof_agent.environment import CropMode, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.nano import NANO
from cof_agent.policy import GREEDY, Sampling

if TYPE_CHECKING:
    from cof_agent.policy import Policy


@dataclass(frozen=True)
class AgentConfig:
    """How the agent runs. The defaults are those of Chain-of-Focus (arXiv 2505.15436).

    Raises:
        InputError: if a value makes no sense.
    """

    # the model
    model: str = NANO  # nano, a folder, a hub id, or PROVIDER:MODEL for a served model
    base_url: str | None = None  # where a served model is; with it, a model without a provider is openai's
    coordinates: str | None = None  # what a served model's boxes mean: a value of `CoordinateSystem`
    device: str | None = None  # of a local model, as torch names it; the best there is by default
    dtype: str | None = None  # of a local model: bfloat16, float16 or float32
    attn: str | None = None  # of a local model: eager, sdpa or flash_attention_2
    # what it is shown
    overview_pixels: int | None = None  # largest area of the overview in shown pixels; the model's own limit by default
    zoom_pixels: int | None = None  # largest area of a crop in shown pixels; likewise
    max_zooms: int = ZoomSettings.max_zooms
    enlarge: float = ZoomSettings.enlarge  # factor by which a box is enlarged about its centre before it is cut
    min_side: int = ZoomSettings.min_side  # shortest side of a crop in source pixels
    zoom_scale: float = ZoomSettings.zoom_scale  # shown pixels of a crop per source pixel, within `zoom_pixels`
    max_source_pixels: int = ZoomSettings.max_source_pixels  # largest image that is opened, in source pixels
    crop: CropMode = "real"  # controls: "blank" shows grey crops, "shuffled" another place of the image
    tools: tuple[str, ...] = ()  # module:function of each tool beside the zoom (see `tools`)
    # how it answers
    strategy: str = "focus"  # how the zooms are spent: a name of `strategies.registry`, or module:function
    system_prompt: str | None = None  # text that replaces the system message
    max_tokens: int = GREEDY.max_tokens  # of one turn
    temperature: float | None = None  # by default 0, which is greedy; 1 where a seed is given
    top_p: float = 1.0
    seed: int | None = None  # of sampling
    timeout: float = 600.0  # seconds for one assistant message, waiting included

    def __post_init__(self) -> None:
        systems = [system.value for system in CoordinateSystem]
        rules = {
            "max_tokens must be at least 1": self.max_tokens >= 1,
            "temperature must be 0 or more": self.temperature is None or self.temperature >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "timeout must be above 0": self.timeout > 0,
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
