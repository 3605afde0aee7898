"""The protocols on real files, through the real loader."""

import shutil

import pytest
import torch

from colour_videos import CLIP, RGB, Colours, write_colours
from filmstrip.data.config import Data
from filmstrip.data.sources import open_source
from filmstrip.evals import Subject
from filmstrip.evals.attentive_probe import AttentiveProbe
from filmstrip.evals.knn import KNN
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.evals.multi_view import MultiView


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
