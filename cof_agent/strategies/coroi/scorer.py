"""The region scorer of CoRoI (arXiv 2505.06840): where in the overview the answer to a question is too small to be seen.

Features of the overview (the model's own, one vector for each image token) -> self-attention over their grid ->
cross-attention to the embeddings of the question's tokens and to the features of the regions chosen before -> scores. Each
image token gets a score for every patch that was merged into it, so that the map has the vision tower's resolution, as the
paper's 24 x 24 has; and one more number says whether a region is needed at all. The model itself stays as it is.

Positions are sines of where a cell's centre lies, in parts of the source's long side, with its size: grids of any size,
and crops of any scale, are told in the same terms. It lies beside a checkpoint: `coroi/config.json`, `scorer.safetensors`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from cof_agent.backends.regions.fourier import waves_of
from cof_agent.errors import InputError, first_sentence
from cof_agent.geometry import View
from cof_agent.output.files import write_atomic, write_json
from cof_agent.trajectory import from_json

FOLDER, CONFIG, WEIGHTS = "coroi", "config.json", "scorer.safetensors"

_OCTAVES = 8  # of the sines that tell a place: the fastest turns in a hundredth of the long side


@dataclass(frozen=True, slots=True)
class ScorerConfig:
    """Sizes of a scorer, and how it is used.

    features: width of the model's language model. merge: patches along each side of an image token.
    factors: zoom factors, each a window of floor(long side / factor) patches. regions: chosen for a question, at most.
    needed: the probability of a region being needed from which on it is cut.

    Raises:
        ValueError: if a value makes no sense.
    """

    features: int
    merge: int = 2
    width: int = 128
    heads: int = 4
    layers: int = 2
    factors: tuple[int, ...] = (2, 3, 4, 5, 6, 8, 10, 16, 32)
    regions: int = 2
    needed: float = 0.5

    def __post_init__(self) -> None:
        sizes = (self.features, self.merge, self.width, self.heads, self.layers, self.regions)
        if not all(0 < size <= 16_384 for size in sizes) or self.width % (2 * self.heads):
            raise ValueError("sizes must be 1 to 16384, and width a multiple of twice the heads")
        if not self.factors or min(self.factors) < 1 or len(self.factors) > 64:
            raise ValueError("factors must be 1 to 64 numbers of at least 1")
        if not 0 <= self.needed <= 1:
            raise ValueError("needed must be between 0 and 1")


class RegionScorer(nn.Module):
    """See above. `grid` reads an image once; `forward` asks for a region in it."""

    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cells, self.words = _projection(config.features, width), _projection(config.features, width)
        self.place = nn.Linear(4 * _OCTAVES + 2, width)
        self.phrase = nn.Conv1d(width, width, 3, padding=1)  # "red circle" is one thing: a word with its neighbours
        self.alone = _Block(width, config.heads)
        self.match = nn.ModuleList(_Block(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, config.merge**2)
        self.need = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def grid(self, features: Tensor, places: Tensor) -> Tensor:
        """Reads images of one grid. features: [images, tokens, features], places: [images, tokens, .] (see `places_of`).

        Returns:
            [images, tokens, width].
        """
        cells = self.cells(features) + self.place(places)
        return self.alone(cells, cells)  # type: ignore[no-any-return]

    def forward(
        self, overview: Tensor, words: Tensor, spoken: Tensor, crops: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores the patches of overviews for questions, given the regions chosen before.

        overview: [batch, tokens, width], from `grid`. words: [batch, length, features], the input embeddings of the
        questions, where `spoken` [batch, length] says which are words and not padding; at least one is. crops and shown:
        the same for the image tokens of all crops of a question, from `grid`; their length may be 0.

        Returns:
            [batch, tokens, merge x merge] logits of a softmax over all patches of an overview, and [batch] logits of a
            region being needed.
        """
        told = self.words(words) + _sines(torch.arange(words.shape[1], device=words.device), self.config.width)
        told = told * spoken.unsqueeze(-1)
        told = told + F.gelu(self.phrase(told.transpose(1, 2)).transpose(1, 2))
        context, hidden = torch.cat([told, crops], 1), torch.cat([spoken, shown], 1).logical_not()
        cells = overview
        for block in self.match:
            cells = block(cells, context, hidden)
        cells = self.norm(cells)
        scores = self.score(cells)
        looked_at = scores.logsumexp(-1).softmax(-1).unsqueeze(1) @ cells
        return scores, self.need(looked_at).flatten()


