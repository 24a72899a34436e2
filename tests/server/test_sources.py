"""What the page takes: pages by number, files that were sent, and the questions of a tab."""

from __future__ import annotations

from pathlib import Path

import pytest

from cof_agent.errors import InputError
from cof_agent.server.page.history import MOST as MOST_QUESTIONS
from cof_agent.server.page.history import MOST_TABS, Asked, Histories
from cof_agent.server.page.sources import MOST, numbers
from cof_agent.server.pictures import Pictures
from cof_agent.trajectory import Sample, StopReason, Trajectory
from tests.image.test_pages import TEXT, write


def test_pages_are_written_as_people_do() -> None:
    for text, found in (("3", [3]), (" 1, 4-6 ", [1, 4, 5, 6]), ("2,2", [2, 2]), ("10-10", [10])):
        assert numbers(text, 10) == found
    for text, sentence in (
        ("", "names no pages"),
        ("one", "one names no pages"),
        ("1-", "names no pages"),
        ("-2", "names no pages"),
        ("1--2", "names no pages"),
        ("\u00b2", "names no pages"),
        ("0", "no page 0: the file has pages 1 to 10"),
        ("8-11", "no page 8-11"),
        ("5-2", "no page 5-2"),
        (f"1-{MOST + 1}", f"at most {MOST} images"),
        ("1-99999999999999", "no page"),
    ):
        with pytest.raises(InputError, match=sentence):
            numbers(text, 10)


def test_a_pdf_file_is_kept_as_such(tmp_path: Path) -> None:
    pictures = Pictures(most_bytes=0)
    path = pictures.add(write(tmp_path / "a.pdf", TEXT).read_bytes())
    assert path.endswith(".pdf") and pictures.hold(path)
    pictures.release(f"{path}#page=1")
    assert Path(path).exists()
    pictures.release(path)
    assert not Path(path).exists() and not pictures.hold(path)
    pictures.close()


def test_the_latest_questions_of_the_latest_tabs_are_remembered() -> None:
    histories = Histories()
    for number in range(MOST_QUESTIONS + 2):
        trajectory = Trajectory(Sample(str(number), "a.png", "?"), None, (), StopReason.ERROR)
        histories.add("first", Asked(trajectory, {}))
    assert [one.trajectory.sample.id for one in histories.of("first")] == [
        str(number) for number in range(2, MOST_QUESTIONS + 2)
    ]
    for number in range(MOST_TABS):
        histories.add(str(number), histories.of("first")[0])
    assert histories.of("first") == [] and len(histories.of("0")) == 1
