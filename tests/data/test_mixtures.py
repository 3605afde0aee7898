"""Mixtures: several sources in fixed ratios, the same whatever the processes, the workers and where a run resumes."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_videos import assert_same, encode, joined, settings_of, take

from filmstrip.commands.arguments import _with_data, run_from
from filmstrip.commands.train import Train
from filmstrip.data.config import Data
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.reading.order import Portion, Share, permutation, shared_out
from filmstrip.data.sources import Source, mixed, open_path, open_source
from filmstrip.errors import UserError
from filmstrip.measure.complexity import try_out
from filmstrip.systems import find

NAMES = ("web", "cooking", "photos")
WEIGHTS = (60.0, 15.0, 25.0)
LEVELS = {"web": 0, "cooking": 80, "photos": 160}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[Path, ...]:
    """Two folders of videos and one of 20 images, whose pixels tell which is which."""
    root = tmp_path_factory.mktemp("sources")
    for name, classes in (("web", ("run", "jump")), ("cooking", ("stir", "run"))):
        for i in range(6):
            encode(root / name / "train" / classes[i % 2] / f"{i}.mp4", LEVELS[name] + i)
        encode(root / name / "test" / classes[0] / "t.mp4", LEVELS[name])
    for i in range(20):
        path = root / "photos" / ("test" if i > 15 else "train") / "cat" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 32, 3), LEVELS["photos"] + 2 * i, np.uint8)).save(path)
    return tuple(root / name for name in NAMES)


def data_of(sources, weights=WEIGHTS, images="still", **changes) -> Data:
    some = {"path": None, "mixture": sources, "weights": weights, "batch_size": 20, "reads": Clips(images=images)}
    return settings_of(sources[0], **some | changes)


def loader(sources, rank=0, world=1, accumulate=1, seed=0, **changes) -> TrainLoader:
    data = data_of(sources, **changes)
    return TrainLoader(open_source(data), data, seed=seed, rank=rank, world=world, accumulate=accumulate)


def origins(batch) -> list[str]:
    return [next(part for part in Path(name).parts if part in NAMES) for name in batch["name"]]


WEIGHT = st.one_of(st.integers(1, 100).map(float), st.floats(1e-3, 1e3))


@settings(max_examples=60, deadline=None)
@given(st.lists(WEIGHT, min_size=1, max_size=5), st.integers(0, 500))
def test_sources_are_shared_out_evenly_from_any_start(weights, start):
    order = list(itertools.islice(shared_out(weights, 0), start + 40))
    assert list(itertools.islice(shared_out(weights, start), 40)) == order[start:]
    had = [0] * len(weights)
    for position, (source, before) in enumerate(order, start=1):
        assert before == had[source]
        had[source] += 1
        for count, weight in zip(had, weights):
            assert abs(count - weight / sum(weights) * position) < len(weights)


def test_positions_of_a_long_run_are_found_at_once():
    far = 10**9
    expected = [next(shared_out((20, 10, 10, 60), start))[0] for start in range(far, far + 10)]
    assert [source for source, _ in itertools.islice(shared_out((20, 10, 10, 60), far), 10)] == expected
    assert Counter(expected) == {0: 2, 1: 1, 2: 1, 3: 6}


def test_ratios_over_ten_thousand_samples():
    portions = tuple(Portion(n, w) for n, w in ((900, 20.0), (31, 10.0), (7, 10.0), (5000, 60.0)))
    batches = Share(seed=0, portions=portions, batch_size=250).micro_batches(3)
    found = Counter(draw.source for _ in range(40) for draw in next(batches))
    assert [found[i] for i in range(4)] == [2000, 1000, 1000, 6000]


def test_each_source_keeps_its_own_order_and_epochs():
    portions = (Portion(7, 1.0), Portion(5, 2.5))
    batches = Share(seed=4, portions=portions, batch_size=14).micro_batches(0)
    draws = [draw for _ in range(4) for draw in next(batches)]
    for number, (first, n) in enumerate(((0, 7), (7, 5))):
        own = [(draw.epoch, draw.index - first) for draw in draws if draw.source == number]
        assert len(own) > 2 * n
        assert [epoch for epoch, _ in own] == [i // n for i in range(len(own))]
        for epoch in range(len(own) // n):
            assert sorted(index for _, index in own[epoch * n : (epoch + 1) * n]) == list(range(n))
    alone = [draw.index for draw in draws if draw.source == 0]
    assert alone[:7] == permutation(4, 0, 7).tolist()


def test_batches_hold_the_ratio(sources):
    for batch in take(loader(sources), 3):
        assert Counter(origins(batch)) == {"web": 12, "cooking": 3, "photos": 5}
        levels = batch["video"].float().mean(dim=(1, 2, 3, 4))
        for level, origin in zip(levels.tolist(), origins(batch)):
            assert LEVELS[origin] - 2 <= level < LEVELS[origin] + 80


def test_classes_are_joined_by_name(sources):
    source = open_source(data_of(sources))
    assert source.classes == ("jump", "run", "stir", "cat")
    assert all(source.classes[s.label] == Path(s.path).parent.name for s in source.samples)
    assert source.info("train").num_train == 6 + 6 + 16
    for batch in take(loader(sources), 1):
        assert batch["label"].tolist() == [source.classes.index(Path(n).parent.name) for n in batch["name"]]


@pytest.mark.parametrize("images", ["still", "sequence"])
@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_processes_share_one_stream(sources, world, accumulate, images):
    whole = take(loader(sources, images=images), 2)
    parts = [take(loader(sources, rank, world, accumulate, images=images), 2 * accumulate) for rank in range(world)]
    for step, batch in enumerate(whole):
        micro = [parts[rank][step * accumulate + a] for a in range(accumulate) for rank in range(world)]
        assert_same([batch], [joined(micro)])


@pytest.mark.parametrize("images", ["still", "sequence"])
def test_resuming_and_workers_change_nothing(sources, images):
    whole = take(loader(sources, images=images), 6)
    assert_same(whole[4:], take(loader(sources, images=images), 2, start=4))
    assert_same(whole[3:], take(loader(sources, images=images, num_workers=2), 3, start=3))


def test_images_come_as_sequences_of_unrelated_ones(sources):
    seen = Counter()
    for batch in take(loader(sources, images="sequence", weights=(1.0, 1.0, 2.0)), 4):
        assert batch["video"].shape == (20, 4, 3, 16, 16) and "label" not in batch
        assert not list(Clips.specification.faults(batch))
        assert batch["images"].tolist() == [origin == "photos" for origin in origins(batch)]
        assert batch["images"].sum() == 10
        rows = batch["video"][batch["images"]].float().mean(dim=(2, 3, 4))
        numbers = (rows - LEVELS["photos"]).div(2).round().int()
        assert all(len(set(row)) == 4 for row in numbers.tolist())
        seen.update(numbers.flatten().tolist())
    assert set(seen) == set(range(16))
    assert set(seen.values()) == {10}  # 160 images, ten passes over 16
    assert all(name.endswith(" and 3 others") == ("photos" in name) for name in batch["name"])


def test_an_epoch_counts_sequences(sources):
    assert loader(sources).steps_per_epoch == pytest.approx((6 + 6 + 16) / 20)
    assert loader(sources, images="sequence").steps_per_epoch == pytest.approx((6 + 6 + 4) / 20)
    one = settings_of(sources[2], reads=Clips(images="sequence"), batch_size=4)
    train = TrainLoader(open_source(one), one, seed=0)
    (batch,) = take(train, 1)
    levels = (batch["video"].float().mean(dim=(2, 3, 4)) - LEVELS["photos"]).div(2).round().int().flatten()
    assert train.steps_per_epoch == 1 and sorted(levels.tolist()) == list(range(16))


def test_several_clips_of_a_sequence_show_the_same_images(sources):
    (batch,) = take(loader(sources, images="sequence", clips_per_video=2), 1)
    rows = batch["video"][batch["images"]].float().mean(dim=(2, 3, 4)).unflatten(0, (-1, 2))
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert len(set(batch["seed"].tolist())) == 20


def test_one_image_or_video_a_clip_stays_what_it_is(sources):
    data = data_of(sources, images="sequence")
    one = replace(data, clip=replace(data.clip, num_frames=1))
    (batch,) = take(TrainLoader(open_source(one), one, seed=0), 1)
    assert batch["video"].shape[1] == 1
    assert batch["images"].tolist() == [origin == "photos" for origin in origins(batch)]


def test_evaluation_reads_all_sources_one_after_another(sources):
    data = data_of(sources, images="sequence")
    whole = joined(list(EvalLoader(open_source(data), data, "test")))
    assert origins(whole) == ["web", "cooking"] + ["photos"] * 4
    assert whole["video"].shape[1] == 4 and not whole["images"].any()  # images that stand still


def test_bad_files_give_way_to_others_of_their_source(sources, tmp_path):
    bad = tmp_path / "photos"
    for i in range(8):
        path = bad / "train" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 32, 3), LEVELS["photos"] + 2 * i, np.uint8)).save(path)
    (bad / "train/2.png").write_bytes(b"")
    (bad / "train/5.png").write_text("no image")
    train = loader((sources[0], bad), weights=(1.0, 1.0), images="sequence")
    for batch in take(train, 3):
        assert Counter(origins(batch)) == {"web": 10, "photos": 10}
        levels = (batch["video"][batch["images"]].float().mean(dim=(2, 3, 4)) - LEVELS["photos"]).div(2).round()
        assert set(levels.flatten().tolist()) <= {0, 1, 3, 4, 6, 7}
    assert {Path(entry.name).name for entry in train.unreadable} == {"2.png", "5.png"}


def refused(match, sources, monkeypatch, **changes):
    def decoded(*_, **__):
        raise AssertionError("something was decoded")

    monkeypatch.setattr(clips, "open_video", decoded)
    with pytest.raises(UserError, match=match):
        loader(sources, **changes)


def test_sources_that_do_not_go_together_are_refused(sources, tmp_path, monkeypatch):
    refused("needs a weight for each of its 3 sources, and there are none", sources, monkeypatch, weights=())
    refused(r"there are 2 weights \(20 80\)", sources, monkeypatch, weights=(20.0, 80.0))
    refused("cooking is 0: expected a number above 0", sources, monkeypatch, weights=(1.0, 0.0, 1.0))
    refused("web is -1: expected", sources, monkeypatch, weights=(-1.0, 1.0, 1.0))
    refused("web is in the mixture twice", (sources[0], sources[0]), monkeypatch, weights=(1.0, 1.0))
    refused("both name data", sources, monkeypatch, path=sources[0])
    (tmp_path / "empty").mkdir()
    refused("empty holds no videos", (sources[0], tmp_path / "empty"), monkeypatch, weights=(1.0, 1.0))
    only_test = tmp_path / "only_test" / "test" / "run" / "a.mp4"
    only_test.parent.mkdir(parents=True)
    only_test.write_bytes(b"")
    refused(
        "a source of the mixture, has no split 'train'",
        (sources[0], only_test.parents[2]),
        monkeypatch,
        weights=(1.0, 1.0),
    )


def test_kinds_that_do_not_mix_are_refused():
    class Windows(Source):
        kind = Procedures

    windows = [Windows(root=Path(name), classes=(), samples=()) for name in "ab"]
    with pytest.raises(UserError, match="a holds Procedures, of which there are no mixtures"):
        mixed(windows, (1.0, 1.0))
    with pytest.raises(UserError, match=r"c and a differ in kind \(Source, Windows\)"):
        mixed([Source(root=Path("c"), classes=(), samples=()), windows[0]], (1.0, 1.0))


def test_images_beside_videos_in_one_manifest_are_no_sequence(sources, tmp_path):
    table = tmp_path / "both.csv"
    files = [s.path for root in (sources[0], sources[2]) for s in open_path(root).samples]
    table.write_text("path,split\n" + "".join(f"{path},train\n" for path in files))
    data = settings_of(table, reads=Clips(images="sequence"))
    with pytest.raises(UserError, match="holds images and videos"):
        TrainLoader(open_source(data), data, seed=0)
    data = settings_of(table)
    assert TrainLoader(open_source(data), data, seed=0).steps_per_epoch == 27 / 4


def test_several_paths_on_the_command_line_are_a_mixture(sources):
    assert _with_data(["--data", "a", "--seed", "1"]) == ["--data.path", "a", "--seed", "1"]
    assert _with_data(["--data=a"]) == ["--data.path=a"]
    words = ["pretraining.toto:tiny", "--data", *map(str, sources), "--data.weights", "60", "15", "25"]
    run, _ = run_from(Train, [*words, "--data.reads.images", "sequence"], "filmstrip train")
    assert (run.data.mixture, run.data.weights, run.data.path) == (sources, WEIGHTS, None)
    assert run.data.reads.images == "sequence"
    with pytest.raises(UserError, match=r"data\.weights\[1\] is 0: expected a number above 0"):
        run_from(Train, [*words[:-2], "0", "25"], "filmstrip train")


def test_a_network_is_tried_with_what_batches_hold():
    run = find("pretraining.toto:tiny")
    try_out(replace(run, data=replace(run.data, reads=Clips(images="sequence"))))
