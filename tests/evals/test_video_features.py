import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.evals import video_features
from filmstrip.evals.frechet import Moments, frechet_distance
from filmstrip.evals.video_features import FeatureNetwork, VideoDistance, VideoFeatures, inception_score
from filmstrip.models.i3d import I3D, I3DArchitecture
from filmstrip.protocols import Features, Grid, Objective, as_float
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.weights.released import to_published

CPU = torch.device("cpu")


class MeanColour(Objective):
    """An encoder of a token a frame, its mean colour, and a classifier by ten times that."""

    width = 3

    def forward(self, video, layers=False):
        return Features(as_float(video).mean(dim=(3, 4)), Grid(video.shape[1], 1, 1))

    def classify(self, video):
        return 10 * self(video).pooled()


class Corners(nn.Module):
    """What a network is shown: the first pixel and the mean, times a weight."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.shapes = []

    def forward(self, video):
        assert not torch.is_grad_enabled() and not self.training
        self.shapes.append(tuple(video.shape))
        return torch.stack([video[:, 0, 0, 0, 0], video.mean(dim=(1, 2, 3, 4))], dim=1) * self.scale


def features(**options):
    network = Corners()
    return network, VideoFeatures("corners", network, network, CPU, **{"size": 4, **options})


def test_windows_are_samples_and_what_is_left_over_is_dropped():
    network, found = features(num_frames=3, batch_size=4)
    video = torch.arange(2 * 7, dtype=torch.uint8).view(2, 7, 1, 1, 1).expand(2, 7, 3, 4, 4)
    rows = found(video)
    assert (rows[:, 0] * 255).round().tolist() == [0, 3, 7, 10]
    assert network.shapes == [(4, 3, 3, 4, 4)]
    assert found.label(7) == "corners/4px_bilinear/3f" and features()[1].label(7) == "corners/4px_bilinear/7f"


def test_windows_are_encoded_in_batches():
    network, found = features(num_frames=2, batch_size=4)
    assert found(torch.zeros(5, 4, 3, 4, 4)).shape == (10, 2)
    assert [shape[0] for shape in network.shapes] == [4, 4, 2]


def test_frames_are_stretched_bilinearly_and_rounded_to_eight_bits():
    network, found = features(size=2)
    video = torch.zeros(1, 1, 3, 4, 8)
    video[..., 0:4] = 0.5004
    rows = found(video)
    assert network.shapes == [(1, 1, 3, 2, 2)]
    assert rows[0].tolist() == pytest.approx([128 / 255, 64 / 255])
    again = found(video.mul(255).round().to(torch.uint8))
    assert torch.equal(rows, again)


def test_too_short_a_video_is_named():
    with pytest.raises(UserError, match="corners needs at least 8 frames, and these clips have 5"):
        features(num_frames=8)[1](torch.zeros(1, 5, 3, 4, 4))
    with pytest.raises(UserError, match="at least 9 frames"):
        features(min_frames=9)[1](torch.zeros(1, 5, 3, 4, 4))


def test_the_random_network_is_named_and_repeats_itself():
    video = torch.rand(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, two = (FeatureNetwork().build(CPU) for _ in range(2))
    assert one.label(4) == "random_i3d/64px_bilinear/4f" and not one.classifies
    assert torch.equal(one(video), two(video)) and one(video).shape == (3, 128)
    assert one(video)[0].sub(one(video)[1]).abs().max() > 1e-3


def test_i3d_from_a_file_gives_its_logits_or_what_they_are_made_of(tmp_path):
    torch.manual_seed(0)
    network = I3D(I3DArchitecture(num_classes=400)).eval()
    save_file(to_published(network), tmp_path / "rgb imagenet.safetensors")
    options = {"kind": "i3d", "source": str(tmp_path / "rgb imagenet.safetensors"), "size": 32}
    logits = FeatureNetwork(**options).build(CPU)
    video = torch.randint(0, 256, (1, 9, 3, 32, 32), dtype=torch.uint8)
    assert logits.label(9) == "i3d_rgb_imagenet_logits/32px_bilinear/9f" and logits.classifies
    with torch.no_grad():
        torch.testing.assert_close(logits(video), network.classify(video))
        pooled = FeatureNetwork(**options, layer="pooled").build(CPU)
        torch.testing.assert_close(pooled(video), network.pooled(video))
    assert pooled.name == "i3d_rgb_imagenet_pooled" and not pooled.classifies
    with pytest.raises(UserError, match="at least 9 frames"):
        logits(video[:, :8])


def test_sources_are_needed_and_checked(tmp_path):
    with pytest.raises(UserError, match=r"set --features\.source"):
        FeatureNetwork(kind="i3d").build(CPU)
    with pytest.raises(UserError, match="is not there"):
        FeatureNetwork(kind="i3d", source=str(tmp_path / "i3d.pt")).build(CPU)
    with pytest.raises(UserError):
        FeatureNetwork(kind="encoder", source=str(tmp_path)).build(CPU)


def test_encoders_and_classifiers_are_shown_clips_of_their_own(monkeypatch):
    clip = Clip(num_frames=4, size=32)
    run = SimpleNamespace(data=SimpleNamespace(clip=clip))
    monkeypatch.setattr(video_features, "load", lambda source, device: VideoEncoder(MeanColour(), clip))
    monkeypatch.setattr(video_features, "load_objective", lambda source, device: (MeanColour(), run))
    video = torch.zeros(2, 9, 3, 8, 8, dtype=torch.uint8)
    video[1, :, 1] = 255
    encoder = FeatureNetwork(kind="encoder", source="hf:MCG-NJU/video mae").build(CPU)
    assert encoder.label(9) == "video_mae/32px_bilinear/4f" and not encoder.classifies
    assert encoder(video).tolist() == [[0, 0, 0]] * 2 + [[0, 1, 0]] * 2
    classifier = FeatureNetwork(kind="classifier", source="runs/colours/").build(CPU)
    assert classifier.label(9) == "colours_logits/32px_bilinear/4f" and classifier.classifies
    assert classifier(video).tolist() == [[0, 0, 0]] * 2 + [[0, 10, 0]] * 2
    monkeypatch.setattr(video_features, "load_objective", lambda source, device: (nn.Identity(), run))
    with pytest.raises(UserError, match="Identity, which is not a classifier"):
        FeatureNetwork(kind="classifier", source="runs/colours").build(CPU)


def test_distance_is_frechets_of_the_features(caplog):
    _, found = features(classifies=True)
    real, made = torch.rand(2, 9, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    distance = VideoDistance(found)
    distance.add(distance.features(real=real[:5], generated=made))
    distance.add(distance.features(real=real[5:]))
    values = dict(distance.values("fvd"))
    label = "corners/4px_bilinear/2f/n9"
    assert list(values) == [f"fvd/{label}", f"fvd_bias/{label}", f"fvd_unbiased/{label}"]
    sides = [Moments(2), Moments(2)]
    for side, video in zip(sides, (real, made)):
        side.update(found(video))
    assert values[f"fvd/{label}"] == pytest.approx(frechet_distance(*sides))
    assert torch.equal(torch.cat(distance.generated_logits), found(made))
    assert "9 and 9 samples" in caplog.text
    alone = VideoDistance(found)
    alone.add(alone.features(real=real[:1], generated=made))
    with pytest.raises(UserError, match="fvd cannot be measured"):
        dict(alone.values("fvd"))


class TestInceptionScore:
    def test_sure_of_each_class_equally_often_gives_their_number(self):
        assert inception_score(torch.eye(7).repeat(3, 1) * 1000)[0] == pytest.approx(7)

    def test_samples_that_look_alike_give_one(self):
        assert inception_score(torch.randn(1, 5).expand(8, 5)) == pytest.approx((1, 0))

    def test_by_hand(self):
        logits = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log()
        divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
        assert inception_score(logits)[0] == pytest.approx(math.exp(divergence))

    def test_splits_are_scored_apart(self):
        logits = torch.cat([torch.eye(2).repeat(2, 1) * 1000, torch.tensor([[1000.0, 0.0]]).expand(4, 2)])
        assert inception_score(logits, splits=2) == pytest.approx((1.5, 0.5))
        with pytest.raises(ValueError, match="cannot be divided into 9"):
            inception_score(logits, splits=9)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 20), st.integers(2, 9), st.floats(0.1, 50))
    def test_between_one_and_the_number_of_classes(self, seed, count, classes, scale):
        logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * scale
        assert 1 - 1e-9 <= inception_score(logits)[0] <= min(count, classes) + 1e-9
