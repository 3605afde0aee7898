"""Systems outside the package: imported when typed, kept by name, and loaded only with the user's consent; and runs
that begin with another one's configuration."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import filmstrip
from colour_videos import write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.errors import UserError
from filmstrip.runs import outside
from filmstrip.runs.config import read_config
from filmstrip.runs.loading import load_objective

SYSTEM = '''
"""A system of somebody else."""
from dataclasses import dataclass, replace
from pathlib import Path
Path(__file__).with_name("imported").touch()
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.models.resnet import ResNet, ResNetArchitecture
from filmstrip.systems import find

@dataclass(frozen=True, kw_only=True)
class MineConfig(ResNetArchitecture, ClassificationConfig):
    def build(self):
        return Classification(ResNet(self), self)

def small():
    """A preset."""
    run = find("recognition.single_frame:tiny")
    return replace(run, objective=MineConfig(widths=(4, 8), depths=(1, 1), num_classes=2))
'''
CLIP = ["--data.clip.num-frames", "4", "--data.clip.size", "32", "--data.num-workers", "0", "--data.batch-size", "2"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the current folder, of which nothing is known yet."""
    name = f"my_package_{os.getpid()}_{len(sys.modules)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "my_system.py").write_text(SYSTEM)
    for colour in ("red", "blue"):
        for number in range(2):
            write_colours(tmp_path / "videos" / colour / f"{number}.mp4", colour)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(outside.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def forgotten(package, monkeypatch):
    """As in a new process."""
    monkeypatch.delenv(outside.VARIABLE, raising=False)
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]
    Path(package, "imported").unlink(missing_ok=True)


def is_imported(package):
    return Path(package, "imported").exists()


def test_it_trains_when_typed_and_loads_with_consent(package, monkeypatch, capsys):
    arguments = ["--data", "videos", "--train.steps", "1", *CLIP, "--out", "run"]
    assert main(["train", f"{package}.my_system:small", *arguments]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["objective"]["type"] == f"{package}.my_system:MineConfig"
    predict = ["predict", "run", "videos/red/0.mp4", "--json"]
    forgotten(package, monkeypatch)
    capsys.readouterr()
    assert main(predict) == 2 and not is_imported(package)
    assert f"is not imported unless you say that you trust it: --allow {package}" in capsys.readouterr().err
    assert main([*predict, "--allow", package]) == 0 and is_imported(package)
    forgotten(package, monkeypatch)
    with pytest.raises(UserError, match="code outside filmstrip"):
        filmstrip.load("run")
    filmstrip.allow(package)
    assert type(load_objective("run", "cpu")[1].objective).__name__ == "MineConfig"


def test_consent_reaches_processes_that_are_started(package, tmp_path):
    outside.allow(package)
    code = f"from filmstrip.runs.outside import is_allowed; print(is_allowed('{package}.x'), is_allowed('os'))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert told.split() == ["True", "False"]


def test_wrong_names_are_refused(package):
    with pytest.raises(UserError, match=r"has no preset 'big'; there are small"):
        systems.find(f"{package}.my_system:big")
    assert not is_imported(package), "presets are read off the file"
    with pytest.raises(UserError, match=r"there is no system 'no_such\.system'"):
        systems.find("no_such.system")
    for name, message in (("no_such", "there is no package 'no_such'"), ("a.b", "'a.b' is no package")):
        with pytest.raises(UserError, match=message):
            outside.allow(name)


def test_a_run_begins_with_the_configuration_of_another(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for colour in ("red", "blue"):
        for number in range(2):
            write_colours(tmp_path / "videos" / colour / f"{number}.mp4", colour)
    first = ["--data", "videos", "--train.steps", "1", "--optim.lr", "0.5", *CLIP, "--data.clip.sampling", "uniform"]
    assert main(["train", "recognition.single_frame:tiny", *first, "--out", "runs/first"]) == 0
    assert main(["train", "--config", "runs/first/config.json", "--train.steps", "2"]) == 0
    (again,) = Path("runs").glob("first-2*")
    one, other = (read_config(folder / "config.json") for folder in (Path("runs/first"), again))
    assert (other.optim, other.data, other.objective) == (one.optim, one.data, one.objective)
    assert other.train.length.steps == 2
    assert main(["train", "--config=runs/first", "--optim", "sgd", "--out", "third"]) == 0
    assert type(read_config(Path("third/config.json")).optim).__name__ == "SGD"
    capsys.readouterr()
    for wrong, message in (
        (["recognition.vit", "--config", "runs/first"], "stands in place of the system recognition.vit"),
        (["--config", "videos"], "is not a run folder"),
        (["--config", "no.txt"], "expected a run folder, or its config.json"),
    ):
        assert main(["train", *wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--config", "runs/first", "--help"])
    assert "usage: filmstrip train --config runs/first/config.json [--data PATH]" in capsys.readouterr().out
