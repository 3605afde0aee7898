"""Files at addresses: read by ranges, kept on disk within a limit, refused in words."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from http_server import Files, serving
from numbered_videos import encode, numbered

from filmstrip.errors import UserError
from filmstrip.video import DecodeError, open_video, read_video, remote
from filmstrip.video.remote import BLOCK, RemoteFile, address_of, name_of

pytest.importorskip("aiohttp", reason="needs aiohttp (filmstrip[remote])")
fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSE", 0.01)
    monkeypatch.setattr(remote, "_written", 0)
    remote._ask.cache_clear()
    return tmp_path / "cache/remote"


@pytest.fixture
def server():
    with serving() as files:
        yield files


def write_numbered(path: Path, count: int) -> Path:
    path.write_bytes(encode(numbered(count)))
    return path


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def test_a_path_that_lost_a_stroke_is_the_same_address():
    assert address_of("https://host/a//b.mp4?key=x") == "https://host/a//b.mp4?key=x"
    assert address_of(Path("https://host/a.mp4")) == "https://host/a.mp4"
    assert address_of(Path("memory://a.mp4")) == "memory://a.mp4" and address_of("S3://b/c") == "s3://b/c"
    assert not any(map(address_of, ("a.mp4", "/a/b:c.mp4", Path("C:/a.mp4"), "a: b", 3, None)))
    assert name_of("https://host/a/b.mp4?secret=1") == "host/a/b.mp4"


def test_any_range_is_that_of_the_file(server: Files):
    content = noise(3 * BLOCK + 1234)
    server.content["/a.bin"] = content
    rng = np.random.default_rng(1)
    with RemoteFile(server.address("/a.bin")) as file:
        assert file.seek(0, os.SEEK_END) == len(content) and file.read() == b"" and file.tell() == len(content)
        for _ in range(50):
            start, size = int(rng.integers(0, len(content))), int(rng.integers(0, 2 * BLOCK))
            file.seek(start)
            assert file.read(size) == content[start : start + size]
    assert server.sent <= 2 * len(content)  # every block came once, whatever was asked for


def test_what_was_read_comes_from_the_disk_afterwards(server: Files, cache):
    server.content["/a.bin"] = content = noise(4 * BLOCK)
    with RemoteFile(server.address("/a.bin")) as file:
        file.seek(2 * BLOCK + 5)
        assert file.read(10) == content[2 * BLOCK + 5 : 2 * BLOCK + 15]
    assert server.sent == BLOCK and [path.name for path in cache.glob("*/*")] == ["2"]
    with RemoteFile(server.address("/a.bin")) as file:
        file.seek(3 * BLOCK - 7)
        assert file.read(7) == content[3 * BLOCK - 7 : 3 * BLOCK]
    assert server.sent == BLOCK
    next(cache.glob("*/2")).write_bytes(b"torn")  # is fetched anew
    with RemoteFile(server.address("/a.bin")) as file:
        file.seek(2 * BLOCK)
        assert file.read(4) == content[2 * BLOCK : 2 * BLOCK + 4]
    assert server.sent == 2 * BLOCK


def test_reading_on_asks_for_more_at_once(server: Files, monkeypatch):
    server.content["/a.bin"] = content = noise(16 * BLOCK)
    asked = []
    with RemoteFile(server.address("/a.bin")) as file:
        fetch = file._remote.system.cat_file

        def noted(path: str, start: int, end: int) -> bytes:
            asked.append(end - start)
            return fetch(path, start, end)

        monkeypatch.setattr(file._remote.system, "cat_file", noted)
        assert file.read() == content
    assert [size // BLOCK for size in asked] == [1, 2, 4, 8, 1]


def test_another_version_of_a_file_is_read_anew(server: Files):
    server.content["/a.bin"] = noise(100)
    assert remote.fetch(server.address("/a.bin")) == noise(100)
    server.content["/a.bin"] = noise(101, seed=1)
    remote._ask.cache_clear()  # as in another process
    assert remote.fetch(server.address("/a.bin")) == noise(101, seed=1)


def test_the_disk_holds_no_more_than_the_limit(server: Files, cache, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE_GB", str(5 * BLOCK / 1e9))
    for number in range(3):
        server.content[f"/{number}.bin"] = noise(3 * BLOCK, number)
        assert remote.fetch(server.address(f"/{number}.bin")) == noise(3 * BLOCK, number)
        for path in cache.glob("*/*"):
            os.utime(path, (path.stat().st_atime - 10, path.stat().st_mtime - 10))
        assert sum(path.stat().st_size for path in cache.glob("*/*")) <= 5 * BLOCK
    sent = server.sent
    assert remote.fetch(server.address("/2.bin")) == noise(3 * BLOCK, 2) and server.sent == sent  # the newest
    monkeypatch.setenv("FILMSTRIP_CACHE_GB", "0")
    server.content["/3.bin"] = noise(10)
    remote.fetch(server.address("/3.bin"))
    remote.fetch(server.address("/3.bin"))
    assert server.sent == sent + 20
    monkeypatch.setenv("FILMSTRIP_CACHE_GB", "much")
    with pytest.raises(UserError, match="FILMSTRIP_CACHE_GB is 'much': expected gigabytes"):
        remote.fetch(server.address("/3.bin"))


def test_servers_without_ranges_and_with_hiccups(server: Files):
    server.content["/a.bin"] = content = noise(2 * BLOCK + 9)
    server.ranges, server.failures = False, 2
    with RemoteFile(server.address("/a.bin")) as file:
        file.seek(2 * BLOCK)
        assert file.read() == content[2 * BLOCK :]


def test_what_cannot_be_read_is_said(server: Files):
    with pytest.raises(DecodeError, match=r"http://127.*/absent.mp4, video stream 0: there is no such file"):
        open_video(server.address("/absent.mp4"))
    server.content["/text.mp4"] = b"this is no video" * 100
    with pytest.raises(DecodeError, match="not a video that FFmpeg can open"):
        open_video(server.address("/text.mp4"))
    server.content["/empty.mp4"] = b""
    with pytest.raises(DecodeError, match=r"the file is empty \(0 bytes\)"):
        open_video(server.address("/empty.mp4"))
    server.content["/down.mp4"], server.failures = noise(100), 99
    with pytest.raises(DecodeError, match="it cannot be read"):
        open_video(server.address("/down.mp4"))
    with pytest.raises(DecodeError, match="there is no such kind of address"):
        open_video("nonsense://a.mp4")
    with pytest.raises(UserError, match="chains file systems"):
        open_video("zip://a.mp4::http://host/b.zip")
    with pytest.raises(DecodeError, match="this is a live source"):
        open_video("rtsp://camera/1")


def test_a_video_is_decoded_from_parts_of_its_file(server: Files, tmp_path):
    path = write_numbered(tmp_path / "long.mp4", 400)
    unused = (6 * BLOCK + 8).to_bytes(4, "big") + b"free" + noise(6 * BLOCK)
    server.content["/long.mp4"] = path.read_bytes() + unused
    with open_video(Path(server.address("/long.mp4"))) as decoder, open_video(path) as local:
        times = local.times()[[0, 5, 200, 399]]
        assert decoder.info.path == server.address("/long.mp4") and decoder.info.num_frames == 400
        assert torch.equal(decoder.frames_at(times).video, local.frames_at(times).video)
    assert server.sent < len(server.content["/long.mp4"]) / 2


def test_memory_and_images(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 20)
    system = fsspec.filesystem("memory")
    system.pipe("/videos/a.mp4", path.read_bytes())
    assert torch.equal(read_video("memory://videos/a.mp4").video, read_video(path).video)
    from PIL import Image

    Image.new("RGB", (8, 6), (1, 2, 3)).save(tmp_path / "b.png")
    system.pipe("/videos/b.png", (tmp_path / "b.png").read_bytes())
    assert read_video("memory://videos/b.png").video.shape == (1, 3, 6, 8)
    with pytest.raises(DecodeError, match="this is a folder"):
        open_video("memory://videos")
    system.rm("/videos", recursive=True)
