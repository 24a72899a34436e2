"""One record for each model family: what its boxes mean, how it is shown images, and how its parts are named.

All that the code knows of a family by name stands here. To add one that works as these do, add its record to `FAMILIES` and a
test. What a single checkpoint decides for itself (its grid, its pixel limits, its token ids) is read from its own files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits


@dataclass(frozen=True, slots=True)
class Vision:
    """How images are shown to a model, and what its boxes mean.

    coordinates: also say in which order the numbers of a box are written. A grid cell is one image token, `merge` x `merge`
    patches of `patch` pixels a side.
    """

    coordinates: CoordinateSystem
    patch: int
    merge: int = 2
    min_cells: int = 4  # of any image
    overview_cells: int = 1280  # at most, unless asked for otherwise

    @property
    def grid(self) -> int:
        """Side of a grid cell in shown pixels."""
        return self.patch * self.merge

    def limits(
        self, overview: int | None = None, zoom: int | None = None, *, own: tuple[int, int] | None = None
    ) -> PixelLimits:
        """The limits for a model that is shown images like this, areas in shown pixels.

        overview, zoom: as asked for; by default `overview_cells`, and a quarter of the overview. own: the least and the largest
        area that a checkpoint's own processor makes.

        Raises:
            InputError: if what was asked for is smaller than a cell.
        """
        cell = self.grid**2
        least, largest = own or (self.min_cells * cell, self.overview_cells * cell)
        shown = overview or min(largest, self.overview_cells * cell)
        for name, area in (("overview-pixels", shown), ("zoom-pixels", zoom or cell)):
            if area < cell:
                raise InputError(
                    f"--{name} must be at least {cell}, one cell of {self.grid} x {self.grid} pixels, not {area}."
                )
        crop = zoom or max(shown // 4, cell)
        return PixelLimits(self.grid, min(least, shown, crop), shown, crop)


@dataclass(frozen=True, slots=True)
class Markers:
    """The special tokens of a family's tokenizers, one token each, and how its chat templates frame a turn."""

    image: str  # stands for an image; the processor repeats it for each grid cell
    video: str
    before_image: str
    after_image: str
    start_of_turn: str
    end_of_turn: str  # the model writes it to end its turn
    end_of_text: str

    @property
    def shown(self) -> str:
        """An image in a text."""
        return f"{self.before_image}{self.image}{self.after_image}"

    @property
    def assistant(self) -> str:
        """What stands before the words of an assistant turn; `ending` stands behind them."""
        return f"{self.start_of_turn}assistant\n"

    @property
    def ending(self) -> str:
        """What stands behind the words of a turn: the mark that the model writes, and a line break."""
        return f"{self.end_of_turn}\n"


