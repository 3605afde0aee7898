import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from toys import Regression, Stream, differing, train

from filmstrip.data.reading.dataset import Unreadable
from filmstrip.errors import UserError
from filmstrip.runs import run_folder
from filmstrip.runs.run_folder import RunFolder
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.loop import fit
from filmstrip.train.optim import AdamW


def test_the_environment_is_described(tmp_path):
    train(tmp_path, steps=1)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["processes"] == 1
    assert environment["git"] is None or re.fullmatch("[0-9a-f]{40}", environment["git"])


def test_a_repository_that_only_surrounds_the_package_is_not_its_commit(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    installed = tmp_path / "site-packages" / "run_folder.py"
    installed.parent.mkdir()
    shutil.copy(run_folder.__file__, installed)
    monkeypatch.setattr(run_folder, "__file__", str(installed))
    RunFolder(tmp_path / "run").write_environment(torch.device("cpu"))
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["git"] is None


def test_bad_files_are_listed(tmp_path):
    stream = Stream()
    stream.unreadable = [Unreadable("a.mp4", "cut off", used=True), Unreadable("b.mp4", "empty", used=False)]
    fit(Regression(), stream, optim=AdamW(), loop=Loop(length=Steps(1)), folder=RunFolder(tmp_path))
    with (tmp_path / "unreadable.csv").open(newline="") as file:
        assert [(row["name"], row["reason"]) for row in csv.DictReader(file)] == [
            ("a.mp4", "cut off"),
            ("b.mp4", "empty"),
        ]


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.alone():
        with pytest.raises(UserError, match=r"another training runs in .*run"), RunFolder(folder.path).alone():
            pytest.fail("two at once")
        (folder.path / "metrics.jsonl").touch()
    with RunFolder(folder.path).alone():
        pass


def test_a_killed_process_holds_no_folder_and_its_unfinished_files_go(tmp_path):
    code = (
        "import os, sys, time\n"
        "from filmstrip.files import replacing\n"
        "from filmstrip.runs.run_folder import RunFolder\n"
        "folder = RunFolder(sys.argv[1])\n"
        "with folder.alone(), replacing(folder.weights) as part:\n"
        "    if os.fork() == 0: time.sleep(60)\n"  # a loader's worker, which outlives it for a moment
        "    print('here', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"here\n"
    with pytest.raises(UserError, match="another training"), RunFolder(tmp_path).alone():
        pass
    process.kill()
    process.wait()
    with RunFolder(tmp_path).alone():
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_in_which_nothing_happened_is_gone_if_it_was_made_for_it(tmp_path):
    with RunFolder(tmp_path / "new").alone():
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with RunFolder(tmp_path / "mine").alone():
        pass
    assert (tmp_path / "mine").exists()


def test_only_the_first_of_several_processes_takes_the_lock(tmp_path, monkeypatch):
    with RunFolder(tmp_path).alone():
        monkeypatch.setenv("RANK", "1")
        with RunFolder(tmp_path).alone():
            pass


@pytest.mark.parametrize("content", [b"", b"half a fi", b"\xff" * 100])
def test_damaged_weights_are_named(tmp_path, content):
    folder = RunFolder(tmp_path)
    folder.save_weights(Regression())
    whole = folder.weights.read_bytes()
    for damaged in (content, whole[:-50]):
        folder.weights.write_bytes(damaged)
        with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
            folder.load_weights(Regression())


def test_damaged_lines_of_the_metrics_do_not_count(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 3}\n\xff\xfe\n[1]\n{"loss": 1}\n{"step": 7, "lo')
    folder = RunFolder(tmp_path)
    assert folder.last_step() == 3
    folder.forget_metrics_after(5)
    assert folder.metrics.read_text() == '{"step": 3}\n'


def test_weights_are_replaced_at_once(tmp_path, monkeypatch):
    folder, first = RunFolder(tmp_path), Regression()
    folder.save_weights(first)

    def fails(tensors, path):
        path.write_bytes(b"half a fi")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("safetensors.torch.save_file", lambda tensors, path, metadata: fails(tensors, path))
    with pytest.raises(OSError, match=r"No space left on device: .*weights\.safetensors"):
        folder.save_weights(Regression())
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    fresh = Regression()
    folder.load_weights(fresh)
    assert differing(fresh.state_dict(), first.state_dict()) == []
