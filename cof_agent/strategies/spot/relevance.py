"""Which part of the overview a reply rests on: relevance propagated through a model's attention.

Chefer, Gur and Wolf, arXiv 2103.15679, for a decoder that reads image and text in one sequence. Relevance starts as the
identity; each layer adds `A_bar R`, where A_bar is the mean over heads of relu(gradient x attention) and the gradient is
that of the given reply's log-probability. Of the last R a few rows are wanted, so these are carried from the top layer
down, beside the gradient; one layer's attention is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cof_agent.backends.families import Modules
from cof_agent.backends.local.budget import budget_of
from cof_agent.backends.local.memory import FeatureCache, Picture
from cof_agent.policy import PolicyError

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.backends.local.policy import LocalPolicy
    from cof_agent.protocol import Message


def relevance(policy: LocalPolicy, messages: Sequence[Message], images: Sequence[Image], reply: str) -> Tensor:
    """The map of the first image for `reply`: [rows, columns] of merged patches, float32 on the CPU, 0 or more, sum 1.

    messages: the conversation up to the reply; where the last one is the beginning of the assistant's turn, the reply goes
    on from there. Read are the rows of the positions that predict a token of the reply, the question's last among them
    where the reply is one token; each row is scaled to sum 1 over the image, so that every token has the same say.

    Not while the policy generates: the attention implementation is another one during the call, and restored after it.

    Raises:
        PolicyError: if a message holds the text of the image token, or the device has not enough memory.
        ValueError: if the reply has no tokens of its own.
    """
    text = policy.render(messages)
    start, pictures = policy.read(text, images)
    ids, _ = policy.read(text + reply, images)
    # Where the two texts part, the reply begins; a token that spans the border belongs to it.
    first = next((place for place, (a, b) in enumerate(zip(start, ids, strict=False)) if a != b), len(start))
    if first >= len(ids):
        raise ValueError(f"the reply {reply!r} has no tokens")
    model, modules = policy.model, policy.family.modules
    try:
        with _eager(model.get_submodule(modules.language)):
            found = _Trace.of(model, modules, ids, pictures).propagate(model, modules, ids, first)
    except torch.OutOfMemoryError:
        raise PolicyError(
            f"{policy.name} ran out of memory at {len(ids)} tokens; lower --overview-pixels.", transient=False
        ) from None
    grid, merge = pictures[0].grid, model.config.vision_config.spatial_merge_size
    begin, cells = ids.index(model.config.image_token_id), prod(grid) // merge**2
    votes = found[:, begin : begin + cells].float().cpu()
    votes = votes / votes.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return votes.mean(0).reshape(grid[1] // merge, grid[2] // merge)


@contextmanager
def _eager(text_model: Any) -> Iterator[None]:
    """The only implementation that tells its attention; for the language model alone."""
    before = text_model.config._attn_implementation
    text_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        text_model.set_attn_implementation(before)


@dataclass
class _Trace:
    """What entered each decoder layer in one forward pass without gradients: [1, tokens, width], and its other arguments;
    `last`: what came out of the last one."""

    inputs: list[Tensor] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    last: Tensor | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, model: Any, modules: Modules, ids: list[int], pictures: list[Picture]) -> _Trace:
        trace, text_model = cls(), model.get_submodule(modules.language)

        def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            trace.inputs.append(args[0] if args else kwargs.pop("hidden_states"))
            trace.arguments.append(kwargs | {"past_key_values": None, "use_cache": False})

        hooks = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in text_model.layers]
        hooks.append(text_model.norm.register_forward_pre_hook(lambda _, args: setattr(trace, "last", args[0])))
        try:
            tokens = torch.tensor([ids], device=model.device)
            kinds = (tokens == model.config.image_token_id).int()
            grid = torch.tensor([picture.grid for picture in pictures])
            positions, _ = model.model.get_rope_index(tokens, kinds, image_grid_thw=grid)
            features = FeatureCache(model, budget_of(model, 1)).of(pictures)
            model.model(
                input_ids=tokens, position_ids=positions, mm_encoder_outputs={"image": features}, use_cache=False
            )
        finally:
            for hook in hooks:
                hook.remove()
        return trace

    def propagate(self, model: Any, modules: Modules, ids: list[int], first: int) -> Tensor:
        """Relevance of all tokens to the positions that predict the reply, `ids[first:]`: [reply, tokens]."""
        assert self.last is not None
        gradient = _reply_gradient(model, modules, self.last, ids, first)
        relevant = torch.eye(len(ids), device=self.last.device)[first - 1 : -1]
        layers = list(model.get_submodule(modules.language).layers)
        for layer, entered, arguments in reversed(list(zip(layers, self.inputs, self.arguments, strict=True))):
            gradient, attention = _through(layer, entered, arguments, gradient)
            relevant = relevant + relevant @ attention
        return relevant


@torch.enable_grad()
def _reply_gradient(model: Any, modules: Modules, last: Tensor, ids: list[int], first: int) -> Tensor:
    """The gradient of the reply's log-probability by the last layer's output."""
    last = last.detach().requires_grad_()
    norm, head = model.get_submodule(modules.language).norm, model.get_submodule(modules.head)
    logits = head(norm(last)[0, first - 1 : -1]).float()
    target = torch.tensor(ids[first:], device=last.device)
    told = logits.log_softmax(-1).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(told, last)
    return gradient


@torch.enable_grad()
def _through(layer: Any, entered: Tensor, arguments: dict[str, Any], gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient before a layer from the one behind it, and the layer's A_bar [tokens, tokens]."""
    seen: list[Tensor] = []
    hook = layer.self_attn.register_forward_hook(lambda _, __, output: seen.append(output[1]))
    try:
        entered = entered.detach().requires_grad_()
        output = layer(entered, **arguments)
    finally:
        hook.remove()
    output = output[0] if isinstance(output, tuple) else output
    before, by_attention = torch.autograd.grad(output, (entered, seen[0]), gradient)
    return before, (by_attention * seen[0].detach()).clamp(min=0)[0].float().mean(0)
