"""`Dialect`: everything in which the conversations of one checkpoint differ from those of another, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from cof_agent.geometry import CoordinateSystem, CropRule, PixelLimits


@dataclass(frozen=True, slots=True)
class Place:
    """Where words stand in their authors' repository. name: of a Python constant, also within a class (`PROMPT.SYSTEM`); one
    that is no string is taken as JSON. ends: how the string ends, where it has no name. replace: what to put in place of parts
    of it, such as the markers of an image. Without a file the words stand in none, and the user brings them."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    file: str = ""
    name: str = ""
    ends: str = ""
    replace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opening:
    """The first messages. In each part, `{question}`, `{options}`, the first image's `{width}` and `{height}` in shown pixels and
    the names of words stand for these; `{image}` is the image.

    system: the system message; empty for none. `{tools}` are the schemas of the tools, one a line. user: parts of the question
    without options, and `choosing` of one with them. several: parts that stand in place of `{image}` for each of several images,
    with their `{count}`, and `{place}`, 1 for the first. system_of_several: the system message then, by default the same;
    `{last}` is the number of the last image. option: how one of the `{options}` is written. tools: whether the tools
    are told of in the text, or handed to the model's own template and to servers as `native` tools. described, parameters: of
    the zoom's schema, the latter as JSON; by default our own for the model's coordinates.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    system: str = ""
    user: tuple[str, ...] = ("{image}", "{question}")
    choosing: tuple[str, ...] = ("{image}", "{question}{options}")
    several: tuple[str, ...] = ("{image}",)
    system_of_several: str = ""
    option: str = "\n{letter}. {option}"
    tools: Literal["text", "native"] = "text"
    described: str = ""
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """How the zoom is called.

    open, close: the tags around a call. form: in which calls are written; both are read. bare: whether the arguments stand in
    the tags alone, without the name of a tool.
    names: of the zoom; the first is written, all are read, and `*` stands for any other. untagged: whether the JSON of a call is
    read without the tags around it. in_thought: whether a call in a closed thought counts.
    box: name of the argument. take: which of a turn's calls count.
    beside_answer: whether the call or the answer counts where one turn has both.
    image: name of the argument that says which image is meant; empty: the call cannot say it, and means the first. counts_from:
    number of the first image. first_called: what the argument calls the first image in words. later_called: and the crops, with
    the number of the image for `{n}`; a question then has one image. always_first: boxes are those of the first image,
    whatever is named. stop: a text that ends the model's turn, and stays in it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    open: str = "<tool_call>"
    close: str = "</tool_call>"
    form: Literal["json", "xml"] = "json"
    bare: bool = False
    names: tuple[str, ...] = ("image_zoom_in_tool",)
    untagged: bool = False
    in_thought: bool = False
    box: str = "bbox_2d"
    take: Literal["all", "first", "last"] = "all"
    beside_answer: Literal["call", "answer"] = "call"
    image: str = "image"
    counts_from: int = 0
    first_called: str = ""
    later_called: str = ""
    always_first: bool = False
    stop: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """Least and largest area of the overview in shown pixels; None: as the model's own limits say. The filter and the way
    in which an area is brought within them are those of the crops."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model is shown for a turn. In each part: `{image}` alone for the image, `{number}` of it in the conversation
    (from `Call.counts_from`), `{zoom}` and `{turn}` (1 for the first), `{before}` (one less), `{frame}` (what boxes mean in
    it), `{width}` and `{height}` in shown pixels, `{note}`, `{question}`, `{options}`, and the names of words.

    role: whose message it is; as a tool's, there is one for each call. parts: for a crop. error: for a call that cannot be
    used, with its `{error}`. text: for the words of a tool, `{text}`. between: stands between the replies to two calls of one
    turn, where they are one message.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    role: Literal["user", "tool"] = "user"
    parts: tuple[str, ...] = ("{image}", "Image {number}, {frame}.{note}")
    error: tuple[str, ...] = ("{error}",)
    text: tuple[str, ...] = ("{text}",)
    between: str = "\n"


@dataclass(frozen=True, slots=True)
class End:
    """What ends a conversation, and how much there may be of it.

    answer: how an answer is marked, in the order in which it is looked for: `tag` (`<answer>`), `boxed` (`\\boxed{}`), `plain`
    (a turn without a call). The first is the right form. neither: whether a turn with neither a call nor an answer is answered by
    a sentence, or ends the conversation. thought: whether a turn of the right form has to begin with one. zooms: how many;
    at_limit: one beyond them is answered by a sentence, or any turn behind them that does not answer ends the conversation.
    tokens: of one turn.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    answer: tuple[Literal["tag", "boxed", "plain"], ...] = ("tag",)
    neither: Literal["sentence", "stop"] = "sentence"
    thought: Literal["required", "allowed"] = "required"
    zooms: int = 6
    at_limit: Literal["sentence", "stop"] = "sentence"
    tokens: int = 512


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to hold the conversation. All that the loop, the prompts, the parser and the environment do differently from one
    checkpoint to the next stands here.

    about: the checkpoints that speak it, for lists. repository: where the words of its authors stand. words: texts by name; a
    `Place` where they have still to be fetched (`words.fetch`). coordinates: what boxes mean, where the dialect says it and not
    the model. temperature: of its sampling.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: str
    about: str = ""
    repository: str = ""
    words: Mapping[str, str | Place] = field(default_factory=dict)
    opening: Opening = field(default_factory=Opening)
    call: Call = field(default_factory=Call)
    coordinates: CoordinateSystem | None = None
    crop: CropRule = field(default_factory=CropRule)
    overview: Shown = field(default_factory=Shown)
    reply: Reply = field(default_factory=Reply)
    end: End = field(default_factory=End)
    temperature: float = 0.0

    @property
    def missing(self) -> list[str]:
        """The names of words that have still to be fetched."""
        return [name for name, text in self.words.items() if isinstance(text, Place)]

    @property
    def takes_several_images(self) -> bool:
        """Whether a question may be about several images: those of a dialect with words for the first image and the crops have no
        name for a second picture."""
        return not self.call.first_called

    def limits(self, model: PixelLimits) -> PixelLimits:
        """The limits within which a model with these limits is shown images; the largest areas are said when it is loaded."""
        least = self.overview.min_pixels
        return model if least is None else replace(model, min_pixels=min(least, model.max_pixels, model.zoom_pixels))

    @property
    def rule(self) -> CropRule:
        """The rule of its crops, beside what the agent's configuration and the model's limits say."""
        return replace(self.crop, enlarge=1.5, min_side=28, zoom_scale=2.0, max_pixels=None)

    def expanded(self, part: str) -> str:
        """A part with its words in their places; other placeholders stay."""
        texts = {name: text for name, text in self.words.items() if isinstance(text, str)}
        return PLACEHOLDER.sub(lambda found: texts.get(found[1], found[0]), part)


def filled(template: str, values: Mapping[str, object]) -> str:
    """`template` with the value of each `{name}` that is known; what stands in a value is not looked at."""
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), template)


PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
