"""Says what an RL run would do, without loading any weights: `accelerate launch -m rl.train --config FILE --dry_run true`.

What SFT says too is in `cof_agent.training.plan`. The longest conversation is reckoned, not played: the longest prompt, and
`max_completion_length` tokens after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from cof_agent import protocol
from cof_agent.backends import families
from cof_agent.backends.local.layers import columns_for, slots_for
from cof_agent.backends.local.policy import CAPACITY
from cof_agent.backends.local.reader import limits_of
from cof_agent.backends.local.template import templated
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.geometry import PixelLimits
from cof_agent.protocol.dialects import Dialect
from cof_agent.training import memory, plan, stacks
from cof_agent.training.memory import ADAPTERS, LANGUAGE, Row
from cof_agent.training.models import read_checkpoint
from rl.engines.options import precision_of
from rl.settings import NO_FSDP, Settings

REFERENCE = "reference model"
VISION = "images, shared"
GPUS = (24, 40, 48, 80, 140)
"""GiB of the cards that are common; of an H200 140."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens up to the first turn, and how many of them are those of the overviews."""

    tokens: int
    image_tokens: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """The longest that may come up: its tokens, how many of them are image tokens, and how many are scored."""

    tokens: int
    image_tokens: int
    trained: int


def show(settings: Settings, wanted: Sequence[Episode]) -> None:
    """Prints the configuration, the parameters, what is played, the steps, and the memory of one GPU.

    Raises:
        InputError: if the model or the samples cannot be read, LoRA cannot be put on the model, or FSDP divides it.
    """
    if settings.training.process_index:
        return  # the others would say the same
    config, processor = read_checkpoint(settings)
    limits = limits_of(config, processor, *_pixels(settings))
    agent, system = settings.run.agent_config(), families.of(config).vision.coordinates
    prompt = longest_prompt(wanted, processor, agent.settings_for(system, limits), agent.system_prompt, agent.spoken)
    conversation = conversation_of(settings, prompt, limits)
    model = plan.model_of(settings, config)
    if model.sharding.engine == "FSDP":
        raise InputError(NO_FSDP)
    console = plan.printer()
    plan.show_setup(console, settings, model)
    console.print(_run_table(settings, len(wanted), prompt, conversation, limits))
    for warning in warnings(settings, conversation, limits):
        console.print(f"Warning: {warning}")
    found = memory.estimate(
        settings,
        config,
        conversation,
        model.parts,
        model.sharding,
        shown=rollouts_on_each(settings.training),
        beside=[*reference(settings, model), *shared_vision(settings, config, prompt, conversation)],
    )
    plan.show_memory(console, settings, model, found)
    console.print(_who_plays(settings))
    if on_these_gpus(settings.training):
        rows = playing(settings, model, conversation, found)
        console.print(memory.rows_table("Memory of one GPU while conversations are played, estimated", rows))
    if colocated(settings.training):
        console.print(_gpu_table(settings.training, rows, found.total(found.configured)))


def colocated(training: Any) -> bool:
    """Whether vLLM plays on the GPUs that train."""
    return bool(training.use_vllm) and training.vllm_mode == "colocate"


def on_these_gpus(training: Any) -> bool:
    """Whether the conversations are played on the GPUs that train, by vLLM or transformers."""
    return not training.use_vllm or colocated(training)


def _pixels(settings: Settings) -> tuple[int | None, int | None]:
    return settings.run.agent_config().areas


def longest_prompt(
    wanted: Sequence[Episode],
    processor: Any,
    shown: ZoomSettings,
    system_prompt: str | None = None,
    dialect: Dialect | None = None,
) -> Prompt:
    """The longest of the episodes' prompts, for an agent that is shown its images by these settings; decodes no image.
    system_prompt: replaces that of the dialect, which is ours by default.

    Raises:
        InputError: if an image cannot be opened.
    """
    environment, found = ZoomEnvironment(shown, source_cache=0), []
    for episode in wanted:
        overviews = environment.at(episode.resolution).overviews(episode.sample)
        opening = protocol.opening(
            episode.sample,
            *overviews,
            system=shown.system,
            prompt=system_prompt,
            tools=environment.tool_schemas,
            dialect=dialect,
        )
        text = templated(processor, opening, answering=True)
        cells = sum(view.shown_size.area for view in overviews) // shown.limits.grid**2
        words = len(processor.tokenizer.encode(text, add_special_tokens=False)) - len(overviews)  # one stands for each
        found.append(Prompt(words + cells, cells))
    return max(found, key=lambda one: one.tokens)


def conversation_of(settings: Settings, prompt: Prompt, limits: PixelLimits) -> Conversation:
    """The longest conversation: all of the longest prompt and of `max_completion_length`, with as many crops as can be."""
    written = settings.training.max_completion_length
    crops = min(settings.run.agent_config().zooms * _crop_tokens(limits), written)
    return Conversation(prompt.tokens + written, prompt.image_tokens + crops, written)


