"""Features come back as they were written, also after an interruption."""

import pyarrow.parquet as pq
import pytest
import torch

from filmstrip.data.features import FeatureSource, FeatureWriter
from filmstrip.errors import UserError
from filmstrip.protocols import Grid

ABOUT = {"encoder": "tiny", "layer": "last"}


def tokens(seed: int, clips: int = 2, n: int = 12, width: int = 5) -> torch.Tensor:
    return torch.randn(clips, n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trip_over_several_shards(tmp_path, dtype):
    given = {f"video {i}": tokens(i).to(dtype) for i in range(6)}
    with FeatureWriter(tmp_path, about=ABOUT, shard_bytes=given["video 0"].nbytes * 2) as writer:
        for i, (name, features) in enumerate(given.items()):
            spans = ((0.0, 1.5), (1.5, 3.0))
            writer.add(name, features, grid=Grid(3, 2, 2), spans=spans, label=i % 2, split="train" if i else "test")
    source = FeatureSource(tmp_path)
    assert len(source) == 12
    assert len({row.shard for row in source.rows}) == 3
    assert source.about == ABOUT
    for i, row in enumerate(source.rows):
        clip = i % 2
        assert torch.equal(source[i], given[row.name][clip])
        assert source[i].dtype == dtype
        assert (row.start, row.end, row.grid) == (1.5 * clip, 1.5 * clip + 1.5, Grid(3, 2, 2))
    assert source.split("test") == (0, 1)
    assert [source.rows[i].label for i in source.split("train")] == [1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    assert torch.equal(source.read([11, 0]), torch.stack([given["video 5"][1], given["video 0"][0]]))
    assert not list(tmp_path.glob("*.partial"))
    table = pq.read_table(tmp_path / "index.parquet")
    assert {"name", "label", "split", "start", "end", "shard", "offset", "n", "t", "h", "w", "lengths"} == set(
        table.column_names
    )


def test_videos_of_different_lengths(tmp_path):
    with FeatureWriter(tmp_path, about=ABOUT) as writer:
        for t in (1, 4, 2):
            writer.add(f"{t}", tokens(t, clips=1, n=t), grid=Grid(t, 1, 1), spans=((None, None),))
    source = FeatureSource(tmp_path)
    assert [source[i].shape[0] for i in range(3)] == [1, 4, 2]
    assert torch.equal(source[2], tokens(2, clips=1, n=2)[0])


def test_an_exception_keeps_what_was_added_and_writing_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, about=ABOUT) as writer:
        writer.add("a", tokens(0, 1, 1))
        raise KeyboardInterrupt
    with FeatureWriter(tmp_path, about=ABOUT) as writer:
        assert "a" in writer and "b" not in writer
        writer.add("b", tokens(1, 1, 1))
        assert "b" in writer
    source = FeatureSource(tmp_path)
    assert [row.name for row in source.rows] == ["a", "b"]
    assert torch.equal(source[1], tokens(1, 1, 1)[0])


def test_a_shard_without_its_index_lines_is_written_over(tmp_path):
    """As after a kill between the two: the features are not known, so they are made again."""
    with FeatureWriter(tmp_path, about=ABOUT) as writer:
        writer.add("a", tokens(0, 1, 1))
    (tmp_path / "features-00001.safetensors").write_bytes(b"cut off")
    with FeatureWriter(tmp_path, about=ABOUT) as writer:
        assert "b" not in writer
        writer.add("b", tokens(1, 1, 1))
    assert torch.equal(FeatureSource(tmp_path)[1], tokens(1, 1, 1)[0])


def test_views_are_copied(tmp_path):
    batch = tokens(0, 3, 1)
    expected = batch[:1, 0].clone()
    with FeatureWriter(tmp_path, about=ABOUT) as writer:
        writer.add("a", batch[:1])
        batch.zero_()
    assert torch.equal(FeatureSource(tmp_path)[0], expected)


def test_wrong_shapes_are_refused(tmp_path):
    writer = FeatureWriter(tmp_path, about=ABOUT)
    with pytest.raises(ValueError, match=r"expected features of shape \(1, 4, D\)"):
        writer.add("a", tokens(0, 1, 3), grid=Grid(4, 1, 1))
    with pytest.raises(ValueError, match=r"for 1 clips"):
        writer.add("a", tokens(0, 2, 1))
    writer.add("a", tokens(0, 1, 1))
    with pytest.raises(ValueError, match="added already"):
        writer.add("a", tokens(0, 1, 1))
    with pytest.raises(ValueError, match="like the earlier"):
        writer.add("b", tokens(0, 1, 1, width=7))


def test_what_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="holds no features"):
        FeatureSource(tmp_path)
    with FeatureWriter(tmp_path, about=ABOUT) as writer:
        writer.add("a", tokens(0, 1, 1), split="train")
    with pytest.raises(UserError, match=r"made by .*tiny"):
        FeatureWriter(tmp_path, about={"encoder": "another"})
    source = FeatureSource(tmp_path)
    with pytest.raises(UserError, match="no features of a split 'test'; it has 'train'"):
        source.split("test")
    (tmp_path / source.rows[0].shard).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        source[0]
    (tmp_path / "index.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not an index of features"):
        FeatureSource(tmp_path)


def test_an_index_from_before_there_were_lengths_is_read(tmp_path):
    with FeatureWriter(tmp_path, about=ABOUT) as writer:
        writer.add("a", tokens(0), grid=Grid(3, 2, 2), spans=((0.0, 1.5), (1.5, 3.0)))
    pq.write_table(pq.read_table(tmp_path / "index.parquet").drop_columns("lengths"), tmp_path / "index.parquet")
    source = FeatureSource(tmp_path)
    assert torch.equal(source[1], tokens(0)[1]) and source.lengths([0, 1]) is None
