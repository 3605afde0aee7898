"""Encoded videos are read as the videos are: the same order, seeds, labels and shares, whatever the workers."""

import itertools
from dataclasses import replace

import pytest
import torch

from filmstrip.data.actions import ActionSpace
from filmstrip.data.augment.pipeline import apply_augment
from filmstrip.data.config import Augment, Data
from filmstrip.data.features import FeatureWriter
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.kinds.encoded import Encoded, EncodedSource
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sample import Sample, Source
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.tools.check import check_collection
from filmstrip.errors import UserError
from filmstrip.protocols import Grid

GRID = Grid(2, 3, 1)
VIDEOS, CLIPS = 7, 4


def content(video: int, clip: int) -> torch.Tensor:
    """Ids that say which clip of which video they are."""
    return torch.full((6, 1), 10 * video + clip, dtype=torch.int16)


@pytest.fixture
def tokens(tmp_path):
    about = {"weights": "abc", "level": "ids", "codebook_size": "100", "classes": '["jump", "run"]'}
    with FeatureWriter(tmp_path / "tokens", about=about, shard_bytes=100) as writer:
        for i in range(VIDEOS):
            ids = torch.stack([content(i, clip) for clip in range(CLIPS)])
            spans = [(float(clip), clip + 0.5) for clip in range(CLIPS)]
            split = "test" if i == VIDEOS - 1 else "train"
            writer.add(f"v{i}", ids, grid=GRID, spans=spans, label=i % 2, split=split)
    return tmp_path / "tokens"


def take(source, count, *, start=0, rank=0, world=1, **changes):
    data = replace(Data(batch_size=4, num_workers=0), **changes)
    loader = TrainLoader(source, data, seed=3, rank=rank, world=world)
    batches = list(itertools.islice(loader.stream(start), count))
    loader.close()
    return batches


def test_a_folder_of_tokens_is_known_for_what_it_is(tokens):
    source = open_source(Data(path=tokens))
    assert isinstance(source, EncodedSource) and "tokens" in source.gives and "features" not in source.gives
    assert open_source(Data(path=tokens, reads=Encoded())).samples == source.samples
    info = source.info("train")
    assert (info.classes, info.num_train) == (("jump", "run"), VIDEOS - 1)
    assert (info.grid, info.codebook_size, info.width) == ((2, 3, 1), 100, 1)


