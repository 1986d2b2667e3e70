"""The notebook of examples/ is one of Jupyter without outputs, and its cells run, with a small network and two steps."""

import importlib.util
import json
from pathlib import Path

import pytest
from pages_text import ROOT

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"
SMALLER = {
    'EPOCHS, STEPS, ENCODER = 3, 40, "resnet18"': 'EPOCHS, STEPS, ENCODER = 1, 2, "tiny"',
    "training, test=testing, shares=[1, 10], repeats=2": "testing, shares=[100], repeats=1",
}


def small_cells() -> list[dict]:
    """The cells of the notebook with smaller settings."""
    text = NOTEBOOK.read_text()
    for words, instead in SMALLER.items():
        words, instead = json.dumps(words)[1:-1], json.dumps(instead)[1:-1]
        assert text.count(words) == 1
        text = text.replace(words, instead)
    return json.loads(text)["cells"]


def test_the_notebook_is_one_of_jupyter_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            compile("".join(cell["source"]), cell["id"], "exec")
    if importlib.util.find_spec("nbformat"):
        import nbformat

        nbformat.validate(nbformat.reads(NOTEBOOK.read_text(), as_version=4))


def test_git_ignores_what_the_notebook_writes_beside_itself():
    assert f"/{NOTEBOOK.parent.name}/runs/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.stress
def test_the_cells_run_one_after_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in small_cells():
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 -- the project's own notebook
    assert names["probed"].rows[0].scores[0].labels > 100
    assert len(names["found"].best) == 10
    assert "features of two images: (2, 1, 1, 128)" in capsys.readouterr().out


@pytest.mark.stress
@pytest.mark.skipif(
    not (importlib.util.find_spec("nbclient") and importlib.util.find_spec("ipykernel")),
    reason="nbclient or ipykernel is not installed",
)
def test_jupyter_runs_the_notebook(tmp_path):
    import nbclient
    import nbformat

    notebook = nbformat.reads(NOTEBOOK.read_text(), as_version=4)
    for cell, smaller in zip(notebook.cells, small_cells(), strict=True):
        cell.source = "".join(smaller["source"])
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (tmp_path / "executed.ipynb").write_text(nbformat.writes(notebook))
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2  # the restorations, and a restored photo
    assert (Path(tmp_path) / "runs" / "first_steps" / "classify" / "report.html").exists()