@dataclass(frozen=True, slots=True)
class Modules:
    """The parts of a model by the names of their modules; LoRA goes into the linear layers that are listed.

    language, head, tower: paths from the whole model. embeddings: within `language`. patches, blocks, projector and
    level_projectors: within `tower`; the last is a list, one for each of the tower's levels that go to the language model
    beside its output. tower_width, levels: what the tower's configuration calls the width of its hidden states, and the list
    of these levels.
    """

    language: str
    language_linear: tuple[str, ...]
    embeddings: str
    head: str
    tower: str
    tower_linear: tuple[str, ...]
    tower_width: str
    patches: str
    blocks: str
    projector: str
    level_projectors: str | None = None
    levels: str | None = None

    def language_targets(self) -> str:
        """A pattern of the language model's linear layers, as PEFT takes it."""
        return rf"{re.escape(self.language)}\..*\.({'|'.join(self.language_linear)})"

    def tower_targets(self) -> str:
        """A pattern of the linear layers in the tower's blocks."""
        linear = "|".join(map(re.escape, self.tower_linear))
        return rf"{re.escape(self.tower)}\.{re.escape(self.blocks)}\..*\.({linear})"

    def projectors(self, vision_config: Any) -> list[str]:
        """The projectors of a model whose tower has this configuration, as PEFT's `modules_to_save` takes them."""
        tower, levels = self.tower.rpartition(".")[2], getattr(vision_config, self.levels) if self.levels else ()
        return [f"{tower}.{self.projector}", *(f"{self.level_projectors}.{level}" for level in range(len(levels)))]

    @property
    def older_names(self) -> dict[str, str]:
        """Patterns of the paths that transformers before 4.52 knew, each with what takes its place: the language model was the
        root's own, and the tower stood beside it."""
        root, _, tower = self.tower.rpartition(".")
        now = "|".join(part.rpartition(".")[2] for part in (self.language, self.tower))
        return {rf"^{tower}\.": f"{self.tower}.", rf"^{root}\.(?!({now})\.)": f"{self.language}."}

    def current(self, name: str) -> str:
        """The path of today for a module, or a weight in it, that may have an older one."""
        for pattern, new in self.older_names.items():
            if re.match(pattern, name):
                return re.sub(pattern, new, name)
        return name

    def in_tower(self, parameter: str) -> bool:
        """Whether a parameter of the model, named with or without PEFT's prefix, is one of the tower or its projectors."""
        return f"{self.tower}." in parameter

    def in_projector(self, parameter: str) -> bool:
        """Whether it is one of the projectors."""
        part = parameter.partition(f"{self.tower}.")[2].partition(".")[0]
        return bool(part) and part in (self.projector, self.level_projectors)

    def in_ends(self, parameter: str) -> bool:
        """Whether it is one of the embeddings or of the head."""
        return any(f".{name}." in f".{parameter}" for name in (self.embeddings, self.head))


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of a family of models.

    model_types: in the configurations of its checkpoints. served_as: patterns of which the name of a served model contains one
    (see `plain_name`). published: the same of zoom checkpoints whose names do not say their family. thinks: whether its chat
    templates write a thought before each answer; thinkers: as `served_as`, of models whose templates do in a family where others
    do not. remembers: as `served_as`, of models whose templates keep the thoughts before the last message of the user; those of
    other models that think delete them.
    """

    name: str
    model_types: tuple[str, ...]
    served_as: tuple[str, ...]
    vision: Vision
    markers: Markers
    modules: Modules
    published: tuple[str, ...] = ()
    thinks: bool = False
    thinkers: tuple[str, ...] = ()
    remembers: tuple[str, ...] = ()


_QWEN_MARKERS = Markers(
    image="<|image_pad|>",
    video="<|video_pad|>",
    before_image="<|vision_start|>",
    after_image="<|vision_end|>",
    start_of_turn="<|im_start|>",
    end_of_turn="<|im_end|>",
    end_of_text="<|endoftext|>",
)
_ATTENTION_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj")
_LINEAR_ATTENTION_LINEAR = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")
_QWEN_MODULES = Modules(
    language="model.language_model",
    language_linear=(*_ATTENTION_LINEAR, "gate_proj", "up_proj", "down_proj"),
    embeddings="embed_tokens",
    head="lm_head",
    tower="model.visual",
    tower_linear=("qkv", "attn.proj", "gate_proj", "up_proj", "down_proj"),
    tower_width="hidden_size",
    patches="patch_embed",
    blocks="blocks",
    projector="merger",
)

QWEN2_VL = Family(
    "Qwen2-VL",
    model_types=("qwen2_vl",),
    served_as=("qwen2vl",),
    vision=Vision(CoordinateSystem.THOUSAND, patch=14),
    markers=_QWEN_MARKERS,
    # `hidden_size` of the tower's configuration is the width of the language model.
    modules=replace(_QWEN_MODULES, tower_linear=("qkv", "attn.proj", "fc1", "fc2"), tower_width="embed_dim"),
)
QWEN2_5_VL = Family(
    "Qwen2.5-VL",
    model_types=("qwen2_5_vl",),
    served_as=(r"qwen2\.?5vl", "mimovl"),
    vision=Vision(CoordinateSystem.ABSOLUTE, patch=14),
    markers=_QWEN_MARKERS,
    modules=_QWEN_MODULES,
    published=("chainoffocus", r"cof(?:sft|rl)model", "deepeyes(?!v2)", "minio3", "pixelreasoner"),
)
QWEN3_VL = Family(
    "Qwen3-VL",
    model_types=("qwen3_vl",),
    served_as=("qwen3vl",),
    vision=Vision(CoordinateSystem.THOUSAND, patch=16),
    markers=_QWEN_MARKERS,
    modules=replace(
        _QWEN_MODULES,
        tower_linear=("qkv", "attn.proj", "linear_fc1", "linear_fc2"),
        level_projectors="deepstack_merger_list",
        levels="deepstack_visual_indexes",
    ),
    published=("sensenovamars",),
    thinkers=(r"qwen3vl.*thinking",),
)

# All experts of a layer are one parameter, so that LoRA adapts what stands beside them.
QWEN3_VL_MOE = Family(
    "Qwen3-VL-MoE",
    model_types=("qwen3_vl_moe",),
    served_as=(),  # by the name of a served model they are one family
    vision=QWEN3_VL.vision,
    markers=_QWEN_MARKERS,
    modules=replace(QWEN3_VL.modules, language_linear=_ATTENTION_LINEAR),
)
QWEN3_5 = Family(
    "Qwen3.5",
    model_types=("qwen3_5",),
    served_as=(r"qwen3\.[568]",),
    thinks=True,
    remembers=(r"qwen3\.8",),
    vision=QWEN3_VL.vision,
    markers=_QWEN_MARKERS,
    modules=replace(
        _QWEN_MODULES,
        language_linear=(*_QWEN_MODULES.language_linear, *_LINEAR_ATTENTION_LINEAR),
        tower_linear=QWEN3_VL.modules.tower_linear,
    ),
)
QWEN3_5_MOE = Family(
    "Qwen3.5-MoE",
    model_types=("qwen3_5_moe",),
    served_as=(),
    thinks=True,
    vision=QWEN3_VL.vision,
    markers=_QWEN_MARKERS,
    modules=replace(QWEN3_5.modules, language_linear=(*QWEN3_5.modules.language_linear, "shared_expert_gate")),
)

QWEN4_EXP = Family(
    "Qwen4-Exp",
    model_types=("qwen4_exp",),
    served_as=(r"qwen4exp",),
    thinks=True,
    vision=QWEN3_VL.vision,
    markers=_QWEN_MARKERS,
    modules=replace(
        QWEN3_5_MOE.modules,
        language_linear=(
            *QWEN3_5_MOE.modules.language_linear,
            *("key_proj", "value_proj", "input_mix_weight_down", "input_mix_weight_up", "block_inject_weight"),
            # Not `index_qk_proj`: it chooses tokens, and no gradient reaches it.
        ),
    ),
)

FAMILIES = (QWEN2_VL, QWEN2_5_VL, QWEN3_VL, QWEN3_VL_MOE, QWEN3_5, QWEN3_5_MOE, QWEN4_EXP)

ONLY_SERVED = (
    ("InternVL3.5", (r"internvl3\.5",), Vision(CoordinateSystem.THOUSAND, patch=14)),
    ("GLM-V", (r"glm4\.[156]v",), Vision(CoordinateSystem.THOUSAND, patch=14)),
    # A picture of any size becomes 16 x 16 tokens. A digit before `b` is a size: `medgemma-4b` is no Gemma 4.
    (
        "Gemma 3",
        (r"gemma3(?![nb])", "medgemma", "translategemma"),
        Vision(CoordinateSystem.THOUSAND_YX, patch=14, merge=4, overview_cells=256),
    ),
    ("Gemma 4", ("gemma4(?!b)",), Vision(CoordinateSystem.THOUSAND_YX, patch=16, merge=3, overview_cells=280)),
    ("LLaVA-OneVision", (r"llavaonevision(?!\d)",), Vision(CoordinateSystem.UNIT, patch=14)),
)
"""Families that no record describes for this process: name, patterns of a served model's name, and what such a model is shown.
Of others (Kimi K2.5 and later, MiniCPM-V, Molmo, LLaVA-OneVision-1.5) it is not known what their boxes mean."""

UNKNOWN = Vision(CoordinateSystem.THOUSAND, patch=14)
"""How a served model of no known family is shown images, once somebody has said what its boxes mean."""

EXAMPLE = "Qwen/Qwen2.5-VL-7B-Instruct"
"""A checkpoint to name where a sentence needs one."""


def of(config: Any) -> Family:
    """The family of a checkpoint, by its configuration.

    Raises:
        InputError: if it is of none that is known.
    """
    for family in FAMILIES:
        if config.model_type in family.model_types:
            return family
    *names, last = (family.name for family in FAMILIES)
    raise InputError(
        f"{config.name_or_path or 'the checkpoint'} is a {config.model_type} model; a local model must be of the "
        f"{', '.join(names)} or {last} family. To ask another one, serve it: --model openai:NAME --base-url URL."
    )


def plain_name(model: str) -> str:
    """The name of a served model as patterns see it: lower-case letters and digits, and a dot between two of a version's numbers,
    however that is written (`Qwen3_5-9B` is `qwen3.59b`)."""
    numbers = re.sub(r"(?<=\d)[._p](?=\d)", ".", model.lower())
    return re.sub(r"[^a-z0-9.]|(?<!\d)\.|\.(?!\d)", "", numbers)


def served(model: str) -> Vision | None:
    """What the name of a served model says of it; None where it says nothing, or names families whose boxes differ."""
    found = _named(_telling_part(model))
    return found[0] if len({vision.coordinates for vision in found}) == 1 else None


def _telling_part(model: str) -> str:
    """The plain name of the last part of a path that names a family: folders above it may be named after other models."""
    parts = [plain_name(part) for part in re.split(r"[/\\]", model)]
    return next((part for part in reversed(parts) if _named(part)), plain_name(model))


def _named(plain: str) -> list[Vision]:
    """What the families are shown that a plain name contains; a zoom checkpoint's own name counts where it contains none."""
    known = [
        *((family.served_as, family.vision) for family in FAMILIES),
        *((patterns, vision) for _, patterns, vision in ONLY_SERVED),
    ]
    published = [(family.published, family.vision) for family in FAMILIES]
    return _matching(known, plain) or _matching(published, plain)


def _matching(known: Sequence[tuple[tuple[str, ...], Vision]], plain: str) -> list[Vision]:
    return [vision for names, vision in known if any(re.search(name, plain) for name in names)]


def thoughts(model: str) -> tuple[bool, bool]:
    """Whether the name of a served model is that of one that thinks, and whether its template deletes earlier thoughts."""
    plain = _telling_part(model)
    found = [
        family
        for family in FAMILIES
        if any(re.search(name, plain) for name in (family.served_as if family.thinks else family.thinkers))
    ]
    return bool(found), bool(found) and not any(re.search(name, plain) for one in found for name in one.remembers)