def test_order_seeds_and_labels_are_those_of_the_videos(tokens):
    source = open_path(tokens)
    videos = Source(root=tokens, classes=source.classes, samples=tuple(
        Sample(path="", name=s.name, label=s.label, split=s.split) for s in source.samples
    ))  # fmt: skip
    loader = TrainLoader(videos, Data(batch_size=4, num_workers=0), seed=3)
    expected = [[d.index for d in draws] for draws in itertools.islice(loader._share.micro_batches(0), 5)]
    batches = take(source, 5)
    assert [batch["index"].tolist() for batch in batches] == expected
    for batch in batches:
        assert list(source.kind.specification.faults(batch)) == []
        assert batch.keys() == {"tokens", "label", "seed", "name", "index", "span"}
        assert batch["tokens"].dtype == torch.int64 and batch["tokens"].shape == (4, 6)
        assert (batch["tokens"][:, 0] // 10).tolist() == batch["index"].tolist()
        assert (batch["label"] == batch["index"] % 2).all()
        assert torch.equal(batch["tokens"][:, 0] % 10, batch["span"][:, 0].long())
    assert {t % 10 for b in batches for t in b["tokens"][:, 0].tolist()} == set(range(CLIPS)), "clips are drawn"


def test_resuming_sharing_and_workers_change_nothing(tokens):
    source = open_path(tokens)
    batches = take(source, 4)
    for key in ("tokens", "seed"):
        assert torch.equal(take(source, 1, start=3)[0][key], batches[3][key])
        halves = [take(source, 1, rank=rank, world=2)[0][key] for rank in range(2)]
        assert torch.equal(torch.cat(halves), batches[0][key])
        assert torch.equal(take(source, 2, num_workers=1)[1][key], batches[1][key])


def test_clips_in_a_row_make_one_sample(tokens):
    source = open_source(Data(path=tokens, reads=Encoded(length=3)))
    for batch in take(source, 3):
        assert list(source.kind.specification.faults(batch)) == []
        assert batch["tokens"].shape == (4, 3, 6)
        assert (batch["tokens"][:, :, 0].diff(dim=1) == 1).all()
        assert torch.equal(batch["span"], batch["tokens"][:, ::2, 0] % 10 + torch.tensor([0, 0.5]))
    with pytest.raises(UserError, match=f"holds {CLIPS} clips of v[0-9], but data.reads.length requires 5"):
        take(open_source(Data(path=tokens, reads=Encoded(length=5))), 1)


def test_evaluation_sees_clips_evenly_spaced(tokens):
    source = open_path(tokens)
    (batch,) = EvalLoader(source, Data(num_workers=0), "test", num_clips=2)
    assert batch["tokens"][:, 0].tolist() == [61, 63]
    with pytest.raises(UserError, match="have no crops"):
        list(EvalLoader(source, Data(num_workers=0), "test", num_crops=3))


def test_features_and_actions_come_along(tmp_path):
    about = {"level": "tokens", "actions": '{"num_actions": 3, "action_dim": 0, "names": ["a", "b", "c"]}'}
    with FeatureWriter(tmp_path, about=about, shard_bytes=200) as writer:
        for i in range(5):
            action = torch.arange(4).reshape(2, 2) % 3 + 0 * i
            writer.add(f"v{i}", torch.randn(2, 6, 5), grid=GRID, spans=[(0, 1), (1, 2)], action=action)
    source = open_path(tmp_path)
    assert source.actions == ActionSpace(num_actions=3, names=("a", "b", "c"))
    assert {sample.split for sample in source.samples} == {"train", "test"}, "held out as videos would be"
    (batch,) = take(source, 1)
    assert batch["features"].shape == (4, 6, 5) and batch["action"].shape == (4, 2)
    assert all(a in ([0, 1], [2, 0]) for a in batch["action"].tolist())
    assert list(source.kind.specification.faults(batch)) == []
    (pairs,) = take(open_source(Data(path=tmp_path, reads=Encoded(length=2))), 1)
    assert pairs["action"].tolist() == [[[0, 1], [2, 0]]] * 4
    assert list(source.kind.specification.faults(pairs)) == []
    without = open_source(Data(path=tmp_path, reads=Clips(actions=False)))
    assert "action" not in take(without, 1)[0]
    with pytest.raises(UserError, match="use a folder that `filmstrip encode` wrote"):
        open_source(Data(path=tmp_path / "no", reads=Encoded()))


def test_clips_without_their_actions_are_named(tmp_path):
    about = {"level": "tokens", "actions": '{"num_actions": 3, "action_dim": 0, "names": ["a", "b", "c"]}'}
    with FeatureWriter(tmp_path, about=about) as writer:
        writer.add("with", torch.zeros(1, 6, 5), grid=GRID, action=torch.zeros(1, 2, dtype=torch.int64))
        writer.flush()
        writer.add("without", torch.zeros(1, 6, 5), grid=GRID)
    source = open_path(tmp_path)
    known, unknown = source.samples
    (row,) = known.cut(Data(), actions=source.actions)
    assert row.content["action"].tolist() == [0, 0]
    with pytest.raises(UserError, match="no actions of without: encode it again"):
        unknown.cut(Data(), actions=source.actions)


def test_nothing_is_augmented_and_nothing_decoded(tokens):
    batch = take(open_path(tokens), 1)[0]
    assert apply_augment(batch, Augment(mirror=0.5, mixup=1.0), num_classes=2) is batch
    with pytest.raises(UserError, match="holds features of videos: provide the videos"):
        check_collection(tokens, workers=0)


def test_clips_on_several_grids_are_refused(tmp_path):
    with FeatureWriter(tmp_path, about={"level": "tokens"}) as writer:
        writer.add("a", torch.zeros(1, 6, 2), grid=GRID)
        writer.add("b", torch.zeros(1, 2, 2), grid=Grid(2, 1, 1))
    with pytest.raises(UserError, match="lie on 2"):
        open_path(tmp_path)