class _Block(nn.Module):
    """Attention to `context`, then a layer for each cell alone; both on normalised states."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, cells: Tensor, context: Tensor, hidden: Tensor | None = None) -> Tensor:
        query, known = self.norms[0](cells), self.norms[1](context)
        cells = cells + self.attention(query, known, known, key_padding_mask=hidden, need_weights=False)[0]
        return cells + self.layer(self.norms[2](cells))  # type: ignore[no-any-return]


def _projection(features: int, width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))


def _sines(steps: Tensor, width: int) -> Tensor:
    """[count] -> [count, width]: the positions of tokens in a text (Vaswani et al. 2017)."""
    angles = steps[:, None] * 100.0 ** (-torch.arange(width // 2, device=steps.device) / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], 1)


def places_of(view: View, rows: int, columns: int) -> Tensor:
    """Where the `rows` x `columns` image tokens of a view lie in its source, row by row: [tokens, 4 x octaves + 2]."""
    whole, region = view.source_size.long_side, view.region
    across, down = region.width / columns / whole, region.height / rows / whole
    x = region.x0 / whole + across * (torch.arange(columns) + 0.5)
    y = region.y0 / whole + down * (torch.arange(rows) + 0.5)
    centres = torch.stack([x.repeat(rows), y.repeat_interleave(columns)], 1)
    size = torch.tensor([math.log2(across), float(view.region.area < view.source_size.area)])
    return torch.cat([waves_of(centres, _OCTAVES), size.expand(len(centres), 2)], 1)


def patch_map(scores: Tensor, rows: int, columns: int) -> Tensor:
    """Values of the patches of `rows` x `columns` image tokens, [.., tokens, merge x merge], as a picture:
    [.., rows x merge, columns x merge]."""
    merge = math.isqrt(scores.shape[-1])
    grid = scores.unflatten(-1, (merge, merge)).unflatten(-3, (rows, columns))
    found: Tensor = grid.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """An image that was shown: its view, and what the model's vision tower makes of it, [tokens, features], row by row.
    cell: shown pixels along each side of an image token."""

    view: View
    features: Tensor
    cell: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of its image tokens."""
        return self.view.shown_size.height // self.cell, self.view.shown_size.width // self.cell


@dataclass(frozen=True, slots=True)
class Query:
    """A question, as the input embeddings of its tokens, [tokens, features], about images that were seen, by number: the
    overview, then the crops that were chosen before."""

    words: Tensor
    images: tuple[int, ...]


def score_maps(scorer: RegionScorer, seen: Sequence[Seen], queries: Sequence[Query]) -> tuple[list[Tensor], Tensor]:
    """Asks for a region for each query; each image is read once, and what has one size is reckoned together.

    Returns:
        for each query the logits of a softmax over the patches of its overview, [rows x merge, columns x merge]; and for
        all of them the logits of a region being needed, [queries].
    """
    device, read = scorer.score.weight.device, list[Tensor](torch.empty(0) for _ in seen)
    for (rows, columns), numbers in _alike([image.grid for image in seen]):
        features = torch.stack([seen[number].features for number in numbers]).to(device, torch.float32)
        places = torch.stack([places_of(seen[number].view, rows, columns) for number in numbers]).to(device)
        for number, cells in zip(numbers, scorer.grid(features, places), strict=True):
            read[number] = cells
    maps, needs = list[Tensor](torch.empty(0) for _ in queries), torch.zeros(len(queries), device=device)
    for grid, asked in _alike([seen[query.images[0]].grid for query in queries]):
        overviews = torch.stack([read[queries[number].images[0]] for number in asked])
        words, spoken = _padded([queries[number].words.to(device, torch.float32) for number in asked])
        none = overviews.new_zeros(0, scorer.config.width)
        crops, shown = _padded([torch.cat([none, *(read[k] for k in queries[number].images[1:])]) for number in asked])
        scores, need = scorer(overviews, words, spoken, crops, shown)
        needs = needs.index_put((torch.tensor(asked, device=device),), need.float())
        for number, one in zip(asked, patch_map(scores.float(), *grid), strict=True):
            maps[number] = one
    return maps, needs


def _alike(grids: Sequence[tuple[int, int]]) -> list[tuple[tuple[int, int], list[int]]]:
    groups: dict[tuple[int, int], list[int]] = {}
    for number, grid in enumerate(grids):
        groups.setdefault(grid, []).append(number)
    return list(groups.items())


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[length, width] each -> [rows, longest, width], and which of it is no padding."""
    lengths = torch.tensor([len(row) for row in rows])
    there = torch.arange(int(lengths.max())) < lengths[:, None]
    return pad_sequence(list(rows), batch_first=True), there.to(rows[0].device)


def load_scorer(checkpoint: Path) -> RegionScorer:
    """The scorer that lies in `coroi/` of a checkpoint's folder.

    Raises:
        InputError: if there is none, or it cannot be read.
    """
    folder = checkpoint / FOLDER
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"the model {checkpoint} has no region scorer ({FOLDER}/{CONFIG}); train one: python -m sft.papers.coroi --model "
            f"{checkpoint} --output DIR, then name DIR as the model."
        )
    try:
        config = from_json((folder / CONFIG).read_bytes(), ScorerConfig)
        scorer = RegionScorer(config)
        scorer.load_state_dict(load_weights((folder / WEIGHTS).read_bytes()))
    except Exception as error:  # what a broken file makes the loaders raise is not limited
        raise InputError(f"cannot read the region scorer in {folder}: {first_sentence(error)}.") from None
    return scorer.eval()


def save_scorer(scorer: RegionScorer, checkpoint: Path) -> None:
    """Write the scorer to `coroi/` of a checkpoint's folder, its configuration last: without it there is none."""
    weights: dict[str, Any] = {name: value.contiguous().cpu() for name, value in scorer.state_dict().items()}
    write_atomic(checkpoint / FOLDER / WEIGHTS, save_weights(weights))
    write_json(checkpoint / FOLDER / CONFIG, asdict(scorer.config))
