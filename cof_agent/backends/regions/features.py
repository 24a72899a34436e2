"""A Qwen2.5-VL that reads regions as embeddings (GPT4RoI, arXiv 2307.03601, section 3).

`region 1<|region|>` in a text is the words, and one embedding that is computed from the box: features of four levels of the
vision tower become a pyramid, which is fused across levels; RoIAlign cuts the box from each; their sum, and the box itself
through a small network of its own, are mapped to the width of the language model.

    model, processor = with_regions("nano")        # a checkpoint that has never seen a region
    model(..., regions=torch.tensor([[0, 12.0, 40.0, 80.0, 96.0]]))
    model.save_pretrained(DIR)                      # RegionQwen.from_pretrained(DIR), backends.local.load(DIR)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from cof_agent.backends import families
from cof_agent.backends.local.processor import load_processor
from cof_agent.backends.local.reader import unreadable
from cof_agent.backends.regions.fourier import waves_of
from cof_agent.backends.regions.roi_align import roi_align
from cof_agent.errors import InputError
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.region_refs import mentions

SLOT = "<|region|>"
"""The token in whose place a region's embedding stands. Published checkpoints of Qwen2.5-VL have more rows of embeddings than
their tokenizers have words, and it takes one of these; where there is none, as in nano, one row is added."""

FAMILY = families.QWEN2_5_VL
"""The only one whose tower the extractor reads."""

_DEEP = 11  # blocks that a tower needs for the paper's choice of levels


@dataclass(frozen=True, slots=True)
class RegionConfig:
    """The shape of an extractor. `levels`: blocks of the tower, from shallow to deep; `scales`: how many times as large as
    the tower's own map each level becomes; `width`: channels of the pyramid; `bins`: along each side of a region;
    `rounds`: of fusion; `groups`: of its norms; `feature`: of a region before it is mapped to the language model; `octaves`:
    of waves in which the box itself is told, beside its four numbers as in the paper (see `waves`)."""

    token_id: int
    levels: tuple[int, ...]
    scales: tuple[float, ...]
    width: int = 1024
    feature: int = 1024
    bins: int = 14
    sampling: int = 2
    rounds: int = 5
    groups: int = 64
    octaves: int = 7

    @classmethod
    def for_tower(cls, depth: int, width: int, token_id: int) -> RegionConfig:
        """The paper's shape: the 11th, 8th, 5th and 2nd block from the last, 8, 4, 2 and 1 times as large. A tower of fewer
        blocks, such as nano's, gives four spread evenly, at 2, 1, 1/2 and 1/4, and a pyramid as wide as half the tower: its
        maps are small, and at 8 times their size fusing them would cost a hundred times what the model does."""
        if depth >= _DEEP:
            return cls(token_id, tuple(depth - back for back in (11, 8, 5, 2)), (8, 4, 2, 1))
        levels = tuple(round(place * (depth - 1) / 3) for place in range(4))
        half = max(8, width // 2)
        return cls(token_id, levels, (2, 1, 0.5, 0.25), width=half, feature=2 * half, groups=8)


class RegionExtractor(nn.Module):
    """Maps of the tower and boxes -> one embedding for each box.

    tower: channels of the maps. language: width of the embeddings.
    """

    def __init__(self, config: RegionConfig, tower: int, language: int) -> None:
        super().__init__()
        self.config = config
        width, levels = config.width, range(len(config.levels))
        self.enter = nn.ModuleList(nn.Conv2d(tower + 2, width, 1) for _ in levels)
        self.fuse = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.rounds))
        self.norms = nn.ModuleList(nn.GroupNorm(config.groups, width) for _ in range(config.rounds))
        self.cut = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in levels)
        self.flat = nn.Linear(width * config.bins**2, config.feature)
        self.place = nn.Sequential(
            nn.Linear(4 + 8 * config.octaves, 256),
            nn.ReLU(),
            nn.LayerNorm(256),
            nn.Linear(256, config.feature),
            nn.LayerNorm(config.feature),
        )
        self.leave = nn.Linear(config.feature, language)

    def pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the tower, one of each level, [images, channels, rows, columns] all -> fused maps of the pyramid."""
        levels = []
        for enter, scale, one in zip(self.enter, self.config.scales, maps, strict=True):
            rows, columns = (max(1, round(side * scale)) for side in one.shape[2:])
            levels.append(enter(_with_coordinates(_resized(one, rows, columns))))
        for convolve, norm in zip(self.fuse, self.norms, strict=True):
            levels = [F.relu(norm(convolve(mixed))) for mixed in _shuffled(levels)]
        return levels

    def forward(self, levels: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Embeddings of boxes in one image.

        levels: of the pyramid, [channels, rows, columns] each. boxes: [boxes, 4], from 0 to 1 on both axes.

        Returns:
            [boxes, language].
        """
        seen: Tensor | int = 0
        for cut, level in zip(self.cut, levels, strict=True):
            rows, columns = level.shape[1:]
            edges = boxes * boxes.new_tensor([columns, rows, columns, rows])
            seen = seen + cut(roi_align(level, edges, size=self.config.bins, scale=1.0, sampling=self.config.sampling))
        assert isinstance(seen, Tensor)
        told = torch.cat([boxes, waves_of(boxes, self.config.octaves)], dim=1)
        features = self.flat(F.relu(seen).flatten(1)) + self.place(told.to(self.flat.weight.dtype))
        embeddings: Tensor = self.leave(features)
        return embeddings


def _resized(maps: Tensor, rows: int, columns: int) -> Tensor:
    if maps.shape[2:] == (rows, columns):
        return maps
    return F.interpolate(maps, (rows, columns), mode="bilinear", align_corners=False)


def _with_coordinates(maps: Tensor) -> Tensor:
    """Two more channels: column and row of each feature, from -1 to 1 (Liu et al., CoordConv, arXiv 1807.03247)."""
    images, _, rows, columns = maps.shape
    x = torch.linspace(-1, 1, columns, device=maps.device, dtype=maps.dtype).expand(images, 1, rows, columns)
    y = torch.linspace(-1, 1, rows, device=maps.device, dtype=maps.dtype)[:, None].expand(images, 1, rows, columns)
    return torch.cat([maps, x, y], dim=1)


def _shuffled(levels: Sequence[Tensor]) -> Iterator[Tensor]:
    """Each level with half of its own channels, a quarter of the finer neighbour's and a quarter of the coarser one's; at the
    ends of the pyramid its own stand in for the neighbour it has not."""
    for index, own in enumerate(levels):
        half = own.shape[1] // 2
        quarter = half // 2
        finer, coarser = levels[max(0, index - 1)], levels[min(len(levels) - 1, index + 1)]
        parts = (finer[:, half : half + quarter], coarser[:, half + quarter :])
        yield torch.cat([own[:, :half], *(_resized(part, *own.shape[2:]) for part in parts)], dim=1)


class RegionQwen(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with a `RegionExtractor` beside it. Without regions it is the base model to the last bit; images only.

    Its configuration holds `region_config`, the fields of `RegionConfig`. `forward` and `generate` are the base model's, and
    take `regions`, [regions, 5]: for each slot of `input_ids`, row by row, which image of the batch, counted from 0, and the
    box in shown pixels of that image. They are passed over once the images have been read, as in generation.

    Raises (from `forward`):
        ValueError: if there are not as many regions as slots, or one lies in no image of the batch.
    """

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        super().__init__(config)
        shape = dict(config.region_config)
        shape |= {name: tuple(shape[name]) for name in ("levels", "scales")}
        vision, text = config.vision_config, config.text_config
        self.region_extractor = RegionExtractor(RegionConfig(**shape), vision.hidden_size, text.hidden_size)
        self.model.register_forward_pre_hook(self._with_regions, with_kwargs=True)
        self.post_init()

    def prepare_inputs_for_generation(self, *arguments: Any, regions: Tensor | None = None, **kwargs: Any) -> Any:
        """As the base model's; regions are read with the images, before the first token."""
        return {**super().prepare_inputs_for_generation(*arguments, **kwargs), "regions": regions}

    def _supports_mm_encoder_outputs(self) -> bool:
        """No: `generate` would run the tower beforehand, where nothing takes its levels."""
        return False

    def _with_regions(
        self, _: nn.Module, arguments: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before the inner model runs, whoever calls it: TRL's fused loss does not come through our own `forward`."""
        regions, patches = given.pop("regions", None), given.get("pixel_values")
        if regions is None or not len(regions) or patches is None:
            return arguments, given
        words, images = self._read(given["input_ids"], patches, given["image_grid_thw"], regions)
        return arguments, given | {"pixel_values": None, "inputs_embeds": words, "mm_encoder_outputs": images}

    def _read(self, ids: Tensor, patches: Tensor, grid: Any, regions: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The embeddings of the text with those of the regions in their slots, and what the tower makes of the images."""
        slots = ids == self.region_extractor.config.token_id
        if int(slots.sum()) != len(regions):
            raise ValueError(f"the text has {int(slots.sum())} slots for {len(regions)} regions")
        with self._levels() as taken:
            seen = self.model.get_image_features(patches, grid, return_dict=True)
        features = self.embed_regions(self._maps(taken, grid), grid, regions)
        words = self.get_input_embeddings()(ids)
        return words.masked_scatter(slots[..., None], features.to(words.dtype)), {"image": _told(seen)}

    @contextmanager
    def _levels(self) -> Iterator[dict[int, Tensor]]:
        """What comes out of the blocks that the extractor reads, while the tower runs inside. Another thread may run it, too,
        for a conversation without regions."""
        taken: dict[int, Tensor] = {}
        blocks, mine = self.model.visual.blocks, threading.get_ident()

        def keep(index: int) -> Any:
            def hook(_module: nn.Module, _given: Any, output: Tensor) -> None:
                if threading.get_ident() == mine:
                    taken[index] = output

            return blocks[index].register_forward_hook(hook)

        handles = [keep(index) for index in set(self.region_extractor.config.levels)]
        try:
            yield taken
        finally:
            for handle in handles:
                handle.remove()

    def _maps(self, taken: dict[int, Tensor], grid: Tensor) -> list[list[Tensor]]:
        """For each level and image [channels, rows, columns]: the order of windows and of merged patches is undone."""
        vision = self.config.vision_config
        order, _ = get_vision_window_index(
            grid,
            spatial_merge_size=vision.spatial_merge_size,
            window_size=vision.window_size,
            patch_size=vision.patch_size,
        )
        back = torch.argsort(order).to(grid.device)
        return [
            maps_of(taken[level], back, grid, vision.spatial_merge_size)
            for level in self.region_extractor.config.levels
        ]

    def embed_regions(self, maps: Sequence[Sequence[Tensor]], grid: Tensor, regions: Tensor) -> Tensor:
        """Embeddings [regions, width]. maps: of each level and image (see `_maps`); images of one size are fused together.

        Raises:
            ValueError: if a region is in no image of the batch.
        """
        sizes = [tuple(sides) for sides in grid[:, 1:].tolist()]
        of = [int(image) for image in regions[:, 0].tolist()]
        if not all(0 <= image < len(sizes) for image in of):
            raise ValueError(f"regions name the images {sorted(set(of))}, but there are {len(sizes)}")
        found: dict[int, Tensor] = {}
        for size in sorted({sizes[image] for image in of}):
            images = sorted({image for image in of if sizes[image] == size})
            levels = self.region_extractor.pyramid([torch.stack([level[k] for k in images]) for level in maps])
            shown = regions.new_tensor([size[1], size[0]] * 2) * self.config.vision_config.patch_size
            for place, image in enumerate(images):
                rows = [row for row, one in enumerate(of) if one == image]
                embedded = self.region_extractor([level[place] for level in levels], regions[rows, 1:] / shown)
                found |= dict(zip(rows, embedded, strict=True))
        return torch.stack([found[row] for row in range(len(of))])


# Under the names that the base model's weights are saved; by its own class name transformers would know none of them.
register_checkpoint_conversion_mapping(
    RegionQwen.__name__, get_checkpoint_conversion_mapping(Qwen2_5_VLForConditionalGeneration.__name__), overwrite=True
)


def _told(seen: Any) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(last_hidden_state=seen.last_hidden_state, pooler_output=seen.pooler_output)


def maps_of(hidden: Tensor, back: Tensor, grid: Tensor, merge: int) -> list[Tensor]:
    """What a block of the tower gives, [patches, channels] of all images, as a map of each: [channels, rows, columns].

    back: where each group of merged patches stands, images in order. grid: [images, 3], of patches.
    """
    groups = hidden.unflatten(0, (-1, merge * merge))[back]
    maps = []
    for (_, rows, columns), part in zip(grid.tolist(), groups.split((grid.prod(1) // merge**2).tolist()), strict=True):
        blocks = part.view(rows // merge, columns // merge, merge, merge, -1)
        maps.append(blocks.permute(4, 0, 2, 1, 3).reshape(-1, rows, columns))
    return maps


def slotted(text: str) -> tuple[str, list[list[float]]]:
    """A text in which regions are named with their boxes, with slots instead; and the boxes, in the order of the slots."""
    pieces, end, boxes = [], 0, []
    for mention in mentions(text):
        pieces += [text[end : mention.start], f"region {mention.number}{SLOT}"]
        boxes.append([float(value) for value in mention.box])
        end = mention.end
    return "".join([*pieces, text[end:]]), boxes


def with_regions(path: str, *, seed: int = 0, **options: Any) -> tuple[RegionQwen, Any]:
    """A checkpoint of Qwen2.5-VL, or nano, with an extractor that has learned nothing yet, and its processor with the slot.
    One that has an extractor is loaded as it is. options: of `from_pretrained`.

    Raises:
        InputError: if there is no such checkpoint, or it is of another family.
    """
    path = str(WEIGHTS) if path == NANO else path
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if config.model_type not in FAMILY.model_types:
            raise InputError(f"{path} is a {config.model_type} model; regions are learned by {FAMILY.name} only.")
        processor = load_processor(path, config)
        if getattr(config, "region_config", None) is not None:
            return RegionQwen.from_pretrained(path, **options), processor
        slot = add_slot(processor.tokenizer)
        shape = RegionConfig.for_tower(config.vision_config.depth, config.vision_config.hidden_size, slot)
        config.region_config = asdict(shape)
        model = RegionQwen.from_pretrained(path, config=config, **options)
    except InputError:
        raise
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        raise unreadable(path, error) from None
    if slot >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(slot + 1, mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[slot:] = 0
            model.get_output_embeddings().weight[slot:] = 0
    with torch.random.fork_rng(devices=[]):  # the checkpoint's own spread of first weights is made for other layers
        torch.manual_seed(seed)
        fresh = RegionExtractor(shape, config.vision_config.hidden_size, config.text_config.hidden_size)
    model.region_extractor.load_state_dict(fresh.state_dict())
    return model, processor


def add_slot(tokenizer: Any) -> int:
    """The id of the slot's token, which is added where the tokenizer does not know it."""
    tokenizer.add_tokens([SLOT], special_tokens=True)
    return int(tokenizer.convert_tokens_to_ids(SLOT))
