"""The questions of compared runs: which trajectories answer each, which of them have cards, and links to some of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cof_agent import scoring
from cof_agent.evaluation.metrics import UNKNOWN, category, resolution
from cof_agent.evaluation.runs import TABLES, Run
from cof_agent.trajectory import Key, Trajectory
from cof_agent.viewer.templates import cut

_CATEGORY = 80  # characters of a category, as in a record


@dataclass(frozen=True, slots=True)
class Question:
    """One question, asked once at one resolution. plays: of each run; None where a run was not asked. scores: of the plays, as
    `scoring.score`; None where nothing is scored."""

    plays: tuple[Trajectory | None, ...]
    scores: tuple[float | None, ...]

    @classmethod
    def of(cls, plays: Iterable[Trajectory | None]) -> Question:
        """The question with its scores."""
        found = tuple(plays)
        return cls(found, tuple(None if play is None else scoring.score(play) for play in found))

    @property
    def first(self) -> Trajectory:
        """That of the first run that was asked."""
        return next(play for play in self.plays if play is not None)

    @property
    def differs(self) -> bool:
        """Whether the runs are not all right, or all wrong."""
        return len({None if play is None else scoring.accuracy(play) for play in self.plays}) > 1


def questions_of(runs: Sequence[Run]) -> list[Question]:
    """All questions of all runs, in the order of the first."""
    by_key: list[dict[Key, Trajectory]] = [{one.key: one for one in run.trajectories} for run in runs]
    keys = dict.fromkeys(key for found in by_key for key in found)
    return [Question.of(found.get(key) for found in by_key) for key in keys]


def chosen(questions: Sequence[Question], most: int) -> list[Question]:
    """At most so many, in their order; those on which the runs differ are taken first."""
    if len(questions) <= most:
        return list(questions)
    places = sorted(range(len(questions)), key=lambda place: not questions[place].differs)
    return [questions[place] for place in sorted(places[:most])]


def described(question: Question, records: Sequence[int | None]) -> dict[str, Any]:
    """What the page's script knows of a question beside its records, which have these numbers."""
    first = question.first
    return {
        "records": list(records),
        "category": _known(cut(category(first), _CATEGORY)),
        "resolution": _known(resolution(first)),
        "play": "" if first.play is None else str(first.play),
        "scores": list(question.scores),
    }


def _known(text: str) -> str:
    return "" if text == UNKNOWN else text


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses on the page that show some of its questions. The page's script reads them (`filters.js`, `comparison.js`)."""

    runs: Sequence[Run]
    questions: Sequence[Question]

    def of_run(self, run: int, **filters: str) -> str:
        """The questions that a run was asked."""
        asked = all(question.plays[run] is not None for question in self.questions)
        return self._address({} if asked else {f"asked{run}": "asked"}, filters)

    def of_pair(self, first: int, second: int, row: str = "", **filters: str) -> str:
        """The questions of which both runs have a verdict, in a row of a table as `compare.rows` and `gain.rows` name it."""
        judged = (None not in (one.scores[first], one.scores[second]) for one in self.questions)
        compared = {} if "verdict" in filters or "change" in filters or all(judged) else {"compared": "compared"}
        return self._address({"from": str(first), "to": str(second)}, compared, of_row(row), filters)

    @property
    def partial(self) -> bool:
        """Whether a score is neither 0 nor 1, so that it can change and stay wrong."""
        return any(score not in (None, 0, 1) for one in self.questions for score in one.scores)

    def changes(self, first: int, second: int, row: str) -> tuple[str, str]:
        """The questions whose score rose, and those whose score fell."""
        if self.partial:
            rose, fell = {"change": "better"}, {"change": "worse"}
        else:
            rose, fell = {"verdict": "mended"}, {"verdict": "broken"}
        return self.of_pair(first, second, row, **rose), self.of_pair(first, second, row, **fell)

    def _address(self, *filters: dict[str, str]) -> str:
        together = {name: value for some in filters for name, value in some.items()}
        return f"#{urlencode(together or {'from': '0'})}" if self.questions else ""


def of_row(row: str) -> dict[str, str]:
    """The filter that leaves the questions of a row such as `category signs`."""
    kind, _, value = row.partition(" ")
    if f"by_{kind}" not in TABLES:
        return {}
    return {kind: cut(value, _CATEGORY)}
