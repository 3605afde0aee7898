"""Batches depend on the seed and the step alone, not on workers, processes, or where a stream began."""

import io
import json
import multiprocessing
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_videos import LENGTH, VIDEOS, assert_same, encode, joined, loader, settings_of, take

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds import clips
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.reading.order import Portion, Share, derive_seed, permutation
from filmstrip.data.sources import Source, open_path
from filmstrip.errors import UserError
from filmstrip.video.decode import open_video

REAL = Path(__file__).parents[2] / "../shared/data/actions"


def test_a_batch_holds_what_the_protocols_promise(root):
    batch = take(loader(root), 1)[0]
    assert batch.keys() == {"video", "label", "seed", "name", "index", "span"}
    assert batch["video"].shape == (4, 4, 3, 16, 16) and batch["video"].dtype == torch.uint8
    assert batch["label"].dtype == batch["seed"].dtype == batch["index"].dtype == torch.int64
    samples = open_path(root).split("train")
    assert batch["name"] == [samples[i].name for i in batch["index"]]
    assert batch["label"].tolist() == [samples[i].label for i in batch["index"]]
    assert len(set(batch["seed"].tolist())) == 4
    assert (batch["span"][:, 1] > batch["span"][:, 0]).all()


def test_pixels_are_those_of_the_sample(root):
    samples = open_path(root).split("train")
    for batch in take(loader(root), 3):
        for video, index in zip(batch["video"].float(), batch["index"]):
            level = 10 * int(Path(samples[index].path).stem)
            frames = (video.mean(dim=(1, 2, 3)) - level) / 8
            assert torch.allclose(frames, frames.round(), atol=0.35)
            assert torch.allclose(frames.diff(), torch.tensor(2.0), atol=0.5)


def test_shortcuts_are_for_training_alone(root):
    samples = open_path(root).split("train")
    with open_video(samples[0].path) as decoder:
        keys = set((decoder.key_times() * 25).round().tolist())
    assert 1 < len(keys) < LENGTH
    exact = Clip(num_frames=2, stride=1, size=16, short_side=(16, 20))
    fast = replace(exact, snap=True, key_starts=True)
    starts = [set((b["span"][:, 0] * 25).round().tolist()) for b in take(loader(root, clip=fast, batch_size=30), 1)]
    assert starts[0] == keys
    assert not set((joined(take(loader(root, clip=exact), 5))["span"][:, 0] * 25).round().tolist()) <= keys
    tests = [EvalLoader(open_path(root), settings_of(root, clip=c), "train", num_clips=3) for c in (fast, exact)]
    assert_same(*map(list, tests))


def test_without_labels_there_is_no_label(tmp_path):
    for i in range(2):
        encode(tmp_path / "train" / f"{i}.mp4", 10)
    assert "label" not in take(loader(tmp_path, batch_size=2), 1)[0]


def test_every_epoch_is_a_permutation_and_differs(root):
    train = loader(root, batch_size=5)
    assert train.steps_per_epoch == 2
    epochs = [joined(take(train, 2, start))["index"].tolist() for start in (0, 2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(VIDEOS))] * 2
    assert epochs[0] != epochs[1]


def test_clips_and_seeds_differ_between_epochs_and_runs(root):
    first, second = (joined(take(loader(root, batch_size=10), 1, start)) for start in (0, 1))
    other = joined(take(loader(root, seed=1, batch_size=10), 1))
    assert not set(first["seed"].tolist()) & set(second["seed"].tolist())
    assert not set(first["seed"].tolist()) & set(other["seed"].tolist())
    in_order = [batch["video"][batch["index"].argsort()] for batch in (first, second)]
    assert not torch.equal(*in_order)


def test_a_set_smaller_than_a_batch(root):
    batch = take(loader(root, batch_size=16), 1)[0]
    assert sorted(batch["index"].tolist()[:VIDEOS]) == list(range(VIDEOS))
    assert len(set(batch["seed"].tolist())) == 16


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(root, workers):
    assert_same(take(loader(root), 6), take(loader(root, num_workers=workers), 6))


def test_loading_leaves_the_global_generator_alone(root):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    take(loader(root), 2)
    take(loader(root, num_workers=2), 2)
    list(EvalLoader(open_path(root), settings_of(root), "test"))
    assert torch.equal(torch.rand(1), expected)


def test_resuming_gives_the_batches_that_would_have_come(root):
    whole = take(loader(root), 7)
    assert_same(whole[4:], take(loader(root), 3, start=4))
    again = loader(root, num_workers=2)
    take(again, 2)
    assert_same(whole[4:], take(again, 3, start=4))


