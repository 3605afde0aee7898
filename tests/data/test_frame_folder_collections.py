"""Films that are folders of frames, wherever a film may stand: class folders, manifests, check, prepare, commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_videos import settings_of, take

from colour_videos import CLIP, RGB, Colours
from filmstrip.commands.work import predict
from filmstrip.commands.work.encode import find_source
from filmstrip.data.layouts.folder import find_media
from filmstrip.data.layouts.named import by_stem
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_path
from filmstrip.data.tools.check import check_collection
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.errors import UserError
from filmstrip.runs.classifiers import VideoClassifier
from filmstrip.video import read_video

LENGTH = 12


def film(folder: Path, colour: tuple[int, int, int] | int, suffix: str = "jpg", length: int = LENGTH) -> Path:
    """Frames of one colour, or of a grey that brightens by 8 from frame to frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(length):
        level = colour if isinstance(colour, tuple) else (colour + 8 * i,) * 3
        Image.fromarray(np.full((24, 32, 3), level, np.uint8)).save(folder / f"img_{i + 1:05d}.{suffix}", quality=95)
    return folder


@pytest.fixture
def films(tmp_path) -> Path:
    for i in range(4):
        film(tmp_path / f"{'up' if i % 2 else 'down'}/film{i}", 10 * i, "png")
    return tmp_path


def test_folders_of_frames_within_classes_are_films(films, caplog):
    source = open_path(films)
    assert source.classes == ("down", "up")
    assert {sample.name for sample in source.samples} == {"down/film0", "down/film2", "up/film1", "up/film3"}
    assert all(sample.fps == 25 and not sample.is_image for sample in source.samples)
    assert "read at 25 frames per second" in caplog.text
    batches = take(TrainLoader(source, settings_of(films), seed=0), 4)
    for batch in batches:
        assert batch["video"].shape == (4, 4, 3, 16, 16)
        for video, name, span in zip(batch["video"], batch["name"], batch["span"]):
            level = 10 * int(name[-1]) + 8 * (25 * span[0])
            assert abs(float(video[0].float().mean()) - float(level)) < 1
            assert float(span[1] - span[0]) == pytest.approx(3 * 2 / 25)


def test_a_rate_comes_from_the_option_or_dataset_json(films, caplog):
    assert {sample.fps for sample in open_path(films, fps=5.0).samples} == {5.0}
    (films / "dataset.json").write_text('{"fps": 8}')
    assert {sample.fps for sample in open_path(films).samples} == {8}
    assert {sample.fps for sample in open_path(films, fps=5.0).samples} == {5.0}
    assert "25 frames" not in caplog.text
    (films / "dataset.json").write_text('{"fps": 0}')
    with pytest.raises(UserError, match='"fps" is a number of frames per second, above 0, not 0'):
        open_path(films)


def test_numbered_images_in_class_folders_stay_images_unless_a_rate_is_given(tmp_path, caplog):
    film(tmp_path / "one", 0)
    film(tmp_path / "two", 0)
    source = open_path(tmp_path)
    assert source.classes == ("one", "two") and len(source.samples) == 2 * LENGTH
    assert "numbered like a film's frames" in caplog.text
    source = open_path(tmp_path, fps=10.0)
    assert source.classes == () and [sample.name for sample in source.samples] == ["one", "two"]


def test_splits_of_films_and_films_beside_videos(films):
    for split in ("train", "test"):
        film(films / "set" / split / "up/a", 0)
    assert open_path(films / "set").splits == ("test", "train")
    (films / "up/clip.mp4").write_bytes(b"")
    assert [sample.name for sample in open_path(films).samples] == ["up/clip.mp4"]
    assert len(open_path(films, fps=10.0).samples) == 7


