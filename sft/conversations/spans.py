"""Where an assistant's words stand in a conversation that is ids already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cof_agent.backends.families import Markers


def assistant_spans(sequence: list[int], tokenizer: Any, markers: Markers, begun: str = "") -> list[tuple[int, int]]:
    """Where what assistants wrote begins and ends among the ids of one conversation; the rest as for `assistant_mask`."""
    header, opening, end, after = _frame_of_turns(tokenizer, markers, begun)
    ends = [position for position, token in enumerate(sequence) if token == end]
    spans = []
    for position in (place for place, token in enumerate(sequence) if token == header.ids[0]):
        start = position + len(header.ids)
        if header.stands_in(sequence, position):
            if sequence[start : start + len(opening)] == opening:  # else the thought is empty
                start += len(opening)
            stop = next((place for place in ends if place >= start), len(sequence) - 1)
            spans.append((start, min(stop + 1 + after, len(sequence))))
    return spans


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before the words of an assistant, as ids. last: the ids that may stand for the last one. Longer ones are among
    them: a tokenizer joins a line break with one that follows, and what it joins is not trained on, since no model writes it
    there."""

    ids: list[int]
    last: frozenset[int]

    def stands_in(self, sequence: list[int], start: int) -> bool:
        """Whether a conversation has it from `start` on."""
        stop = start + len(self.ids) - 1
        return stop < len(sequence) and sequence[start:stop] == self.ids[:-1] and sequence[stop] in self.last


def _header(text: str, tokenizer: Any) -> _Header:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if ids[-1] in tokenizer.added_tokens_decoder:  # which nothing is joined with
        return _Header(ids, frozenset(ids[-1:]))
    last = tokenizer.convert_ids_to_tokens(ids[-1])
    longer = {id for token, id in tokenizer.get_vocab().items() if token.startswith(last)}
    return _Header(ids, frozenset(longer - set(tokenizer.added_tokens_decoder)))


@lru_cache(maxsize=8)
def _frame_of_turns(tokenizer: Any, markers: Markers, begun: str) -> tuple[_Header, list[int], int, int]:
    """The ids before the words of an assistant, those that the template writes of them, the one behind them, and how many more
    belong to the ending."""
    end, *after = tokenizer.encode(markers.ending, add_special_tokens=False)
    opening: list[int] = tokenizer.encode(begun, add_special_tokens=False)
    return _header(markers.assistant, tokenizer), opening, end, len(after)