def _crop_tokens(limits: PixelLimits) -> int:
    return limits.zoom_pixels // limits.grid**2


def rollouts_on_each(training: Any) -> int:
    """Conversations that each process plays at once, and whose pixels TRL keeps on its GPU until all are trained on."""
    return int(training.per_device_train_batch_size * training.steps_per_generation)


def steps_of(training: Any, samples: int) -> plan.Steps:
    """The optimiser's steps (of so many rollouts), counted as TRL does: samples that fill no generation are left out."""
    prompts = training.generation_batch_size // training.num_generations
    return plan.steps_of(training, samples // prompts * training.steps_per_generation * training.num_iterations)


def _run_table(settings: Settings, samples: int, prompt: Prompt, longest: Conversation, limits: PixelLimits) -> Table:
    training, run = settings.training, settings.run
    steps, group = steps_of(training, samples), training.num_generations
    made = Table(title="Run", title_justify="left", show_header=False)
    made.add_row("samples", f"{samples:,} with a known answer")
    made.add_row("longest prompt", f"{prompt.tokens:,} tokens, {prompt.image_tokens:,} of them the overview's")
    words = f"max_completion_length {longest.trained:,}"
    made.add_row("longest conversation", f"{longest.tokens:,} tokens: the longest prompt and {words}")
    agent = run.agent_config()
    zooms = f"at most {agent.zooms} zooms, each of up to {_crop_tokens(limits):,} tokens, and an answer"
    made.add_row("turns", f"{zooms}; {agent.turn_tokens:,} tokens of its own each")
    plan.add_steps(made, training, steps, "rollouts")
    made.add_row("prompts a step", f"{steps.batch / group:g}, each played {group} times")
    at_once = f"{training.generation_batch_size:,}, on each process {rollouts_on_each(training):,}"
    times = f", {training.num_iterations} times" * (training.num_iterations > 1)
    last = training.steps_per_generation * training.num_iterations / training.gradient_accumulation_steps
    made.add_row("played at once", f"{at_once}; they last for {last:g} step{'s' * (last != 1)}{times}")
    made.add_row("rewards", ", ".join(f"{weight:g} x {name}" for name, weight in _weighted(settings)))
    return made


def _weighted(settings: Settings) -> list[tuple[str, float]]:
    names = settings.run.rewards
    return list(zip(names, settings.training.reward_weights or [1.0] * len(names), strict=True))


def warnings(settings: Settings, longest: Conversation, limits: PixelLimits) -> list[str]:
    """What would end conversations early, in sentences."""
    training, found = settings.training, too_short(settings, limits)
    if training.use_vllm and (training.vllm_max_model_length or longest.tokens) < longest.tokens:
        found.append(
            f"vllm_max_model_length {training.vllm_max_model_length:,} is less than the longest conversation; raise it."
        )
    return found


def too_short(settings: Settings, limits: PixelLimits) -> list[str]:
    """The sentence about a `max_completion_length` that does not hold all turns and crops."""
    agent, most = settings.run.agent_config(), settings.training.max_completion_length or 0
    wanted = (agent.zooms + 1) * agent.turn_tokens + agent.zooms * _crop_tokens(limits)
    if wanted <= most:
        return []
    return [
        f"turns and crops may need {wanted:,} tokens, more than max_completion_length {most:,}, which then ends the "
        "conversation; raise it, or lower max_zooms, max_tokens or zoom_pixels."
    ]


def reference(settings: Settings, model: plan.Model) -> list[Row]:
    """The model as it was, which the KL term needs; with LoRA it is the model without its adapters."""
    if settings.training.beta == 0 or settings.model.use_peft:
        return []
    sharding, half = model.sharding, settings.training.bf16 or settings.training.fp16
    loaded = memory.dtype_of(model.config, settings).itemsize
    size = 2 if sharding.engine == "DeepSpeed" and half else loaded
    weights, share = sum(part.weights for part in model.parts), sharding.processes if sharding.stage == 3 else 1
    how = f"{weights:,} weights x {size} bytes" + f" / {share}" * (share > 1) + ", for beta > 0"
    return [Row(REFERENCE, how, weights * size / share)]


def shared_vision(settings: Settings, config: Any, prompt: Prompt, longest: Conversation) -> list[Row]:
    """What a frozen tower makes of the images of a generation of longest conversations, as far as `vision_cache` allows; a
    group of rollouts has its overview in common."""
    run, training = settings.run, settings.training
    if not run.freeze_vision or run.vision_cache <= 0:
        return []
    vision, modules, rollouts = config.vision_config, families.of(config).modules, rollouts_on_each(training)
    overviews = max(1, rollouts // training.num_generations) * prompt.image_tokens
    cells = overviews + rollouts * (longest.image_tokens - prompt.image_tokens)
    projected = config.get_text_config().hidden_size
    width = projected if run.freeze_projector else getattr(vision, modules.tower_width) * vision.spatial_merge_size**2
    parts = 1 + (len(getattr(vision, modules.levels)) if modules.levels else 0)
    each = width * parts * memory.dtype_of(config, settings).itemsize
    limit = run.vision_cache * 2**30
    how = f"{cells:,} image tokens x {each:,} bytes" + f", at most vision_cache {run.vision_cache:g} GiB" * (
        cells * each > limit
    )
    return [Row(VISION, how, min(cells * each, limit))]


def playing(settings: Settings, model: plan.Model, longest: Conversation, found: memory.Estimate) -> list[Row]:
    """What one GPU holds while conversations are played: what stays there from training, weights to generate with, the
    cache of the longest conversations (of vLLM's, which fit themselves to its share, one), and the sum."""
    training, tensor = settings.training, settings.training.vllm_tensor_parallel_size
    stays = [row for row in found.always if row.what in ("weights", "optimiser", REFERENCE)]
    rows = [Row("stays", ", ".join(row.what for row in stays) + ", as above", sum(row.bytes for row in stays))]
    if colocated(training):
        weights = sum(part.weights for part in model.parts if part.name != ADAPTERS)  # adapters are merged for vLLM
        share = f" / {tensor}" * (tensor > 1)
        precision = precision_of(training, memory.dtype_of(model.config, settings))
        wide = 4 if precision == "float32" else 2
        rows.append(Row("vLLM's weights", f"{weights:,} x {wide} bytes{share}", weights * wide / tensor))
        how, size = keys_and_values(model, longest.tokens, 1, wide)
        rows.append(Row("keys and values", how + share, size / tensor))
    else:
        if model.sharding.stage == 3:
            held = sum(part.bytes for part in model.parts)
            rows.append(Row("all weights", "whole, as transformers generates with them", held))
        language = next(part for part in model.parts if part.name == LANGUAGE)
        wide = 4 if language.bytes >= 4 * language.weights else 2
        count = min(rollouts_on_each(training), CAPACITY)
        how, size = keys_and_values(model, columns_for(longest.tokens), slots_for(count), wide)
        rows.append(Row("keys and values", how + ", with room to grow", size))
        how, size = keys_and_values(model, longest.tokens, count, wide)
        rows.append(Row("earlier turns", how + "; fewer where these are more than half of what is free", size))
    return [*rows, Row("in all", "at least" * colocated(training), sum(row.bytes for row in rows))]


def keys_and_values(model: plan.Model, tokens: int, count: int, size: int) -> tuple[str, int]:
    """How the cache of `count` conversations of so many tokens is reckoned, at `size` bytes a value, and its bytes."""
    stack = stacks.language_stack(model.config)
    many = f"{count} conversation{'s' * (count > 1)}"
    states = sum(stack.states)
    how = f"{many} x {tokens:,} tokens x {stack.caching} layers x 2 x {stack.keys:,} x {size} bytes"
    beside = f", and {count} x {states:,} of linear attention" if states else ""
    return how + beside, count * (tokens * stack.caching * 2 * stack.keys * size + states)


def _who_plays(settings: Settings) -> str:
    training = settings.training
    if not training.use_vllm:
        return f"transformers plays, with the weights in training, up to {CAPACITY} conversations at once."
    if training.vllm_mode == "server":
        return "A vLLM server plays, on GPUs of its own: python -m rl.serve with the same options."
    share = f"{training.vllm_gpu_memory_utilization:.0%} of the GPU's memory, its own working space included"
    sleeps = "gives its weights and caches back while the model is trained" * training.vllm_enable_sleep_mode
    return f"vLLM plays on the same GPU. It takes {share}, and {sleeps or 'keeps it while the model is trained'}."


def _gpu_table(training: Any, rows: Sequence[Row], step: float) -> Table:
    """What vLLM and training leave of GPUs of several sizes. rows: what is held in play. step: bytes of a training step."""
    stays, weights, one, _ = (row.bytes for row in rows)
    made = Table(title="What is left of a GPU, in GiB", title_justify="left")
    for heading in ("GPU", "vLLM's share", "longest conversations at once", "left in training", "left in play"):
        made.add_column(heading, justify="right")
    for size in GPUS:
        whole = size * 2**30
        share = training.vllm_gpu_memory_utilization * whole
        kept = 0 if training.vllm_enable_sleep_mode else share
        at_once = max(0, int((share - weights) // one))
        numbers = [f"{left / 2**30:.1f}" for left in (share, whole - step - kept, whole - stays - share)]
        made.add_row(str(size), numbers[0], f"{at_once:,}", *numbers[1:])
    return made
