"""Public sets in their own layouts, made here as small as they come."""

import csv
import io
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from collections_on_disk import clip
from PIL import Image

from filmstrip.__main__ import main
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.layouts import bair, viper_rl
from filmstrip.data.layouts.tfrecord import _masked_crc, features, records
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.tools.convert import convert_layout
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.errors import UserError
from filmstrip.video.decode import read_video
from filmstrip.video.write import write_video

SMALL = Data(clip=Clip(num_frames=4, stride=1, size=16, short_side=(16, 16)), batch_size=2, num_workers=0)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    write_video(path, clip(num_frames=6, size=16), 10, preset="ultrafast")
    return path


def put(video: Path, root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / name)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rows(source) -> set[tuple]:
    return {(s.name, s.split, None if s.label is None else source.classes[s.label]) for s in source.samples}


@pytest.fixture
def ucf(tmp_path, video):
    put(video, tmp_path, *(f"UCF-101/Biking/v_Biking_g0{g}_c01.mp4" for g in (1, 2, 3)))
    put(video, tmp_path, *(f"UCF-101/HandstandWalking/v_HandStandWalking_g0{g}_c02.mp4" for g in (1, 2)))
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 Archery\n2 Biking\n3 HandstandWalking\n")
    hand = "HandstandWalking/v_HandstandWalking_g0{}_c02.avi"
    write(lists / "trainlist01.txt", f"Biking/v_Biking_g01_c01.avi 2\r\n{hand.format(1)} 3\r\n")
    write(lists / "testlist01.txt", f"Biking/v_Biking_g02_c01.avi\n{hand.format(2)}\nBiking/v_Biking_g09_c01.avi\n")
    write(lists / "trainlist02.txt", f"Biking/v_Biking_g02_c01.avi 2\n{hand.format(2)} 3\n")
    write(lists / "testlist02.txt", "Biking/v_Biking_g01_c01.avi\n")
    return tmp_path


@pytest.mark.parametrize("at", [".", "UCF-101"])
def test_ucf101_divides_as_its_lists_say(ucf, at, caplog):
    source = open_path(ucf / at)
    assert source.classes == ("Archery", "Biking", "HandstandWalking") and not source.directional
    assert rows(source) == {
        ("Biking/v_Biking_g01_c01.avi", "train", "Biking"),
        ("HandstandWalking/v_HandstandWalking_g01_c02.avi", "train", "HandstandWalking"),
        ("Biking/v_Biking_g02_c01.avi", "test", "Biking"),
        ("HandstandWalking/v_HandstandWalking_g02_c02.avi", "test", "HandstandWalking"),
    }
    assert "1 of 5 listed videos are missing" in caplog.text
    assert {s.group for s in source.samples} == {f"{c}/g0{g}" for c in source.classes[1:] for g in (1, 2)}
    second = open_source(Data(path=ucf / at, reads=Clips(layout="ucf101", fold=2)))
    assert ("Biking/v_Biking_g01_c01.avi", "test", "Biking") in rows(second)
    assert next(TrainLoader(source, SMALL, seed=0).stream(0))["video"].shape == (2, 4, 3, 16, 16)


def test_ucf101_is_read_where_its_files_were_moved_into_splits(ucf):
    """As VideoGPT prepares it: train/class, test/class, and the lists beside them."""
    for split, group in (("train", 1), ("test", 2)):
        for path in (ucf / "UCF-101").glob(f"*/*_g0{group}_*"):
            (ucf / split / path.parent.name).mkdir(parents=True, exist_ok=True)
            path.rename(ucf / split / path.parent.name / path.name)
    shutil.rmtree(ucf / "UCF-101")
    source = open_path(ucf)
    assert source.classes == ("Archery", "Biking", "HandstandWalking")
    assert {(s.split, Path(s.path).relative_to(ucf).parts[0]) for s in source.samples} == {
        ("train", "train"),
        ("test", "test"),
    }
    assert len(source.samples) == 4


def test_ucf101_says_what_is_missing(ucf, tmp_path):
    with pytest.raises(UserError, match=r"has no trainlist04.txt: UCF-101 is divided in the ways \(1, 2, 3\)"):
        open_source(Data(path=ucf, reads=Clips(fold=4)))
    with pytest.raises(UserError, match=r"data\.reads\.fold is for UCF-101"):
        open_source(Data(path=ucf, reads=Clips(layout="folder", fold=2)))
    with pytest.raises(UserError, match="not laid out as UCF-101: expected class_name/v_"):
        open_source(Data(path=ucf / "UCF-101/Biking", reads=Clips(layout="ucf101")))
    shutil.rmtree(ucf / "UCF-101")
    with pytest.raises(UserError, match="holds none of the 5 videos"):
        open_path(ucf)


