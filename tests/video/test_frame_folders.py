"""Folders of images are films: the same pixels as Pillow's, by time, in natural order, with neighbours for bad
frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from filmstrip.video import Crop, DecodeError, open_video, read_clips, read_video
from filmstrip.video.decoder import FrameFolder, Request
from filmstrip.video.frame_folders import numbers_frames

HEIGHT, WIDTH = 24, 32


def picture(number: int) -> Image.Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([7 * x, 9 * y, 0 * x + 8 * number], axis=-1).astype(np.uint8))


def film(folder: Path, names: list[str], **settings) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture(number).save(folder / name, **settings)
    return folder


def by_pillow(folder: Path, names: list[str]) -> torch.Tensor:
    images = [np.asarray(Image.open(folder / name).convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "names",
    [
        [f"img_{i:05d}.jpg" for i in range(1, 13)],
        [f"{i}.png" for i in range(8, 20)],  # 9 before 10
        [f"frame{i}.JPEG" for i in range(12)],
        [f"2024-01-0{1 + i // 9} {i:02d}-00.png" for i in range(12)],
    ],
)
def test_frames_are_those_that_pillow_reads_in_the_order_of_their_numbers(tmp_path, names):
    folder = film(tmp_path / "a", names)
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.jpg").write_bytes(b"")
    frames = read_video(FrameFolder(str(folder), 10.0))
    assert torch.equal(frames.video, by_pillow(folder, names))
    assert frames.times.tolist() == [i / 10 for i in range(12)] and not any(frames.damaged)
    with open_video(FrameFolder(str(folder), 10.0)) as decoder:
        info = decoder.info
        assert (info.fps, info.duration, info.num_frames, info.width, info.height) == (
            10,
            pytest.approx(1.2),
            12,
            WIDTH,
            HEIGHT,
        )
        one, two = decoder.read([Request([0.55, 0.0, 9.0], Crop(4, 8, 8, 16)), Request([0.5], None, (12, 16))])
        middle = list(decoder.frames(0.3, 0.6, chunk=2))
    whole = by_pillow(folder, names)
    assert torch.equal(one.video, whole[[5, 0, 11], :, 4:12, 8:24])
    assert two.video.shape == (1, 3, 12, 16)
    assert torch.equal(torch.cat([part.video for part in middle]), whole[3:6]) and len(middle) == 2


def test_without_a_rate_there_are_25_frames_a_second_and_it_is_said(tmp_path, caplog):
    folder = film(tmp_path / "a", [f"{i}.png" for i in range(5)])
    assert read_video(folder).times.tolist() == [i / 25 for i in range(5)]
    assert "25 frames per second" in caplog.text and str(tmp_path) in caplog.text


def test_numbers_that_are_left_out_show_the_frame_before_for_longer(tmp_path):
    folder = film(tmp_path / "a", [f"{i:03d}.png" for i in (10, 12, 14, 16, 22, 24)])
    with open_video(FrameFolder(str(folder), 2.0)) as decoder:
        assert decoder.times().tolist() == [0.0, 0.5, 1.0, 1.5, 3.0, 3.5]
        assert decoder.info.duration == pytest.approx(4.0)
        shown = decoder.frames_at([2.6])
        assert shown.times.tolist() == [1.5] and torch.equal(shown.video, by_pillow(folder, ["016.png"]))


def test_damaged_and_odd_sized_frames_are_flagged_and_a_neighbour_stands_in(tmp_path):
    names = [f"{i:02d}.jpg" for i in range(10)]
    folder = film(tmp_path / "a", names)
    (folder / "00.jpg").write_bytes(b"no image")
    (folder / "04.jpg").write_bytes((folder / "04.jpg").read_bytes()[:-200])
    Image.new("RGB", (WIDTH, 2 * HEIGHT)).save(folder / "05.jpg")
    with open_video(FrameFolder(str(folder), 5.0)) as decoder:
        frames = decoder.frames_at(decoder.times())
        assert [i for i, flag in enumerate(frames.damaged) if flag] == [0, 4, 5]
        assert torch.equal(frames.video[[0, 4, 5]], by_pillow(folder, ["01.jpg", "03.jpg", "03.jpg"]))
        assert set(decoder.unusable) == {"00.jpg", "04.jpg", "05.jpg"}
        assert decoder.unusable["05.jpg"] == "it has 32 x 48 pixels, and the film 32 x 24"
        assert "runcated" in decoder.unusable["04.jpg"]


def test_the_size_is_that_of_most_images(tmp_path):
    folder = film(tmp_path / "a", [f"{i}.png" for i in range(6)])
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    frames = read_video(FrameFolder(str(folder), 5.0))
    assert frames.video.shape == (6, 3, HEIGHT, WIDTH) and frames.damaged == (True, *(False,) * 5)


def test_folders_that_are_no_films_are_refused_in_words(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecodeError, match=r"a folder without images \(\.bmp, \.jpeg"):
        open_video(tmp_path / "empty")
    broken = film(tmp_path / "broken", ["0.png", "1.png"])
    for path in broken.iterdir():
        path.write_bytes(b"x")
    with pytest.raises(DecodeError, match=r"none of its 2 images can be opened; 0\.png: not an image"):
        open_video(broken)
    mixed = film(tmp_path / "mixed", ["left_1.png", "left_2.png", "right_1.png", "right_2.png"])
    with pytest.raises(DecodeError, match=r"of 2 kinds of names \(left_#\.png, right_#\.png"):
        open_video(mixed)


def test_frames_in_colour_are_found_beside_optical_flow(tmp_path):
    names = [f"img_{i:05d}.jpg" for i in range(1, 5)]
    folder = film(tmp_path / "a", [*names, *(f"flow_{axis}_{i:05d}.jpg" for axis in "xy" for i in range(1, 5))])
    assert torch.equal(read_video(FrameFolder(str(folder), 5.0)).video, by_pillow(folder, names))


def test_clips_are_cut_as_of_videos(tmp_path):
    folder = film(tmp_path / "a", [f"{i:03d}.png" for i in range(30)])
    with open_video(FrameFolder(str(folder), 10.0)) as decoder:
        (clip,) = read_clips(decoder, num_frames=4, stride=3, size=24, start=1.0, end=2.5)
        assert clip.video.shape == (4, 3, 24, 24)
        numbers = clip.video[:, 2].float().mean(dim=(1, 2)) / 8
        assert numbers.tolist() == [round(10 * t) for t in clip.times] and 1.0 <= clip.times[0] <= 1.6
        (many,) = read_clips(decoder, num_frames=8, stride=1, size=16, rng=np.random.default_rng(0))
        assert many.video.shape == (8, 3, 16, 16)


def test_names_of_frames_are_told_from_others():
    frames = [f"img_{i:05d}.jpg" for i in range(1, 9)]
    assert numbers_frames(frames) and numbers_frames([*frames, "readme.txt", ".x.jpg"])
    assert not numbers_frames(frames[:7])  # so few may be photographs
    assert not numbers_frames([*frames[:4], *frames[5:], "img_00010.jpg"])
    assert not numbers_frames([*frames, "cover.png"]) and not numbers_frames([f"{c}.jpg" for c in "abcdefghij"])
