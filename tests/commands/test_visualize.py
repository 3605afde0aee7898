"""Clips climb to what their class is, as smoothly as they are told to."""

import pytest
import torch
from PIL import Image
from torch import nn

from filmstrip.__main__ import main
from filmstrip.commands.visualize import Ascent
from filmstrip.commands.work.visualize import climb, judge, roughness, unsteadiness, visualize
from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.video import read_video
from run_folders import save_run

SHAPE = (4, 3, 8, 8)


class Flicker(Objective):
    """Class 0: bright. Class 1: one frame bright, the next dark. ``loudness`` scales all scores."""

    def __init__(self, loudness=1.0):
        super().__init__()
        self.loudness = nn.Parameter(torch.tensor(loudness))
        self.dropout = nn.Dropout(0.5)

    def classify(self, video):
        frames = self.dropout(video).mean(dim=(2, 3, 4))
        scores = torch.stack([frames.mean(dim=1), (frames[:, ::2] - frames[:, 1::2]).mean(dim=1)], dim=1)
        return self.loudness * scores


class Stripes(Objective):
    """Class 0: columns that are bright and dark by turns."""

    def classify(self, video):
        score = (video[..., ::2] - video[..., 1::2]).mean(dim=(1, 2, 3, 4))
        return torch.stack([score, -score], dim=1)


def test_each_version_climbs_and_time_is_smoothed_as_told():
    model = Flicker().train()
    slow, fast = climb(model, 1, SHAPE, Ascent(steps=40, slow=20.0, fast=0.0))
    assert model.training and model.loudness.grad is None, "the network is left as it was"
    assert min(slow.min(), fast.min()) >= 0 and max(slow.max(), fast.max()) <= 1
    steadiness = unsteadiness(torch.stack([slow, fast]))
    assert steadiness[0] < 0.1 * steadiness[1]
    seen = judge(model, 1, torch.stack([slow, fast]))
    assert seen[1].probability > seen[0].probability and seen[1].change > 4 * seen[0].change
    bright, _ = climb(model, 0, SHAPE, Ascent(steps=60))
    assert bright.mean() > 0.8 and (bright > 0.6).all(), "what does not change costs the slow version nothing"


def test_the_scale_of_the_scores_does_not_matter_and_the_seed_decides():
    quiet, loud = (climb(Flicker(loudness), 1, SHAPE, Ascent(steps=20)) for loudness in (0.01, 100.0))
    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)
    assert torch.equal(quiet, climb(Flicker(0.01), 1, SHAPE, Ascent(steps=20)))
    assert not torch.equal(quiet, climb(Flicker(0.01), 1, SHAPE, Ascent(steps=20, seed=1)))


def test_smoothness_within_frames_is_bought():
    rough, smooth = (climb(Stripes(), 0, SHAPE, Ascent(steps=40, space=weight, jitter=0)) for weight in (0.0, 2.0))
    assert (roughness(smooth) < 0.2 * roughness(rough)).all()


def test_penalties_are_what_they_say():
    video = torch.zeros(1, 2, 1, 2, 2)
    video[0, 1, 0, 0, 1] = 0.5  # one pixel of the second frame: two neighbours in it, one in time
    assert roughness(video).item() == pytest.approx(1.0, abs=0.05) and unsteadiness(video).item() == 0.25


def test_a_run_is_shown_as_video_and_as_frames(tmp_path, capsys):
    _, run = save_run(tmp_path / "run", "recognition.vit:tiny", width=24, depth=1, num_heads=2)
    words = ["visualize", str(tmp_path / "run"), "--class", "right", "--steps", "2", "--out"]
    assert main([*words, str(tmp_path / "class.mp4")]) == 0
    out = capsys.readouterr().out
    assert "slow: probability" in out and "fast: probability" in out
    frames = read_video(tmp_path / "class.mp4")
    side = 4 * run.data.clip.size  # at least 224 pixels
    assert tuple(frames.video.shape) == (run.data.clip.num_frames, 3, side, 2 * side + 2)
    assert main([*words, str(tmp_path / "class.png")]) == 0
    width, height = Image.open(tmp_path / "class.png").size
    assert width > height > 2 * side


def test_wrong_requests(tmp_path):
    save_run(tmp_path / "run", "recognition.vit:tiny", width=24, depth=1, num_heads=2)
    with pytest.raises(UserError, match="no class 'rihgt'; the nearest are right"):
        visualize(tmp_path / "run", "rihgt", tmp_path / "a.mp4", Ascent())
    with pytest.raises(UserError, match="the nearest are left, right, über"):
        visualize(tmp_path / "run", "xyz", tmp_path / "a.mp4", Ascent())
    with pytest.raises(UserError, match="name it"):
        visualize(tmp_path / "run", "right", tmp_path / "a.avi", Ascent())
    with pytest.raises(UserError, match="steps is 0"):
        Ascent(steps=0)
    save_run(tmp_path / "videomae", "pretraining.videomae:tiny")
    with pytest.raises(UserError, match="is not a classifier"):
        visualize(tmp_path / "videomae", "right", tmp_path / "a.mp4", Ascent())
