"""Bad files cost themselves and nothing else: they are replaced, counted and listed."""

import csv
import itertools
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_videos import VIDEOS, assert_same, encode, joined, loader, settings_of, take

from filmstrip.data.kinds import clips
from filmstrip.data.reading.dataset import EvaluationSet, Unreadable
from filmstrip.data.reading.loader import EvalLoader, TrainLoader, write_unreadable
from filmstrip.data.reading.order import permutation
from filmstrip.data.sources import open_path
from filmstrip.errors import UserError


def kill_over(name: str, monkeypatch) -> None:
    """Let one file crash the process that reads it, as a fault in a decoder would."""
    plain = clips.open_video

    def crash(path, **kwargs):
        if Path(path).name == name:
            time.sleep(0.5)  # let what was read before get to the main process
            os.kill(os.getpid(), signal.SIGSEGV)
        return plain(path, **kwargs)

    monkeypatch.setattr(clips, "open_video", crash)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_replaced_counted_and_listed(bad_root, workers):
    train = loader(bad_root, num_workers=workers)
    batches = take(train, 5)
    names = {entry.name: entry for entry in train.unreadable}
    assert names.keys() == {"train/run/3.mp4", "train/run/7.mp4"}
    assert not any(entry.used for entry in names.values())
    assert all(entry.reason for entry in names.values())
    seen = joined(batches)
    assert seen["video"].shape[0] == 20
    assert not set(seen["name"]) & names.keys()


def test_a_file_that_kills_its_worker_is_a_bad_file(root, tmp_path, monkeypatch):
    third = permutation(0, 0, VIDEOS)[9]  # read ahead for the third batch, while the main process is busy elsewhere
    path = Path(open_path(root).split("train")[third].path)
    name = path.relative_to(root).as_posix()
    shutil.copytree(root, tmp_path / "bad")
    (tmp_path / "bad" / name).write_bytes(b"")
    expected = take(loader(tmp_path / "bad"), 6)
    kill_over(path.name, monkeypatch)
    train = loader(root, num_workers=2)
    stream = train.stream(0)
    batches, end = [next(stream)], time.monotonic() + 30
    while len(multiprocessing.active_children()) == 2 and time.monotonic() < end:
        time.sleep(0.01)  # a DataLoader's own handler would raise here
    assert len(multiprocessing.active_children()) == 1
    assert_same(expected, batches + list(itertools.islice(stream, 5)))
    assert [(e.name, e.used) for e in train.unreadable] == [(name, False)]
    assert "the process that decoded it died" in train.unreadable[0].reason
    assert_same(expected[2:], take(train, 4, start=2))
    assert not multiprocessing.active_children()


def test_evaluation_leaves_out_what_killed_a_worker(root):
    videos = EvaluationSet(open_path(root).split("test"), settings_of(root), 1, 1)
    videos.crashed(1)
    batch, report = videos[range(3)]
    assert batch["index"].tolist() == [0, 2]
    assert [(e.name, e.used) for e in report.unreadable] == [("test/run/t1.mp4", False)]


def test_a_worker_that_dies_of_no_file_is_an_error(root):
    train = loader(root, num_workers=1)
    stream = train.stream(0)
    next(stream)
    time.sleep(0.5)  # it has read as far ahead as it does
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="died while it read no file"):
        list(itertools.islice(stream, 6))


