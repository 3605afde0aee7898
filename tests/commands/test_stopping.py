"""How commands end that are stopped: by a signal, by a reader that goes away, by a disk that is full."""

import errno
import json
import os
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError

from colour_videos import write_colours
from filmstrip.__main__ import main
from filmstrip.commands.stopping import keeping, stoppable
from filmstrip.errors import Terminated
from filmstrip.video import write_video
from run_folders import save_run
from started import SMALL_FILES_ONLY, Started

FULL_DISK = SMALL_FILES_ONLY + "from filmstrip.__main__ import main; sys.exit(main())"
"""The command line as on a full disk."""
TINY = [
    *("--data.batch-size", "2", "--data.num-workers", "1", "--data.clip.stride", "1"),
    *("--data.clip.num-frames", "4", "--data.clip.size", "16", "--data.clip.short-side", "16", "16"),
    *("--objective.num-frames", "4", "--objective.size", "16"),
    *("--objective.width", "12", "--objective.depth", "1", "--objective.num-heads", "2"),
]
ENDS = [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
"""Signals that all processes of a command are sent, and what it then exits with."""


@pytest.fixture
def videos(tmp_path):
    for colour in ("red", "blue"):
        for number in range(3):
            write_colours(tmp_path / "videos" / colour / f"{number}.mp4", colour, frames=12)
    return tmp_path / "videos"


@pytest.fixture
def noise(tmp_path):
    """Two small videos and two large ones: colour, and noise that does not compress."""
    rng = np.random.default_rng(0)
    for number in range(2):
        write_colours(tmp_path / "noise" / f"{number}.mp4", "red")
        video = torch.from_numpy(rng.integers(0, 256, (16, 3, 96, 96), dtype=np.uint8))
        write_video(tmp_path / "noise" / f"{number + 2}.mp4", video, 8)
    return tmp_path / "noise"


def command(*words, code=None, **options):
    """The command line in a process of its own."""
    return Started(*(("-m", "filmstrip") if code is None else ("-c", code)), *words, **options)


def wait_until(happened, process):
    for _ in range(1200):
        if happened():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail("it never happened")


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_training_that_all_its_processes_are_told_to_end_is_saved_and_goes_on(videos, tmp_path, number, code):
    out = tmp_path / "run"
    words = ["train", "recognition.vit", "--data", videos, "--out", out, *TINY, "--train.log-every", 1]
    process = command(*words, "--train.steps", 100_000)
    wait_until(lambda: (out / "metrics.jsonl").exists(), process)
    os.killpg(process.pid, number)  # its loader's workers are in the group, too
    _, err = process.communicate(timeout=120)
    step = int(max(path.name for path in (out / "state").iterdir()))
    assert process.returncode == code, err
    assert f"filmstrip: interrupted; {out} keeps the state after step {step}" in err and "Traceback" not in err
    assert not (out / "unreadable.csv").exists(), "a worker that was told to end is no bad file"
    config = json.loads((out / "config.json").read_text())
    assert config["train"]["length"]["steps"] == 100_000


def test_a_training_that_is_stopped_before_it_saved_says_so(videos, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise Terminated

    monkeypatch.setattr("filmstrip.runs.experiment.fit", stop)
    assert main(["train", "recognition.vit", "--data", str(videos), "--out", str(tmp_path / "run"), *TINY]) == 143
    assert capsys.readouterr().err == f"filmstrip: interrupted; nothing was saved in {tmp_path / 'run'}\n"


@pytest.mark.parametrize("words", [["show", "recognition.vit"], ["--help"], ["data", "check", "VIDEOS", "--json"]])
def test_a_reader_that_goes_away_is_no_news(videos, words):
    read, write = os.pipe()
    process = command(*(str(videos) if word == "VIDEOS" else word for word in words), stdout=write)
    os.close(write)
    os.close(read)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.strip()) == (128 + signal.SIGPIPE, "")


def test_signals_come_as_exceptions_once(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        with pytest.raises(Terminated) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        os.kill(os.getpid(), signal.SIGTERM)  # of a scheduler that says it twice
        assert stop.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_kept_is_a_note_and_no_further_error():
    with pytest.raises(KeyboardInterrupt) as stop, keeping(lambda: "nine"):
        raise KeyboardInterrupt
    assert stop.value.__notes__ == ["nine"]

    def unknown():
        raise OSError

    with pytest.raises(OSError, match="full"), keeping(unknown):
        raise OSError("full")


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_preparing_stops_at_a_full_disk_and_goes_on(noise, tmp_path, capsys, workers):
    out = tmp_path / "out"
    words = ["data", "prepare", noise, "--out", out, "--workers", workers]
    process = command(*words, code=FULL_DISK.format(limit=20_000))
    said, err = process.communicate(timeout=120)
    assert process.returncode == 2, said + err
    assert "left out" not in said and "train on it" not in said
    assert "larger than a file may be" in err and f"{out} keeps" in err and "Traceback" not in err
    assert not (out / "manifest.csv").exists()
    assert not list(out.rglob(".*.part*"))
    assert main(list(map(str, words))) == 0
    assert "4 videos" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_preparing_that_all_its_processes_are_told_to_end_keeps_whole_copies(tmp_path, number, code):
    first = write_colours(tmp_path / "many" / "0.mp4", "red")
    for copy in range(1, 1000):
        os.link(first, first.with_name(f"{copy}.mp4"))
    out = tmp_path / "out"
    process = command("data", "prepare", tmp_path / "many", "--out", out, "--workers", 2)
    ledger = out / "prepared.jsonl"
    wait_until(lambda: ledger.exists() and ledger.stat().st_size > 0, process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    kept = len(ledger.read_text().splitlines())
    assert process.returncode == code, err
    assert 0 < kept < 1000 and f"interrupted; {out} keeps {kept} copies" in err and "Traceback" not in err
    assert not list(out.rglob(".*.part*"))


def test_encoding_stops_at_a_full_disk_and_goes_on(noise, tmp_path, capsys, monkeypatch):
    save_run(tmp_path / "run", "recognition.vit:tiny")
    words = ["encode", str(tmp_path / "run"), str(noise), "--out", str(tmp_path / "out"), "--level", "patch"]

    def full(tensors, path, metadata):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        assert main(words) == 2
    err = capsys.readouterr().err
    assert "features-00000.safetensors: there is no space left on its disk" in err and "nothing was written" in err
    assert "could not be read" not in err
    assert main(words) == 0
    assert pq.read_table(tmp_path / "out" / "index.parquet").num_rows == 4


def test_several_encoding_processes_write_what_they_have_when_they_are_told_to_end(tmp_path):
    save_run(tmp_path / "run", "recognition.vit:tiny")
    first = write_colours(tmp_path / "many" / "0.mp4", "red")
    for number in range(1, 4000):
        os.link(first, first.with_name(f"{number}.mp4"))
    out = tmp_path / "out"
    process = command("encode", tmp_path / "run", tmp_path / "many", "--out", out, "--processes", 2, "--clips", 4)
    wait_until(out.exists, process)
    time.sleep(3)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    names = set(pq.read_table(out / "index.parquet")["name"].to_pylist())
    assert 0 < len(names) < 4000 and f"{out} keeps {len(names)} encoded videos" in err


def test_a_training_stops_at_a_full_disk_with_its_last_state(videos, tmp_path):
    out = tmp_path / "run"
    words = ["train", "recognition.vit", "--data", videos, "--out", out, *TINY]
    assert main(list(map(str, [*words, "--train.steps", 2]))) == 0
    process = command(*words, "--train.steps", 4, code=FULL_DISK.format(limit=8_000))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err
    assert "larger than a file may be" in err and f"{out} keeps the state after step 2" in err
    assert main(list(map(str, [*words, "--train.steps", 4]))) == 0
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 2, 4, 4]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "failed to read or write"),
    ],
)
def test_errors_of_the_system_are_one_sentence(tmp_path, capsys, monkeypatch, number, words):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number), str(tmp_path / "a"))

    monkeypatch.setattr("filmstrip.data.tools.check.check_collection", fails)
    assert main(["data", "check", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"filmstrip: {tmp_path / 'a'}: ") and words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["train", "recognition.vit", "--data", "VIDEOS", *TINY, "--out", "FILE"],
        ["train", "recognition.vit", "--data", "VIDEOS", *TINY, "--out", "FILE/run"],
        ["data", "prepare", "VIDEOS", "--out", "FILE"],
        ["data", "make", "motions", "--train-per-class", "1", "--test-per-class", "1", "--out", "FILE/set"],
        ["encode", "RUN", "VIDEOS", "--out", "FILE"],
        ["compare", "--systems", "recognition.vit", "--data", "VIDEOS", "--out", "FILE", "--steps", "1"],
    ],
)
def test_a_file_where_a_folder_should_be_is_named(videos, tmp_path, capsys, words):
    save_run(tmp_path / "run", "recognition.vit:tiny")
    (tmp_path / "file").touch()
    places = {"VIDEOS": videos, "RUN": tmp_path / "run", "FILE": tmp_path / "file"}
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "file") in err and "Traceback" not in err
    assert (tmp_path / "file").read_bytes() == b""


def test_a_set_is_made_where_a_link_leads(tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    words = ["data", "make", "motions", "--train-per-class", "1", "--test-per-class", "1", "--num-frames", "4"]
    before = os.umask(0o027)
    try:
        assert main([*words, "--size", "32", "--out", str(tmp_path / "link")]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "dataset.json").exists()
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "disk").rglob("*") if path.is_file()}
    assert modes == {0o640}
    assert (tmp_path / "disk").stat().st_mode & 0o777 == 0o750
