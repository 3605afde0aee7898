"""Manifests of addresses, manifests at addresses, and commands that are given one."""

import json
import sys
from pathlib import Path

import pytest
from small_videos import encode, settings_of, take

from colour_videos import CLIP, RGB, Colours, write_colours
from filmstrip.commands.work import predict
from filmstrip.commands.work.encode import find_source
from filmstrip.data.files import files_of
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import open_path
from filmstrip.data.tools.check import check_collection
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.errors import UserError
from filmstrip.runs.classifiers import VideoClassifier
from filmstrip.video import remote

sys.path.append(str(Path(__file__).parents[1] / "video"))
from http_server import serving

pytest.importorskip("aiohttp", reason="needs aiohttp (filmstrip[remote])")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    remote._ask.cache_clear()
    with serving() as files:
        for number in range(4):
            encode(tmp_path / "a.mp4", 10 * number)
            files.content[f"/set/{number}.mp4"] = (tmp_path / "a.mp4").read_bytes()
        rows = [f"{number}.mp4,{'up' if number % 2 else 'down'},train" for number in range(4)]
        files.content["/set/list.csv"] = "\n".join(["path,label,split", *rows]).encode()
        yield files


def test_rows_may_be_addresses(server, tmp_path):
    encode(tmp_path / "here.mp4", 40)
    rows = [f"{server.address('/set/1.mp4')}?secret=5,up,0.08,0.4", "here.mp4,down,,"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,start,end", *rows]))
    one, other = open_path(tmp_path / "list.csv").samples
    host = server.address("").removeprefix("http://")
    assert (one.name, one.path) == (f"{host}/set/1.mp4 [0.08-0.4]", f"{server.address('/set/1.mp4')}?secret=5")
    assert other.path == str(tmp_path / "here.mp4")
    assert [file.name for file in files_of(open_path(tmp_path / "list.csv"))] == [f"{host}/set/1.mp4", "here.mp4"]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_a_manifest_at_an_address(server, workers):
    where = Path(server.address("/set/list.csv"))
    source = open_path(where)
    assert source.classes == ("down", "up") and len(source.samples) == 4
    for batch in take(TrainLoader(source, settings_of(where, num_workers=workers), seed=0), 2):
        for video, name, span in zip(batch["video"], batch["name"], batch["span"]):
            level = 10 * int(name[-5]) + 8 * 25 * float(span[0])
            assert abs(float(video[0].float().mean()) - level) < 2


def test_check_and_prepare(server, tmp_path):
    server.content["/set/2.mp4"] = b"no video"
    report = check_collection(Path(server.address("/set/list.csv")), workers=1)
    host = server.address("").removeprefix("http://")
    assert [file.name for file in report.bad] == [f"{host}/set/2.mp4"]
    assert {file.bytes for file in report.good} <= {len(content) for content in server.content.values()}
    out = tmp_path / "out"
    prepared = prepare_collection(Path(server.address("/set/list.csv")), out, workers=1)
    assert len(prepared.bad) == 1 and len(open_path(out).samples) == 3
    again = prepare_collection(Path(server.address("/set/list.csv")), out, workers=1)
    assert sum(outcome.again for outcome in again.outcomes) == 3


def test_commands_take_an_address(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load_classifier", lambda source, **_: VideoClassifier(Colours(), tuple(RGB), CLIP))
    server.content["/red.mp4"] = write_colours(tmp_path / "red.mp4", "red").read_bytes()
    paths = [Path(server.address("/red.mp4")), Path(server.address("/lost.mp4"))]
    assert predict.predict_files(tmp_path, paths, as_json=True) == 1
    red, lost = json.loads(capsys.readouterr().out)["files"]
    assert red["path"] == server.address("/red.mp4") and red["top"][0][0] == "red"
    assert lost == {"path": server.address("/lost.mp4"), "reason": "there is no such file"}
    assert [sample.path for sample in find_source([paths[0]]).samples] == [server.address("/red.mp4")]
    with pytest.raises(UserError, match="is no manifest"):
        open_path(Path(server.address("/set")))
