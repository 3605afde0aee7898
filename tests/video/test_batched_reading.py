"""Many places of one video in turn are what each of them is alone, in few passes."""

import io

import numpy as np
import pytest
import torch
from numbered_videos import encode, numbered, numbers

from filmstrip.video import Crop, DecodeError, Request, open_video, read_batched, read_clips, read_parts

DATA = encode(numbered(200), g="50", bf="2")  # eight seconds, a key frame every two


def asked():
    """Clips around each half second, of two views; far ahead, behind, and nothing."""
    lists = [
        [Request(second + np.arange(-6, 7) / 25), Request([second], Crop(0, 16, 48, 48), (24, 24))]
        for second in np.arange(1.0, 5.0, 0.5)
    ]
    return [*lists, [Request([7.5, 7.9])], [], [Request([0.0, 0.5, 0.1])]]


def passes(decoder, monkeypatch):
    """How many requests each pass answers."""
    counts, read = [], decoder.read
    monkeypatch.setattr(decoder, "read", lambda requests, **kw: counts.append(len(requests)) or read(requests, **kw))
    return counts


@pytest.mark.parametrize(
    ("at_once", "expected"), [(2**30, [18]), (3 * 48 * 64 * 30, [4, 4, 4, 5, 1]), (1, [2] * 8 + [1, 1])]
)
def test_answers_do_not_depend_on_how_many_are_held(monkeypatch, at_once, expected):
    with open_video(io.BytesIO(DATA)) as decoder:
        alone = [decoder.read(requests) if requests else [] for requests in asked()]
        counts = passes(decoder, monkeypatch)
        together = list(read_batched(decoder, asked(), at_once=at_once))
    assert [len(answers) for answers in together] == [len(requests) for requests in asked()]
    assert counts == expected
    for ours, theirs in zip(together, alone):
        for frames, known in zip(ours, theirs):
            assert torch.equal(frames.video, known.video) and frames.times.tolist() == known.times.tolist()
    assert numbers(together[-1][0].video) == [0, 12, 2]


def test_nothing_is_read_before_it_is_due(monkeypatch):
    with open_video(io.BytesIO(DATA)) as decoder:
        counts = passes(decoder, monkeypatch)
        answers = read_batched(decoder, asked(), at_once=1)
        assert counts == []
        next(answers)
        assert counts == [2]
        assert list(read_batched(decoder, [])) == [] and counts == [2]


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_parts_are_cut_as_each_alone(monkeypatch, sampling):
    parts = [(0.0, 2.0), (2.0, 4.0), (1.0, 5.0), (6.5, None), (None, None)]
    settings = {"num_frames": 5, "stride": 3, "size": 32, "sampling": sampling, "num_clips": 2, "num_crops": 3}
    with open_video(io.BytesIO(DATA)) as decoder:
        alone = [read_clips(decoder, start=start, end=end, **settings) for start, end in parts]
        counts = passes(decoder, monkeypatch)
        for views, known in zip(read_parts(decoder, parts, **settings), alone, strict=True):
            assert [view.times.tolist() for view in views] == [view.times.tolist() for view in known]
            assert all(torch.equal(view.video, other.video) for view, other in zip(views, known))
        assert counts == [5 * 2 * 3]
        with pytest.raises(DecodeError, match=r"it lasts 8 s; 9 s to 10 s was requested"):
            next(read_parts(decoder, [(0.0, 2.0), (9.0, 10.0)], **settings))


def test_a_part_that_was_cut_off_is_chosen_anew(tmp_path):
    whole = encode(numbered(100), format="matroska", g="10")
    (tmp_path / "short.mkv").write_bytes(whole[: len(whole) // 2])
    settings = {"num_frames": 4, "size": (48, 64), "sampling": "uniform"}
    parts = [(0.0, 1.0), (0.5, 4.0)]
    with open_video(tmp_path / "short.mkv") as decoder:
        alone = [read_clips(decoder, start=start, end=end, **settings)[0] for start, end in parts]
        found = [views[0] for views in read_parts(decoder, parts, **settings)]
    for clip, known in zip(found, alone):
        assert numbers(clip.video) == numbers(known.video)
    assert len(set(numbers(found[1].video))) == 4 and found[1].times[-1] < 3.0
