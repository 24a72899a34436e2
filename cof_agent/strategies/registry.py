"""The strategies by name: the agent, and other ways to spend the same model's zooms, so that gains can be told apart.

A strategy wraps the policy, changes the settings, or plays another graph. One of your own is named as `module:function`; the
function is a `Strategy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cof_agent.data.spec import checkpoint_of
from cof_agent.environment import ZoomSettings
from cof_agent.errors import InputError
from cof_agent.plugins import is_plugin, load_function
from cof_agent.policy import Policy
from cof_agent.protocol.dialects import OURS, Dialect
from cof_agent.strategies import fixed
from cof_agent.strategies.wrapper import Strategy, Way
from cof_agent.trajectory import Sample


def by_name(name: str) -> Strategy:
    """The strategy of this name, or the user's own.

    Raises:
        InputError: if there is none.
    """
    if is_plugin(name):
        strategy: Strategy = load_function(name, "strategy")
        return strategy
    if name not in _STRATEGIES:
        raise InputError(
            f"there is no strategy {name!r}; the strategies are {', '.join(_STRATEGIES)}, or module:function for your own."
        )
    return _STRATEGIES[name]


def takes_several_images(name: str, dialect: Dialect) -> bool:
    """Whether a strategy can play samples of several images in a dialect. Others point at one overview; a user's own may."""
    return dialect.takes_several_images and (is_plugin(name) or name in _SEVERAL_IMAGES)


def check_images(name: str, dialect: Dialect, samples: Iterable[Sample]) -> None:
    """Refuses samples that the strategy of this name cannot play in this dialect.

    Raises:
        InputError: if one has several images, and the strategy looks at one, or the dialect names one.
    """
    if takes_several_images(name, dialect):
        return
    for sample in samples:
        if sample.more_images:
            raise InputError(f"{sample.id} has {len(sample.images)} images, but {why_one_image(name, dialect)}.")


def why_one_image(name: str, dialect: Dialect) -> str:
    """Why a question that is played with this strategy in this dialect has one image, as the end of a sentence."""
    if not dialect.takes_several_images:
        return f"the dialect {dialect.name} has no name for a second one"
    return f"the strategy {name} looks at one; the strategies {' and '.join(_SEVERAL_IMAGES)} take several"


def check_dialect(name: str, dialect: str) -> None:
    """Refuses a dialect in which the strategy of this name cannot be played.

    Raises:
        InputError: if it writes turns itself, which it does in ours.
    """
    if dialect != OURS and not is_plugin(name) and name not in _ANY_DIALECT:
        raise InputError(
            f"the strategy {name} writes turns in our own dialect; with {dialect} the strategies are "
            f"{' and '.join(_ANY_DIALECT)}."
        )


def check_budget(name: str, given: Mapping[str, float | None]) -> None:
    """Refuses a number of zooms, or a factor by which boxes are enlarged, other than the strategy of this name has of its own.

    given: `max_zooms` and `enlarge` where somebody asked for them, else None.

    Raises:
        InputError: if one would be passed over.
    """
    for option, value in given.items():
        own = _OF_ITS_OWN.get(name, {}).get(option)
        if own is not None and value is not None and value != own:
            raise InputError(f"the strategy {name} has {option} {own:g} of its own, not {value:g}; leave that out.")


_OF_ITS_OWN: dict[str, dict[str, float]] = {
    "direct": {"max_zooms": 0},
    "grid": {"max_zooms": 9, "enlarge": 1.0},
    "tree": {"max_zooms": 16, "enlarge": 1.2},
    "spot": {"max_zooms": 1},
}


def check_trainable(name: str) -> None:
    """Refuses a strategy whose turns RL cannot train.

    Raises:
        InputError: if the model does not write all of them.
    """
    if name in _WRITE_TURNS:
        raise InputError(f"the strategy {name} writes turns of its own, so that it cannot be trained by RL.")


def check_model(name: str, model: str) -> None:
    """Refuses a model that cannot play the strategy of this name.

    Raises:
        InputError: if the strategy reads what is inside a model, and vLLM runs it.
    """
    if name == "coroi" and (checkpoint := checkpoint_of(model)) != model:
        raise InputError(
            f"the strategy {name} reads features inside the model, which vLLM does not tell; name {checkpoint}."
        )


def _focus(policy: Policy, settings: ZoomSettings) -> Way:
    return Way(policy, settings)


def _tree(policy: Policy, settings: ZoomSettings) -> Way:
    from cof_agent.strategies.tree import tree

    return tree(policy, settings)


def _spot(policy: Policy, settings: ZoomSettings) -> Way:
    from cof_agent.strategies.spot.graph import spot

    return spot(policy, settings)


def _coroi(policy: Policy, settings: ZoomSettings) -> Way:
    from cof_agent.strategies.coroi.chooser import coroi  # loads torch

    return coroi(policy, settings)


_STRATEGIES: dict[str, Strategy] = {
    "focus": _focus,
    "direct": fixed.direct,
    "always-zoom": fixed.always_zoom,
    "grid": fixed.grid,
    "tree": _tree,
    "regions": fixed.regions,
    "spot": _spot,
    "coroi": _coroi,
}

_SEVERAL_IMAGES = ("focus", "direct")
_ANY_DIALECT = ("focus", "direct")
_WRITE_TURNS = ("always-zoom", "grid", "tree", "regions", "coroi")
