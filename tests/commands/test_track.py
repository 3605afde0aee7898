"""Objects of a film tracked, drawn and written by one command."""

import numpy as np
import pytest
import torch
from PIL import Image

from filmstrip.__main__ import main
from filmstrip.commands.work import track as command
from filmstrip.commands.work.track import colours_of, drawn
from filmstrip.data.config import Clip
from filmstrip.data.masks import Mask, default_palette, read_mask, write_mask
from filmstrip.errors import UserError
from filmstrip.protocols import Features, Grid, as_float
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.video.decode import read_video
from filmstrip.video.write import LOSSLESS, write_video

COUNT = 9


class Colours(torch.nn.Module):
    """Tokens of single pixels: red, green, blue and one. It notes how many frames are held at once."""

    width = 4
    most = 0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, video, layers=False):
        Colours.most = max(Colours.most, video.shape[0] * video.shape[1])
        x = as_float(video).permute(0, 1, 3, 4, 2).flatten(1, 3)
        grid = Grid(video.shape[1], *video.shape[3:])
        return Features(torch.cat([x, 0.3 * torch.ones_like(x[..., :1])], dim=-1) * self.weight, grid)


@pytest.fixture
def encoder(monkeypatch):
    made = VideoEncoder(Colours(), Clip(num_frames=4, size=48))
    monkeypatch.setattr(command, "load", lambda source: made)


def frames():
    """On grey, a red square that goes right and a blue one that goes up, ``T 3 48 48`` uint8."""
    video = torch.full((COUNT, 3, 48, 48), 90, dtype=torch.uint8)
    numbers = torch.zeros(COUNT, 48, 48, dtype=torch.uint8)
    for t in range(COUNT):
        for number, channel, top, left in ((1, 0, 6, 4 + 2 * t), (2, 2, 34 - t, 30)):
            video[t, :, top : top + 10, left : left + 10] = 0
            video[t, channel, top : top + 10, left : left + 10] = 255
            numbers[t, top : top + 10, left : left + 10] = number
    return video, numbers


@pytest.fixture
def film(tmp_path):
    video, numbers = frames()
    write_video(tmp_path / "film.mp4", video, 8, codec=LOSSLESS, crf=0)
    palette = (0, 0, 0, 250, 10, 20, 30, 240, 50, *default_palette()[9:])
    write_mask(Mask(numbers[0].numpy(), palette), tmp_path / "first.png")
    return tmp_path / "film.mp4"


def test_two_objects_are_followed_drawn_and_written(encoder, film, tmp_path, capsys):
    options = ["--mask", str(tmp_path / "first.png"), "--radius", "4", "--last-frames", "1", "--top-k", "1"]
    outputs = ["--out", str(tmp_path / "tracked.mp4"), "--masks", str(tmp_path / "masks")]
    assert main(["track", "any", str(film), *options, *outputs]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"object 1: in {COUNT} of {COUNT} frames, 4.3%") and said[2:] == [
        outputs[1],
        outputs[3],
    ]
    _, numbers = frames()
    masks = [read_mask(path) for path in sorted((tmp_path / "masks").iterdir())]
    assert len(masks) == COUNT and masks[4].palette[:9] == (0, 0, 0, 250, 10, 20, 30, 240, 50)
    for mask, expected in zip(masks, numbers.numpy()):
        assert (mask.numbers == expected).all()
    video = read_video(tmp_path / "tracked.mp4").video
    assert video.shape == (COUNT, 3, 8 * 48, 8 * 48)  # small films are enlarged
    assert (video[-1, :, 8 * 8, 8 * 22].float() - torch.tensor([252, 5, 9])).abs().max() < 30  # the palette's colour


def test_a_folder_of_images_is_a_film_too(encoder, film, tmp_path):
    video, numbers = frames()
    (tmp_path / "images").mkdir()
    for t, frame in enumerate(video):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{t}.png")
    options = ["--mask", str(tmp_path / "first.png"), "--top-k", "1", "--last-frames", "0", "--radius", "20"]
    assert main(["track", "any", str(tmp_path / "images"), *options, "--masks", str(tmp_path / "masks")]) == 0
    assert (read_mask(tmp_path / "masks/00008.png").numbers == numbers[8].numpy()).all()


