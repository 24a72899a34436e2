"""Tools of the user's own, which the agent may use beside the zoom: functions of an image, named as `module:function`.

    def rotate(image: Image, degrees: int) -> Image:
        \"\"\"Shows an image turned counter-clockwise by so many degrees.\"\"\"
        return image.rotate(degrees, expand=True)

The first parameter gets the pixels of the region that the named image shows, cut from the full-resolution source. The others
are what the model writes, checked against their annotations (int, float, str, bool, Literal). The function returns an image
or text. A `ValueError` is told to the model as its message; any other exception is a fault of the tool and ends the program.
A tool must give the same result for the same arguments, because its images are made anew whenever they are shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from cof_agent.errors import InputError
from cof_agent.plugins import load_function

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGE = {
    "type": "integer",
    "description": "Which image of this conversation the tool is used on; 0, the first, by default.",
}


class ToolError(ValueError):
    """Why a tool cannot be used as the model asked; the message is the sentence that the model reads."""


@dataclass(frozen=True)
class Tool:
    """A function of an image, as the model may call it. schema: the OpenAI function schema; model: checks its arguments."""

    name: str
    function: Callable[..., Image | str]
    schema: dict[str, Any]
    model: Any

    def run(self, image: Image, arguments: Mapping[str, Any]) -> Image | str:
        """What the function makes of an image.

        Raises:
            ToolError: if the arguments are not those of the function, or it refuses them.
        """
        from pydantic import ValidationError

        try:
            checked = self.model.model_validate(dict(arguments))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ToolError(f"The arguments of {self.name} are not right: {where}: {first['msg']}.") from None
        try:
            return self.function(image, **{name: getattr(checked, name) for name in self.model.model_fields})
        except ValueError as error:
            raise ToolError(f"{self.name}: {error}") from None


@cache
def load_tool(spec: str) -> Tool:
    """The tool that `module:function` names.

    Raises:
        InputError: if there is no such function, or the model cannot call it.
    """
    from pydantic import ConfigDict, PydanticUserError, create_model

    function = load_function(spec, "tool")
    name = function.__name__
    try:
        parameters_of = [*inspect.signature(function, eval_str=True).parameters.values()]
        if not parameters_of:
            raise ValueError("its first parameter must take the image, a Pillow picture")
        others = parameters_of[1:]
        fields: dict[str, Any] = {one.name: (one.annotation, _default(one)) for one in others}
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        parameters = model.model_json_schema()
    except (ValueError, TypeError, NameError, PydanticUserError) as error:
        raise InputError(f"the tool {spec} cannot be called by a model: {error}.") from None
    if lists := [
        one for one, said in parameters.get("properties", {}).items() if said.get("type") in ("array", "object")
    ]:
        raise InputError(
            f"the tool {spec} cannot be called by a model: {lists[0]} must be a number, a text, or true or false."
        )
    if "image" in fields:
        raise InputError(f"the tool {spec} has a second parameter called image; give that one another name.")
    parameters["properties"] = {**parameters.get("properties", {}), "image": _IMAGE}
    described = {"name": name, "description": _first_paragraph(function), "parameters": parameters}
    return Tool(name, function, {"type": "function", "function": described}, model)


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.annotation is parameter.empty:
        raise ValueError(f"its parameter {parameter.name} has no type")
    return ... if parameter.default is parameter.empty else parameter.default


def _first_paragraph(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
