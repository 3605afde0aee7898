"""The page of edited films side by side, and the films themselves."""

import pytest
import torch

from filmstrip.data.edited_films import EditedFilm, add_edited
from filmstrip.data.side_by_side import by_edit
from filmstrip.report.edits import edits_report, measures
from filmstrip.video import read_video, write_video
from filmstrip.video.headings import HEIGHT, with_heading


def grey(level, frames=4, size=16):
    return torch.full((frames, 3, size, size), level, dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two edits by two methods, the second of which made one of them, larger and shorter."""
    write_video(tmp_path / "source.mp4", grey(10), 4)
    write_video(tmp_path / "target.mp4", grey(90), 4)
    write_video(tmp_path / "ours.mp4", grey(150), 4)
    write_video(tmp_path / "theirs.mp4", grey(250, frames=3, size=32), 4)
    films = [
        EditedFilm(
            number=number,
            method=method,
            film=tmp_path / f"{method}.mp4",
            source=tmp_path / "source.mp4",
            target=tmp_path / "target.mp4",
            source_prompt="a dog",
            edit_prompt="a cat <b>",
            type=kind,
            measures={"flow_error": error, "psnr": 20.0 + number, "source_psnr": 12.0},
        )
        for number, method, kind, error in (
            (0, "ours", "style", 1.0),
            (0, "theirs", "style", 0.5),
            (1, "ours", "motion", 9.0),
            (1, "theirs", "motion", 3.0),
            (2, "ours", "motion", 99.0),
        )
    ]
    add_edited(tmp_path, films)
    return tmp_path, films


def test_page_and_films(folder):
    root, _ = folder
    page = edits_report(root).read_text()
    assert "3 edits by 2 methods: ours, theirs. Measures are of the 2 edits that all of them made." in page
    assert "a dog → a cat &lt;b&gt;" in page and "<b>" not in page
    assert all(word in page for word in ("true edit", "the source, unedited", "Motion", "Style"))
    film = read_video(root / "side_by_side" / "00000.mp4").video
    # The two headings, and 32 pixels enlarged to 160; as long as the shortest.
    assert film.shape == (3, 3, 2 * HEIGHT + 160, 4 * 160)
    levels = [film[1, 0, 2 * HEIGHT + 80, 160 * i + 80].item() for i in range(4)]
    assert levels == pytest.approx([10, 90, 150, 250], abs=4)
    missing = read_video(root / "side_by_side" / "00002.mp4").video
    assert missing[1, 0, 2 * HEIGHT + 80, 3 * 160 + 80] < 4


def test_means_are_of_shared_edits_and_flow_of_those_that_keep_the_motion(folder):
    _, films = folder
    whole, *by_type = measures(
        {number: of for number, of in by_edit(films).items() if len(of) == 2}, ("ours", "theirs")
    )
    assert whole.rows[0] == ["ours", 1.0, 20.5]
    assert whole.rows[1] == ["theirs", 0.5, 20.5]
    assert whole.rows[2] == ["the source, unedited", None, "12.0"]
    assert by_type[0].rows == [["ours", 1.0, 9.0], ["theirs", 0.5, 3.0]]


def test_headings_are_above_and_cut_where_they_do_not_fit():
    video = grey(200, size=64)
    named = with_heading(video, "a name that is much too long for this")
    assert named.shape == (4, 3, HEIGHT + 64, 64) and named.dtype == torch.uint8
    assert torch.equal(named[:, :, HEIGHT:], video)
    assert named[0, :, :HEIGHT].min() < 100  # there is ink
    assert not torch.equal(named[:, :, :HEIGHT], with_heading(video, "another")[:, :, :HEIGHT])
