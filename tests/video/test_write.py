"""What is written can be read, by us and by Pillow."""

import ctypes
import io

import numpy as np
import pytest
import torch
from numbered_videos import numbered, numbers
from PIL import Image

from filmstrip.errors import UserError
from filmstrip.video import open_video, read_video, write_grid, write_video

VIDEO = torch.from_numpy(numbered(12).copy()).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_mp4(tmp_path, dtype):
    video = VIDEO if dtype == torch.uint8 else (VIDEO.float() / 255).to(dtype)
    write_video(tmp_path / "sub" / "a.mp4", video, 12.5, gop=4)
    with open_video(tmp_path / "sub" / "a.mp4") as decoder:
        assert (decoder.info.fps, decoder.info.num_frames, decoder.info.codec) == (12.5, 12, "h264")
        np.testing.assert_allclose(decoder.key_times(), [0, 0.32, 0.64])
        back = decoder.frames_at(decoder.times()).video
    assert numbers(back) == list(range(12))
    assert (back.float() - VIDEO).abs().mean() < 4
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.mp4"], "no leftovers"


def test_mp4_of_odd_size_and_grey_and_fast_to_decode():
    file = io.BytesIO()
    write_video(file, VIDEO[:, :1, :47, :63], 29.97, format="mp4", fast_decode=True)
    back = read_video(file)
    assert back.video.shape == (12, 3, 47, 63)
    np.testing.assert_allclose(back.times, np.arange(12) / 29.97, atol=1e-3)


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_animations(tmp_path, format):
    path = tmp_path / f"a.{format}"
    write_video(path, VIDEO, 8)
    with Image.open(path) as image:
        assert image.n_frames == 12 and image.info["loop"] == 0
        total = 0
        for number in range(12):
            image.seek(number)
            image.load()
            total += image.info["duration"]
            shown = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
            assert numbers(shown) == [number]
    assert total == pytest.approx(1500, abs=10)


def test_grid(tmp_path):
    write_grid(tmp_path / "grid.png", [VIDEO[:3], VIDEO[5:7]], gap=4)
    with Image.open(tmp_path / "grid.png") as image:
        pixels = torch.from_numpy(np.array(image))
    assert pixels.shape == (48 * 2 + 4, 64 * 3 + 8, 3)
    assert torch.equal(pixels[52:, 68:132].permute(2, 0, 1), VIDEO[6])
    assert (pixels[48:52] == 255).all() and (pixels[52:, 136:] == 255).all()


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="'avi': use mp4, gif or webp"):
        write_video(tmp_path / "a.avi", VIDEO, 8)
    with pytest.raises(UserError, match=r"expected video of shape \(T, C, H, W\)"):
        write_video(tmp_path / "a.mp4", VIDEO[None], 8)
    with pytest.raises(UserError, match="at least one row"):
        write_grid(tmp_path / "a.png", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_bytes_do_not_depend_on_what_memory_held_before():
    """glibc fills what it hands out with a pattern."""
    image = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    video = torch.cat([image.roll((t, 2 * t), (2, 3)) for t in range(24)])
    files, perturb = [], -6  # M_PERTURB
    try:
        for pattern in (1, 90, 200):
            ctypes.CDLL(None).mallopt(perturb, pattern)
            files.append(io.BytesIO())
            write_video(files[-1], video, 12, format="mp4")
    finally:
        ctypes.CDLL(None).mallopt(perturb, 0)
    assert len({file.getvalue() for file in files}) == 1
