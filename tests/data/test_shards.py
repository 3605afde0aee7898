"""Videos are found inside plain tar files, in place, whatever the members are called."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from filmstrip.data.layouts.shards import expand, open_shards
from filmstrip.data.sources import open_path
from filmstrip.errors import UserError


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def content(sample) -> bytes:
    return sample.file().read()


def test_members_of_a_key_belong_together(tmp_path):
    path = shard(
        tmp_path / "clips-000.tar",
        {
            "a/0001.mp4": b"first",
            "a/0001.cls": b"1\n",
            "a/0001.txt": b"a dog runs",
            "a/0002.json": json.dumps({"label": 0, "caption": "a cat", "split": "test"}).encode(),
            "a/0002.MKV": b"second one",
            "a/0003.jpg": b"no video",
        },
    )
    first, second = open_shards(path).samples
    assert (first.name, first.label, first.text) == ("clips-000.tar/a/0001", 1, ("a dog runs",))
    assert (second.label, second.text, content(second)) == (0, ("a cat",), b"second one")
    assert content(first) == b"first"


def test_ranges_and_named_labels(tmp_path):
    for i in range(3):
        shard(tmp_path / f"train-{i:03}.tar", {"x.mp4": bytes([i]), "x.cls": [b"run", b"jump", b"run"][i]})
    shard(tmp_path / "test-000.tar", {"x.mp4": b"t", "x.cls": b"jump"})
    source = open_path(tmp_path / "train-{000..002}.tar")
    assert source.classes == ("jump", "run")
    assert [content(s) for s in source.split("train")] == [b"\0", b"\1", b"\2"]
    whole = open_path(tmp_path)
    assert (len(whole.split("train")), len(whole.split("test"))) == (3, 1)


def test_expanding_ranges():
    assert expand(Path("s-{08..11}.tar")) == [Path(f"s-{i}.tar") for i in ("08", "09", "10", "11")]
    assert len(expand(Path("{0..1}/s-{0..2}.tar"))) == 6
    with pytest.raises(UserError, match="backwards"):
        expand(Path("s-{3..1}.tar"))


def test_unnamed_splits_are_made(tmp_path):
    members = {f"{i}.mp4": bytes([i]) for i in range(10)} | {f"{i}.cls": b"run" for i in range(10)}
    source = open_shards(shard(tmp_path / "all.tar", members))
    assert (len(source.split("train")), len(source.split("test"))) == (8, 2)


def test_hostile_names_stay_inside(tmp_path):
    """Names that would escape when unpacked are only names; links and devices are no videos."""
    path = shard(tmp_path / "train.tar", {"../../escape.mp4": b"up", "/etc/passwd.mp4": b"root", ".mp4": b"bare"})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    samples = open_shards(path).samples
    assert [content(s) for s in samples] == [b"up", b"root"]
    assert {s.path for s in samples} == {str(path)}
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_shard(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_shards(tmp_path / "gone-{0..1}.tar")
    (tmp_path / "text.tar").write_bytes(b"this is not an archive" * 100)
    with pytest.raises(UserError, match="not a plain tar file"):
        open_shards(tmp_path / "text.tar")
    with pytest.raises(UserError, match="compressed"):
        open_shards(tmp_path / "a.tar.gz")
    with pytest.raises(UserError, match="no videos in 1 shards"):
        open_shards(shard(tmp_path / "empty.tar", {"a.txt": b"words"}))
    with pytest.raises(UserError, match=r"a\.json is not JSON"):
        open_shards(shard(tmp_path / "bad.tar", {"a.mp4": b"v", "a.json": b"{"}))


def test_a_shard_that_is_cut_short(tmp_path):
    path = shard(tmp_path / "cut.tar", {"a.mp4": bytes(2000), "b.mp4": bytes(20000)})
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(UserError, match="cut short"):
        open_shards(path)