@pytest.fixture
def kinetics(tmp_path, video):
    table = [
        ("train", "abseiling", "-0abcDEF_12", 10, 20),
        ("train", "air drumming", "Zabc-EFG_34", 125, 135),
        ("train", "zumba", "gone0000000", 1, 11),
        ("val", "air drumming", "vabcDEF_567", 3, 13),
        ("test", "", "tabcDEF_890", 0, 10),
    ]
    for split, _, name, start, end in table:
        if not name.startswith("gone"):
            put(video, tmp_path, f"{split}/{name}_{start:06d}_{end:06d}.mp4")
        path = tmp_path / f"annotations/{split}.csv"
        path.parent.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        with (tmp_path / f"annotations/{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label"] * (split != "test") + ["youtube_id", "time_start", "time_end", "split"])
            for row in table:
                if row[0] == split:
                    said = {"val": "validate"}.get(split, split)
                    writer.writerow([row[1]] * (split != "test") + [*row[2:], said])
    return tmp_path


def test_kinetics_reads_its_tables(kinetics, caplog):
    source = open_path(kinetics)
    assert source.classes == ("abseiling", "air drumming", "zumba")
    assert rows(source) == {
        ("train/-0abcDEF_12_000010_000020", "train", "abseiling"),
        ("train/Zabc-EFG_34_000125_000135", "train", "air drumming"),
        ("val/vabcDEF_567_000003_000013", "val", "air drumming"),
        ("test/tabcDEF_890_000000_000010", "test", None),
    }
    assert "1 of 5 listed videos" in caplog.text
    assert "label" in next(iter(EvalLoader(source, SMALL, "val")))
    write(kinetics / "annotations/train.csv", "youtube_id,time_start,time_end\nx,soon,later\n")
    with pytest.raises(UserError, match="row 2: time_start and time_end should be seconds"):
        open_path(kinetics)


def test_kinetics_takes_replacements_of_damaged_videos(kinetics, video):
    name = "Zabc-EFG_34_000125_000135"
    (kinetics / f"train/{name}.mp4").write_bytes(b"damaged")
    put(video, kinetics, f"replacement/replacement_for_corrupted_k400/{name}.mp4")
    source = open_path(kinetics)
    assert len(source.samples) == 4
    assert {s.name: "replacement" in s.path for s in source.split("train")} == {
        "train/-0abcDEF_12_000010_000020": False,
        f"train/{name}": True,
    }
    assert next(TrainLoader(source, SMALL, seed=0).stream(0))["video"].shape == (2, 4, 3, 16, 16)


def test_ssv2_reads_its_labels_and_is_directional(tmp_path, video):
    put(video, tmp_path, *(f"20bn-something-something-v2/{i}.webm" for i in (7, 12, 30, 41)))
    left, down = "Pushing [something] from left to right", "Letting [something] down"
    labels = {"Pushing something from left to right": "1", "Letting something down": "0"}
    lists = {
        "train": [
            {"id": "7", "label": "pushing a cup from left to right", "template": left, "placeholders": ["a cup"]}
        ],
        "validation": [{"id": "12", "label": "letting it down", "template": down}, {"id": "99", "template": down}],
        "test": [{"id": "30"}, {"id": "41"}],
    }
    for name, values in {"labels": labels, **lists}.items():
        write(tmp_path / f"labels/{name}.json", json.dumps(values))
    source = open_path(tmp_path)
    assert source.directional and source.classes == ("Letting something down", "Pushing something from left to right")
    assert rows(source) == {("7", "train", source.classes[1]), ("12", "val", source.classes[0])} | {
        (name, "test", None) for name in ("30", "41")
    }
    assert source.samples[0].text == ("pushing a cup from left to right",)
    write(
        tmp_path / "labels/test-answers.csv", "30;Letting something down\n41;Pushing something from left to right\n"
    )
    assert ("30", "test", "Letting something down") in rows(open_path(tmp_path))
    write(tmp_path / "labels/train.json", "{}")
    with pytest.raises(UserError, match=r"train\.json should hold a JSON list"):
        open_path(tmp_path)
    with pytest.raises(UserError, match="not laid out as Something-Something V2"):
        open_source(Data(path=tmp_path / "20bn-something-something-v2", reads=Clips(layout="ssv2")))


