"""Image files are videos of one frame, turned as they should be shown, or cannot be read."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from filmstrip.video import Crop, DecodeError, open_video, read_clips, read_video
from filmstrip.video import images as of_images

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def picture() -> Image.Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1).astype(np.uint8))


def saved(image: Image.Image, path: Path, **settings) -> Path:
    image.save(path, **settings)
    return path


def pixels(path: Path) -> np.ndarray:
    return read_video(path).video[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.jpg", "a.jpeg", "a.webp"])
def test_an_image_is_a_video_of_one_frame(picture, tmp_path, name):
    path = saved(picture, tmp_path / name)
    with open_video(path) as decoder:
        info = decoder.info
        assert (info.width, info.height, info.num_frames, info.has_audio) == (WIDTH, HEIGHT, 1, False)
        assert decoder.times().tolist() == decoder.key_times().tolist() == [0.0]
        frames = decoder.frames_at([0.0, 0.02, 5.0], crop=Crop(8, 4, 16, 32))
    with Image.open(path) as expected:
        whole = torch.from_numpy(np.asarray(expected.convert("RGB")).copy()).permute(2, 0, 1)
    assert frames.video.shape == (3, 3, 16, 32) and frames.damaged == (False,) * 3
    assert all(torch.equal(frame, whole[:, 8:24, 4:36]) for frame in frames.video)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(picture, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(picture, tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(pixels(path), expected)
    with open_video(path) as decoder:
        assert (decoder.info.height, decoder.info.width) == expected.shape[:2]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(picture, tmp_path, mode):
    grey = np.asarray(picture.convert("L"))
    if mode == "I;16":
        path, expected = saved(Image.fromarray(grey.astype(np.uint16) * 257), tmp_path / "a.png"), grey
    else:
        path = saved(picture.convert(mode), tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
        expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(pixels(path), np.broadcast_to(expected.reshape(HEIGHT, WIDTH, -1), (HEIGHT, WIDTH, 3)))


def test_the_first_of_several_frames_is_read(picture, tmp_path):
    for name in ("a.webp", "a.png"):
        path = saved(picture, tmp_path / name, save_all=True, append_images=[ImageOps.invert(picture)], lossless=True)
        assert np.array_equal(pixels(path), np.asarray(picture))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_truncated_image_cannot_be_read(picture, tmp_path, name):
    path = saved(picture, tmp_path / name)
    whole = path.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:kept])
        with pytest.raises(DecodeError, match=r"damaged|not an image"):
            read_video(path)


def test_what_is_no_image_is_named(tmp_path, picture):
    cases = {
        "gone.jpg": (None, "there is no such file"),
        "empty.jpg": (b"", "the file is empty"),
        "page.jpg": (b"<html>not found</html>", "not an image"),
        # PostScript is a program, which Pillow would have another one run
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    }
    for name, (content, reason) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DecodeError, match=f"{name}.*{reason}"):
            open_video(tmp_path / name)
    with pytest.raises(DecodeError, match="one video stream"):
        open_video(saved(picture, tmp_path / "a.png"), stream=1)


def test_an_image_of_too_many_pixels_is_refused_unread(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(of_images, "_MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(DecodeError, match=f"{WIDTH} x {HEIGHT} pixels"):
        open_video(saved(picture, tmp_path / "a.png"))


def test_a_pattern_in_the_name_is_just_a_name(picture, tmp_path):
    saved(ImageOps.invert(picture), tmp_path / "a001.png")
    assert np.array_equal(pixels(saved(picture, tmp_path / "a%03d.png")), np.asarray(picture))


def test_clips_of_an_image_stand_still(picture, tmp_path):
    with open_video(saved(picture, tmp_path / "a.png")) as decoder:
        for sampling in ("dense", "uniform", "segments"):
            rng = np.random.default_rng(0)
            (clip,) = read_clips(decoder, num_frames=4, sampling=sampling, size=16, short_side=(16, 24), rng=rng)
            assert clip.video.shape == (4, 3, 16, 16)
            assert all(torch.equal(frame, clip.video[0]) for frame in clip.video)


def test_images_in_memory_are_read_alike(picture, tmp_path):
    path = saved(picture, tmp_path / "a.png")
    decoder = of_images.ImageDecoder(io.BytesIO(path.read_bytes()))
    assert np.array_equal(next(decoder.frames()).video[0].permute(1, 2, 0).numpy(), np.asarray(picture))
    decoder.close()
    with pytest.raises(DecodeError, match="closed"):
        of_images.ImageDecoder.frames_at(_closed(path), [0.0])


def _closed(path: Path) -> of_images.ImageDecoder:
    decoder = of_images.ImageDecoder(path)
    decoder.close()
    return decoder
