"""That a check finds what is wrong with files, counts the rest, and says what to do."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import av
import pytest
from collections_on_disk import REAL, clip, spoil, write_collection

from filmstrip.__main__ import main
from filmstrip.data.tools.check import check_collection
from filmstrip.data.tools.parallel import CRASHED, each
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


def manifest(root: Path, *rows: str) -> Path:
    for name, frames in (("x", 24), ("y", 12)):
        write_video(root / f"{name}.mp4", clip(1, num_frames=frames), 12.0)
    (root / "list.csv").write_text("\n".join(("path,label,split,start,end", *rows)) + "\n")
    return root / "list.csv"


def test_parts_beyond_the_end_are_named(tmp_path: Path, capsys):
    path = manifest(
        tmp_path,
        "x.mp4,a,train,0,2",
        "x.mp4,b,train,1,2.05",  # less than a frame: rounded
        "y.mp4,a,test,0.5,1.5",
        "y.mp4,b,test,3,4",
        "y.mp4,b,test,,",
    )
    report = check_collection(path, workers=1)
    assert report.beyond == (
        "y.mp4 [0.5-1.5]: it ends after the video does, which is at 1 s",
        "y.mp4 [3-4]: it begins after the video's end, which is at 1 s",
    )
    assert not report.refused
    assert main(["data", "check", str(path), "--workers", "1"]) == 1
    assert "y.mp4 [3-4]" in capsys.readouterr().out


def test_what_classifiers_refuse_is_named_with_its_rows(tmp_path: Path):
    path = manifest(tmp_path, "x.mp4,a,train,,", "y.mp4,,train,,", "", "x.mp4,a,val,,", "y.mp4,,val,,")
    report = check_collection(path, workers=1)
    unlabelled, single, split = report.refused
    assert unlabelled == "a classifier needs a label for every video, and 2 have none: rows 3, 6"
    assert "there is one: a" in single
    assert split == "there is no split 'test', but train, val: --data.eval-split NAME if another stands for it"
    assert "Training would refuse:\n  a classifier needs" in report.text()


def test_a_label_that_is_no_label_is_refused(tmp_path: Path):
    path = manifest(tmp_path, "x.mp4,a,train,,", "y.mp4,NaN,train,,")
    with pytest.raises(UserError, match="row 3: the label is 'NaN': leave the cell empty"):
        check_collection(path, workers=1)


def test_frames_that_were_lost_are_counted(tmp_path: Path):
    spoil(write_collection(tmp_path))
    report = check_collection(tmp_path, workers=1)
    (half,) = report.flawed
    assert report.damaged_frames == half.damaged and report.lost_frames == half.lost
    values = json.loads(report.to_json())
    assert (values["num_damaged_frames"], values["num_lost_frames"]) == (half.damaged, half.lost)


def test_frames_that_the_header_promises_are_lost_where_the_file_ends(tmp_path: Path):
    prepared = io.BytesIO()
    write_video(prepared, clip(1), 12.0, gop=1, format="mp4")
    prepared.seek(0)
    with av.open(prepared) as source, av.open(str(tmp_path / "x.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = (tmp_path / "x.mkv").read_bytes()
    (tmp_path / "x.mkv").write_bytes(whole[: len(whole) // 2])
    report = check_collection(tmp_path, workers=1)
    (half,) = report.flawed
    assert 0 < report.lost_frames == half.lost and half.num_frames + half.lost == pytest.approx(len(clip(1)), abs=2)
    assert f"{half.lost} frames are missing" in half.flaw
    assert f"{half.lost} are lost" in report.text()


def test_a_folder_is_opened_through_a_link(tmp_path: Path):
    root = write_collection(tmp_path / "there")
    link = tmp_path / "link"
    link.symlink_to(root, target_is_directory=True)
    (tmp_path / "classes").mkdir()
    for name in ("left", "right"):
        (tmp_path / "classes" / name).symlink_to(root / "train" / name, target_is_directory=True)
    there, through = (check_collection(path, workers=1) for path in (root, link))
    assert through.counts == there.counts and through.files == there.files
    assert check_collection(tmp_path / "classes", workers=1).counts["train"] == {"left": 1, "right": 1}
