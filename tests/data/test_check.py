"""That a check finds what is wrong with files, counts the rest, and says what to do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from collections_on_disk import REAL, clip, spoil, write_collection

from filmstrip.data.check import check_collection
from filmstrip.data.parallel import CRASHED, each
from filmstrip.errors import UserError
from filmstrip.video.write import write_video


def test_a_sound_collection_has_counts_and_statistics(tmp_path: Path):
    report = check_collection(write_collection(tmp_path), workers=1)
    assert not report.bad and not report.flawed
    assert report.counts == {"test": {"left": 1, "right": 1}, "train": {"left": 2, "right": 1}}
    assert [file.name for file in report.files] == sorted(file.name for file in report.files)
    for file in report.files:
        assert (file.codec, file.width, file.height, file.fps, file.num_frames) == ("h264", 48, 48, 12.0, 24)
        assert file.gop == 24 and file.duration == 2.0
        assert file.bytes == (tmp_path / file.name).stat().st_size
    text = report.text()
    assert "5 files, 0 unreadable, 0 flawed" in text and "codecs: h264 (5)" in text
    assert re.search(r"left +1 +2\n", text)


def test_bad_and_flawed_files_are_named_with_their_reasons(tmp_path: Path):
    wrong = spoil(write_collection(tmp_path))
    report = check_collection(tmp_path, workers=1)
    found = {file.name: file.error or file.flaw for file in (*report.bad, *report.flawed)}
    assert found.keys() == wrong.keys()
    for name, words in wrong.items():
        assert re.search(words, found[name]), found[name]
        assert f"{name}: {found[name]}" in report.text()
    assert [file.name for file in report.flawed] == ["train/right/half.mkv"]
    assert 0 < report.flawed[0].num_frames < 60


def test_the_report_is_json(tmp_path: Path):
    spoil(write_collection(tmp_path))
    values = json.loads(check_collection(tmp_path, workers=1).to_json())
    assert (values["num_files"], values["num_bad"], values["num_flawed"]) == (8, 2, 1)
    assert values["counts"]["train"] == {"left": 2, "right": 3}
    assert {file["name"] for file in values["files"]} >= {"train/left/a.mp4", "test/left/text.mp4"}


def test_advice_names_direction_gops_and_missing_classes(tmp_path: Path):
    root = write_collection(tmp_path)
    (root / "test/right/c.mp4").unlink()
    write_video(root / "train/left/long.mp4", clip(3), 12.0, gop=60)
    text = "\n".join(check_collection(root, workers=1).advice)
    assert "directional" in text and "Split 'test' has no video of right" in text
    assert "data prepare" not in text
    (root / "dataset.json").write_text('{"directional": true}')
    assert "directional" not in "\n".join(check_collection(root, workers=1).advice)


def test_long_gops_are_worth_preparing(tmp_path: Path):
    (tmp_path / "a").mkdir()
    write_video(tmp_path / "a/x.mp4", clip(1, num_frames=40), 12.0, gop=250, preset="ultrafast")
    assert f"filmstrip data prepare {tmp_path} --out" in check_collection(tmp_path, workers=1).text()


def test_a_file_cut_into_several_samples_is_decoded_once(tmp_path: Path):
    write_video(tmp_path / "x.mp4", clip(1), 12.0)
    (tmp_path / "list.csv").write_text("path,label,split,start,end\nx.mp4,a,train,0,1\nx.mp4,b,train,1,2\n")
    report = check_collection(tmp_path / "list.csv", workers=1)
    assert len(report.files) == 1 and report.counts == {"train": {"a": 1, "b": 1}}


def test_nothing_there_is_an_error_for_people(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        check_collection(tmp_path / "nowhere")


@pytest.mark.multiprocess
def test_processes_find_the_same_as_one(tmp_path: Path):
    spoil(write_collection(tmp_path))
    assert check_collection(tmp_path, workers=2) == check_collection(tmp_path, workers=1)


def double_or_die(number: int) -> int:
    if number == 13:
        os._exit(7)
    return 2 * number


@pytest.mark.multiprocess
def test_an_item_that_kills_its_process_does_not_stop_the_others():
    reasons = []

    def crashed(item: int, reason: str) -> int:
        reasons.append((item, reason))
        return -item

    results = each(double_or_die, [1, 13, 20, 21, 22], workers=2, title="", crashed=crashed)
    assert sorted(results) == [-13, 2, 40, 42, 44]
    assert reasons == [(13, CRASHED)]


@pytest.mark.skipif(not (REAL / "decoder").is_dir(), reason="the real videos are not at ../shared/data/decoder")
def test_real_broken_files_are_found(tmp_path: Path):
    for name in ("streamio-ffmpeg/broken.mp4", "moviepy/result.webm", "small/mp4-with-audio.mp4", "io/small.mp4"):
        (tmp_path / Path(name).name).symlink_to((REAL / "decoder" / name).resolve())
    report = check_collection(tmp_path, workers=1)
    assert {file.name for file in report.bad} == {"broken.mp4", "result.webm", "mp4-with-audio.mp4"}
    assert report.good[0].num_frames == 166
