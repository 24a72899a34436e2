"""Estimates the memory of one GPU: what of a model is held, in which type, how it is divided, and what a batch adds.

The model is built as in a run, but without memory (torch's meta device). Every figure comes with how it is reckoned.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft import get_peft_model
from rich.table import Table
from transformers import AutoModelForImageTextToText
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from cof_agent.backends import families
from cof_agent.backends.families import Modules
from cof_agent.errors import InputError, said
from cof_agent.training.models import freeze, lora
from cof_agent.training.settings import Settings
from cof_agent.training.stacks import activations, language_stack, vision_stack

TOWER, PROJECTOR, LANGUAGE, ENDS = "vision tower", "projector", "language model", "embeddings and head"
ADAPTERS = "LoRA adapters"
TOKEN_TILE, VOCABULARY_TILE = 4096, 32768  # the logits that TRL makes at once; a test compares them with its own
LEFT_OUT = (
    "the CUDA context (about half a GiB), fragmentation (often a tenth), the working space of kernels, the gradients of "
    "one layer's activations, the buckets in which DDP and ZeRO communicate, the constants of 4-bit weights (an eighth "
    "more), and the agent's evaluation, which gives its memory back before training goes on; and another `optim` than AdamW "
    "keeps other states"
)


@dataclass(frozen=True, slots=True)
class Part:
    """Weights of a part of the model, and those of them that are trained: how many, and in how many bytes."""

    name: str
    weights: int
    trained: int
    bytes: float
    trained_bytes: float


@dataclass(frozen=True, slots=True)
class Sharding:
    """What the processes divide among them: from stage 1 on optimiser states, 2 gradients too, 3 weights too.

    `master`: the optimiser keeps a float32 copy of what is trained. `gathered`: how many weights stage 3 may hold whole
    at once.
    """

    engine: str = "no sharding"
    stage: int = 0
    processes: int = 1
    master: bool = False
    offload_weights: bool = False
    offload_optimizer: bool = False
    gathered: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one process holds throughout the run, on its GPU; `offloaded` are those in CPU memory."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    offloaded: float


class Longest(Protocol):
    """The longest sample: its tokens, how many of them are image tokens, and how many are trained."""

    @property
    def tokens(self) -> int: ...

    @property
    def image_tokens(self) -> int: ...

    @property
    def trained(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the estimate."""

    what: str
    how: str
    bytes: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step of training needs on one GPU: in any case, and with or without gradient checkpointing (`configured`:
    which of these the run does). `offloaded`: bytes in CPU memory."""

    always: list[Row]
    checkpointed: list[Row]
    whole: list[Row]
    configured: bool
    offloaded: float

    def total(self, checkpointed: bool) -> float:
        """Bytes of a step, with or without gradient checkpointing."""
        return sum(row.bytes for row in self.always + (self.checkpointed if checkpointed else self.whole))


def parts_of(config: Any, settings: Settings, sharding: Sharding) -> list[Part]:
    """The parts of the model as a run would train it, in the types that it would hold them in.

    Raises:
        InputError: if LoRA cannot be put on the model.
    """
    modules = families.of(config).modules
    return weighed(_sizes(_built(config, settings, sharding), modules, settings, sharding))


def _built(config: Any, settings: Settings, sharding: Sharding) -> Any:
    """The model, frozen and with its adapters, without memory."""
    dtype = dtype_of(config, settings)
    with _undivided(settings.training), torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config).to(dtype)
        freeze(model, settings)
        if not settings.model.use_peft:
            return model
        # As in TRL's trainer: the adapters are float32, but under ZeRO-3 of the model's own type.
        alike = sharding.engine == "DeepSpeed" and sharding.stage == 3
        try:
            return get_peft_model(model, lora(settings, config), autocast_adapter_dtype=not alike)
        except (TypeError, ValueError) as error:
            raise InputError(f"LoRA cannot be put on the model: {said(error)}") from None


def dtype_of(config: Any, settings: Settings) -> torch.dtype:
    """The type that the settings have a checkpoint loaded in; `config`: the checkpoint's."""
    asked = settings.model.dtype
    found: torch.dtype = (config.dtype or torch.float32) if asked in ("auto", None) else getattr(torch, asked)
    return found


