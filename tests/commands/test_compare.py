"""Runs side by side: tables that can be read at any width, and pages of a bounded size."""

import json

import pytest

from tfinpaint import compare
from tfinpaint.cli.tables import print_table
from tfinpaint.errors import UserError
from tfinpaint.report import comparison
from tfinpaint.report.comparison import write_comparison
from tfinpaint.report.image_results import write_image_results
from tfinpaint.report.sample_images import Predicted

COMMON = {"epochs": 12, "images_per_second": 45.25, "world_size": 2, "seconds": 3, "test_images": 179}
PRETRAINED = {
    "test_accuracy": 0.9441,
    "train_accuracy": 0.9531,
    "test_loss": 0.1766,
    "loss_function": "NLL",
    "label_fraction": 0.2,
    "labels": 324,
    "from_scratch": False,
    "best_epoch": None,
}
INPAINTING = {
    "pretrain_loss": 0.2174,
    "test_loss": 0.2161,
    "loss_function": "BCE",
    "test_hole_psnr_db": 9.586,
    "best_baseline_hole_psnr_db": 22.57,
    "measurements": {"network": {"hole_psnr_db": 9.586}, "biharmonic": {"hole_psnr_db": 22.57}},
}


def write_run(folder, **summary):
    (folder / "figures").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({**COMMON, **summary}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Pretraining, a classifier from it, and one from scratch, whose name is markup to some."""
    scratch = {**PRETRAINED, "test_accuracy": 0.7765, "from_scratch": True, "train_accuracy": float("nan")}
    return [
        write_run(tmp_path / "pretrain", **INPAINTING),
        write_run(tmp_path / "pretrained_with_a_name_that_is_rather_long", **PRETRAINED),
        write_run(tmp_path / "[red]scratch", **scratch),
    ]


def test_each_kind_of_run_has_a_table_without_empty_columns(runs, tmp_path):
    tables = write_comparison(runs, tmp_path / "report.html").tables
    heads = {kind: table[0] for kind, table in tables.items()}
    last = ["test loss", "loss function", "epochs", "images/s", "ranks"]
    assert heads == {
        "Classifiers": [
            *("run", "test accuracy", "95 % interval", "started from", "labelled images", "test images"),
            *("training accuracy", *last),
        ],
        "Inpainting": [
            "run",
            "PSNR in the hole, dB",
            "best baseline, dB",
            "test images",
            "training loss",
            *last,
        ],
    }
    assert tables["Classifiers"][2][:5] == ["[red]scratch", 0.7765, "0.710 to 0.831", "random weights", 324]
    assert all(cell != "" for table in tables.values() for row in table for cell in row)


def test_the_page_marks_the_best_where_runs_are_alike_and_links_their_reports(runs, tmp_path):
    (runs[1] / "report.html").touch()
    write_comparison(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("0.9441 ★") == 1
    assert "0.9531 ★" not in page  # a higher training accuracy is no better result
    assert page.count(f'<a href="{runs[1].name}/report.html">') == 2  # in the table and above the figures of the run
    assert "test accuracy ↑" in page
    for key in PRETRAINED | INPAINTING | COMMON:
        assert "_" not in key or key not in page
    write_run(tmp_path / "other", **PRETRAINED | {"test_images": 8, "test_accuracy": 1.0})
    write_comparison([*runs, tmp_path / "other"], tmp_path / "report.html")
    assert "★" not in (tmp_path / "report.html").read_text()  # accuracies of different images


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_tables_fit_and_cut_nothing(runs, tmp_path, capsys, width):
    for kind, table in write_comparison(runs, tmp_path / "report.html").tables.items():
        print_table(kind, table, width, "runs")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    names = "".join(line.strip().partition("  ")[0] for line in shown.splitlines())
    assert "pretrained_with_a_name_that_is_rather_long" in names
    assert {"0.9441", "0.7765", "9.586"} <= set(shown.split())
    assert "[red]scratch" in shown
    assert "Equal in all runs: " in shown
    assert "epochs 12" in " ".join(shown.split())


def test_the_end_of_a_comparison_is_sentences(runs, tmp_path, capsys):
    assert compare.main(["--report", str(tmp_path / "report.html"), *map(str, runs)]) == 0
    *_, helped, restored, report = capsys.readouterr().out.splitlines()
    assert helped.startswith(
        "Pretraining helped: 169 of 179 test images (0.944) are classified correctly, against 139 (0.776) from"
    )
    assert restored.startswith(
        "pretrain: The network restores the holes of 179 test images with a mean PSNR of 9.59 dB; "
    )
    assert report == f"Report (open it in a browser): {tmp_path}/report.html"
    page = (tmp_path / "report.html").read_text()
    assert "Pretraining helped: 169 of 179" in page
    assert "Equal in all runs: " in page  # such columns make a table wider than a page
    assert '<th scope="col">epochs</th>' not in page.partition(">Classifiers<")[2].partition("</table>")[0]
    assert "None" not in page


def test_a_heading_stands_alone_where_the_column_before_it_is_equal_in_all_runs(runs, tmp_path):
    for run, loss in zip(runs[1:], (0.5, 0.25), strict=True):
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"best_epoch": 12, "best_test_loss": loss}))
    write_comparison(runs[1:], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "best epoch 12" in page
    assert '<th scope="col">test loss in the best epoch ↓</th>' in page


def test_runs_that_know_each_test_image_are_compared_on_each(runs, tmp_path):
    def write_tested(run, right, name="{}.png"):
        names, predictions = (
            [name.format(i) for i in range(60)],
            [Predicted(i, 0, i not in right, 0.9) for i in range(60)],
        )
        write_image_results(run / "figures" / "test_predictions.csv", names, ["cat", "dog"], predictions)

    def sentence():
        return write_comparison(runs[1:], tmp_path / "report.html").sentences[0]

    for run, right in ((runs[1], 54), (runs[2], 46)):
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"test_images": 60, "test_accuracy": right / 60}))
    assert "unknown" in (of_an_older_version := sentence())
    assert "Fisher's exact test, as if each had other test images, p = 0.085" in of_an_older_version
    write_tested(runs[1], range(54))
    write_tested(runs[2], [*range(45), 59])
    assert sentence().startswith("Pretraining helped in these runs: 54 of 60 test images")
    assert "On 9 test images only the pretrained classifier is right, on 1 only the one from scratch." in sentence()
    page = (tmp_path / "report.html").read_text()
    assert "(a paired test on the same images, p = 0.021)" in page
    instead = "Fisher's exact test is used in place of a paired one because"
    tables = [run / "figures" / "test_predictions.csv" for run in runs[1:]]
    write_tested(runs[2], range(45))  # not what its summary is about
    assert sentence() == (
        f"{of_an_older_version} {instead} {tables[1]} does not fit summary.json: it has 45 of 60 images right."
    )
    write_tested(runs[2], [*range(45), 59], "other/{}.png")
    assert sentence() == f"{of_an_older_version} {instead} {tables[1]} has other images or classes than {tables[0]}."
    tables[1].write_bytes(tables[1].read_bytes() + b"half a li")
    assert sentence() == f"{of_an_older_version} {instead} {tables[1]} is damaged in line 62."
    assert f"{tables[1]} is damaged in line 62." in (tmp_path / "report.html").read_text()


def test_the_restorations_of_a_single_inpainter_are_the_first_picture(runs, tmp_path):
    (runs[0] / "figures" / "restorations.png").write_bytes(b"x")
    write_comparison(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count('alt="restorations"') == 1
    assert page.index('alt="restorations"') < page.index('alt="Bar chart') < page.index("<table")
    summary = json.loads((runs[0] / "summary.json").read_text())
    measured = summary.pop("measurements")
    (runs[0] / "summary.json").write_text(json.dumps(summary))
    write_comparison(runs, tmp_path / "report.html")  # they may not look like photos
    page = (tmp_path / "report.html").read_text()
    assert page.index("<table") < page.index("<h3>Restored images</h3>") < page.index('alt="restorations"')
    (runs[0] / "summary.json").write_text(json.dumps(summary | {"measurements": measured}))
    (runs[1] / "figures" / "restorations.png").write_bytes(b"x")
    write_comparison(runs, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count('alt="restorations"') == 2
    assert page.index("<table") < page.index('alt="restorations"')


def test_a_hundred_runs_fit_into_one_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "MOST_PICTURE_BYTES", 50_000)
    runs = []
    for number in range(100):
        accuracy = [number / 100, float("nan"), None][number % 3]
        summary = {**PRETRAINED, "test_accuracy": accuracy, "label_fraction": number / 100, "labels": number + 1}
        runs.append(write_run(tmp_path / f"{number:03} {'name ' * 30}", **summary))
        (runs[-1] / "figures" / "loss.png").write_bytes(b"x" * 10_000)
    assert compare.main(["--report", str(tmp_path / "report.html"), *map(str, runs)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count('alt="loss"') == 5
    assert page.count("Pictures of this run are in ") == 95
    shown = capsys.readouterr().out
    assert all(f"{number:03} name" in shown for number in range(100))


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        write_comparison([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="nowhere: no such folder; name a run folder"):
        write_comparison([tmp_path / "nowhere"], tmp_path / "report.html")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: is a file; name a run folder"):
        write_comparison([tmp_path / "file"], tmp_path / "report.html")


def test_a_folder_without_a_finished_run_is_left_out_with_a_warning(runs, tmp_path, capsys):
    report = tmp_path / "report.html"
    assert compare.main(["--report", str(report), *map(str, runs)]) == 0
    alone = capsys.readouterr().out
    (tmp_path / "refused").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "summary.json").write_text('{"epochs": 1')
    wrong = write_run(tmp_path / "wrong", **PRETRAINED | {"test_accuracy": "gut"})
    others = [tmp_path / "refused", *runs, tmp_path / "damaged", wrong]
    assert compare.main(["--report", str(report), *map(str, others)]) == 0
    first, second, third, rest = capsys.readouterr().out.split("\n", 3)
    assert first == f"{tmp_path}/refused: holds no finished run; expected a readable summary.json; it is left out"
    assert second == f"{tmp_path}/damaged: holds no finished run; expected a readable summary.json; it is left out"
    assert third == f'{wrong}/summary.json: test_accuracy is "gut", expected a number; it is left out'
    assert rest == alone
    with pytest.raises(UserError, match=r"wrong/summary\.json: test_accuracy is "):
        write_comparison([wrong], report)
