import json
from pathlib import Path

import pytest
import torch

from filmstrip.data.config import Clip
from filmstrip.report.comparison import (
    Entry,
    best,
    chance,
    comparison_table,
    confusion_of,
    shown_clip,
    telling,
    training_curves,
    wilson_interval,
)
from filmstrip.runs.predictions import Predictions


def predictions(labels, guesses, num_classes=3):
    probabilities = torch.full((len(labels), num_classes), 0.1)
    probabilities[range(len(labels)), guesses] = 1 - 0.1 * (num_classes - 1)
    return Predictions(
        names=tuple(f"v{i}.mp4" for i in range(len(labels))),
        labels=torch.tensor(labels),
        probabilities=probabilities,
        classes=("run", "walk", "jump")[:num_classes],
        unreadable=0,
    )


def entry(name, labels, guesses, parameters=1_000_000, frames=8):
    return Entry(
        name=name,
        folder=Path(name),
        accuracy=sum(a == b for a, b in zip(labels, guesses)) / len(labels),
        videos=len(labels),
        parameters=parameters,
        multiply_adds=250_000_000,
        clip=Clip(num_frames=frames, size=64),
        training_memory=48 * 2**20,
        train_seconds=12.0,
        clips_per_second=80.0,
    )


LABELS = [0, 0, 0, 1, 1, 2]


def test_the_best_is_the_most_accurate_and_then_the_smallest():
    worse, right = entry("worse", LABELS, [0, 0, 0, 1, 1, 1]), entry("right", LABELS, LABELS)
    small = entry("small", LABELS, LABELS, parameters=1000)
    assert best([worse, right]).name == "right"
    assert best([worse, right, small]).name == "small"


def test_chance_is_the_share_of_the_commonest_class():
    assert chance(LABELS) == 0.5 and chance([]) == 0


def row_of(page, name, count):
    return [word.replace("\N{NO-BREAK SPACE}", " ") for word in page.words[page.words.index(name) :][:count]]


def test_the_table_holds_what_was_measured(read_page):
    entries = [entry("a", LABELS, LABELS), entry("b", LABELS, [1] * 6)]
    page = read_page(comparison_table(entries, 0.5, ("And so on.",)).html())
    assert row_of(page, "a", 9) == ["a", "100.0%", " (best)", "61% to 100%", "1.00", "0.250", "12", "48", "80"]
    assert "33.3%" in page.words and "would give 50.0%" in page.text and "And so on." in page.words


def test_clips_are_a_column_where_they_differ(read_page):
    entries = [entry("a", LABELS, LABELS), entry("b", LABELS, [1] * 6, frames=16)]
    page = read_page(comparison_table(entries, 0.5).html())
    assert row_of(page, "b", 4) == ["b", "33.3%", "10% to 70%", "16 of 64 × 64"]


def test_what_failed_has_a_row_and_a_reason(read_page):
    page = read_page(comparison_table([entry("a", LABELS, LABELS)], 0.5, failures={"b": "out of memory"}).html())
    assert page.words[page.words.index("b") :][:3] == ["b", "–", "failed"] and "b: out of memory" in page.words


@pytest.mark.parametrize(
    ("right", "count", "expected"),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (27, 30, (0.7438, 0.9654)), (10, 10, (0.7225, 1.0))],
)
def test_wilson_interval(right, count, expected):
    assert wilson_interval(right / count, count) == pytest.approx(expected, abs=1e-4)


def test_what_is_shown_is_the_first_of_each_class_and_the_first_mistakes():
    assert telling(predictions(LABELS, [0, 1, 2, 1, 0, 2])) == [0, 3, 5, 1, 4]
    assert telling(predictions(LABELS, [0, 1, 2, 1, 0, 2]), most=2) == [0, 3, 1]
    assert telling(predictions(LABELS, [1, 0, 0, 1, 1, 2])) == [0, 3, 5]


def test_a_shown_clip_ranks_the_classes():
    video = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    clip = shown_clip(predictions([2], [1]), 0, video)
    assert (clip.name, clip.truth, clip.predictions[0]) == ("v0.mp4", "jump", ("walk", pytest.approx(0.8)))
    assert clip.video is video


def test_confusion_is_that_of_the_entry():
    section = confusion_of("a", predictions(LABELS, [1] * 6))
    assert section.matrix.tolist() == [[0, 3, 0], [0, 2, 0], [0, 1, 0]]


def test_curves_of_several_runs_share_a_chart(tmp_path, read_page):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        lines = [{"step": i, "loss": 1.0 / (i + 1), **({"top1": 0.5} if name == "a" else {})} for i in range(3)]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    group = training_curves({"a": tmp_path / "a", "b": tmp_path / "b"}, {"loss": "loss", "top1": "accuracy"})
    assert [list(chart.curves) for chart in group.sections] == [["a", "b"], ["a"]]
    assert read_page(group.html()).count("svg") == 2
