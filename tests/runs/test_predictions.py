import csv

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.runs.predictions import (
    ClipPredictions,
    Predictions,
    PredictionTable,
    keep_predictions,
    kept_predictions,
)

CLASSES = ("left", "right", "über")


@pytest.fixture
def predictions():
    """Two videos of the first class, one of them taken for the second, and one of the second; none of the third."""
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.125, 0.5, 0.375]])
    return Predictions(("a/1.mp4", "a/2.mp4", "b/1.mp4"), torch.tensor([0, 0, 1]), scores, CLASSES, 0)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_a_folder_keeps(predictions, tmp_path):
    keep_predictions(predictions, tmp_path, top_k=2)
    rows = read(tmp_path / "predictions.csv")
    assert rows[1] == {
        "file": "a/2.mp4",
        "label": "left",
        "class_1": "right",
        "score_1": "0.6",
        "class_2": "left",
        "score_2": "0.3",
    }
    left, right, third = read(tmp_path / "classes.csv")
    assert left == {
        "class": "left",
        "videos": "2",
        "predicted": "1",
        "correct": "1",
        "recall": "0.5",
        "precision": "1.0",
    }
    assert (right["recall"], right["precision"]) == ("1.0", "0.5")
    assert (third["videos"], third["recall"], third["precision"]) == ("0", "", "")
    first, *_ = read(tmp_path / "confusion.csv")
    assert first == {"true class": "left", "left": "1", "right": "1", "über": "0"}


def test_kept_predictions_come_back_as_far_as_the_table_has_them(predictions, tmp_path):
    keep_predictions(predictions, tmp_path, top_k=2)
    found = kept_predictions(tmp_path, CLASSES)
    assert found.names == predictions.names and torch.equal(found.labels, predictions.labels)
    assert torch.equal(found.probabilities, predictions.probabilities * (predictions.probabilities > 0.15))
    assert torch.equal(found.confusion(), predictions.confusion())
    with pytest.raises(UserError, match="other classes"):
        kept_predictions(tmp_path, ("up", "down"))
    assert kept_predictions(tmp_path / "nowhere", CLASSES) is None


def test_rows_of_clips_follow_those_of_their_file(predictions, tmp_path):
    clips = ClipPredictions(torch.tensor([0, 2, 2]), torch.tensor([[0.0, 1], [0, 1], [2, 3.5]]), torch.eye(3))
    told = Predictions(predictions.names, predictions.labels, predictions.probabilities, CLASSES, 0, clips)
    rows = list(told.rows(top_k=1))
    assert [(row["file"], row["clip"], row["start"], row["end"], row["class_1"]) for row in rows] == [
        ("a/1.mp4", None, None, None, "left"),
        ("a/1.mp4", 0, 0.0, 1.0, "left"),
        ("a/2.mp4", None, None, None, "right"),
        ("b/1.mp4", None, None, None, "right"),
        ("b/1.mp4", 0, 0.0, 1.0, "right"),
        ("b/1.mp4", 1, 2.0, 3.5, "über"),
    ]
    keep_predictions(told, tmp_path)
    assert kept_predictions(tmp_path, CLASSES).names == predictions.names


def test_a_name_that_is_no_text_is_written_all_the_same(predictions, tmp_path):
    strange = Predictions(("\udcff.mp4",), torch.tensor([0]), predictions.probabilities[:1], CLASSES, 0)
    keep_predictions(strange, tmp_path)
    assert read(tmp_path / "predictions.csv")[0]["file"] == "?.mp4"


def test_a_table_has_a_format_and_a_number_of_classes(tmp_path):
    with pytest.raises(UserError, match=r"ends with \.csv, \.parquet, \.json"):
        PredictionTable(path=tmp_path / "out.xlsx")
    with pytest.raises(UserError, match="top_k is 0"):
        PredictionTable(top_k=0)
