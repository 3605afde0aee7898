"""Parts and key frames of one file are read in turn for evaluation, and are what each of them is alone."""

from contextlib import nullcontext

import pytest
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.detection.types import Actor
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.actors import ActorClips, ActorSample
from filmstrip.data.reading.dataset import EvaluationSet
from filmstrip.data.sample import Sample
from filmstrip.data.tools.parallel import CRASHED
from filmstrip.video import open_video
from filmstrip.video.write import write_video

DATA = Data(clip=Clip(num_frames=4, stride=2, size=32), num_workers=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of four seconds of noise, with two key frames."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate("ab"):
        noise = torch.randint(0, 256, (64, 3, 32, 48), generator=torch.Generator().manual_seed(seed))
        write_video(folder / f"{name}.mp4", noise.to(torch.uint8), 16, gop=32)
    return folder


def parts(files, *spans, file="a"):
    path = str(files / f"{file}.mp4")
    return [Sample(path=path, name=f"{file} [{start}-{end}]", start=start, end=end) for start, end in spans]


def key_frames(files, *seconds):
    return [
        ActorSample(
            path=str(files / "a.mp4"),
            name=f"a,{second}",
            moment=second,
            key=("a", second),
            actors=(Actor((0.0, 0.0, 0.5, 1.0), (1,)),) * (1 + int(second)),
            num_classes=3,
            config=ActorClips(),
        )
        for second in seconds
    ]


def opens(monkeypatch):
    """How often a file is opened from now on."""
    paths = []
    monkeypatch.setattr(clips, "open_video", lambda path, **kw: paths.append(path) or open_video(path, **kw))
    return paths


def test_parts_of_a_file_are_read_from_one_opening(files, monkeypatch):
    samples = [*parts(files, (0.0, 1.0), (0.5, 3.0), (3.0, None)), *parts(files, (1.0, 2.0), (2.0, 4.0), file="b")]
    alone = [sample.cut(DATA, num_clips=2, num_crops=3) for sample in samples]
    paths = opens(monkeypatch)
    batch, report = EvaluationSet(samples, DATA, 2, 3)[range(5)]
    assert paths == [samples[0].path, samples[3].path] and not report.unreadable
    assert batch["index"].tolist() == [i for i in range(5) for _ in range(6)]
    assert torch.equal(batch["video"], torch.stack([clip.content["video"] for clips in alone for clip in clips]))
    spans = [[clip.times[0], clip.times[-1]] for clips in alone for clip in clips]
    assert batch["span"].tolist() == spans


def test_key_frames_of_a_file_too(files):
    samples = key_frames(files, 0.5, 1.0, 2.5)
    for (ours,), sample in zip(ActorSample.cut_in_turn(samples, DATA), samples, strict=True):
        (theirs,) = sample.cut(DATA)
        assert ours.times == theirs.times and ours.content.keys() == theirs.content.keys()
        assert all(torch.equal(ours.content[key], theirs.content[key]) for key in theirs.content)
    batch, _ = EvaluationSet(samples, DATA, 1, 1)[range(3)]
    assert batch["is_actor"].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert (batch["boxes"][0, 1:] == 0).all()


def test_one_that_cannot_be_read_leaves_the_others(files, monkeypatch):
    samples = parts(files, (0.0, 1.0), (9.0, 10.0), (2.0, 3.0))
    paths = opens(monkeypatch)
    batch, report = EvaluationSet(samples, DATA, 1, 1)[range(3)]
    assert batch["index"].tolist() == [0, 2] and len(paths) == 4
    assert [(entry.name, entry.used) for entry in report.unreadable] == [("a [9.0-10.0]", False)]
    assert "9 s to 10 s was requested" in report.unreadable[0].reason


def test_what_is_damaged_is_read_alone(files, tmp_path):
    whole = (files / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2] + bytes(900) + whole[len(whole) // 2 + 900 :])
    samples = parts(tmp_path, (0.0, 1.0), (1.0, 2.0), (2.0, 3.5), (2.5, 4.0))
    together, alone = (EvaluationSet(samples, DATA, 1, 1) for _ in range(2))
    batch, report = together[range(4)]
    rows = [alone[[i]] for i in range(4)]
    assert torch.equal(batch["video"], torch.cat([row["video"] for row, _ in rows]))
    lines = [line for _, part in rows for line in part.unreadable]
    assert report.unreadable == lines and 0 < len(lines) < 4


def test_samples_are_read_alone_after_their_file_killed_a_worker(files, monkeypatch):
    samples = parts(files, (0.0, 1.0), (1.0, 2.0), (2.0, 3.0))
    videos, reading = EvaluationSet(samples, DATA, 1, 1), []

    class Noted:
        def at(self, index):
            reading.append(index)
            return nullcontext()

    videos.current = Noted()
    assert videos[range(3)][0]["index"].tolist() == [0, 1, 2] and reading == [0]
    videos.crashed(0)  # nobody knows which of the three it was
    reading.clear()
    assert videos[range(3)][0]["index"].tolist() == [0, 1, 2] and reading == [0, 1, 2]
    videos.crashed(1)
    batch, report = videos[range(3)]
    assert batch["index"].tolist() == [0, 2]
    assert [(entry.name, entry.reason) for entry in report.unreadable] == [(samples[1].name, CRASHED)]