@contextmanager
def _undivided(training: Any) -> Iterator[None]:
    """Under ZeRO-3 transformers divides the weights of a new model among the processes; a dry run need not have any."""
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if training.deepspeed_plugin is not None:
            set_hf_deepspeed_config(training.deepspeed_plugin.hf_ds_config)


def _sizes(
    model: Any, modules: Modules, settings: Settings, sharding: Sharding
) -> Iterator[tuple[str, int, bool, float]]:
    """The part that it belongs to, number of weights, whether they are trained, and bytes a weight, of every parameter."""
    half = settings.training.bf16 or settings.training.fp16
    quantised = 0.5 if settings.model.load_in_4bit else 1.0 if settings.model.load_in_8bit else 0.0
    for name, parameter in model.named_parameters():
        part, trained, size = part_name(name, modules), parameter.requires_grad, float(parameter.element_size())
        if quantised and trained:
            size = 2.0  # TRL's trainer casts it to bfloat16
        elif quantised and parameter.ndim == 2 and part == LANGUAGE:
            size = quantised  # of linear layers only
        elif half and sharding.engine == "DeepSpeed":
            size = 2.0  # DeepSpeed casts the whole model
        elif half and trained:
            size = 4.0  # under FSDP accelerate casts up what is trained, otherwise our own trainer
        yield part, parameter.numel(), trained, size


def part_name(parameter: str, modules: Modules) -> str:
    """The part of the model that a parameter of this name belongs to."""
    if "lora_" in parameter:
        return ADAPTERS
    if modules.in_tower(parameter):
        return PROJECTOR if modules.in_projector(parameter) else TOWER
    return ENDS if modules.in_ends(parameter) else LANGUAGE


def weighed(parameters: Iterable[tuple[str, int, bool, float]]) -> list[Part]:
    """The parts that `parameters` (part, number of weights, whether trained, bytes a weight) make up."""
    sums = {name: [0.0] * 4 for name in (TOWER, PROJECTOR, LANGUAGE, ENDS, ADAPTERS)}
    for name, weights, trained, size in parameters:
        entry = (weights, weights * trained, weights * size, weights * trained * size)
        sums[name] = [one + other for one, other in zip(sums[name], entry, strict=True)]
    return [Part(name, int(total), int(trained), *sizes) for name, (total, trained, *sizes) in sums.items() if total]


def sharding_of(settings: Settings) -> Sharding:
    """How DeepSpeed (the JSON that `deepspeed` names, or accelerate's flags) or FSDP divides the run."""
    training = settings.training
    if training.deepspeed_plugin is not None:
        return deepspeed_sharding(training.deepspeed_plugin.hf_ds_config.config, training.world_size)
    asked = training.fsdp_plugin_args
    if not asked and os.environ.get("ACCELERATE_USE_FSDP", "false") != "true":
        return Sharding(processes=training.world_size)
    asked = asked or {
        "reshard_after_forward": os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true"),
        "cpu_offload": os.environ.get("FSDP_OFFLOAD_PARAMS", "false"),
    }
    keeps = str(asked.get("reshard_after_forward", True)).lower() in ("false", "shard_grad_op")
    offload = str(asked.get("cpu_offload", False)).lower() == "true"
    return Sharding("FSDP", 2 if keeps else 3, training.world_size, False, offload, offload)


def deepspeed_sharding(config: dict[str, Any], processes: int) -> Sharding:
    """What a DeepSpeed configuration asks for."""
    zero = config.get("zero_optimization", {})
    stage = int(zero.get("stage", 0))
    half = any(config.get(name, {}).get("enabled") is True for name in ("bf16", "fp16"))

    def offloaded(name: str) -> bool:
        return str((zero.get(name) or {}).get("device", "none")) != "none"

    return Sharding(
        "DeepSpeed",
        stage,
        processes,
        master=half or stage > 0,  # ZeRO copies its share, whatever its type
        offload_weights=stage == 3 and offloaded("offload_param"),
        offload_optimizer=stage > 0 and offloaded("offload_optimizer"),
        gathered=int(float(zero.get("stage3_max_live_parameters", 1e9))) if stage == 3 else 0,
    )


