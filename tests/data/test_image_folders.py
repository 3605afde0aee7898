"""Folders of images: classes, splits, bad files, checks."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_videos import settings_of, take

from filmstrip.data.config import Clip
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_path
from filmstrip.data.tools.check import check_collection
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.errors import UserError

ONE = Clip(num_frames=1, stride=1, size=16, short_side=(16, 20))


def image(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 32, 3), level, np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    for i in range(8):
        image(tmp_path / "train" / ("cat" if i % 2 else "dog") / f"{i}.{'JPEG' if i % 3 else 'png'}", 10 * i)
    image(tmp_path / "val/dog/8.jpg", 80)
    return tmp_path


def test_a_folder_of_images_has_classes_and_splits(photos):
    source = open_path(photos)
    assert source.classes == ("cat", "dog")
    assert (len(source.split("train")), len(source.split("val"))) == (8, 1)
    assert all(sample.is_image for sample in source.samples)


def test_images_beside_videos_are_left_out(photos, root):
    (photos / "train/cat/clip.mp4").write_bytes(b"")
    assert [sample.name for sample in open_path(photos).samples] == ["train/cat/clip.mp4"]
    assert not any(sample.is_image for sample in open_path(root).samples)


def test_batches_of_images(photos):
    source, data = open_path(photos), settings_of(photos, clip=ONE)
    for batch in take(TrainLoader(source, data, seed=0), 3):
        assert batch["video"].shape == (4, 1, 3, 16, 16)
        for video, label, name in zip(batch["video"], batch["label"], batch["name"]):
            level = int(Path(name).stem)
            assert abs(video.float().mean() - 10 * level) < 1.5
            assert label == 1 - level % 2
    (batch,) = EvalLoader(source, data, "val", num_crops=3)
    assert batch["name"] == ["val/dog/8.jpg"] * 3


def test_damaged_images_are_replaced_and_listed(photos):
    bad = photos / "train/cat/1.JPEG"
    bad.write_bytes(bad.read_bytes()[:-40])
    (photos / "train/dog/0.png").write_bytes(b"")
    train = TrainLoader(open_path(photos), settings_of(photos, clip=ONE), seed=0)
    names = {name for batch in take(train, 4) for name in batch["name"]}
    assert not names & {"train/cat/1.JPEG", "train/dog/0.png"}
    assert {entry.name: entry.used for entry in train.unreadable} == {
        "train/cat/1.JPEG": False,
        "train/dog/0.png": False,
    }


def test_a_check_of_images_speaks_of_images(photos):
    (photos / "train/dog/0.png").write_bytes(b"\x89PNG")
    report = check_collection(photos, workers=1)
    assert [(file.name, file.error) for file in report.bad] == [
        ("train/dog/0.png", "not an image (JPEG, PNG, WEBP, BMP)")
    ]
    text = report.text()
    assert "8 images" in text and "hours" not in text and "frames per second" not in text
    assert json.loads(report.to_json())["files"][0]["codec"] == "jpeg"


def test_images_need_no_preparation(photos, tmp_path):
    with pytest.raises(UserError, match="holds images, which load fast as they are"):
        prepare_collection(photos, tmp_path.parent / "out")


def test_a_folder_of_neither_says_what_was_expected(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"holds no videos and no images: .*\.mp4.*\.jpg"):
        open_path(tmp_path)
