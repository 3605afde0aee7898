"""The table of LOVEU-TGVE 2023 becomes one of ours, which an evaluation of editors reads."""

import pytest
import torch

from filmstrip.__main__ import main
from filmstrip.data.annotations.loveu_tgve import TABLE, read_loveu_tgve
from filmstrip.data.config import Data
from filmstrip.data.edits import read_edits
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.text.tokenizers import Bytes
from filmstrip.video import write_video

HEAD = (
    "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,"
    "Multiple Changes Caption,Source\n"
)
# As the challenge has it: parts below rows that name them, an empty row between, spaces at ends.
ROWS = (
    "DAVIS Videos:,,,,,,\n"
    'gold-fish,"Several goldfish, in a tank.","..., anime style. ",Sharks in a tank.,'
    "Goldfish in the sky.,Sharks in the sky.,x\n"
    ",,,,,,\n"
    "Youtube Videos:,,,,,,\n"
    "eating-pizza,A man eats.,A man eats in oil.,A cat eats.,A man eats at sea.,A cat eats at sea.,y\n"
    ",,,,,,\n"
    "Videvo Videos:,,,,,,\n"
    "swans,Two swans.,Two swans in ink.,,Two swans on lava.,Two ducks on lava.,z\n"
)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "loveu"
    root.mkdir()
    (root / TABLE).write_text(HEAD + ROWS, encoding="utf-8-sig")
    for place in ("DAVIS_480p/480p_videos/gold-fish", "videvo_480p/480p_videos/swans"):
        write_video(root / f"{place}.mp4", torch.zeros(9, 3, 32, 32, dtype=torch.uint8), 4)
    return root


def test_edits_of_all_parts_are_read(folder):
    edits = read_loveu_tgve(folder)
    assert len(edits) == 11  # one prompt is empty
    assert edits == read_loveu_tgve(folder / TABLE)
    assert (edits[0].type, edits[0].edit_prompt) == ("style", "..., anime style.")
    assert edits[3].video == folder / "DAVIS_480p" / "480p_videos" / "gold-fish.mp4"
    assert (edits[3].type, edits[3].source_prompt) == ("multi_spatial", "Several goldfish, in a tank.")
    assert edits[4].video.relative_to(folder).parts[0] == "youtube_480p"


def test_converted_edits_are_read_by_an_evaluation(folder, tmp_path, capsys):
    out = tmp_path / "edits"
    assert main(["data", "convert", str(folder), "--layout", "loveu_tgve", "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "7 edits of 2 videos: style (2), object (1), background (2), multi-spatial (2)" in said
    assert "eating-pizza.mp4: it is not there" in said
    edits = read_edits(out)
    assert [edit.type for edit in edits[:4]] == ["style", "object", "background", "multi_spatial"]
    assert all(edit.video.is_file() and edit.target is None for edit in edits)
    source = open_source(Data(path=out, reads=Captioned(tokenizer=Bytes())))
    assert [sample.text for sample in source.split("test")] == [("Several goldfish, in a tank.",), ("Two swans.",)]
    videos = tmp_path / "elsewhere" / "deep"
    write_video(videos / "eating-pizza.mp4", torch.zeros(9, 3, 32, 32, dtype=torch.uint8), 4)
    again = [
        "data",
        "convert",
        str(folder),
        "--layout",
        "loveu_tgve",
        "--out",
        str(out),
        "--videos",
        str(videos.parent),
    ]
    assert main(again) == 0
    assert len(read_edits(out)) == 11


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (HEAD.replace("Style Change Caption", "Style") + ROWS, "lacks the columns Style Change Caption"),
        (HEAD + ROWS.partition("\n")[2], "row 2: gold-fish stands below no part"),
        (HEAD + "TikTok Videos:,,,,,,\n", "no part 'TikTok Videos:'"),
        (HEAD + "DAVIS Videos:,,,,,,\na,,b,c,d,e,f\n", "row 3: Our GT caption of a is empty"),
        (HEAD + "DAVIS Videos:,,,,,,\n", "has no edits"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, match):
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(UserError, match=match):
        read_loveu_tgve(tmp_path)


def test_what_cannot_be_converted_is_said(folder, tmp_path, capsys):
    assert main(["data", "convert", str(tmp_path), "--layout", "loveu_tgve", "--out", str(tmp_path / "e")]) == 2
    assert "not in the layout of LOVEU-TGVE" in capsys.readouterr().err
    assert main(["data", "convert", str(folder), "--layout", "loveu_tgve", "--out", str(tmp_path / "e.csv")]) == 2
    assert "give a folder" in capsys.readouterr().err
    for file in folder.rglob("*.mp4"):
        file.unlink()
    assert main(["data", "convert", str(folder), "--layout", "loveu_tgve", "--out", str(tmp_path / "e")]) == 2
    assert "none of the 3 videos is there" in capsys.readouterr().err