def memory(parts: Sequence[Part], sharding: Sharding) -> Memory:
    """What stays in the memory of one process.

    Weights; gradients, as large as the trained weights; of AdamW two values a trained weight in its own type, or with a
    master copy 12 bytes (three float32). Each is divided by the processes from its stage on. With the optimiser DeepSpeed
    offloads the gradients too.
    """
    weights, gradients = sum(part.bytes for part in parts), sum(part.trained_bytes for part in parts)
    optimizer = 12.0 * sum(part.trained for part in parts) if sharding.master else 2 * gradients
    gathered = weights * min(1.0, sharding.gathered / sum(part.weights for part in parts))
    by_stage = [sharding.processes if sharding.stage >= stage else 1 for stage in (3, 2, 1)]
    weights, gradients, optimizer = weights / by_stage[0], gradients / by_stage[1], optimizer / by_stage[2]
    offloaded = 0.0
    if sharding.offload_weights:
        offloaded, weights = weights, 0.0
    if sharding.offload_optimizer:
        offloaded, gradients, optimizer = offloaded + gradients + optimizer, 0.0, 0.0
    return Memory(weights, gradients, optimizer, gathered, offloaded)


def gathered_by_fsdp(parts: Sequence[Part], config: Any) -> int:
    """What lies outside the layers, and two layers: the one in use and the one that is fetched."""
    held = {part.name: part.weights for part in parts}
    layers = held[LANGUAGE] + held.get(ADAPTERS, 0)
    return held[ENDS] + held[PROJECTOR] + 2 * layers // language_stack(config).layers


def rounded_away(parts: Sequence[Part], sharding: Sharding) -> list[str]:
    """Parts that are trained in 16 bit while nothing keeps them in float32."""
    return [part.name for part in parts if part.trained_bytes < 4 * part.trained and not sharding.master]


def loss(scored: int, hidden: int, vocabulary: int, *, head_trained: bool) -> int:
    """Bytes of the loss of `scored` tokens: a tile of logits in 16 bit, and gradients in float32, of their hidden states
    and of a head that is trained.

    TRL's trainer calls the model with `fused_lm_head=True`, which makes no logits of a whole sequence but tiles of at
    most 4,096 tokens x 32,768 entries; on a GPU with Triton only for tokens that are trained on, else for all.
    """
    tile = min(scored, TOKEN_TILE) * min(vocabulary, VOCABULARY_TILE)
    return 2 * tile + 4 * scored * hidden + 4 * vocabulary * hidden * head_trained


def staying(parts: Sequence[Part], sharding: Sharding) -> list[Row]:
    """What one process holds throughout the run, and how it is reckoned."""
    found, trained = memory(parts, sharding), sum(part.trained for part in parts)
    held, gradients = (gib(sum(sizes)) for sizes in zip(*((p.bytes, p.trained_bytes) for p in parts), strict=True))
    share = [f" / {sharding.processes}" if sharding.stage >= stage else "" for stage in (3, 2, 1)]
    on_cpu = [", on the CPU" * moved for moved in (sharding.offload_weights, sharding.offload_optimizer)]
    states = (
        f"{trained:,} trained x 12 bytes (three float32)" if sharding.master else f"2 x {gradients} GiB, as trained"
    )
    rows = [
        Row("weights", f"{held} GiB as held{share[0]}{on_cpu[0]}", found.weights),
        Row("gradients", f"{gradients} GiB, as the trained weights{share[1]}{on_cpu[1]}", found.gradients),
        Row("optimiser", f"{states}{share[2]}{on_cpu[1]}", found.optimizer),
    ]
    if sharding.stage == 3:
        rows.append(Row("gathered", f"at most {sharding.gathered:,} weights are whole at once", found.gathered))
    return rows


