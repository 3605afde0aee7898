import base64
import io

import numpy as np
import torch
from PIL import Image

from filmstrip.report import CaptionedClip, ClipGallery, Strip, Strips
from filmstrip.report.clips import side_by_side


def flashing(frames=6, size=16):
    """Frames of growing brightness."""
    return torch.arange(frames, dtype=torch.uint8)[:, None, None, None].mul(40).expand(frames, 3, size, size)


def picture(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_the_picture_moves_loops_and_shows_the_clip(read_page):
    page = read_page(ClipGallery("t", [CaptionedClip(flashing(), "a.mp4", [("x", 1.0)])], fps=10).html())
    image = picture(page.values("src")[0])
    assert (image.n_frames, image.info["loop"], image.size) == (6, 0, (16, 16))
    for i in range(6):
        image.seek(i)
        assert abs(np.asarray(image.convert("RGB")).mean() - 40 * i) < 6
        assert image.info["duration"] == 100


def test_paper_and_readers_who_want_rest_get_frames_side_by_side(read_page):
    page = read_page(ClipGallery("t", [CaptionedClip(flashing(), "a.mp4", [("x", 1.0)])]).html())
    still = picture(page.values("srcset")[0])
    assert getattr(still, "n_frames", 1) == 1 and still.size == (4 * 16 + 3 * 2, 16)
    assert page.values("width")[0] == "70"
    pixels = np.asarray(still.convert("RGB"))
    for column, expected in enumerate((0, 80, 120, 200)):
        assert abs(pixels[:, 18 * column + 2 : 18 * column + 14].mean() - expected) < 12
    assert page.values("media") == ["print, (prefers-reduced-motion: reduce)"]
    strip = read_page(Strips("t", [Strip([flashing()], "a")]).html())
    assert abs(np.asarray(picture(strip.values("srcset")[0]).convert("RGB")).mean() - 120) < 6


def test_correct_and_wrong_are_told_in_words(read_page):
    right = CaptionedClip(flashing(), "a.mp4", [("run", 0.75), ("walk", 0.25)], "run")
    wrong = CaptionedClip(flashing(), "b.mp4", [("run", 0.75), ("walk", 0.25)], "walk")
    unknown = CaptionedClip(flashing(), "c.mp4", [("run", 0.75), ("walk", 0.25)])
    texts = [read_page(ClipGallery("t", [clip]).html()).text for clip in (right, wrong, unknown)]
    assert "✓ correct:  run" in texts[0]
    assert "✗ wrong: it is  walk" in texts[1]
    assert "correct" not in texts[2] and "wrong" not in texts[2]
    assert all("75%" in text and "25%" in text for text in texts)


def test_the_true_class_is_marked_among_the_guesses(read_page):
    page = read_page(ClipGallery("t", [CaptionedClip(flashing(), "a", [("x", 0.6), ("y", 0.4)], "y")]).html())
    assert [given.get("class") for name, given in page.elements if name == "li"] == [None, "true"]
    assert [v for v in page.values("style")] == ["--share:0.600", "--share:0.400"]


def test_three_guesses_are_enough(read_page):
    page = read_page(ClipGallery("t", [CaptionedClip(flashing(), "a", [(str(i), 0.1) for i in range(10)])]).html())
    assert page.count("li") == 3


def test_videos_stand_side_by_side_in_step():
    a, b = flashing(), 255 - flashing()
    wide = side_by_side([a, b])
    assert wide.shape == (6, 3, 16, 34)
    assert torch.equal(wide[..., :16], a) and torch.equal(wide[..., 18:], b)
    assert not wide[..., 16:18].any()


def test_strips_are_one_picture_each_with_heads_if_any(read_page):
    strip = Strip([flashing()] * 3, "a.mp4")
    page = read_page(Strips("t", [strip, strip], ("original", "masked input", "reconstruction")).html())
    assert page.count("img") == 2
    assert picture(page.values("src")[0]).size == (52, 16)
    assert page.words[:3] == ["original", "masked input", "reconstruction"]
    assert read_page(Strips("t", [strip]).html()).words == ["a.mp4"]
