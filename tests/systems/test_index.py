"""What systems there are is read off their files, whatever these import and however they are annotated."""

import importlib
import inspect
import shutil
from pathlib import Path

import pytest

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.runs.config import Run

WITHOUT_FUTURE = '''"""A method. More of it."""

import no_such_package_anywhere

from filmstrip.runs.config import Run as Complete


def tiny() -> Complete:
    return no_such_package_anywhere.run()


def plain():
    return tiny()


def helper(size):
    return size


def with_defaults(*, size=1):
    return size


def _own():
    return None
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A second folder of systems, beside the installed one."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/__init__.py").touch()
    monkeypatch.setattr(systems, "__path__", [*systems.__path__, str(tmp_path)])
    systems._syntax.cache_clear()
    yield tmp_path / "own"
    systems._syntax.cache_clear()


def test_presets_are_functions_without_parameters_whatever_their_annotations(folder):
    (folder / "method.py").write_text(WITHOUT_FUTURE)
    assert "own.method" in systems.names() and "recognition.vit" in systems.names()
    assert systems.presets("own.method") == ["tiny", "plain"]
    assert systems.summary("own.method") == "A method"
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        systems.find("own.method:tin")


def test_a_system_may_be_a_folder(folder):
    (folder / "large").mkdir()
    (folder / "large/__init__.py").write_text('"""A large one."""\n')
    vit = Path(systems.__path__[0]) / "recognition/vit.py"
    shutil.copy(vit, folder / "large/presets.py")
    assert systems.summary("own.large") == "A large one"
    assert systems.presets("own.large") == systems.presets("recognition.vit")
    run = systems.find("own.large:tiny")
    assert isinstance(run, Run) and type(run.objective).__module__ == "filmstrip.systems.own.large.presets"


@pytest.mark.parametrize("name", systems.names())
def test_the_index_agrees_with_what_is_imported(name):
    module = importlib.import_module(f"filmstrip.systems.{name}")
    defining = importlib.import_module(f"{module.__name__}.presets") if hasattr(module, "__path__") else module
    own = [
        key
        for key, value in vars(defining).items()
        if inspect.isfunction(value) and value.__module__ == defining.__name__ and not key.startswith("_")
    ]
    known = [key for key in own if not inspect.signature(getattr(defining, key)).parameters]
    assert systems.presets(name) == known and "tiny" in known
    assert systems.summary(name) and inspect.getdoc(module).replace("\n", " ").startswith(systems.summary(name))
    for preset in known:
        assert isinstance(systems.find(f"{name}:{preset}"), Run)
