"""The notebook runs from its first cell to its last, in a kernel of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.waiting import PATIENCE_S

NOTEBOOK = Path(__file__).parents[3] / "simulation" / "notebook" / "study.ipynb"
SHOWN = ("study", "federation", "hospital")  # cells whose last object shows itself
PLOTTED = ("rounds", "federation-plot", "beeswarm", "waterfall")


def outputs(cell: nbformat.NotebookNode, mime: str) -> list[str]:
    return [output.data[mime] for output in cell.outputs if mime in output.get("data", {})]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short, as Ray makes Unix sockets in it."""
    with tempfile.TemporaryDirectory(prefix="hipfed-") as folder:
        yield Path(folder)


def test_notebook_runs_shows_objects_and_plots_and_warns_of_nothing_of_ours(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that fails ends the test with its traceback."""
    monkeypatch.setenv("TMPDIR", str(short_folder))
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]

    done = NotebookClient(notebook, timeout=int(PATIENCE_S), kernel_name="python3").execute(cwd=str(short_folder))

    cells = {cell.id: cell for cell in done.cells}
    for name in SHOWN:
        (html,) = outputs(cells[name], "text/html")
        assert "<caption>" in html
    for name in PLOTTED:
        assert len(outputs(cells[name], "image/png")) == 1
    told = "".join(output.text for cell in done.cells for output in cell.get("outputs", []) if output.get("name"))
    assert not [name for name in ("client", "server", "shared_model", "simulation") if f"/{name}/" in told], told


def test_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]

    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