STEP = 6  # levels of brightness


def brightening(steps: np.ndarray) -> torch.Tensor:
    """Grey frames, each brighter than the one before by its entry's multiple of ``STEP``: ``T 3 32 32`` uint8."""
    levels = torch.as_tensor(16 + STEP * steps.cumsum(), dtype=torch.uint8)
    return levels[:, None, None, None].expand(-1, 3, 32, 32)


def steps_of(video: torch.Tensor) -> torch.Tensor:
    """By how many steps each frame of ``B T C H W`` but the first is brighter than the one before."""
    return (video.float().mean(dim=(2, 3, 4)).diff(dim=1) / STEP).round().long()


def write_mpeg4(path: Path, video: torch.Tensor) -> None:
    """MPEG-4 part 2 at 20 frames a second, as OpenCV's ``mp4v``."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=20, options={"qscale": "1"})
        stream.height, stream.width, stream.pix_fmt = *video.shape[-2:], "yuv420p"
        stream.codec_context.thread_count = 1
        for image in video.movedim(1, -1).contiguous().numpy():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def write_minecraft(path: Path, actions: np.ndarray, video: torch.Tensor) -> None:
    """What was seen before anything was done comes first, with action 0; what is done counts from 1."""
    write_mpeg4(path.with_suffix(".mp4"), video)
    np.savez_compressed(path.with_suffix(".npz"), actions=actions)


def write_habitat(path: Path, actions: np.ndarray, video: torch.Tensor) -> None:
    """Each frame is what was seen after its action; files are named after scenes."""
    write_video(path.with_name(f"17DRP5sb8fy_{path.name}.mp4"), video, 25, crf=1, preset="ultrafast")
    np.savez_compressed(path.with_name(f"17DRP5sb8fy_{path.name}.npz"), actions=actions[1:])


@pytest.mark.parametrize("write_one", [write_minecraft, write_habitat])
def test_teco_videos_come_with_the_actions_that_lead_to_their_frames(tmp_path, write_one):
    for seed, folder in enumerate(("train/0", "train/1", "test/0")):
        (tmp_path / folder).mkdir(parents=True)
        done = np.random.default_rng(seed).integers(1, 4, 12).astype(np.int32)
        done[0] = 0
        shown = brightening(done)
        write_one(tmp_path / folder / "000000", done, shown[write_one is write_habitat :])
    source = open_path(tmp_path)
    assert source.classes == () and source.directional and source.info("train").num_actions == 4
    assert {s.split for s in source.samples} == {"train", "test"}
    batch = next(TrainLoader(source, replace(SMALL, clips_per_video=4, batch_size=8), seed=0).stream(0))
    assert batch["action"].shape == (8, 4) and batch["action"].dtype == torch.int64
    assert torch.equal(batch["action"][:, 1:], steps_of(batch["video"]))
    assert len(batch["action"].unique()) > 1


def test_teco_videos_whose_actions_are_missing_or_wrong_are_bad_files(tmp_path, video):
    put(video, tmp_path, *(f"{split}/{i}/000000.mp4" for split, i in (("train", 0), ("train", 1), ("test", 0))))
    with pytest.raises(UserError, match=r"expected train/0/000000\.mp4 and train/0/000000\.npz"):
        open_source(Data(path=tmp_path / "train", reads=Clips(layout="teco")))
    assert open_path(tmp_path).classes == ("0", "1")  # without any actions a folder of classes
    np.save(tmp_path / "train/1/000000.npy", np.arange(6) % 4)
    np.savez(tmp_path / "test/0/000000.npz", actions=np.arange(5) % 4)
    source = open_path(tmp_path)
    assert source.classes == () and source.info("train").num_actions == 4
    batch = next(TrainLoader(source, replace(SMALL, max_unreadable=0.6), seed=0).stream(0))
    assert batch["name"] == ["train/1/000000.mp4"] * 2
    loader = EvalLoader(source, replace(SMALL, max_unreadable=1.0), "test")
    assert list(loader) == [] and "have 5 rows, but it has 6 frames" in loader.unreadable[0].reason


def write_dmlab(root: Path) -> dict[str, np.ndarray]:
    videos = {}
    for i, name in enumerate(("train/0/000000", "train/1/000000", "test/0/000000")):
        videos[name] = np.random.default_rng(i).integers(0, 256, (5, 16, 16, 3), np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(root / f"{name}.npz", video=videos[name], actions=np.arange(5) % 3)
    return videos


def test_teco_arrays_are_converted_without_loss_and_go_on_where_they_stopped(tmp_path, capsys):
    videos = write_dmlab(tmp_path / "dmlab")
    with pytest.raises(UserError, match=r"holds arrays: `filmstrip data convert .*--layout teco"):
        open_path(tmp_path / "dmlab")
    out = tmp_path / "out"
    command = ["data", "convert", str(tmp_path / "dmlab"), "--layout", "teco", "--out", str(out), "--lossless"]
    assert main(command) == 0
    assert "3 videos from 3 files (0 were there already)" in capsys.readouterr().out
    source = open_path(out)
    assert source.info("train").num_actions == 3 and len(source.split("train")) == 2
    shown = read_video(out / "train/1-000000.mp4").video
    assert torch.equal(shown, torch.from_numpy(videos["train/1/000000"]).permute(0, 3, 1, 2))
    assert next(TrainLoader(source, SMALL, seed=0).stream(0))["action"].shape == (2, 4)
    before = (out / "train/0-000000.mp4").stat().st_mtime_ns
    (out / "test/0-000000.mp4").unlink()
    assert main(command) == 0
    assert "(2 were there already)" in capsys.readouterr().out
    assert (out / "train/0-000000.mp4").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="was converted from something else or otherwise"):
        convert_layout("teco", tmp_path / "dmlab", out)
    with pytest.raises(UserError, match="no layout of arrays 'ucf101'; there are bair, teco, viper_rl"):
        convert_layout("ucf101", tmp_path / "dmlab", out)


def test_dmlab_actions_move_to_the_frames_that_they_lead_to(tmp_path):
    for seed, name in enumerate(("train/0/0", "train/0/1", "test/0/0")):
        done = np.random.default_rng(seed).integers(0, 3, 20)  # after each frame
        video = brightening(np.concatenate([[0], done[:-1]])).permute(0, 2, 3, 1).contiguous().numpy()
        (tmp_path / "dmlab" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / "dmlab" / name, video=video, actions=done, depth_video=np.zeros(20, np.float32))
    out = tmp_path / "out"
    assert not convert_layout("teco", tmp_path / "dmlab", out, lossless=True, workers=1).bad
    stored = np.load(out / "train/0-0.actions.npy")
    assert stored.dtype == np.int64 and stored[0] == 0 and len(stored) == 20
    source = open_path(out)
    assert source.info("train").num_actions == 3
    batch = next(TrainLoader(source, replace(SMALL, clips_per_video=4, batch_size=8), seed=0).stream(0))
    assert torch.equal(batch["action"][:, 1:], steps_of(batch["video"]))
    assert len(batch["action"].unique()) > 1


@pytest.mark.parametrize(
    "actions, reason",
    [
        (np.zeros(3, int), "it has 5 frames and 3 actions: expected one after each frame"),
        (np.zeros(6, int), "it has 5 frames and 6 actions"),
        (np.full(5, -1), "discrete actions count from 0, and there is -1"),
        (np.zeros((5, 2, 2)), "expected whole numbers of shape"),
        (np.full((5, 2), np.nan), "infinite or not a number"),
    ],
)
def test_actions_that_cannot_be_used_are_found_while_converting(tmp_path, actions, reason):
    write_dmlab(tmp_path / "dmlab")
    video = np.zeros((5, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "dmlab/train/1/000000.npz", video=video, actions=actions)
    (bad,) = convert_layout("teco", tmp_path / "dmlab", tmp_path / "out", workers=1).bad
    assert reason in bad.error and bad.path.endswith("train/1/000000.npz")
    assert len(open_path(tmp_path / "out").split("train")) == 1


def test_what_cannot_be_converted_is_left_out_and_listed(tmp_path, capsys):
    write_dmlab(tmp_path / "dmlab")
    np.savez(tmp_path / "dmlab/train/1/000000.npz", frames=np.zeros(3))
    (tmp_path / "dmlab/test/0/000000.npz").write_bytes(b"PK broken")
    options = ["--layout", "teco", "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(["data", "convert", str(tmp_path / "dmlab"), *options]) == 1
    text = capsys.readouterr().out
    assert "1 videos from 3 files" in text and "it has no array 'video', but 'frames'" in text
    assert main(["data", "convert", str(tmp_path), *options]) == 2


def field(number: int, content: bytes | int, wire: int = 2) -> bytes:
    """A field in protocol buffers' wire format."""
    return varint(number << 3 | wire) + (varint(len(content)) + content if wire == 2 else varint(content))


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def example(values: dict[str, bytes]) -> bytes:
    """A ``tf.train.Example`` of features that are encoded already."""
    entries = (field(1, field(1, key.encode()) + field(2, value)) for key, value in values.items())
    return field(1, b"".join(entries))


