import json
import shutil

import pytest
import torch

from colour_videos import CLIP, write_colours
from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.report.run import duration, run_report
from filmstrip.runs.config import to_json
from filmstrip.runs.contents import history, training_seconds
from filmstrip.runs.pictures import Pictures, keep_pictures
from filmstrip.runs.predictions import Predictions, keep_predictions

CONFIG = {
    "type": "filmstrip.runs.config:Run",
    "data": {
        "path": None,
        "synthetic": {"type": "filmstrip.data.synthetic.motions:Motions", "size": 64},
        "batch_size": 16,
    },
    "objective": {"type": "filmstrip.systems.recognition.vit:ViTConfig", "width": 96, "patch_size": [2, 8, 8]},
    "evals": [],
    "init": None,
}


@pytest.fixture
def folder(tmp_path):
    """A run folder with the files that a report reads."""
    path = tmp_path / "a run"
    path.mkdir()
    lines = [{"step": 10 * i, "seconds": 30.0 * i, "loss": 2.0 / i, "top1": 0.1 * i, "lr": 1e-3} for i in range(1, 9)]
    lines += [{"step": step, "seconds": 999.0, "eval/top1": value} for step, value in ((40, 0.75), (80, 0.5))]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "environment.json").write_text(json.dumps({"filmstrip": "0.1.0", "git": "abc123"}))
    return path


def test_the_report_says_what_the_folder_holds(folder, read_page):
    path = run_report(folder)
    assert path == folder / "report.html"
    page = read_page(path.read_text())
    assert "ViT, trained on the synthetic set Motions for 80 steps with batches of 16." in page.text
    assert page.count("svg") == 4  # loss, top1, lr, eval/top1: not the clock
    assert page.words[page.words.index("after step") + 1 :][:3] == ["Top-1 accuracy", "50.0%", "80"]
    assert page.words[page.words.index("objective") :][:2] == ["objective", "ViTConfig"]
    for fact in ("4 min 0 s", "0.25", "objective.patch_size", "2, 8, 8", "abc123"):
        assert fact in page.words


def test_it_says_by_which_command_and_what_of_the_curves_is_smoothed(folder, read_page):
    (folder / "commands.txt").write_text("filmstrip train recognition.vit:tiny\nfilmstrip train again\n")
    info = {"type": "filmstrip.data.config:DataInfo", "classes": ["a", "b"], "num_train": 1234, "directional": False}
    (folder / "data.json").write_text(json.dumps(info))
    page = read_page(run_report(folder).read_text())
    at = page.words.index("command")
    assert page.words[at : at + 4] == [
        "command",
        "filmstrip train recognition.vit:tiny",
        "and then",
        "filmstrip train again",
    ]
    assert {"1,234", "2: a, b"} <= set(page.words)
    assert "Bold lines are smoothed" not in page.text and page.count("path", class_="raw") == 0
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(
            json.dumps({"step": 90 + i, "seconds": 300, "loss": 1 / i, "lr": 0.1}) + "\n" for i in range(1, 9)
        )
    page = read_page(run_report(folder).read_text())
    assert "weighs 0.4 and the past 0.6" in page.text
    assert page.count("path", class_="raw") == 1  # of the loss: a learning rate has no noise


def test_predictions_become_a_matrix_figures_of_classes_and_clips(folder, read_page, tmp_path):
    classes = ("blue", "green", "red")
    for name in classes:
        write_colours(tmp_path / "set/test" / name / "0.mp4", name)
        write_colours(tmp_path / "set/train" / name / "0.mp4", name)
    data = Data(path=tmp_path / "set", clip=CLIP)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "data": to_json(data)}))
    info = {"type": "filmstrip.data.config:DataInfo", "classes": classes, "num_train": 3, "directional": False}
    (folder / "data.json").write_text(json.dumps(info))
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7]])
    names = tuple(f"test/{name}/0.mp4" for name in classes)
    keep_predictions(Predictions(names, torch.tensor([0, 1, 2]), scores, classes, 0), folder)
    page = read_page(run_report(folder).read_text())
    assert "classifies 66.7% of 3 test videos correctly" in page.text and "would give 33.3%" in page.text
    assert page.count("table", class_="confusion") == 1
    at = page.words.index("of these correct")
    assert page.words[at + 1 : at + 6] == ["green", "1", "0%", "0", "–"]  # the least recognised first
    pictures = [said for said in page.values("alt") if said.startswith("Video test/")]
    assert pictures == [f"Video test/{name}/0.mp4, showing {name}" for name in ("green", "red", "blue")]
    shutil.rmtree(tmp_path / "set")
    assert "cannot be shown" in read_page(run_report(folder).read_text()).text
    (folder / "predictions.csv").write_text("file\nx\n")
    assert "Confusion" not in read_page(run_report(folder).read_text()).text


