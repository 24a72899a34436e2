"""Progress where there is no terminal: a line a minute, with an estimate of the rest."""

from __future__ import annotations

import pytest

from cof_agent.output.progress import EVERY, Lines, clock, progress, track


def lines(*told: tuple[float, int, int | None]) -> list[str]:
    """What is written when at so many seconds so much is done, of so much."""
    time, written = [0.0], list[str]()
    shown = Lines("Reading", write=written.append, now=lambda: time[0])
    for seconds, done, total in told:
        time[0] = seconds
        shown.tell(done, total)
    return written


def test_a_line_a_minute() -> None:
    found = lines((30, 1, 10), (EVERY, 2, 10), (EVERY + 30, 3, 10), (2 * EVERY, 4, 10))
    assert found == ["Reading: 2 of 10, about 4:00 left", "Reading: 4 of 10, about 3:00 left"]


def test_what_was_skipped_says_nothing_of_the_rest() -> None:
    # A thousand were there already; then one a minute.
    found = lines((1, 1000, 2000), *((minute * EVERY, 1000 + minute, 2000) for minute in range(1, 13)))
    assert found[-1] == "Reading: 1,012 of 2,000, about 16:28:00 left"


def test_without_a_total_or_a_pace_nothing_is_estimated() -> None:
    assert lines((EVERY, 0, 10), (2 * EVERY, 7, None)) == ["Reading: 0 of 10", "Reading: 7"]


def test_short_work_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "Reading")) == ["a", "b", "c"]
    assert list(track(iter("abc"), "Reading", 3, quiet=True)) == ["a", "b", "c"]
    with progress("Reading") as tell:
        tell(3, 3)
    assert capfd.readouterr() == ("", "")


def test_an_unfinished_walk_ends_its_progress() -> None:
    for item in track("abc", "Reading"):
        assert item == "a"
        break


def test_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 3600, 3723)] == ["0:00", "1:00", "1:00:00", "1:02:03"]
