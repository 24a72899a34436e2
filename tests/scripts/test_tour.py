"""The notebook runs from top to bottom, and shows what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

TOUR = Path(__file__).parents[2] / "scripts" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_runs() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    results = {
        cell.source.splitlines()[-1]: output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    }
    answer, truth = eval(results["trajectory.answer, sample.answers"]["text/plain"])
    assert answer == truth[0]
    assert "<img" in results["trajectory"]["text/html"]
    accuracy, zooms = eval(results['compared["accuracy"], compared["zooms"]["difference"]']["text/plain"])
    assert accuracy["difference"] > 0.2  # questions about details that only a crop shows
    assert zooms > 0


def test_no_output_is_committed() -> None:
    cells = nbformat.read(TOUR, as_version=4).cells
    assert not [cell.source for cell in cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
