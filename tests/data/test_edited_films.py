"""The table of edited films: several methods and runs in one folder, and what is wrong in it."""

from dataclasses import replace

import pytest

from filmstrip.data.edited_films import EditedFilm, add_edited, read_edited
from filmstrip.errors import UserError


def film(folder, number=0, method="moca", **changes):
    made = EditedFilm(
        number=number,
        method=method,
        film=folder / method / f"{number:05d}.mp4",
        source=folder / "source" / f"{number:05d}.mp4",
        source_prompt="a dog",
        edit_prompt="a cat, seen from below",
        type="object",
        run="runs/moca",
        measures={"psnr": 20.5},
    )
    made = replace(made, **changes)
    for path in (made.film, made.source):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return made


def test_films_are_added_and_replaced(tmp_path):
    folder = tmp_path / "edits"
    first = [film(folder, number) for number in (0, 1)]
    add_edited(folder, first)
    assert read_edited(folder) == first
    other = film(folder, method="masactrl", measures={"psnr": 18.0, "flow_error": 0.25})
    better = film(folder, number=1, measures={"psnr": 30.0})
    add_edited(folder, [other, better])
    assert read_edited(folder) == [first[0], other, better]


def test_films_of_elsewhere_take_part(tmp_path):
    folder = tmp_path / "edits"
    add_edited(folder, [film(folder)])
    outside = film(tmp_path / "elsewhere", method="gen", run="", measures={})
    line = f"0,gen,{outside.film},{outside.source},,a dog,{outside.edit_prompt!r},object,,\n".replace("'", '"')
    with (folder / "edited.csv").open("a") as table:
        table.write(line)
    assert read_edited(folder)[1] == outside


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"edit_prompt": "a cow"}, "films of other edits"), ({"run": "runs/second"}, "with the run runs/moca")],
)
def test_what_does_not_belong_together_is_refused(tmp_path, changes, match):
    add_edited(tmp_path, [film(tmp_path)])
    before = (tmp_path / "edited.csv").read_bytes()
    with pytest.raises(UserError, match=match):
        add_edited(tmp_path, [film(tmp_path, **changes)])
    assert (tmp_path / "edited.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("number,", "no,", "lacks the columns number"),
        ("0,moca", "first,moca", "no whole number"),
        ("20.5", "good", "psnr is 'good', and measures are numbers"),
        ("object", "thing", "row 2: there is no type"),
        ("moca/00000.mp4", "moca/1.mp4", "1.mp4 is not there"),
        ("a dog", "", "source_prompt is empty"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, old, new, match):
    add_edited(tmp_path, [film(tmp_path)])
    table = tmp_path / "edited.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        read_edited(tmp_path)


def test_a_film_twice_is_refused(tmp_path):
    add_edited(tmp_path, [film(tmp_path)])
    table = tmp_path / "edited.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    with pytest.raises(UserError, match="two films of number 0 by moca"):
        read_edited(tmp_path)
    with pytest.raises(UserError, match="holds no edited films"):
        read_edited(tmp_path / "empty")
