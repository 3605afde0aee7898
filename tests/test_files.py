import csv
import errno
import json
import os

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from filmstrip.files import (
    GrowingTable,
    append_line,
    replacing,
    write_csv,
    write_json,
    write_rows,
    write_tensors,
    write_text,
)
from started import SMALL_FILES_ONLY, run


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


def test_files_have_the_permissions_of_any_new_file(tmp_path, umask):
    write_text("a", tmp_path / "new" / "a.txt")
    write_tensors({"x": torch.zeros(2)}, tmp_path / "new" / "x.safetensors")
    with replacing(tmp_path / "new" / "b") as part:
        part.unlink()
        part.touch(0o600)  # as a writer does that makes a private file
    assert {path.name: mode(path) for path in (tmp_path / "new").iterdir()} == dict.fromkeys(
        ("a.txt", "x.safetensors", "b"), 0o640
    )
    assert mode(tmp_path / "new") == 0o750


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text("old", path)
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half of")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_link_goes_on_leading_where_it_led(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_text("new", link)
    assert link.is_symlink() and target.read_text() == "new"


def test_the_ending_stays_last_for_writers_that_go_by_it(tmp_path):
    with replacing(tmp_path / "a.npz") as part:
        assert part.suffix == ".npz" and part.name.startswith(".")
        part.touch()


@pytest.mark.parametrize("write", ["write_tensors({'x': torch.zeros(9999)}, path)", "write_text('x' * 9999, path)"])
def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path, write):
    path = tmp_path / "a.safetensors"
    code = SMALL_FILES_ONLY.format(limit=1000) + (
        "import torch; from pathlib import Path; from filmstrip.files import *\n"
        f"path = Path({str(path)!r})\n"
        f"try: {write}\n"
        "except OSError as error: print(error.errno, error.filename)"
    )
    assert run("-c", code).split() == [str(errno.EFBIG), str(path)]
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_does_not_fit_is_not_there_at_all(tmp_path):
    path = tmp_path / "lines"
    append_line("x" * 99, path)
    code = SMALL_FILES_ONLY.format(limit=150) + (
        "from pathlib import Path; from filmstrip.files import append_line\n"
        f"try: append_line('y' * 99, Path({str(path)!r}))\n"
        "except OSError as error: print(error.errno)"
    )
    assert run("-c", code).split() == [str(errno.EFBIG)]
    append_line("z", path)
    assert path.read_text() == "x" * 99 + "\nz\n"


def test_a_line_follows_a_torn_one_on_a_line_of_its_own(tmp_path):
    (tmp_path / "lines").write_text("whole\nto")
    append_line("z", tmp_path / "lines")
    assert (tmp_path / "lines").read_text() == "whole\nto\nz\n"


def rows_in(path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="") as file:
        return [{"a": int(row["a"]), "b": row["b"] or None} for row in csv.DictReader(file)]


ROWS = [{"a": 1, "b": 'x, "y"\n'}, {"a": 2, "b": None}, {"a": 3, "b": "ü"}]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_growing_table_holds_what_came_before_it_was_stopped(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_text("an older one")
    with pytest.raises(KeyboardInterrupt), GrowingTable(path, ["a", "b"]) as table:
        for i, row in enumerate(ROWS):
            assert suffix == ".parquet" or rows_in(path) == ROWS[:i]
            table.add(row)
        raise KeyboardInterrupt
    assert rows_in(path) == ROWS
    write_rows(ROWS, path)
    assert rows_in(path) == ROWS


def test_a_parquet_table_is_written_again_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(GrowingTable, "SECONDS_AT_RISK", 0.0)
    with GrowingTable(tmp_path / "rows.parquet", ["a", "b"]) as table:
        table.add(ROWS[0])
        assert rows_in(table.path) == ROWS[:1]


def test_what_is_written_comes_back(tmp_path):
    write_tensors({"x": torch.arange(3)}, tmp_path / "x.safetensors")
    assert torch.equal(load_file(tmp_path / "x.safetensors")["x"], torch.arange(3))
    write_json({"a": [1]}, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'
    write_csv([{"a": 1, "b": "x,y"}], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == ["a,b", '1,"x,y"']


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_text("a", tmp_path / "a.txt")
    assert error.value.filename == str(tmp_path / "a.txt") and error.value.filename2 is None
    (tmp_path / "file").touch()
    with pytest.raises((NotADirectoryError, FileExistsError), match="file"):
        write_text("a", tmp_path / "file" / "a.txt")
