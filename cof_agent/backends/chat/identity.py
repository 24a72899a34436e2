"""What a served model is: the family, the limits and the dialect of its checkpoint, by files, the server, or a name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cof_agent.backends import families
from cof_agent.backends.families import Vision
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.output.files import json_object
from cof_agent.protocol.dialects import beside

_LARGEST = 2**20  # bytes of a configuration
_USUAL = 30_000  # tokens that the vocabulary of a published model has at least
_PARENTS = 4  # of an adapter, of the model below it, ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of a served model.

    vision: None where nothing tells. own: the least and the largest area that its own processor makes, in shown pixels.
    dialect: the file that training has left beside the checkpoint. phrases: whether it has a vocabulary of its own, so small
    that its tokens may be whole phrases, as nano's are. thinks: whether its chat template writes a thought before each answer.
    forgets: whether it deletes the thoughts before the last message of the user.
    """

    vision: Vision | None = None
    own: tuple[int, int] | None = None
    dialect: Path | None = None
    phrases: bool = False
    thinks: bool = False
    forgets: bool = False

    def or_else(self, other: Identity) -> Identity:
        """This, and what it does not know from the other one."""
        dialect = self.dialect or other.dialect
        return replace(other if self.vision is None else self, dialect=dialect)


UNKNOWN = Identity()


def identify(model: str, listed: Iterable[Mapping[str, Any]] = ()) -> Identity:
    """What the name of a model and the list of the server's models (`/v1/models`) say of it.

    A folder on this machine comes before a name, and what the server calls the checkpoint before what it calls the model.
    """
    names = [*_names(model, [*listed]), model]
    found = Identity()
    for name in (model, *names):
        found = found.or_else(_of_folder(name))
    for name in names:
        found = found.or_else(_of_name(name))
    return found


def unknown(model: str, where: str) -> InputError:
    """A model of which nothing tells what its boxes mean."""
    return InputError(
        f"nothing says what the boxes of {model} at {where} mean; say it with --coordinates: "
        f"{CoordinateSystem.ABSOLUTE} (pixels of the image as the model sees it), {CoordinateSystem.THOUSAND} (0 to 1000), "
        f"{CoordinateSystem.THOUSAND_YX} (the same, y first), {CoordinateSystem.UNIT} (0 to 1) or {CoordinateSystem.PADDED} "
        "(0 to 1 of the padded square)."
    )


def _names(model: str, listed: list[Mapping[str, Any]]) -> list[str]:
    """What the server calls the checkpoint of this model, and those that it is an adapter of."""
    by_id = {str(one.get("id")): one for one in listed}
    entry = by_id.get(model, listed[0] if len(listed) == 1 else None)
    names: list[str] = []
    for _ in range(_PARENTS):
        if entry is None:
            break
        names += [value for key in ("root", "id") if isinstance(value := entry.get(key), str) and value]
        entry = by_id.get(str(entry.get("parent")))
    return names


def _of_folder(name: str, parents: int = _PARENTS) -> Identity:
    """What the files of a checkpoint say, if the name is that of a folder on this machine."""
    folder = _folder(name)
    if folder is None:
        return Identity()
    config = _json(folder / "config.json")
    found = Identity(dialect=beside(folder))
    family = next((one for one in families.FAMILIES if config.get("model_type") in one.model_types), None)
    if family is not None:
        template = _template(folder)
        thinks = family.thinks if template is None else "reasoning_content" in template
        return replace(
            found,
            vision=_vision(family.vision, config),
            own=_own(folder),
            phrases=_vocabulary(config) < _USUAL,
            thinks=thinks,
            forgets=thinks and _KEEPS not in (template or ""),
        )
    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not parents:
        return found
    return found.or_else(_of_folder(base, parents - 1)).or_else(_of_name(base))


def _of_name(name: str) -> Identity:
    thinks, forgets = families.thoughts(name)
    return Identity(families.served(name), thinks=thinks, forgets=forgets)


_KEEPS = "preserve_thinking is undefined"
"""In chat templates that keep all thoughts unless they are told otherwise."""


def _template(folder: Path) -> str | None:
    """The chat template of a checkpoint, in a file of its own or, of older ones, among others of its settings."""
    try:
        return (folder / "chat_template.jinja").read_text("utf-8")
    except (OSError, ValueError):
        files = ("chat_template.json", "tokenizer_config.json")
        found = (_json(folder / name).get("chat_template") for name in files)
        return next((text for text in found if isinstance(text, str)), None)


def _folder(name: str) -> Path | None:
    try:
        path = Path(name)
        return path if name and path.is_dir() else None
    except (OSError, ValueError):  # a name that no file can have
        return None


def _vision(vision: Vision, config: Mapping[str, Any]) -> Vision:
    """With the grid of this checkpoint."""
    own = config.get("vision_config")
    sizes = own if isinstance(own, dict) else {}
    patch, merge = sizes.get("patch_size", vision.patch), sizes.get("spatial_merge_size", vision.merge)
    usable = all(isinstance(size, int) and 0 < size < 1000 for size in (patch, merge))
    return replace(vision, patch=patch, merge=merge) if usable else vision


def _vocabulary(config: Mapping[str, Any]) -> float:
    """The number of tokens that the model knows."""
    inner = config.get("text_config")
    sizes = (one.get("vocab_size") for one in (inner, config) if isinstance(one, dict))
    return next((size for size in sizes if isinstance(size, int)), math.inf)


def _own(folder: Path) -> tuple[int, int] | None:
    """The limits of the checkpoint's own processor, as its files have them."""
    nested = _json(folder / "processor_config.json").get("image_processor")
    values = _json(folder / "preprocessor_config.json") or (nested if isinstance(nested, dict) else {})
    size = values.get("size")
    size = size if isinstance(size, dict) else {}
    least = size.get("shortest_edge", values.get("min_pixels"))
    largest = size.get("longest_edge", values.get("max_pixels"))
    if not (isinstance(least, int) and isinstance(largest, int) and 0 < least <= largest):
        return None
    return least, largest


def _json(path: Path) -> dict[str, Any]:
    """An object in a file; empty where there is none, whatever the reason: a name says the same then."""
    try:
        readable = path.is_file() and path.stat().st_size <= _LARGEST
    except (OSError, ValueError):
        readable = False
    return json_object(path) or {} if readable else {}