def test_pictures_of_what_the_run_makes_are_shown(folder, read_page):
    grey = torch.full((3, 3, 16, 24), 128, dtype=torch.uint8)
    rows = ((grey, grey // 2), (grey, grey // 4))
    made = Pictures(title="Reconstructions", note="Of test clips.", heads=("a", "b"), names=("x", "y"), rows=rows)
    keep_pictures([made], folder)
    page = read_page(run_report(folder).read_text())
    assert {"Reconstructions", "Of test clips.", "a", "b", "x", "y"} <= set(page.words)
    assert [said for said in page.values("alt") if said] == ["Video x: a, b", "Video y: a, b"]
    files = sorted(path.name for path in (folder / "samples").iterdir())
    assert files == ["pictures.json", "reconstructions-1.webp", "reconstructions-2.webp"]
    (folder / "samples/reconstructions-1.webp").unlink()
    assert "Of test clips." not in run_report(folder).read_text()


def test_predictions_of_probes_have_figures(folder, read_page):
    classes = ("blue", "red")
    info = {"type": "filmstrip.data.config:DataInfo", "classes": classes, "num_train": 3, "directional": False}
    (folder / "data.json").write_text(json.dumps(info))
    scores = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    predictions = Predictions(("a", "b", "c"), torch.tensor([0, 1, 1]), scores, classes, 0, probe="knn")
    keep_predictions(predictions, folder / "probes" / "knn")
    page = read_page(run_report(folder).read_text())
    at = page.words.index("95% interval")
    assert page.words[at : at + 6] == ["95% interval", "videos", "knn", "66.7%", "21% to 94%", "3"]
    assert "Classes, by the probe knn" in page.words and "classifies 66.7%" not in page.text


def test_results_on_other_data_have_a_table(folder, read_page):
    (folder / "evaluations/mine").mkdir(parents=True)
    told = {"name": "multi_view", "num_clips": 5, "split": "test"}
    rows = [{"step": 80, "protocol": told, "data": "/x/mine", "eval/top1": top1} for top1 in (0.25, 0.75)]
    (folder / "evaluations/mine/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = read_page(run_report(folder).read_text())
    at = page.words.index("mine")
    said = ["mine", "multi_view (num clips 5, split test)", "Top-1 accuracy", "75.0%", "80"]
    assert page.words[at : at + 5] == said and page.words.count("mine") == 1


def test_training_time_does_not_count_the_evaluation_after_it(folder):
    assert training_seconds(folder) == 240.0


def test_bad_files_are_listed_and_hostile_names_harmless(folder, read_page):
    rows = ["name,used,reason", *(f'"<b>{i}</b>.mp4",no,"cut, short"' for i in range(60))]
    (folder / "unreadable.csv").write_text("\n".join(rows) + "\n")
    page = read_page(run_report(folder).read_text())
    assert "<b>0</b>.mp4" in page.words and "<b>50</b>.mp4" not in page.words
    assert "The first 50 of 60." in page.words
    assert page.count("b") == 0


def test_no_list_of_bad_files_where_there_are_none(folder):
    (folder / "unreadable.csv").write_text("name,used,reason\n")
    assert "could not be read" not in run_report(folder).read_text()


def test_data_of_ones_own_are_named(folder, read_page):
    data = {"path": "/somewhere/private/actions", "synthetic": None}
    (folder / "config.json").write_text(json.dumps({**CONFIG, "data": data}))
    assert "trained on actions for 80 steps." in read_page(run_report(folder).read_text()).text


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(UserError, match="was the run started"):
        run_report(tmp_path)


def test_history_counts_a_repeated_step_once_and_leaves_out_a_torn_line(tmp_path):
    lines = [
        '{"step": 1, "loss": 3}',
        '{"step": 2, "loss": 2}',
        '{"step": 2, "loss": 1.5, "x": {"y": 1}}',
        '{"step": 3, "lo',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert history(tmp_path) == {"loss": ([1, 2], [3.0, 1.5]), "x.y": ([2], [1.0])}


def test_a_run_that_diverged_can_still_be_reported(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 90, "seconds": 270, "loss": NaN}\n')
    assert "nan" in run_report(folder).read_text()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (99, "99 s"), (119.6, "2 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said
