"""Every group of systems has its file of sizes, ``test_sizes_GROUP.py``, which names all its presets."""

from pathlib import Path

from filmstrip import systems


def test_every_group_has_its_file_of_sizes():
    groups = {name.split(".")[0] for name in systems.names()}
    named = {path.stem.removeprefix("test_sizes_") for path in Path(__file__).parent.glob("test_sizes_*.py")}
    assert named == groups
