"""Labels of a manifest that are several classes or numbers, and classes that are balanced in training."""

import csv
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colour_videos import CLIP, write_colours
from filmstrip.data.config import Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.labels import SeveralClasses, items_in
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.reading.order import Portion, Share
from filmstrip.data.sources import mixed, open_path, open_source
from filmstrip.errors import UserError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for i, colours in enumerate((["red"], ["red", "blue"], ["blue"], ["green"])):
        write_colours(folder / f"{i}.mp4", *colours)
    return folder


def manifest(folder, labels, name="list.csv"):
    path = folder / name
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label", "split"], *([f"{i}.mp4", x, "train"] for i, x in enumerate(labels))]
        )
    return path


def opened(path, labels):
    data = Data(path=path, reads=Clips(labels=labels), clip=CLIP, batch_size=4, num_workers=0)
    return open_source(data), data


@pytest.mark.parametrize(
    ("cell", "items"),
    [("a;b", ["a", "b"]), (" a ; ;b", ["a", "b"]), ('["a, b", "c"]', ["a, b", "c"]), ("[]", []), ("[x", ["[x"])],
)
def test_the_labels_of_a_cell(cell, items):
    assert items_in(cell) == items


def test_several_classes_of_each_video(videos):
    source, data = opened(manifest(videos, ["red", "red;blue", '["blue"]', "[]"]), "several")
    assert source.classes == ("blue", "red") and source.labels == "several"
    batch = next(TrainLoader(source, data, seed=0).stream(0))
    order = batch["index"].argsort()
    assert batch["label"][order].tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]
    assert batch["label"].dtype == torch.float32
    assert not list(source.kind.specification.faults(batch))
    info = source.info("train")
    assert (info.labels, info.class_counts, info.num_train) == ("several", (2, 2), 4)


def test_numbers_of_each_video(videos):
    source, data = opened(manifest(videos, ["1.5", "2", "-3", "0"]), "number")
    assert source.classes == ("label",) and source.info("train").number_means == pytest.approx((0.125,))
    batch = next(TrainLoader(source, data, seed=0).stream(0))
    assert batch["label"][batch["index"].argsort()].tolist() == [[1.5], [2.0], [-3.0], [0.0]]
    several, _ = opened(manifest(videos, ["1;5", "2;5", "[3, 5]", "4;5"], "several.csv"), "number")
    assert several.classes == ("label 1", "label 2") and several.info("train").number_stds[1] == 1.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", "fast", "2", "inf"], r"row 3: the label 'fast' should be a number.*\n.*row 5"),
        (["1;2", "1", "2;3", "3;4"], "row 3: the label '1' holds 1 numbers, not 2"),
    ],
)
def test_cells_that_hold_no_numbers_are_named(videos, labels, message):
    with pytest.raises(UserError, match=message):
        opened(manifest(videos, labels), "number")


@pytest.mark.parametrize(
    ("labels", "kind"), [(["a;b", "a", "b", "a"], "several"), (["0.5", "1", "2", "3"], "number")]
)
def test_what_looks_like_other_labels_is_said(videos, labels, kind, caplog):
    with caplog.at_level(logging.WARNING):
        opened(manifest(videos, labels, f"looks_{kind}.csv"), "class")
    assert f"--data.reads.labels {kind} reads them as such" in caplog.text


def test_only_manifests_have_other_labels(tmp_path, videos):
    write_colours(tmp_path / "folder" / "red" / "0.mp4", "red")
    with pytest.raises(UserError, match="is no manifest, and labels that are several classes each"):
        opened(tmp_path / "folder", "several")


def test_a_mixture_renumbers_classes(videos):
    tables = {"1.csv": ["b", "b;c", "c", "b"], "2.csv": ["a", "a;b", "a", "[]"]}
    paths = [manifest(videos, labels, name) for name, labels in tables.items()]
    sources = [replace(open_path(path, labels="several"), root=path) for path in paths]
    both = mixed(sources, [1, 1])
    assert both.classes == ("b", "c", "a")
    assert both.samples[5].target == SeveralClasses((0, 2), 3) and both.samples[7].target == SeveralClasses((), 3)


def share(classes, balance, *, rank=0, world=1, batch=12, accumulate=1):
    portion = Portion(len(classes), classes=np.array(classes), balance=balance)
    return Share(seed=3, portions=(portion,), batch_size=batch, rank=rank, world=world, accumulate=accumulate)


CLASSES = [0] * 90 + [1] * 9 + [2]


ROOTS = np.sqrt([90, 9, 1])


@pytest.mark.parametrize(("balance", "expected"), [(1.0, [1 / 3] * 3), (0.5, ROOTS / ROOTS.sum())])
def test_classes_are_read_in_the_shares_that_are_asked_for(balance, expected):
    stream = share(CLASSES, balance).micro_batches(0)
    draws = [draw for _ in range(250) for draw in next(stream)]
    counts = Counter(CLASSES[draw.index] for draw in draws)
    assert [counts[c] / len(draws) for c in range(3)] == pytest.approx(expected, abs=5e-3)
    epoch = draws[:100]
    of_first = [draw.index for draw in epoch if CLASSES[draw.index] == 0]
    assert len(set(of_first)) == len(of_first), "no video of a common class twice in a pass"
    picks = [(draw.epoch, draw.index) for draw in draws]
    assert len(set(picks)) == len(picks), "each time a video is read it has seeds of its own"


def test_without_a_common_class_balance_changes_nothing_but_the_order():
    stream = share([0, 1] * 6, 1.0).micro_batches(0)
    assert all(sorted(draw.index for draw in next(stream)) == list(range(12)) for _ in range(5))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 3), st.integers(1, 2), st.integers(0, 40),
    st.floats(0.1, 1.0),
)  # fmt: skip
def test_the_balanced_order_is_that_of_one_process_from_any_step_on(classes, world, accumulate, start, balance):
    whole = share(classes, balance).micro_batches(0)
    alone = [next(whole) for _ in range(start + 2)][start:]
    streams = [
        share(classes, balance, rank=rank, world=world, accumulate=accumulate).micro_batches(start)
        for rank in range(world)
    ]
    together = [[draw for _ in range(accumulate) for stream in streams for draw in next(stream)] for _ in range(2)]
    assert [list(draws) for draws in alone] == together


def test_what_cannot_be_balanced_is_refused(videos):
    source, data = opened(manifest(videos, ["a", "b", "", "a"]), "class")
    with pytest.raises(UserError, match=r"data\.balance is for videos of one class each, and 2\.mp4"):
        TrainLoader(source, replace(data, balance=1.0), seed=0)
    source, data = opened(manifest(videos, ["1", "2", "3", "4.5"]), "number")
    with pytest.raises(UserError, match=r"data\.balance is for videos of one class each"):
        TrainLoader(source, replace(data, balance=1.0), seed=0)
