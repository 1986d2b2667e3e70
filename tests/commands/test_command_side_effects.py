"""What commands on one rank leave alone: sockets, folders in use, files of others, and results beside a figure that fails."""

import fcntl
import json

import psutil
import pytest
from commandline import refuse, succeed
from conftest import write_config

from tfinpaint.checkpoint import async_writer, store
from tfinpaint.checkpoint.store import save_checkpoint
from tfinpaint.runs import classification

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.mark.stress
def test_one_process_listens_nowhere(images, tmp_path, monkeypatch):
    own, found = psutil.Process(), []
    save = save_checkpoint

    def look_and_save(*arguments):
        found.append({each.laddr for each in own.net_connections() if each.status == psutil.CONN_LISTEN})
        return save(*arguments)

    monkeypatch.setattr(async_writer, "save_checkpoint", look_and_save)
    before = {each.laddr for each in own.net_connections() if each.status == psutil.CONN_LISTEN}
    changes = {"num_epochs": 1, "steps_per_epoch": 1, "data__test_input_path": None}
    succeed("pretrain", "--config", write_config(tmp_path / "c.yaml", "pretrain", images, **changes))
    assert found == [before]


def test_a_figure_that_fails_costs_nothing_else(images, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("too large")

    for name in ("draw_curve", "draw_confusion"):
        monkeypatch.setattr(classification, name, fail)
    changes = {"num_epochs": 1, "data__test_output_path": str(tmp_path / "out")}
    config = write_config(tmp_path / "c.yaml", "classify", images, **changes)
    output = succeed("classify", "--config", config)
    for name in ("loss", "accuracy", "confusion"):
        assert f"figures/{name}.png (MemoryError: too large); continuing without it" in output
    run = tmp_path / "run"
    assert json.loads((run / "summary.json").read_text())["test_images"] == 7
    assert "<h2>Classes</h2>" in (run / "report.html").read_text()
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 8
    assert [path.name for path in store.list_checkpoints(run / "model_checkpoints")][-1] == "model_checkpoint_1"


def test_a_folder_where_another_process_trains_is_refused(images, tmp_path):
    config = write_config(tmp_path / "c.yaml", "pretrain", images)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process is training there" in refuse("pretrain", "--config", config)


@pytest.mark.stress
def test_files_of_others_are_neither_written_over_nor_removed(images, tmp_path):
    config = write_config(tmp_path / "c.yaml", "classify", images, num_epochs=1, outfile=str(tmp_path / "log.txt"))
    mine = tmp_path / "mine" / "figures" / "my.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (tmp_path / "log_train.txt").write_text("of another tool")
    for overwrite in ([], ["--overwrite"]):
        assert f"{tmp_path}/mine holds figures, but no run of this program" in refuse(
            "classify", "--config", config, "--workdir", tmp_path / "mine", *overwrite
        )
    assert f"{tmp_path}/log_train.txt already holds a run; add" in refuse("classify", "--config", config)
    assert (mine.read_text(), (tmp_path / "log_train.txt").read_text()) == ("mine", "of another tool")
    output = succeed("classify", "--config", config, "--resume")
    assert f"There is nothing to resume in {tmp_path}/run: starting from the beginning" in output
    assert (tmp_path / "log_train.txt").read_text().startswith("# epoch loss accuracy")
    assert "is a file, not a folder" in refuse("classify", "--config", config, "--workdir", config)
