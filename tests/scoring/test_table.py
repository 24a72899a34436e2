"""`table.jsonl`: replies with the verdict of a person who knows the question and the truth.

`reported` marks kinds of replies that users saw scored wrongly.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cof_agent import scoring
from cof_agent.trajectory import Sample

LINES = (Path(__file__).parent / "table.jsonl").read_text("utf-8").split("\n")
ROWS: list[dict[str, Any]] = [json.loads(line) for line in LINES if line]


def sample_of(row: dict[str, Any]) -> Sample:
    answers, choices = tuple(row["answers"]), tuple(row.get("choices", ()))
    return Sample("s", "i.png", row["question"], answers, choices, metadata=row.get("metadata", {}))


@pytest.mark.parametrize("question", sorted({row["question"] for row in ROWS}))
def test_a_reply_gets_the_verdict_of_a_person(question: str) -> None:
    rows = [row for row in ROWS if row["question"] == question]
    assert [row for row in rows if scoring.matches(row["reply"], sample_of(row)) != row["right"]] == []


def test_the_table_holds_many_replies_of_both_kinds_and_none_twice() -> None:
    verdicts = Counter(row["right"] for row in ROWS)
    assert verdicts[True] >= 300 and verdicts[False] >= 300
    assert sum("reported" in row for row in ROWS) >= 70
    cases = [(row["question"], *row["answers"], row["reply"]) for row in ROWS]
    assert len(cases) == len(set(cases))
