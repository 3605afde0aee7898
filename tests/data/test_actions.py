"""Actions beside videos reach the batches: the rows of the frames shown, or a clear word on what is wrong."""

import json
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from collections_on_disk import write_uneven

from filmstrip.data.actions import ActionSpace, Sidecar, clip_actions
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.tools.check import check_collection
from filmstrip.errors import UserError
from filmstrip.video.decoder import DecodeError
from filmstrip.video.write import write_video

FRAMES, LEVEL = 20, 10
CLIP = Clip(num_frames=5, stride=1, size=16, short_side=(16, 16))


def numbered(count: int = FRAMES) -> torch.Tensor:
    """Grey frames whose brightness tells their number: ``T 3 16 16`` uint8."""
    return (torch.arange(count) * LEVEL + 20).to(torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16)


def numbers(video: torch.Tensor) -> torch.Tensor:
    """The numbers of frames ``... C H W``."""
    return ((video.float().mean(dim=(-3, -2, -1)) - 20) / LEVEL).round().long()


def write_set(root: Path, actions: np.ndarray, *, count: int = 4, name: str = ".actions.npy") -> Path:
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for k in range(count):
            write_video(root / split / f"{k}.mp4", numbered(), 10, crf=1, preset="ultrafast")
            np.save(root / split / f"{k}{name}", actions)
    return root


@pytest.fixture
def discrete(tmp_path):
    return write_set(tmp_path / "set", np.arange(FRAMES) % 7)


@pytest.fixture
def vectors(tmp_path):
    return write_set(tmp_path / "set", np.stack([np.arange(FRAMES), np.ones(FRAMES)], axis=1).astype(np.float64))


def data(clip: Clip = CLIP, **options) -> Data:
    return Data(clip=clip, num_workers=0, **{"batch_size": 4, **options})


def first_batch(root: Path, data: Data):
    source = open_source(replace(data, path=root))
    batch = next(TrainLoader(source, data, seed=1).stream(0))
    assert batch.keys() == source.gives - {"label"} and list(source.kind.specification.faults(batch)) == []
    return batch


def test_rows_are_those_of_the_frames_shown(discrete):
    source = open_path(discrete)
    info = source.info("train")
    assert (info.num_actions, info.action_dim) == (7, 0)
    assert source.directional and "action" in source.gives
    batch = first_batch(discrete, data(clips_per_video=2))
    assert batch["action"].dtype == torch.int64 and batch["action"].shape == (4, 5)
    assert torch.equal(batch["action"], numbers(batch["video"]) % 7)
    assert len({tuple(row) for row in batch["action"].tolist()}) > 1


def test_evaluation_gives_every_view_its_actions(discrete):
    batch = next(iter(EvalLoader(open_path(discrete), data(), "test", num_clips=2, num_crops=3)))
    assert batch["action"].shape == (12, 5)
    assert torch.equal(batch["action"], numbers(batch["video"]) % 7)


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_continuous_actions_add_up_over_frames_left_out(vectors, sampling):
    clip = replace(CLIP, num_frames=4, stride=3, sampling=sampling)
    info = open_path(vectors).info("train")
    assert (info.num_actions, info.action_dim) == (0, 2)
    batch = first_batch(vectors, data(clip))
    assert batch["action"].dtype == torch.float32 and batch["action"].shape == (4, 4, 2)
    shown = numbers(batch["video"])
    gap = shown.diff(dim=1)
    assert (gap > 1).any()
    assert torch.equal(batch["action"][:, 1:, 1], gap.float())
    sums = [[sum(range(a + 1, b + 1)) for a, b in pairwise(row)] for row in shown.tolist()]
    assert batch["action"][:, 1:, 0].tolist() == sums


def test_before_the_first_frame_counts_what_a_step_of_the_clip_takes(vectors):
    clip = replace(CLIP, num_frames=3, stride=3)
    batch = first_batch(vectors, data(clip, clips_per_video=4))
    first = numbers(batch["video"])[:, 0]
    assert torch.equal(batch["action"][:, 0, 1], (first + 1).clamp(max=3).float())


def test_frames_shown_again_took_nothing(vectors):
    batch = first_batch(vectors, data(replace(CLIP, num_frames=FRAMES + 4)))
    assert batch["action"][:, :FRAMES, 1].eq(1).all() and batch["action"][:, FRAMES:].eq(0).all()


def test_discrete_actions_refuse_frames_left_out(discrete):
    for wrong in ({"stride": 2}, {"sampling": "uniform"}, {"snap": True}):
        with pytest.raises(UserError, match=r"cannot be summed.*--data\.clip\.stride 1"):
            first_batch(discrete, data(replace(CLIP, **wrong)))
    batch = first_batch(discrete, data(replace(CLIP, stride=2), reads=Clips(actions=False)))
    assert "action" not in batch
    source = open_source(data(path=discrete, reads=Clips(actions=False)))
    assert source.info("train").num_actions == 0 and "action" not in source.gives


