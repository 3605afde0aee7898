import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from filmstrip.errors import UserError
from filmstrip.video import flow as flow_module
from filmstrip.video.flow import cached_flow, estimate_flow, flow_picture, read_flo
from filmstrip.video.write import write_video

FILES = Path(__file__).parents[3] / "shared/data/flow/mmflow"


@pytest.fixture(params=["dis", "farneback"])
def method(request):
    pytest.importorskip("cv2")
    return request.param


def drifting(dx, dy, frames=4, size=96):
    """Smooth texture that moves by whole pixels, ``T 3 H W`` uint8; what leaves comes in on the other side."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, size // 8, size // 8, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)[0]
    return (torch.stack([image.roll((dy * t, dx * t), dims=(1, 2)) for t in range(frames)]) * 255).to(torch.uint8)


def test_flow_is_where_pixels_go(method):
    video = drifting(3, -2)
    flow = estimate_flow(video, method)
    assert flow.shape == (3, 2, 96, 96) and flow.dtype == torch.float32
    inside = flow[:, :, 16:-16, 16:-16].mean(dim=(0, 2, 3))
    assert inside.tolist() == pytest.approx([3, -2], abs=0.2)


def test_batches_and_floating_point_give_the_same(method):
    videos = torch.stack([drifting(1, 2), drifting(-2, 0)])
    flow = estimate_flow(videos, method)
    assert torch.equal(flow[1], estimate_flow(videos[1], method))
    assert torch.equal(flow, estimate_flow(videos.float() / 255, method))


def test_unknown_methods_and_a_missing_library_are_named(monkeypatch):
    pytest.importorskip("cv2")
    with pytest.raises(UserError, match="unknown optical flow method 'raft'"):
        estimate_flow(drifting(1, 0), "raft")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'filmstrip\[flow\]'"):
        estimate_flow(drifting(1, 0))


def test_it_is_kept_beside_the_video_until_that_changes(tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    path = tmp_path / "clip.mp4"
    write_video(path, drifting(2, 0, frames=40), fps=10)  # longer than what is decoded at once
    flow = cached_flow(path)
    assert flow.shape == (39, 2, 96, 96) and flow.dtype == torch.float16
    assert flow[:, 0, 16:-16, 16:-16].float().mean() == pytest.approx(2, abs=0.2)
    kept = tmp_path / "clip.mp4.dis.flow.safetensors"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", kept.name]
    monkeypatch.setattr(flow_module, "estimate_flow", None)  # would fail if it were called
    assert torch.equal(cached_flow(path), flow)
    monkeypatch.undo()
    assert cached_flow(path, size=(48, 48)).shape == (39, 2, 48, 48)
    write_video(path, drifting(-2, 0, frames=5), fps=10)
    assert cached_flow(path)[:, 0].float().mean() < 0
    kept.write_bytes(kept.read_bytes()[:100])
    assert cached_flow(path).shape == (4, 2, 96, 96)


def test_colours_are_directions():
    flow = torch.zeros(2, 1, 5)
    flow[:, 0, 1:] = torch.tensor([[4.0, 0.0, -4.0, 2.0], [0.0, 4.0, 0.0, 0.0]])
    still, right, down, left, half = flow_picture(flow, largest=4)[:, 0].T.tolist()
    assert still == [255, 255, 255]
    assert right == [255, 0, 0] and left[0] < 50 and min(left[1:]) > 150  # red, and between green and blue
    assert half == [255, 128, 128]
    assert len({tuple(c) for c in (right, down, left)}) == 3
    assert max(flow_picture(flow, largest=1)[:, 0, 1].tolist()) == round(0.75 * 255)


def test_flo_files(tmp_path):
    path = tmp_path / "a.flo"
    values = np.arange(12, dtype="<f4").reshape(2, 3, 2)
    path.write_bytes(np.float32(202021.25).tobytes() + np.array([3, 2], "<i4").tobytes() + values.tobytes())
    assert torch.equal(read_flo(path), torch.from_numpy(values).permute(2, 0, 1))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="3 x 2 pixels, but holds 3"):
        read_flo(path)
    path.write_bytes(b"GIF89a" * 9)
    with pytest.raises(UserError, match=r"not a \.flo file"):
        read_flo(path)


@pytest.mark.skipif(not FILES.exists(), reason="the sample files are not here")
def test_estimates_are_nearer_the_truth_than_stillness(method):
    names = ("00001_img1.ppm", "00001_img2.ppm")
    frames = [torch.from_numpy(np.array(Image.open(FILES / name).convert("RGB"))) for name in names]
    truth = read_flo(FILES / "00001_flow.flo")
    error = (estimate_flow(torch.stack(frames).permute(0, 3, 1, 2), method)[0] - truth).norm(dim=0).mean()
    assert error < {"dis": 0.6, "farneback": 0.75}[method] * truth.norm(dim=0).mean()
