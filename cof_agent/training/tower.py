"""Computes what a frozen vision tower makes of an image once, and shares it: among the passes over a batch, and among the
conversations that see the same image.

A pass that scores a batch runs the tower again for each image of each conversation, though the weights are the same. What is
kept are the tower's outputs; where the projector behind it is trained, the hidden states that the projector takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from cof_agent.backends import families

Kept = tuple[Tensor, ...]
"""Of one image: a tensor for each level that goes to the language model beside the output, then that of the output."""


class TowerCache:
    """What frozen towers made of images, within `used`; elsewhere models run their towers as ever.

    limit: bytes to keep at most. What comes first stays: passes over a batch come by in the same circle, where to keep the
    newest would keep nothing until it is asked for. divided: whether the weights are divided among the processes (ZeRO-3), so
    that all of them have to run a tower at the same time.
    """

    def __init__(self, limit: float, *, divided: bool = False) -> None:
        self._limit, self._divided = limit, divided
        self._kept: dict[bytes, Kept] = {}
        self._open = False
        self.held = 0
        """Bytes that are kept."""
        self.computed = 0
        """Images that a tower was run for, within `used`; whoever counts may set it back."""

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within, attached models share what their towers make of an image."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def forget(self) -> None:
        """Drops all that is kept."""
        self._kept.clear()
        self.held = 0

    def attach(self, model: Any) -> None:
        """Lets a model share what its tower makes of an image; one that has another tower needs another cache. The model is
        left alone where its tower is trained or random.

        model: of a known family, with or without adapters, before it is wrapped for several processes.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if self._limit <= 0 or not is_frozen(base):
            return
        tower = (_Outputs if is_frozen(base, projectors=True) else _States)(base)

        def forward(hidden_states: Tensor, grid_thw: Tensor, **options: Any) -> Any:
            if not self._open:
                return tower.stock(hidden_states, grid_thw=grid_thw, **options)
            return tower.output(self._of(tower, hidden_states, grid_thw, options), hidden_states, grid_thw, options)

        tower.module.forward = forward

    def _of(self, tower: _Tower, patches: Tensor, grids: Tensor, options: dict[str, Any]) -> list[Kept]:
        """What the tower makes of each image; in one call of those that are not known."""
        images = patches.split(grids.prod(-1).tolist())
        keys = [key_of(image, grid) for image, grid in zip(images, grids.tolist(), strict=True)]
        new = [place for place, key in enumerate(keys) if key not in self._kept and key not in keys[:place]]
        found = dict(self._kept)
        if self._anywhere(bool(new), patches.device):
            # A process that knows all its images runs the tower with the others all the same, for the smallest of them.
            places = new or [min(range(len(images)), key=lambda place: len(images[place]))]
            made = tower.read(torch.cat([images[place] for place in places]), grids[places], options)
            self.computed += len(places)
            for place, kept in zip(places, made, strict=True):
                found[keys[place]] = kept
                self._keep(keys[place], kept)
        return [found[key] for key in keys]

    def _anywhere(self, here: bool, device: torch.device) -> bool:
        """Whether any process has something to compute, where they have to do it together."""
        if not (self._divided and distributed.is_initialized()):
            return here
        flag = torch.tensor(float(here), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def _keep(self, key: bytes, kept: Kept) -> None:
        size = sum(tensor.nbytes for tensor in kept)
        if key not in self._kept and self.held + size <= self._limit:
            # A slice would hold all that was computed with it.
            self._kept[key] = tuple(tensor.clone() for tensor in kept)
            self.held += size


def is_frozen(base: Any, *, projectors: bool = False) -> bool:
    """Whether the tower gives the same features of an image each time: no weight is trained, and there is no dropout.

    projectors: asks for those behind it, too.
    """
    modules = families.of(base.config).modules
    tower = base.get_submodule(modules.tower)
    trained = [
        name
        for name, parameter in tower.named_parameters()
        if parameter.requires_grad and (projectors or not modules.in_projector(f"{modules.tower}.{name}"))
    ]
    random = any(isinstance(module, nn.Dropout) and module.p > 0 for module in tower.modules())
    return not trained and not random and not getattr(tower.config, "attention_dropout", 0)


class _Tower:
    """A tower, by the names of its family."""

    def __init__(self, base: Any) -> None:
        modules, config = families.of(base.config).modules, base.config.vision_config
        self.module: Any = base.get_submodule(modules.tower)
        self.stock = self.module.forward
        self._modules = modules
        depth = len(self.module.get_submodule(modules.blocks))
        levels = list(getattr(config, modules.levels)) if modules.levels else []
        self._levels, self._last, self._depth = levels, depth - 1, depth

    def read(self, patches: Tensor, grids: Tensor, options: dict[str, Any]) -> list[Kept]:
        """Runs the tower; returns what is to be kept of each image."""
        raise NotImplementedError

    def output(self, kept: Sequence[Kept], patches: Tensor, grids: Tensor, options: dict[str, Any]) -> Any:
        """The output for several images."""
        raise NotImplementedError


class _Outputs(_Tower):
    """Keeps what comes out of the projectors, which are frozen, too."""

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self._kind: type[Any] | None = None

    @torch.no_grad()
    def read(self, patches: Tensor, grids: Tensor, options: dict[str, Any]) -> list[Kept]:
        output = self.stock(patches, grid_thw=grids, **options)
        self._kind = type(output)
        cells = (grids.prod(-1) // self.module.spatial_merge_size**2).tolist()
        parts = [*(getattr(output, "deepstack_features", None) or []), output.pooler_output]
        return list(zip(*(part.split(cells) for part in parts), strict=True))

    def output(self, kept: Sequence[Kept], patches: Tensor, grids: Tensor, options: dict[str, Any]) -> Any:
        assert self._kind is not None, "nothing was read"
        *levels, output = (torch.cat(parts) for parts in zip(*kept, strict=True))
        return self._kind(pooler_output=output, **({"deepstack_features": levels} if levels else {}))


class _States(_Tower):
    """Keeps the hidden states behind those blocks that a projector takes something from; the projectors run each time."""

    @torch.no_grad()
    def read(self, patches: Tensor, grids: Tensor, options: dict[str, Any]) -> list[Kept]:
        states: dict[int, Tensor] = {}

        def taken(place: int) -> Any:
            return lambda module, inputs, output: states.update({place: output})

        blocks = self.module.get_submodule(self._modules.blocks)
        places = [*self._levels, self._last]
        hooks = [blocks[place].register_forward_hook(taken(place)) for place in set(places)]
        try:
            self.stock(patches, grid_thw=grids, **options)
        finally:
            for hook in hooks:
                hook.remove()
        sizes = grids.prod(-1).tolist()
        return list(zip(*(states[place].split(sizes) for place in places), strict=True))

    def output(self, kept: Sequence[Kept], patches: Tensor, grids: Tensor, options: dict[str, Any]) -> Any:
        whole = [torch.cat(parts) for parts in zip(*kept, strict=True)]
        states = dict(zip([*self._levels, self._last], whole, strict=True))
        given = {
            self._modules.patches: _Given(states[self._last]),  # of the right shape; no block looks at it
            self._modules.blocks: nn.ModuleList([_Given(states.get(place)) for place in range(self._depth)]),
        }
        with _in_place_of(self.module, given):
            return self.stock(patches, grid_thw=grids, **options)


class _Given(nn.Module):
    """Stands for a module whose output is known; None: whose output nothing depends on."""

    def __init__(self, output: Tensor | None) -> None:
        super().__init__()
        self._output = output

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states if self._output is None else self._output


@contextmanager
def _in_place_of(module: Any, given: dict[str, nn.Module]) -> Iterator[None]:
    """Within, a module has other children of these names."""
    own = {name: getattr(module, name) for name in given}
    for name, child in given.items():
        setattr(module, name, child)
    try:
        yield
    finally:
        for name, child in own.items():
            setattr(module, name, child)


_NUMBERS: dict[tuple[int, torch.device], Tensor] = {}
"""Random numbers on a device, by their seed."""


def key_of(image: Tensor, grid: Sequence[int]) -> bytes:
    """Names an image by its patches ([patches, values], of any type) and its grid.

    Two sums of products with random numbers, in integers: it stays on the image's device, where a digest would first bring
    the pixels to the CPU, and then take longer than a GPU's pass over a conversation.
    """
    values = image.contiguous().view(torch.uint8)
    values = values.view(torch.int64) if values.shape[1] % 8 == 0 else values.to(torch.int64)
    rows, columns = _random(len(values), values.device, 1), _random(values.shape[1], values.device, 2)
    sums = [((values * column).sum(1) * row).sum() for row, column in zip(rows, columns, strict=True)]
    return repr((list(grid), str(image.dtype), torch.stack(sums).tolist())).encode()


def _random(count: int, device: torch.device, seed: int) -> Tensor:
    """[2, count] odd numbers of 64 bits; those of a larger count begin with those of a smaller one."""
    known = _NUMBERS.get((seed, device))
    if known is None or known.shape[1] < count:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(-(2**63), 2**63 - 1, (2 * max(count, 8192),), generator=generator)
        known = _NUMBERS[seed, device] = (drawn | 1).view(-1, 2).T.contiguous().to(device)
    return known[:, :count]
