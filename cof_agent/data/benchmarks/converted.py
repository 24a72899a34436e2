"""A benchmark that somebody has converted: rows in any form that the general reader knows, such as messages."""

from __future__ import annotations

from collections.abc import Iterable

from cof_agent.data.answers import understood, without_counting
from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.choices import choices_of
from cof_agent.data.columns import Columns
from cof_agent.data.forms import Draft, drafts
from cof_agent.data.questions import named_marks, parse, without_marks
from cof_agent.data.rows import Row
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample


def read(copy: Copy, row: Row) -> Iterable[Sample]:
    """The questions of a row.

    Raises:
        InputError: if there is none, naming the row.
    """
    try:
        return [_sample(copy, row, draft) for draft in drafts(row.values, Columns({}))]
    except Unusable as why:
        raise InputError(f"{row} cannot be read: {why.reason}{f' ({why.detail})' if why.detail else ''}.") from None


def _sample(copy: Copy, row: Row, draft: Draft) -> Sample:
    cleaned = named_marks if len(draft.images) > 1 else without_marks
    question = parse(cleaned(draft.question))
    choices = question.choices if draft.choices is None else choices_of(draft.choices)
    truth = understood(draft.answer, choices)
    first, *others = [ref.value for ref in draft.images]
    images = copy.pictures([first, *others] if others else first, row)
    return Sample(
        id=draft.id or str(row.number),
        image=images[0],
        question=question.text if choices and choices == question.choices else question.whole,
        answers=tuple(choices[key] for key in without_counting(truth)) if choices else truth.texts,
        choices=tuple(choices.values()),
        metadata={name: draft.metadata[name] for name in ("category", "subcategory") if name in draft.metadata},
        more_images=images[1:],
    )