def passing(settings: Settings, config: Any, longest: Longest, parts: Sequence[Part], shown: int) -> list[Row]:
    """What a batch of the longest sample needs whether or not activations are kept: the loss, and pixels, those of `shown`
    samples at once."""
    vision, text, batch = config.vision_config, config.get_text_config(), settings.training.per_device_train_batch_size
    patches = shown * longest.image_tokens * vision.spatial_merge_size**2
    pixels = vision.patch_size**2 * 3 * vision.temporal_patch_size
    tokens, trained = batch * longest.tokens, batch * longest.trained
    scored = tokens if settings.training.use_cpu else trained
    size = loss(
        scored, text.hidden_size, text.vocab_size, head_trained=any(p.name == ENDS and p.trained for p in parts)
    )
    whole = gib(6.0 * tokens * text.vocab_size)
    return [
        Row("pixels", f"{patches:,} patches x {pixels:,} x 4 bytes", 4 * patches * pixels),
        Row("loss", f"{scored:,} tokens, logits in tiles (fused head); whole ones would be {whole} GiB", size),
    ]


def kept(settings: Settings, config: Any, longest: Longest, *, checkpointed: bool) -> list[Row]:
    """The activations of a batch of the longest sample, in both stacks."""
    training = settings.training
    batch, wide = training.per_device_train_batch_size, not (training.bf16 or training.fp16)
    tokens, patches = batch * longest.tokens, batch * longest.image_tokens * config.vision_config.spatial_merge_size**2
    stacks = [("language", language_stack(config), tokens)]
    if not settings.run.freeze_vision:
        stacks.append(("vision", vision_stack(config), patches))
    rows = []
    for name, stack, count in stacks:
        layer = f"(31 x {stack.hidden:,} + 4 x {stack.keys:,} + 9 x {stack.inner:,})"
        more = max(stack.more, default=0) if checkpointed else sum(stack.more)
        beyond = f" + {more:,} of linear attention" if more else ""
        each = f"{stack.layers} x 2 x {stack.hidden:,} + {layer}" if checkpointed else f"{stack.layers} x {layer}"
        how = f"{count:,} x {f'({each}{beyond})' if checkpointed or more else each} bytes" + " x 2" * wide
        rows.append(Row(f"activations, {name}", how, activations(stack, count, checkpointed=checkpointed, wide=wide)))
    return rows


def estimate(
    settings: Settings,
    config: Any,
    longest: Longest,
    parts: Sequence[Part],
    sharding: Sharding,
    *,
    shown: int | None = None,
    beside: Sequence[Row] = (),
) -> Estimate:
    """What a step of training needs on one GPU.

    shown: samples whose pixels are held at once, by default those of a batch. beside: what else is held throughout.
    """
    shown = settings.training.per_device_train_batch_size if shown is None else shown
    always = [*staying(parts, sharding), *beside, *passing(settings, config, longest, parts, shown)]
    checkpointed, whole = (kept(settings, config, longest, checkpointed=choice) for choice in (True, False))
    configured = bool(settings.training.gradient_checkpointing)
    return Estimate(always, checkpointed, whole, configured, memory(parts, sharding).offloaded)


def table(found: Estimate, sharding: Sharding) -> Table:
    stage = f" stage {sharding.stage}" if sharding.engine == "DeepSpeed" else ""
    made = rows_table(f"Memory of one GPU, estimated ({sharding.engine}{stage})", found.always)
    for choice, rows in ((True, found.checkpointed), (False, found.whole)):
        made.add_section()
        for row in rows:
            made.add_row(row.what, row.how, gib(row.bytes))
        how = f"{'with' if choice else 'without'} gradient checkpointing"
        mark = ", as configured" * (choice == found.configured)
        made.add_row("in all", how + mark, gib(found.total(choice)), style="bold")
    if found.offloaded > 0:
        made.add_section()
        made.add_row("CPU memory", "of each process, for what is offloaded", gib(found.offloaded))
    return made


def rows_table(title: str, rows: Sequence[Row]) -> Table:
    made = Table(title=title, title_justify="left")
    made.add_column("what")
    made.add_column("how it is reckoned")
    made.add_column("GiB", justify="right")
    for row in rows:
        made.add_row(row.what, row.how, gib(row.bytes))
    return made


def gib(size: float) -> str:
    """Bytes in GiB, small ones with more places."""
    return f"{size / 2**30:,.2f}" if size >= 2**30 / 10 else f"{size / 2**30:.4f}"
