"""Estimators of flow as parts: RAFT from a file, what does not fit it, and OpenCV's beside it."""

import pytest
import torch
from safetensors.torch import save_file

from filmstrip.errors import UserError
from filmstrip.models.raft import RAFT, SMALL
from filmstrip.objectives.optical_flow import FlowEstimator
from filmstrip.video.flow import cached_flow, estimate_flow
from filmstrip.video.write import write_video
from filmstrip.weights.released import to_published


@pytest.fixture(scope="module")
def published():
    """A small RAFT under its published names, with random values."""
    torch.manual_seed(0)
    return to_published(RAFT(SMALL))


@pytest.fixture
def weights(published, tmp_path):
    save_file(published, tmp_path / "raft_small.safetensors")
    return tmp_path / "raft_small.safetensors"


def test_raft_comes_of_a_file_of_either_format_and_is_never_trained(published, weights, tmp_path):
    torch.save(published, tmp_path / "raft_small.pth")
    one, other = FlowEstimator("raft", weights), FlowEstimator("raft", tmp_path / "raft_small.pth")
    video = torch.randint(0, 256, (1, 3, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flow = one.train()(video)
    assert flow.shape == (1, 2, 2, 40, 48) and flow.dtype == torch.float32 and flow.abs().max() > 0.1
    assert torch.equal(flow, other(video))
    assert not any(p.requires_grad for p in one.parameters()) and not any(m.training for m in one.modules())
    assert one.name.startswith("raft_") and one.name != other.name  # of the files, which differ
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow, one(video))


def test_opencv_estimates_without_weights():
    pytest.importorskip("cv2")
    video = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for method in ("dis", "farneback"):
        assert torch.equal(FlowEstimator(method)(video), estimate_flow(video, method))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("update_block.flow_head.conv2.bias"), r"lacks update_block\.flow_head\.conv2\.bias"),
        (lambda w: w.update(surplus=torch.zeros(1)), "no place for: surplus"),
        (
            lambda w: w.update({"feature_encoder.conv.bias": torch.zeros(3)}),
            r"features\.out\.bias is \(3,\) there and \(128,\) here",
        ),
        (
            lambda w: w.update({"mask_predictor.conv.bias": torch.zeros(576)}),
            r"lacks context_encoder\.convnormrelu\.1",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(published, tmp_path, change, said):
    theirs = dict(published)
    change(theirs)
    save_file(theirs, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=rf"(?s)other\.safetensors.*{said}"):
        FlowEstimator("raft", tmp_path / "other.safetensors")


def test_what_has_to_be_named_together(weights, tmp_path):
    with pytest.raises(UserError, match="RAFT is a network, and needs its weights"):
        FlowEstimator("raft")
    with pytest.raises(UserError, match="dis has no weights"):
        FlowEstimator("dis", weights)
    with pytest.raises(UserError, match=r"none\.safetensors is not there"):
        FlowEstimator("raft", tmp_path / "none.safetensors")
    (tmp_path / "text.pth").write_text("nothing")
    with pytest.raises(UserError, match="not a file of plain weights"):
        FlowEstimator("raft", tmp_path / "text.pth")


def test_a_whole_video_is_cached_by_the_weights(weights, tmp_path):
    path = tmp_path / "clip.mp4"
    video = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_video(path, video, fps=4)
    estimator = FlowEstimator("raft", weights)
    flow = cached_flow(path, estimator)
    kept = tmp_path / f"clip.mp4.{estimator.name}.flow.safetensors"
    assert kept.exists() and flow.shape == (2, 2, 32, 32)
    estimator.network = None  # would fail if it were called
    assert torch.equal(cached_flow(path, estimator), flow)