def write_records(path: Path, messages: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for message in messages:
            length = struct.pack("<Q", len(message))
            file.write(
                length + struct.pack("<I", _masked_crc(length)) + message + struct.pack("<I", _masked_crc(message))
            )


def trajectory(seed: int, encode) -> tuple[bytes, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    video, actions = rng.integers(0, 256, (5, 8, 8, 3), np.uint8), rng.normal(size=(5, 4)).astype("<f4")
    values = {}
    for t in range(5):
        values[f"{t}/image_aux1/encoded"] = field(1, field(1, encode(video[t])))
        values[f"{t}/image_main/encoded"] = field(1, field(1, b"\0" * 192))
        values[f"{t}/action"] = field(2, field(1, actions[t].tobytes()))
    return example(values), video, actions


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("encode", [bytes, png])
def test_bair_becomes_videos_whose_actions_lead_to_their_frame(tmp_path, encode):
    made = {}
    for split, first in (("train", 0), ("test", 4)):
        trajectories = [trajectory(first + i, encode) for i in range(2)]
        write_records(
            tmp_path / f"softmotion30_44k/{split}/traj_{first}_to_1.tfrecords", [t[0] for t in trajectories]
        )
        made |= {f"{split}/traj_{first}_to_1-{i:03d}": t[1:] for i, t in enumerate(trajectories)}
    with pytest.raises(UserError, match=r"holds arrays: `filmstrip data convert .*--layout bair"):
        open_path(tmp_path)
    out = tmp_path.parent / f"{tmp_path.name}-out"
    assert not convert_layout("bair", tmp_path, out, lossless=True, workers=1).bad
    source = open_path(out)
    assert source.info("train").action_dim == 4 and len(source.samples) == 4
    for name, (video, actions) in made.items():
        shown = read_video(out / f"{name}.mp4").video
        assert torch.equal(shown, torch.from_numpy(video).permute(0, 3, 1, 2))
        stored = np.load(out / f"{name}.actions.npy")
        assert np.array_equal(stored[1:], actions[:-1]) and not stored[0].any()


def spoilt(*dropped: str, raw: int = 192) -> bytes:
    """A trajectory without some of its features, and with frames of ``raw`` bytes."""
    values = {f"{t}/image_aux1/encoded": field(1, field(1, bytes(raw))) for t in range(5)}
    values |= {f"{t}/action": field(2, field(1, np.full(4, t, "<f4").tobytes())) for t in range(5)}
    return example({name: value for name, value in values.items() if name not in dropped})


@pytest.mark.parametrize(
    "record, reason",
    [
        (spoilt("2/image_aux1/encoded"), "record 0: it has no '2/image_aux1/encoded', but 4 others like it"),
        (spoilt("3/action"), "record 0: it has no '3/action', but 4 others"),
        (spoilt("4/action", "3/action"), "record 0: it has 5 frames and 3 actions"),
        (spoilt(raw=190), "record 0: a frame of 190 bytes is neither a square RGB image"),
        (example({"0/action": field(2, b"")}), "record 0: it has no frames '0/image_aux1/encoded'"),
    ],
)
def test_bair_records_that_lack_something_are_refused(tmp_path, record, reason):
    write_records(tmp_path / "train/traj_0_to_1.tfrecords", [record])
    with pytest.raises(ValueError, match=reason):
        list(bair.read_arrays(tmp_path / "train/traj_0_to_1.tfrecords"))


def test_bair_does_without_the_last_action(tmp_path):
    write_records(tmp_path / "train/traj_0_to_1.tfrecords", [spoilt("4/action")])
    (episode,) = bair.read_arrays(tmp_path / "train/traj_0_to_1.tfrecords")
    assert episode.actions[:, 0].tolist() == [0, 0, 1, 2, 3] and len(episode.video) == 5


def test_tfrecord_knows_damage_and_all_kinds_of_values(tmp_path):
    floats = field(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", x) for x in (1.5, -2.0)))
    ints = field(3, field(1, varint(7) + varint(2**64 - 3)))
    single = field(3, field(1, 300, wire=0))
    parsed = features(example({"f": floats, "i": ints, "s": single, "none": b""}))
    assert parsed["f"].tolist() == [1.5, -2.0] and parsed["i"].tolist() == [7, -3] and parsed["s"].tolist() == [300]
    assert parsed["none"] == []
    path = tmp_path / "a.tfrecords"
    write_records(path, [b"first", b"second"])
    assert list(records(path)) == [b"first", b"second"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match="ends in the middle of a record of 6 bytes"):
        list(records(path))
    path.write_bytes(b"\1" + whole[1:])
    with pytest.raises(ValueError, match="does not match its checksum"):
        list(records(path))
    numbered = field(1, field(1, field(1, 5, wire=0)))
    for broken in (b"\x0a\xff\xff", b"\xff" * 12, field(1, b"\x0b"), numbered):
        with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
            features(broken)


def test_checksums_are_those_of_the_standard():
    # RFC 3720, B.4: CRC-32C of 32 zero bytes is 0x8a9136aa; masked as TFRecord does.
    crc = 0x8A9136AA
    assert _masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_prepared_copies_keep_their_actions(tmp_path):
    write_dmlab(tmp_path / "dmlab")
    convert_layout("teco", tmp_path / "dmlab", tmp_path / "set", workers=1)
    assert not prepare_collection(tmp_path / "set", tmp_path / "out", workers=1).bad
    source = open_path(tmp_path / "out")
    assert source.info("train").num_actions == 3 and source.directional
    assert next(TrainLoader(source, SMALL, seed=0).stream(0))["action"].shape == (2, 4)


def test_films_of_viper_become_videos_whose_classes_are_tasks(tmp_path):
    rng, films = np.random.default_rng(0), {}
    for task, split in (("cup_catch", "train"), ("walker_walk", "train"), ("walker_walk", "test")):
        path = tmp_path / "dmc" / task / split / "0-54.npz"
        path.parent.mkdir(parents=True)
        films[f"{split}/{task}/0-54.mp4"] = rng.integers(0, 256, (5, 16, 16, 3), np.uint8)
        np.savez(path, films[f"{split}/{task}/0-54.mp4"])
    with pytest.raises(UserError, match=r"holds arrays: `filmstrip data convert .*--layout viper_rl"):
        open_source(Data(path=tmp_path / "dmc"))
    out = tmp_path / "experts"
    assert not convert_layout("viper_rl", tmp_path / "dmc", out, lossless=True, workers=1).bad
    source = open_source(Data(path=out))
    assert source.classes == ("cup_catch", "walker_walk")
    assert {sample.name: sample.actions for sample in source.samples} == dict.fromkeys(films)
    for sample in source.samples:
        assert np.array_equal(read_video(sample.path).video.permute(0, 2, 3, 1).numpy(), films[sample.name])
    np.savez((out / "train/walker_walk/0-54.mp4").with_suffix(".actions.npz"), actions=np.zeros(5, np.int64))
    (out / "train").rename(tmp_path / "moved")
    (tmp_path / "moved/walker_walk").rename(out / "train")
    assert not viper_rl.detect_arrays(out)  # actions beside a video are no film
    alone = tmp_path / "alone"
    assert not convert_layout("viper_rl", tmp_path / "dmc/walker_walk", alone, workers=1).bad
    assert sorted(path.relative_to(alone).as_posix() for path in alone.rglob("*.mp4")) == [
        "test/0-54.mp4",
        "train/0-54.mp4",
    ]
    np.savez(tmp_path / "dmc/cup_catch/train/1.npz", video=np.zeros((2, 16, 16, 3), np.uint8))
    (bad,) = convert_layout("viper_rl", tmp_path / "dmc", tmp_path / "more", workers=1).bad
    assert "no array 'arr_0', but 'video'" in bad.error
    with pytest.raises(UserError, match=r"walker_walk/train/00000.npz"):
        convert_layout("viper_rl", alone, tmp_path / "none")
