import pytest
import torch

from filmstrip.data.config import Clip
from filmstrip.models.plain_cnn import ConvLayer, PlainCNN
from filmstrip.objectives.classification import Classification
from filmstrip.objectives.two_stream import StreamsConfig, TwoStream

pytest.importorskip("cv2")
FLAT = (ConvLayer(width=4, kernel=(1, 3, 3)),)
DEEP = (ConvLayer(width=4, kernel=(5, 3, 3), valid_time=True),)


def build(single_frames=1, subtract_mean=False, **options):
    torch.manual_seed(0)
    config = StreamsConfig(num_classes=3, **options)
    spatial = Classification(PlainCNN(FLAT), config)
    temporal = Classification(PlainCNN(DEEP, mean=(0, 0), std=(1, 1)), config)
    for stream in (spatial, temporal):
        torch.nn.init.normal_(stream.head.weight)
    return TwoStream(spatial, temporal, config, single_frames=single_frames, subtract_mean=subtract_mean).eval()


@pytest.fixture
def video():
    """Smooth texture that moves 3 pixels to the right a frame."""
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic").clamp(0, 1)
    return torch.stack([image.roll(3 * t, dims=-1) for t in range(6)], dim=1)


def test_flow_is_cut_off_scaled_and_freed_of_what_the_camera_does(video):
    objective = build(max_flow=6.0)
    pixels = objective.flow(video)
    flow = objective.scaled(pixels)
    assert flow.shape == (2, 5, 2, 48, 48)
    assert flow[:, :, 0, 12:-12, 12:-12].mean() == pytest.approx(0.5, abs=0.05)
    assert build(max_flow=1.0).scaled(pixels).abs().max() == 1
    still = build(max_flow=6.0, subtract_mean=True).scaled(pixels)
    torch.testing.assert_close(still.mean(dim=(3, 4)), torch.zeros(2, 5, 2), atol=0.02, rtol=0)


@torch.no_grad()
def test_average_is_of_probabilities(video):
    objective = build(single_frames=2)
    spatial, temporal = (scores.exp() for scores in objective.streams(video))
    torch.testing.assert_close(objective.classify(video).exp(), (spatial + temporal) / 2)
    frames = [objective.spatial.classify(video[:, t : t + 1]).softmax(1) for t in (1, 4)]
    torch.testing.assert_close(spatial, (frames[0] + frames[1]) / 2)


@torch.no_grad()
def test_flow_that_is_given_is_not_estimated(video):
    objective = build()
    torch.testing.assert_close(objective.classify(video, objective.flow(video)), objective.classify(video))
    assert not objective.classify(video, torch.zeros(2, 5, 2, 48, 48)).equal(objective.classify(video))


def test_the_svm_learns_from_the_streams_and_does_not_teach_them(video):
    batch = {"video": video, "label": torch.tensor([2, 0])}
    plain, fused = build(), build(fusion="svm")
    fused.load_state_dict(plain.state_dict(), strict=False)
    losses = [objective(batch) for objective in (plain, fused)]
    scores = fused.classify(video)
    sides = torch.tensor([[-1, -1, 1], [1, -1, -1]])
    hinge = (1 - sides * scores).clamp(min=0).square().sum(1).mean()
    torch.testing.assert_close(losses[1].total - losses[0].total, hinge)
    for loss in losses:
        loss.total.backward()
    assert fused.svm.weight.grad.any()
    for (name, a), (_, b) in zip(plain.named_parameters(), fused.named_parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert {"top1", "top1_spatial", "top1_temporal"} == set(losses[0].metrics)
    mixed = {**batch, "label": torch.nn.functional.one_hot(batch["label"], 3).float()}
    torch.testing.assert_close(fused(mixed).total, losses[1].total)


def test_it_can_be_counted_without_data():
    from filmstrip.measure import complexity

    with torch.device("meta"):
        objective = build()
    cost = complexity.measure(objective, Clip(num_frames=6, size=32))
    assert cost.multiply_adds == 32 * 32 * 9 * 4 * (3 + 5 * 2) + 2 * 3 * 4