def test_resuming_does_not_read_what_was_skipped(root, monkeypatch):
    opened = []
    plain = clips.open_video
    monkeypatch.setattr(clips, "open_video", lambda *a, **k: opened.append(a) or plain(*a, **k))
    take(loader(root), 1, start=1000)
    assert len(opened) == 4


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1)])
@pytest.mark.parametrize("clips_per_video", [1, 2])
def test_processes_and_accumulation_share_one_stream(root, world, accumulate, clips_per_video):
    whole = take(loader(root, batch_size=8, clips_per_video=clips_per_video), 3)
    parts = [
        take(loader(root, 0, rank, world, accumulate, batch_size=8, clips_per_video=clips_per_video), 3 * accumulate)
        for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        micro = [parts[rank][step * accumulate + a] for a in range(accumulate) for rank in range(world)]
        assert_same([batch], [joined(micro)])


def test_several_clips_of_one_decode_stay_together(root):
    train = loader(root, batch_size=6, clips_per_video=3)
    assert train.steps_per_epoch == 5
    batch = take(train, 1)[0]
    assert batch["index"].tolist() == [i for i in batch["index"].tolist()[::3] for _ in range(3)]
    assert len(set(batch["seed"].tolist())) == 6
    starts = batch["video"][:, 0].float().mean(dim=(1, 2, 3))
    assert len(set(starts.round().tolist())) > 2


@pytest.mark.parametrize(
    "changes", [{"world": 3}, {"accumulate": 3}, {"clips_per_video": 3}, {"world": 2, "clips_per_video": 4}]
)
def test_batches_that_do_not_divide_are_refused(root, changes):
    with pytest.raises(UserError, match=r"batch_size 4 does not divide .* make it a multiple of"):
        loader(root, **changes)


def test_seeds_and_orders_are_those_of_earlier_versions():
    """Otherwise no earlier run could be resumed or repeated."""
    assert derive_seed(0, 1, 2, 3) == 7019356480472336628
    assert permutation(0, 1, 8).tolist() == [7, 3, 4, 6, 2, 1, 0, 5]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 30), st.integers(0, 9)
)
def test_the_order_is_one_endless_stream(n, micro, world, accumulate, start, seed):
    shares = [
        Share(
            seed=seed,
            portions=(Portion(n),),
            batch_size=micro * world * accumulate,
            rank=rank,
            world=world,
            accumulate=accumulate,
        )
        for rank in range(world)
    ]
    streams = [share.micro_batches(start) for share in shares]
    draws = [draw for _ in range(2 * accumulate) for stream in streams for draw in next(stream)]
    first = start * micro * world * accumulate
    assert [d.position for d in draws] == list(range(first, first + len(draws)))
    assert all(d.epoch == d.position // n for d in draws)
    assert all(d.index == permutation(seed, d.epoch, n)[d.position % n] for d in draws)


def test_shards_give_the_same_clips_as_files(root, tmp_path):
    files = open_path(root)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for i, sample in enumerate(files.samples):
            notes = json.dumps({"split": sample.split, "label": files.classes[sample.label]}).encode()
            info = tarfile.TarInfo(f"{i:04}.json")
            info.size = len(notes)
            tar.addfile(info, io.BytesIO(notes))
            tar.add(sample.path, arcname=f"{i:04}.mp4")
    shards = open_path(tmp_path / "all.tar")
    data = settings_of(root, num_workers=1)
    for one, other in zip(take(TrainLoader(files, data, seed=0), 4), take(TrainLoader(shards, data, seed=0), 4)):
        assert_same([{**one, "name": []}], [{**other, "name": []}])


def test_clips_stay_within_their_part_of_the_video(root, tmp_path):
    lines = [f"{s.path},0.2,0.36,train" for s in open_path(root).split("train")]
    manifest = tmp_path / "parts.csv"
    manifest.write_text("path,start,end,split\n" + "\n".join(lines))
    source = open_path(manifest)
    clip = Clip(num_frames=2, stride=1, size=16, short_side=(16, 20))
    data = settings_of(manifest, clip=clip)
    spans = joined(take(TrainLoader(source, data, seed=0), 5))["span"]
    tested = joined(list(EvalLoader(source, data, "train", num_clips=3)))["span"]
    for span in (spans, tested):
        assert span.min() >= 0.2 - 1e-6 and span.max() < 0.36
    assert len(set(spans[:, 0].tolist())) > 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the real videos are not at ../shared/data/actions")
def test_real_action_videos():
    data = settings_of(REAL, clip=Clip(num_frames=8, stride=2, size=112, short_side=(112, 144)), batch_size=12)
    train = TrainLoader(open_path(REAL), data, seed=0)
    whole = joined(take(train, 5))
    assert whole["video"].shape == (60, 8, 3, 112, 112)
    assert len(set(whole["name"])) == 60
    assert whole["label"].bincount().tolist() == [6] * 10
    assert not train.unreadable


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_reads_every_view_once(root, workers):
    data = settings_of(root, num_workers=workers)
    source = open_path(root)
    whole = joined(list(EvalLoader(source, data, "test", num_clips=2, num_crops=3, batch_size=100)))
    assert whole["index"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert whole["label"].tolist() == [source.classes.index("run")] * 18
    assert len(set(whole["seed"].tolist())) == 18
    for size in (1, 4, 7, 12):
        batches = list(EvalLoader(source, data, "test", num_clips=2, num_crops=3, batch_size=size))
        assert max(len(b["name"]) for b in batches) <= size
        assert_same([whole], [joined(batches)])


def test_workers_end_with_the_stream(root):
    train = loader(root, num_workers=2)
    stream = train.stream(0)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    train.close()
    assert not multiprocessing.active_children()
    with pytest.raises(StopIteration):
        next(stream)


def test_an_empty_training_split_is_refused():
    with pytest.raises(UserError, match="no split 'train'"):
        TrainLoader(Source(root=Path("x"), classes=(), samples=()), Data(), seed=0)
