"""The protocols on real files, through the real loader."""

import io
import shutil

import pytest
import torch
from rich.console import Console

from colour_videos import CLIP, RGB, Colours, write_colours
from filmstrip.data.config import Data
from filmstrip.data.sources import open_source
from filmstrip.evals.attentive_probe import AttentiveProbe
from filmstrip.evals.knn import KNN
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.evals.multi_view import MultiView
from filmstrip.progress import bars, shown
from filmstrip.runs.evaluation import Subject


@pytest.fixture
def subject(tmp_path):
    """Six training videos and two test videos of each colour; one of these is red, though it claims to be green."""
    for split, count in (("train", 6), ("test", 2)):
        for colour in RGB:
            for i in range(count):
                write_colours(tmp_path / split / colour / f"{i}.mp4", colour)
    shutil.copy(tmp_path / "test/red/0.mp4", tmp_path / "test/green/0.mp4")
    (tmp_path / "test/blue/1.mp4").write_bytes(b"no video")
    data = Data(path=tmp_path, clip=CLIP, num_workers=1)
    return Subject(objective=Colours(), source=open_source(data), data=data, device=torch.device("cpu"))


def test_multi_view(subject):
    # The classes are sorted by name, the classifier's logits are red, green, blue: look at the table of predictions.
    predictions = MultiView(num_clips=2, num_crops=3, batch_size=4).predictions(subject)
    assert predictions.classes == ("blue", "green", "red")
    said = dict(zip(predictions.names, predictions.probabilities.argmax(dim=1).tolist()))
    assert said == {
        "test/blue/0.mp4": 2,
        "test/green/0.mp4": 0,
        "test/green/1.mp4": 1,
        "test/red/0.mp4": 0,
        "test/red/1.mp4": 0,
    }
    assert predictions.unreadable == 1


@pytest.mark.parametrize("probe", [LinearProbe(num_clips=2), KNN(k=3), AttentiveProbe(epochs=40, lr=1e-2)])
def test_probes_err_on_the_mislabelled_video_alone(subject, probe):
    found = dict(probe(subject))
    assert found[next(iter(found))] == pytest.approx(4 / 5)


@pytest.mark.parametrize("probe", [MultiView(batch_size=4), KNN(k=3), LinearProbe()])
def test_a_bar_counts_the_videos(subject, probe):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    reached = []
    with shown(bars(console)) as progress:
        update = progress.update
        progress.update = lambda task, completed: (
            reached.append((progress.tasks[-1].description, completed, progress.tasks[-1].total)),
            update(task, completed=completed),
        )
        dict(probe(subject))
    counts = [done for title, done, total in reached if title == "evaluating" and total == 6]
    assert counts == sorted(counts) and counts[-1] == 6  # of six test videos; one is unreadable
    if isinstance(probe, LinearProbe):
        assert ("probing layers", 1, 1) in reached
