"""The API reference: it is built without a fault, and faults are found."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pdoc = pytest.importorskip("pdoc")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def make_site():
    specification = importlib.util.spec_from_file_location("make_site", ROOT / "docs/make_site.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_site_is_built_and_links_lead_somewhere(tmp_path, make_site):
    built = subprocess.run([sys.executable, ROOT / "docs/make_site.py", tmp_path], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {"index.html", *(f"{name.replace('.', '/')}.html" for name in make_site.MODULES)} <= pages
    encoders = (tmp_path / "filmstrip/runs/encoders.html").read_text(encoding="utf-8")
    assert 'href="classifiers.html#VideoClassifier"' in encoders
    assert 'id="VideoEncoder.encode"' in encoders


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    pass\n", "toy.f has no docstring"),
        ('class A:\n    """An A."""\n    x: int = 1\n', "toy.A.x has no docstring"),
        ('def f():\n    """See :func:`g`."""\n', "toy.f refers to g, which does not exist"),
        (
            'def f():\n    """See :class:`filmstrip.protocols.Encoderr`."""\n',
            "toy.f refers to filmstrip.protocols.Encoderr",
        ),
        ('def f():\n    """See :func:`f`, :class:`~filmstrip.protocols.Encoder`."""\n', None),
        (
            'class A:\n    """A."""\n    x: int = 1\n    """See :meth:`y`."""\n    def y(self):\n        """Y."""\n',
            None,
        ),
        ("def _f():\n    pass\n", None),
    ],
)
def test_faults_are_found(tmp_path, monkeypatch, make_site, source, expected):
    name = f"toy{abs(hash(source))}"  # the generator remembers modules by name
    (tmp_path / f"{name}.py").write_text(f'"""A toy."""\n\n{source}')
    monkeypatch.syspath_prepend(tmp_path)
    found = list(make_site.faults(pdoc.doc.Module.from_name(name)))
    del sys.modules[name]
    if expected is None:
        assert found == []
    else:
        assert len(found) == 1 and found[0].startswith(expected.replace("toy", name))


def test_names_are_resolved_as_fields_too(make_site):
    assert make_site.resolves("filmstrip.protocols.Tokens.grid")
    assert not make_site.resolves("filmstrip.protocols.Tokens.gridd")
    assert not make_site.resolves("no_such_module.name")