def test_discrete_actions_need_videos_as_long_as_a_clip(discrete):
    with pytest.raises(UserError, match=r"too short for a clip \(20 frames, 21 requested\)"):
        first_batch(discrete, data(replace(CLIP, num_frames=FRAMES + 1)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: np.save(p, np.arange(12)), "0.actions.npy have 12 rows, but it has 20 frames"),
        (lambda p: p.write_bytes(b"no array"), "0.actions.npy cannot be used"),
        (lambda p: p.write_bytes(b""), "0.actions.npy cannot be used"),
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "0.actions.npy cannot be used"),
        (lambda p: np.save(p, np.array([{}] * FRAMES), allow_pickle=True), "0.actions.npy cannot be used: .*pickle"),
        (lambda p: np.save(p, np.zeros((FRAMES, 2))), "hold rows of 2 numbers; the collection has actions 0 to 6"),
        (lambda p: np.save(p, np.arange(FRAMES) - 1), "count from 0, and there is -1"),
        (lambda p: np.save(p, np.zeros((FRAMES, 2, 2))), r"of shape \(20, 2, 2\)"),
        (lambda p: p.unlink(), "has no actions, but other videos"),
    ],
)
def test_a_bad_sidecar_is_a_bad_file(discrete, spoil, reason):
    (discrete / "dataset.json").write_text('{"actions": 7}')
    spoil(discrete / "test/0.actions.npy")
    loader = EvalLoader(open_path(discrete), data(), "test")
    assert sum(len(batch["action"]) for batch in loader) == 3
    assert [entry.name for entry in loader.unreadable] == ["test/0.mp4"]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(loader.unreadable[0].reason)


def test_numbers_out_of_range_and_not_finite(discrete, tmp_path):
    (discrete / "dataset.json").write_text('{"actions": ["left", "right", "wait", "up", "down", "jump"]}')
    source = open_path(discrete)
    assert source.info("train").action_names[1] == "right"
    with pytest.raises(UserError, match="hold actions up to 6; the collection has actions 0 to 5"):
        first_batch(discrete, data())
    np.save(tmp_path / "a.npy", np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="infinite or not a number"):
        Sidecar(str(tmp_path / "a.npy")).read()


def test_notes_that_make_no_sense(discrete):
    for wrong in ({"actions": []}, {"actions": 0}, {"actions": "left"}, {"action_dim": "2"}, {"actions": True}):
        (discrete / "dataset.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r'dataset.json: "actions" is a list'):
            open_path(discrete)


def test_a_collection_has_one_kind_of_actions(discrete):
    np.save(discrete / "train/2.actions.npy", np.zeros((FRAMES, 2)))
    with pytest.raises(UserError, match="some videos of the collection have discrete actions, others vectors"):
        open_path(discrete)


def test_manifest_names_sidecars_of_either_kind(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(), 10, crf=1)
    np.savez(tmp_path / "done.npz", actions=np.arange(FRAMES), reward=np.zeros(3))
    (tmp_path / "manifest.csv").write_text("path,actions,split,start,end\na.mp4,done.npz,train,0.5,1.5\n")
    batch = first_batch(tmp_path, data())
    assert torch.equal(batch["action"], numbers(batch["video"]))
    assert batch["action"].min() >= 5 and batch["action"].max() < 15
    np.savez(tmp_path / "done.npz", action=np.arange(FRAMES))
    with pytest.raises(UserError, match="has no array 'actions', but 'action'"):
        first_batch(tmp_path, data())


def test_shards_hold_sidecars(discrete, tmp_path):
    with tarfile.open(tmp_path / "train-000.tar", "w") as tar:
        for path in sorted((discrete / "train").iterdir()):
            tar.add(path, path.name)
    source = open_path(tmp_path / "train-000.tar")
    assert source.info("train").num_actions == 7
    batch = first_batch(tmp_path / "train-000.tar", data())
    assert torch.equal(batch["action"], numbers(batch["video"]) % 7)


def test_frames_at_uneven_times_get_their_own_rows(tmp_path):
    times = np.cumsum(np.array([0.0] + [0.1, 0.3] * 10))[:FRAMES]
    write_uneven(tmp_path / "a.mp4", numbered().clone(), times)
    np.save(tmp_path / "a.actions.npy", np.arange(FRAMES)[:, None] * 1.0)
    batch = first_batch(tmp_path, data(replace(CLIP, num_frames=8, stride=2, sampling="uniform"), batch_size=1))
    shown = numbers(batch["video"])[0].tolist()
    assert batch["action"][0, 1:, 0].tolist() == [sum(range(a + 1, b + 1)) for a, b in pairwise(shown)]
    (tmp_path / "a.actions.npy").unlink()
    np.save(tmp_path / "a.actions.npy", np.arange(FRAMES))
    with pytest.raises(UserError, match=r"has unevenly spaced frames|too short"):
        first_batch(tmp_path, data(replace(CLIP, num_frames=12)))


def test_more_rows_than_frames_only_where_the_file_ends_early():
    space, times = ActionSpace(action_dim=1), np.arange(3) / 10

    class Five(Sidecar):
        def read(self):
            return np.ones((5, 1), np.float32)

    done = clip_actions(Five("x"), space, path="v", frame_times=times, shown=[times], truncated=True)
    assert done[0].shape == (3, 1)
    with pytest.raises(DecodeError, match="5 rows, but it has 3 frames"):
        clip_actions(Five("x"), space, path="v", frame_times=times, shown=[times])


def test_checking_a_collection_finds_bad_sidecars(discrete):
    np.save(discrete / "train/1.actions.npy", np.arange(3))
    (discrete / "test/3.actions.npy").unlink()
    report = check_collection(discrete, workers=1)
    assert [(file.name, file.error[:30]) for file in report.bad] == [
        ("test/3.mp4", "it has no actions, but other v"),
        ("train/1.mp4", "its actions 1.actions.npy have"),
    ]