def test_replacements_depend_on_the_position_alone(bad_root):
    whole = take(loader(bad_root), 8)
    assert_same(whole, take(loader(bad_root, num_workers=2), 8))
    assert_same(whole[5:], take(loader(bad_root), 3, start=5))
    healthy = [permutation(0, position // 10, 10)[position % 10] for position in range(32)]
    got = joined(whole)["index"].tolist()
    assert all(a == b for a, b in zip(healthy, got) if a not in (3, 7))


def test_too_many_bad_files_stop_with_the_list(bad_root):
    with pytest.raises(
        UserError, match=r"(?s)2 training files .*max_unreadable 0\.1\).*3\.mp4: .*7\.mp4: |7.*3"
    ) as e:
        take(loader(bad_root, max_unreadable=0.1), 10)
    assert "filmstrip data check" in str(e.value)
    assert len(take(loader(bad_root, max_unreadable=0.2), 10)) == 10


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_files(tmp_path, workers):
    for i in range(3):
        path = tmp_path / "train" / f"{i}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(UserError, match="could not be read"):
        take(loader(tmp_path, batch_size=1, max_unreadable=1.0, num_workers=workers), 1)


def test_a_missing_file_is_a_bad_file(tmp_path):
    for i in range(4):
        encode(tmp_path / "train" / "run" / f"{i}.mp4", 10)
    source = open_path(tmp_path)
    (tmp_path / "train/run/2.mp4").unlink()
    train = TrainLoader(source, settings_of(tmp_path), seed=0)
    take(train, 2)
    assert [entry.name for entry in train.unreadable] == ["train/run/2.mp4"]


def test_a_file_cut_short_is_used_and_listed(tmp_path):
    for i in range(4):
        encode(tmp_path / "train" / "run" / f"{i}.mkv", 10 * i, noise=100)
    path = tmp_path / "train/run/1.mkv"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    train = loader(tmp_path, max_unreadable=0.0)
    assert "train/run/1.mkv" in joined(take(train, 8))["name"]
    assert [(entry.name, entry.used) for entry in train.unreadable] == [("train/run/1.mkv", True)]
    assert train.unreadable[0].reason


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_leaves_bad_files_out(bad_root, workers):
    batches = EvalLoader(open_path(bad_root), settings_of(bad_root, num_workers=workers), "test", batch_size=1)
    for _ in range(2):
        assert [b["index"].item() for b in batches] == [0, 2]
        assert [(e.name, e.used) for e in batches.unreadable] == [("test/run/1.mp4", False)]


@pytest.mark.parametrize("workers", [0, 1])
def test_settings_that_cannot_be_met_are_no_bad_files(root, monkeypatch, workers):
    """One sentence for the person, not a list of every file."""

    def refuse(*args, **kwargs):
        raise UserError("the backend is not installed")

    monkeypatch.setattr(clips, "open_video", refuse)
    with pytest.raises(UserError, match=r"^the backend is not installed$"):
        take(loader(root, num_workers=workers), 1)
    with pytest.raises(UserError, match=r"^the backend is not installed$"):
        list(EvalLoader(open_path(root), settings_of(root, num_workers=workers), "test"))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_frames_are_used_and_counted_once(root, monkeypatch, workers):
    plain = clips.read_clips

    def damaged(*args, **kwargs):
        return [replace(clip, damaged=(True, *clip.damaged[1:])) for clip in plain(*args, **kwargs)]

    monkeypatch.setattr(clips, "read_clips", damaged)
    train = loader(root, num_workers=workers, max_unreadable=0.0)
    assert len(joined(take(train, 10))["name"]) == 40
    assert len(train.unreadable) == VIDEOS
    assert {(e.used, e.reason) for e in train.unreadable} == {(True, "1 of 4 frames read from it are damaged")}
    batches = EvalLoader(open_path(root), settings_of(root, num_workers=workers), "test")
    assert sum(len(b["name"]) for b in batches) == 3
    assert [e.used for e in batches.unreadable] == [True] * 3


def test_the_list_of_bad_files_grows(tmp_path):
    path = tmp_path / "unreadable.csv"
    write_unreadable(path, [Unreadable("a, b.mp4", "no\nvideo", False)])
    write_unreadable(path, [Unreadable("c.mp4", "2 of 4 frames are damaged", True)])
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"name": "a, b.mp4", "used": "no", "reason": "no\nvideo"},
            {"name": "c.mp4", "used": "yes", "reason": "2 of 4 frames are damaged"},
        ]
    assert list(tmp_path.iterdir()) == [path]
