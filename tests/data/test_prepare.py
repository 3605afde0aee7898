"""That copies show the same at the same times, that labels come along, and that work is resumed and verified."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from collections_on_disk import REAL, clip, spoil, write_collection, write_uneven

from filmstrip.data.sources import open_path
from filmstrip.data.tools import reencode
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.data.tools.reencode import Recipe
from filmstrip.errors import UserError
from filmstrip.video.decode import open_video, read_video
from filmstrip.video.decoder import DecodeError
from filmstrip.video.write import write_video


def prepare(path: Path, out: Path, **settings):
    return prepare_collection(path, out, **{"workers": 1, "short_side": 32, **settings})


def labelled(path: Path) -> set[tuple[str, str]]:
    """Split and class of every sample."""
    source = open_path(path)
    return {(Path(s.path).stem, s.split, source.classes[s.label]) for s in source.samples}


def test_a_copy_has_the_labels_splits_and_notes_of_its_source(tmp_path: Path):
    root, out = write_collection(tmp_path / "in"), tmp_path / "out"
    (root / "dataset.json").write_text('{"directional": true, "classes": ["right", "left"]}')
    prepared = prepare(root, out)
    assert not prepared.bad and len(prepared.outcomes) == 5
    source = open_path(out)
    assert source.directional and source.classes == ("right", "left")
    assert labelled(out) == labelled(root)


def test_copies_are_small_h264_with_short_regular_gops_and_no_sound(tmp_path: Path):
    root, out = write_collection(tmp_path / "in"), tmp_path / "out"
    prepare(root, out, gop=8)
    with av.open(open_path(out).samples[0].path) as file:
        assert len(file.streams) == 1
        frames = list(file.decode(video=0))
        assert file.streams.video[0].codec.name == "h264"
    assert [i for i, frame in enumerate(frames) if frame.key_frame] == [0, 8, 16]
    assert [PictureType(frame.pict_type).name for frame in frames[:8]] == list("IBBBPBBP")
    assert {(frame.width, frame.height, frame.format.name) for frame in frames} == {(32, 32, "yuv420p")}


def test_uneven_frame_times_are_kept(tmp_path: Path):
    times = np.array([0.0, 0.04, 0.08, 0.5, 0.533, 1.0, 1.01, 2.0, 2.2, 2.25])
    (tmp_path / "in/a").mkdir(parents=True)
    write_uneven(tmp_path / "in/a/x.mp4", clip(1, num_frames=10), times)
    prepare(tmp_path / "in", tmp_path / "out")
    copy = read_video(open_path(tmp_path / "out").samples[0].path)
    np.testing.assert_allclose(copy.times, times, atol=2e-3)
    assert copy.video.shape == (10, 3, 32, 32)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((240, 320), 128, (128, 170)),
        ((90, 51), 256, (90, 52)),
        ((1, 1), 256, (2, 2)),
        ((1080, 1920), 256, (256, 456)),
    ],
)
def test_sizes_are_even_keep_their_shape_and_never_grow_by_more_than_a_pixel(size, short_side, expected):
    assert Recipe(short_side=short_side).size(*size) == expected


@pytest.mark.parametrize("size", [2, 6, 17])
def test_videos_of_a_few_pixels_are_copied(tmp_path: Path, size: int):
    write_video(tmp_path / "in/a/x.mp4", clip(1)[:, :, :size, : size + 1], 12.0, crf=4)
    prepared = prepare(tmp_path / "in", tmp_path / "out")
    assert not prepared.bad and prepared.outcomes[0].num_frames == 24


def test_bad_files_are_left_out_and_flawed_ones_kept_as_far_as_they_go(tmp_path: Path):
    root, out = write_collection(tmp_path / "in"), tmp_path / "out"
    spoil(root)
    prepared = prepare(root, out)
    assert {outcome.name for outcome in prepared.bad} == {"train/right/empty.mp4", "test/left/text.mp4"}
    assert [outcome.name for outcome in prepared.flawed] == ["train/right/half.mkv"]
    assert "left out  train/right/empty.mp4: the file is empty" in prepared.text()
    names = {Path(sample.path).stem for sample in open_path(out).samples}
    assert "half" in names and not names & {"empty", "text"}
    assert not list(out.rglob("*.part*"))


def test_preparing_again_does_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, out = write_collection(tmp_path / "in"), tmp_path / "out"
    prepare(root, out)
    (out / "videos/train/left/a.mp4").unlink()
    (out / "videos/train/left/b.mp4").write_bytes(b"half written")
    write_video(root / "test/left/c.mp4", clip(77), 12.0)
    done = []
    original = reencode.reencode

    def spy(source, target, recipe):
        done.append(target.relative_to(out / "videos").as_posix())
        return original(source, target, recipe)

    monkeypatch.setattr("filmstrip.data.tools.prepare.reencode", spy)
    prepared = prepare(root, out)
    assert sorted(done) == ["test/left/c.mp4", "train/left/a.mp4", "train/left/b.mp4"]
    assert sum(outcome.again for outcome in prepared.outcomes) == 2 and "2 were there already" in prepared.text()
    assert labelled(out) == labelled(root)


def test_an_interruption_costs_only_what_was_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, out = write_collection(tmp_path / "in"), tmp_path / "out"
    original, calls = reencode.reencode, []

    def interrupted(source, target, recipe):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(source, target, recipe)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("filmstrip.data.tools.prepare.reencode", interrupted)
        prepare(root, out)
    with (out / "prepared.jsonl").open("a") as ledger:
        ledger.write('{"name": "train/le')
    prepared = prepare(root, out)
    assert sum(outcome.again for outcome in prepared.outcomes) == 2 and not prepared.bad
    assert len(list(out.rglob("*.mp4"))) == 5


def test_other_settings_need_another_folder(tmp_path: Path):
    root, out = write_collection(tmp_path / "in"), tmp_path / "out"
    prepare(root, out)
    with pytest.raises(UserError, match="prepared with gop 8"):
        prepare(root, out, gop=4)
    with pytest.raises(UserError, match="lies inside"):
        prepare(root, root / "small")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(UserError, match="other files"):
        prepare(root, tmp_path / "full")


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_settings_that_make_no_sense_are_told(tmp_path: Path, text: str):
    root, out = write_collection(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "prepare.json").write_text(text)
    with pytest.raises(UserError, match=r"prepare\.json .*give another"):
        prepare(root, out)


def test_parts_of_a_video_share_one_copy_and_keep_their_times_and_texts(tmp_path: Path):
    write_video(tmp_path / "x.mp4", clip(1), 12.0)
    (tmp_path / "list.csv").write_text(
        'path,split,start,end,text\nx.mp4,train,0,1,"he said ""hop"", twice"\nx.mp4,test,1,2,grün\n'
    )
    prepare(tmp_path / "list.csv", tmp_path / "out")
    samples = open_path(tmp_path / "out").samples
    assert [(s.split, s.start, s.end, s.text) for s in samples] == [
        ("train", 0.0, 1.0, ('he said "hop", twice',)),
        ("test", 1.0, 2.0, ("grün",)),
    ]
    assert len({s.path for s in samples}) == 1 and len(list((tmp_path / "out").rglob("*.mp4"))) == 1


def test_files_that_differ_in_their_ending_do_not_overwrite_each_other(tmp_path: Path):
    folder = tmp_path / "in/a"
    folder.mkdir(parents=True)
    for ending, seed in ((".mp4", 1), (".mkv", 2)):
        write_uneven(folder / f"x{ending}", clip(seed, num_frames=4 + seed), np.arange(4 + seed) / 12)
    prepare(tmp_path / "in", tmp_path / "out")
    assert sorted(len(read_video(s.path)) for s in open_path(tmp_path / "out").samples) == [5, 6]


def test_names_in_archives_do_not_lead_out_of_the_folder(tmp_path: Path):
    write_video(tmp_path / "x.mp4", clip(1), 12.0)
    data = (tmp_path / "x.mp4").read_bytes()
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/s-000.tar", "w") as tar:
        for name in ("../../evil.mp4", "/abs.mp4", "good.mp4"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    before = set(tmp_path.rglob("*.mp4"))
    prepared = prepare(tmp_path / "in/s-000.tar", tmp_path / "out")
    assert not prepared.bad
    new = set(tmp_path.rglob("*.mp4")) - before
    assert len(new) == 3 and all(path.is_relative_to(tmp_path / "out/videos") for path in new)


def corrupt_encoder(monkeypatch: pytest.MonkeyPatch, change) -> None:
    """Let ``change`` spoil what is encoded: it gets and returns the recipe, the decoder and the notes."""
    original = reencode._encode

    def encode(decoder, part, recipe, seen, heard):
        original(decoder, part, recipe, seen, heard)
        change(part, seen)

    monkeypatch.setattr(reencode, "_encode", encode)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part, seen: seen.times.append(9.0), "frames instead of"),
        (lambda part, seen: seen.times.__setitem__(-1, seen.times[-1] + 0.01), "times of its copy"),
        (lambda part, seen: [frame.copy_(255 - frame) for _, frame in seen.kept], "does not look like"),
    ],
)
def test_a_copy_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change, words):
    write_video(tmp_path / "x.mp4", clip(1), 12.0)
    corrupt_encoder(monkeypatch, change)
    with pytest.raises(DecodeError, match=words):
        reencode.reencode(str(tmp_path / "x.mp4"), tmp_path / "out/x.mp4", Recipe())
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.multiprocess
def test_processes_prepare_the_same_as_one(tmp_path: Path):
    root = write_collection(tmp_path / "in")
    one, two = prepare(root, tmp_path / "one"), prepare(root, tmp_path / "two", workers=2)
    assert one.outcomes == two.outcomes
    for copy in sorted((tmp_path / "one/videos").rglob("*.mp4")):
        assert copy.read_bytes() == (tmp_path / "two" / copy.relative_to(tmp_path / "one")).read_bytes()
    assert (tmp_path / "one/manifest.csv").read_bytes() == (tmp_path / "two/manifest.csv").read_bytes()


def test_copies_do_not_depend_on_what_memory_held_before(tmp_path: Path):
    """glibc fills what it hands out with a pattern; elsewhere this says nothing, but does not fail either."""
    write_video(tmp_path / "x.mp4", clip(3), 12.0, gop=60, crf=12, preset="ultrafast")
    program = (
        "import sys; from pathlib import Path; from filmstrip.data.tools.reencode import Recipe, reencode;"
        "reencode(sys.argv[1], Path(sys.argv[2]), Recipe(short_side=32))"
    )
    running = {}
    for pattern in ("0", "1"):
        command = [sys.executable, "-c", program, tmp_path / "x.mp4", tmp_path / f"{pattern}.mp4"]
        running[pattern] = subprocess.Popen(command, env={**os.environ, "MALLOC_PERTURB_": pattern})
    assert [process.wait() for process in running.values()] == [0, 0]
    assert (tmp_path / "0.mp4").read_bytes() == (tmp_path / "1.mp4").read_bytes()


@pytest.mark.skipif(not (REAL / "decoder").is_dir(), reason="the real videos are not at ../shared/data/decoder")
@pytest.mark.parametrize(
    "name",
    ["PHP-FFMpeg/portrait.MOV", "torchcodec/h264_10bits.mp4", "torchcodec/testsrc2_odd_height_and_width_mpeg2.mp4"],
)
def test_real_rotated_deep_and_odd_files_look_the_same(tmp_path: Path, name: str):
    path = str(REAL / "decoder" / name)
    result = reencode.reencode(path, tmp_path / "x.mp4", Recipe(short_side=96))
    with open_video(path) as before, open_video(tmp_path / "x.mp4") as after:
        assert (before.info.width > before.info.height) == (after.info.width > after.info.height)
        np.testing.assert_allclose(before.times(), after.times(), atol=1e-4)
    assert result.psnr > 30 and not result.flaw


def test_settings_and_ledger_are_plain_json(tmp_path: Path):
    prepare(write_collection(tmp_path / "in"), tmp_path / "out", crf=18)
    assert json.loads((tmp_path / "out/prepare.json").read_text())["crf"] == 18
    lines = (tmp_path / "out/prepared.jsonl").read_text().splitlines()
    assert {json.loads(line)["num_frames"] for line in lines} == {24} and len(lines) == 5
