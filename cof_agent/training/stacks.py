"""The layers of a model by their sizes, and what the backward pass keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cof_agent.backends import families


@dataclass(frozen=True, slots=True)
class Stack:
    """Transformer layers: how many, and how wide hidden states, keys and the inner layer are.

    more: bytes a token that the backward pass needs of each layer beyond the usual (`activations`), if some need more. states:
    bytes of the state of each layer of linear attention, which keeps no keys.
    """

    layers: int
    hidden: int
    keys: int
    inner: int
    more: tuple[int, ...] = ()
    states: tuple[int, ...] = ()

    @property
    def caching(self) -> int:
        """Layers that keep the keys of each token."""
        return self.layers - len(self.states)


def language_stack(config: Any) -> Stack:
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    stack = Stack(text.num_hidden_layers, text.hidden_size, text.num_key_value_heads * head, _inner(text))
    kinds = getattr(text, "layer_types", None) or ()
    linear = [kind == "linear_attention" for kind in kinds]
    return _hybrid(stack, text, linear, text.num_attention_heads * head) if any(linear) else stack


def _hybrid(stack: Stack, text: Any, linear: Sequence[bool], queries: int) -> Stack:
    """A stack whose layers have linear attention, or gated attention in full.

    Counted like the usual (`activations`): gated attention keeps 16 bytes more a query and 4 a key, linear attention 8 a key and
    84 a value, in transformers' own implementation; that of flash-linear-attention keeps less. A state is in float32, the last
    inputs of its convolution in 16 bit.
    """
    keys, values = (
        text.linear_num_key_heads * text.linear_key_head_dim,
        text.linear_num_value_heads * text.linear_value_head_dim,
    )
    state = 4 * values * text.linear_key_head_dim + 2 * (2 * keys + values) * text.linear_conv_kernel_dim
    more = (8 * keys + 84 * values if one else 16 * queries + 4 * stack.keys for one in linear)
    return replace(stack, more=tuple(more), states=(state,) * sum(linear))


def _inner(text: Any) -> int:
    """Units of the inner layer that a token goes through: of experts, those that are chosen, and the shared one."""
    experts = getattr(text, "num_experts_per_tok", None)
    if experts is None:
        return int(text.intermediate_size)
    return int(experts * text.moe_intermediate_size + getattr(text, "shared_expert_intermediate_size", 0))


def vision_stack(config: Any) -> Stack:
    vision = config.vision_config
    hidden = getattr(vision, families.of(config).modules.tower_width)
    return Stack(vision.depth, hidden, hidden, getattr(vision, "intermediate_size", None) or hidden * vision.mlp_ratio)


def activations(stack: Stack, tokens: int, *, checkpointed: bool, wide: bool = False) -> int:
    """Bytes that the backward pass needs of `tokens` tokens in all layers of `stack`; `wide`: in float32.

    Counted from what autograd saves in a layer of the Qwen families under LoRA with dropout and fused attention, in 16 bit:
    31 bytes a token and hidden unit, 4 a key, 9 an inner unit; without LoRA about a quarter less. With gradient
    checkpointing each layer keeps its input, 2 bytes a hidden unit, and one layer at a time is computed again.
    """
    layer = tokens * (31 * stack.hidden + 4 * stack.keys + 9 * stack.inner)
    largest = layer + tokens * max(stack.more, default=0)
    whole = stack.layers * layer + tokens * sum(stack.more)
    kept = stack.layers * tokens * 2 * stack.hidden + largest if checkpointed else whole
    return kept * (2 if wide else 1)