def test_rows_of_a_manifest_may_be_folders_of_frames(films):
    (films / "list.csv").write_text(
        "path,label,split,start,end,fps\nup/film1,up,train,,,\ndown/film0,down,test,0.4,0.8,10\n"
    )
    train, test = open_path(films / "list.csv", fps=20.0).samples
    assert (train.fps, test.fps) == (20, 10)
    (batch,) = EvalLoader(open_path(films / "list.csv"), settings_of(films), "test")
    assert batch["span"][0, 0] >= 0.4 and batch["span"][0, 1] <= 0.8
    (films / "list.csv").write_text("path,fps\nup/film1,many\n")
    with pytest.raises(UserError, match="row 2: fps 'many' should be a number"):
        open_path(films / "list.csv")


def test_check_names_frames_that_cannot_be_used(films):
    (films / "up/film1/img_00003.png").write_bytes(b"nothing")
    Image.new("RGB", (8, 8)).save(films / "up/film1/img_00005.png")
    for path in (films / "down/film2").iterdir():
        path.write_bytes(b"")
    report = check_collection(films, workers=1)
    assert [file.name for file in report.bad] == ["down/film2"]
    (flawed,) = report.flawed
    assert (flawed.name, flawed.num_frames, flawed.damaged) == ("up/film1", LENGTH, 2)
    assert "img_00003.png: not an image" in flawed.flaw and "it has 8 x 8 pixels, and the film 32 x 24" in flawed.flaw
    good = next(file for file in report.files if file.name == "up/film3")
    assert (good.codec, good.fps, good.duration) == ("png", 25, 0.48)
    assert good.bytes == sum(path.stat().st_size for path in (films / "up/film3").iterdir())


def test_prepared_films_keep_their_rate_and_are_made_anew_when_an_image_changes(films, tmp_path):
    out = tmp_path.parent / f"{tmp_path.name}-out"
    prepared = prepare_collection(films, out, workers=1, fps=10.0)
    assert not prepared.bad and len(prepared.outcomes) == 4
    frames = read_video(out / "videos/up/film1.mp4")
    assert np.allclose(frames.times, np.arange(LENGTH) / 10, atol=1e-3)
    Image.fromarray(np.full((24, 32, 3), 200, np.uint8)).save(films / "up/film1/img_00012.png")
    again = prepare_collection(films, out, workers=1, fps=10.0)
    assert [outcome.again for outcome in again.outcomes if outcome.name == "up/film1"] == [False]
    assert sum(outcome.again for outcome in again.outcomes) == 3


def test_commands_take_a_folder_of_frames_for_a_film(films, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load_classifier", lambda source, **_: VideoClassifier(Colours(), tuple(RGB), CLIP))
    red = film(tmp_path / "mixed/red", RGB["red"])
    Image.fromarray(np.full((24, 32, 3), RGB["blue"], np.uint8)).save(tmp_path / "mixed/photo.jpg")
    assert predict.predict_files(tmp_path, [red, tmp_path / "mixed"], as_json=True, fps=4.0) == 0
    alone, *_ = json.loads(capsys.readouterr().out)["files"]
    assert alone["path"] == str(red) and alone["top"][0][0] == "red"
    assert alone["timeline"][-1]["end"] == pytest.approx((LENGTH - 1) / 4, abs=0.5)
    assert list(find_media(tmp_path / "mixed", films=True)) == [str(tmp_path / "mixed/photo.jpg"), str(red)]
    assert len(list(find_media(tmp_path / "mixed"))) == 1 + LENGTH
    source = find_source([red], fps=4.0)
    assert [(sample.path, sample.fps) for sample in source.samples] == [(str(red), 4.0)]
    assert by_stem(films / "up") == {name: films / "up" / name for name in ("film1", "film3")}


def test_a_real_film_as_frames():
    folder = Path(__file__).parents[2] / "../shared/data/vos/DAVIS/JPEGImages/480p"
    if not folder.is_dir():
        pytest.skip("the real films are not here (../shared/data/vos)")
    one = sorted(folder.iterdir())[0]
    frames = read_video(one, stop=0.2)
    names = sorted(path for path in one.glob("*.jpg"))[:5]
    expected = torch.stack([torch.from_numpy(np.array(Image.open(name))).permute(2, 0, 1) for name in names])
    assert torch.equal(frames.video, expected) and not any(frames.damaged)
