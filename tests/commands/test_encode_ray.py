"""Encoding on a Ray cluster writes what one process writes, whoever dies meanwhile."""

import csv
import math
import os
import signal
from pathlib import Path

import pytest

from colour_videos import write_colours
from filmstrip.__main__ import main
from filmstrip.commands.work import encode, encode_ray
from filmstrip.commands.work.encode import encode_files
from filmstrip.data.features import FeatureSource, FeatureWriter
from filmstrip.distributed import ray_pipeline
from filmstrip.errors import UserError

transformers = pytest.importorskip("transformers")
OPTIONS = {"level": "frame", "num_clips": 2, "batch_size": 4, "num_workers": 0}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A local Ray cluster of two cores, by whose processes' environment they can be found."""
    ray = pytest.importorskip("ray")
    mark = str(tmp_path_factory.mktemp("mark"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILMSTRIP_TEST_CLUSTER", mark)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"), prepend=os.pathsep)
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=2**27,
        )
        yield mark
        ray.shutdown()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Videos of which one is bad, and an encoder; with what one process makes of them."""
    folder = tmp_path_factory.mktemp("videos")
    files = [write_colours(folder / f"{n}.mp4", ("red", "green", "blue")[n % 3]) for n in range(7)]
    files[3].write_bytes(b"no video")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    encoder = folder / "encoder"
    transformers.Dinov2Model(transformers.Dinov2Config(**small)).save_pretrained(encoder)
    assert encode_files(encoder, files, folder / "whole", **OPTIONS) == 1
    return encoder, files, folder / "whole"


def same_files(one, other):
    """Whether two folders of features hold the same files, byte for byte."""
    names = sorted(path.name for path in one.iterdir() if path.name != ".lock")
    assert names == sorted(path.name for path in other.iterdir() if path.name != ".lock")
    assert {"index.parquet", "features-00000.safetensors", "unreadable.csv"} <= set(names)
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def actors(mark):
    """The processes of the cluster that hold an encoder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::" in (folder / "cmdline").read_bytes() and b"Computing" in (folder / "cmdline").read_bytes():
                environment = (folder / "environ").read_bytes()
                if f"FILMSTRIP_TEST_CLUSTER={mark}".encode() in environment.split(b"\0"):
                    found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow  # starting Ray takes most of a minute of processor time
@pytest.mark.multiprocess
def test_an_actor_that_is_killed_costs_nothing(cluster, videos, tmp_path, monkeypatch):
    encoder, files, whole = videos
    add, killed = FeatureWriter.add, []

    def killing(writer, *arguments, **options):
        if not killed:  # the first result has arrived, others are under way
            killed.extend(actors(cluster))
            for process in killed:
                os.kill(process, signal.SIGKILL)
        return add(writer, *arguments, **options)

    monkeypatch.setattr(FeatureWriter, "add", killing)
    monkeypatch.setattr(encode, "SECONDS_AT_RISK", math.inf)  # what takes longer is divided into files
    assert encode_files(encoder, files, tmp_path / "out", engine="ray", **OPTIONS) == 1
    assert len(killed) == 1 and killed[0] not in actors(cluster)
    assert same_files(whole, tmp_path / "out")
    with (tmp_path / "out" / "unreadable.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [str(files[3])]


@pytest.mark.slow  # starting Ray takes most of a minute of processor time
@pytest.mark.multiprocess
def test_it_goes_on_with_what_another_engine_began(cluster, videos, tmp_path):
    encoder, files, whole = videos
    assert encode_files(encoder, files[:3], tmp_path / "out", **OPTIONS) == 0
    words = ["encode", str(encoder), *map(str, files), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main([*words, "--level", "frame", "--clips", "2", "--batch-size", "4"]) == 1
    found, expected = FeatureSource(tmp_path / "out"), FeatureSource(whole)
    assert [row.name for row in found.rows] == [row.name for row in expected.rows]
    assert found.read(range(len(found))).equal(expected.read(range(len(expected))))


@pytest.mark.slow  # starting Ray takes most of a minute of processor time
@pytest.mark.multiprocess
def test_more_actors_than_there_is_room_for_are_refused(cluster, videos, tmp_path):
    encoder, files, _ = videos
    with pytest.raises(UserError, match=r"--processes 2 .* 0 GPUs and 2 processor cores.* at most 1"):
        encode_files(encoder, files, tmp_path / "out", engine="ray", processes=2, **OPTIONS)


def test_groups_of_videos_are_what_one_process_reads_into_a_batch(videos, tmp_path, monkeypatch):
    """What tasks and actors do, without Ray between them."""
    sent = []

    def in_order(count, read, build, *, actors):
        compute = build()
        for number in range(count):
            sent.append(number)
            yield compute(read(number))

    monkeypatch.setattr(encode_ray, "in_order", in_order)
    encoder, files, whole = videos
    assert encode_files(encoder, files, tmp_path / "out", engine="ray", **OPTIONS) == 1
    assert sent == [0, 1, 2, 3] and same_files(whole, tmp_path / "out")

    monkeypatch.setattr(encode_ray, "weights_of", lambda model: "others")
    with pytest.raises(UserError, match="other weights on a machine of the Ray cluster"):
        encode_files(encoder, files, tmp_path / "more", engine="ray", **OPTIONS)


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ray_pipeline.importlib.util, "find_spec", lambda name: None)
    words = ["encode", "siglip", str(tmp_path), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main(words) == 2
    assert "--engine ray needs Ray" in capsys.readouterr().err and not (tmp_path / "out").exists()