def test_a_long_film_is_read_piece_by_piece(encoder, tmp_path):
    video, numbers = frames()
    write_video(tmp_path / "long.mp4", video.repeat(12, 1, 1, 1), 8)
    write_mask(Mask(numbers[0].numpy(), default_palette()), tmp_path / "first.png")
    Colours.most = 0
    arguments = ["track", "any", str(tmp_path / "long.mp4"), "--mask", str(tmp_path / "first.png"), "--size", "12"]
    assert main([*arguments, "--start", "1", "--stop", "11", "--masks", str(tmp_path / "masks")]) == 0
    assert len(list((tmp_path / "masks").iterdir())) == 80 and Colours.most <= 8


def test_what_does_not_fit_is_refused(encoder, film, tmp_path, capsys):
    def refused(*options):
        assert main(["track", "any", str(film), *options]) == 2
        return capsys.readouterr().err

    mask, out = str(tmp_path / "first.png"), ["--out", str(tmp_path / "out.mp4")]
    assert "nothing would be written" in refused("--mask", mask)
    assert "as mp4, and not out.gif" in refused("--mask", mask, "--out", str(tmp_path / "out.gif"))
    assert "cannot be read as a mask" in refused("--mask", str(film), *out)
    assert "top_k is 0" in refused("--mask", mask, *out, "--top-k", "0")
    write_mask(Mask(np.zeros((48, 48), np.uint8), default_palette()), tmp_path / "empty.png")
    assert "has no object" in refused("--mask", str(tmp_path / "empty.png"), *out)
    write_mask(Mask(np.ones((24, 48), np.uint8), default_palette()), tmp_path / "small.png")
    assert "mask of 24 x 48 pixels, and the frames" in refused("--mask", str(tmp_path / "small.png"), *out)
    assert "has no frame from 99 s on" in refused("--mask", mask, *out, "--start", "99")
    assert not (tmp_path / "out.mp4").exists()


def test_masks_are_read_in_every_form(tmp_path):
    def saved(values, mode=None):
        Image.fromarray(np.array(values, np.uint8), mode).save(tmp_path / "mask.png")
        return read_mask(tmp_path / "mask.png")

    assert saved([[0, 255], [255, 0]]).objects == (255,)  # DAVIS 2016
    assert saved([[0, 3], [255, 7]]).objects == (3, 7)  # 255 is void
    painted = saved([[[0, 0, 0], [255, 0, 0]], [[0, 0, 255], [255, 0, 0]]])
    assert painted.numbers.tolist() == [[0, 2], [1, 2]] and painted.palette[3:9] == (0, 0, 255, 255, 0, 0)
    assert colours_of(painted) == {1: (0, 0, 255), 2: (255, 0, 0)}
    with pytest.raises(UserError, match=r"colours, and a painted mask has one for each object"):
        saved(np.random.default_rng(0).integers(0, 255, (9, 9, 3)))
    assert default_palette()[:12] == (0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0) and len(default_palette()) == 768


def test_objects_are_tinted_and_outlined():
    frame = torch.full((3, 240, 240), 100, dtype=torch.uint8)
    numbers = torch.zeros(240, 240, dtype=torch.uint8)
    numbers[60:180, 60:180] = 1
    shown = drawn(frame, numbers, {1: (200, 0, 0)}, opacity=0.5)
    assert shown[:, 120, 120].tolist() == [150, 50, 50]  # half of each
    assert shown[:, 60, 120].tolist() == [200, 0, 0] and shown[:, 59, 120].tolist() == [200, 0, 0]
    assert shown[:, 58, 120].tolist() == [45, 45, 45] and shown[:, 40, 120].tolist() == [100, 100, 100]
