"""Untrimmed videos with their actions: the public sets as published, features along them, parts for training."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from filmstrip.data.annotations.activitynet import read_activitynet, read_database
from filmstrip.data.annotations.own import write_own
from filmstrip.data.annotations.thumos14 import read_thumos14
from filmstrip.data.config import Data
from filmstrip.data.features import FeatureWriter
from filmstrip.data.kinds.untrimmed import UntrimmedVideos, resized
from filmstrip.data.localisation.sequences import FeatureSequence, open_sequences
from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.untrimmed import Untrimmed
from filmstrip.errors import UserError

PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "annotations"
public = pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs ../shared/data/annotations: public annotations")

VIDEO = Procedure(video="a", split="train", steps=(Step(0, 1.0, 3.0), Step(1, 6.0, 7.0)), seconds=10.0, fps=10.0)


@public
def test_thumos14_as_published():
    found = read_thumos14(PUBLIC / "thumos14")
    assert len(found.steps) == 20 and "Ambiguous" not in found.steps
    assert (len(found.split("train")), len(found.split("test"))) == (200, 210)
    first = next(video for video in found.procedures if video.video == "video_test_0000004")
    assert first.steps[0] == Step(found.steps.index("CricketBowling"), 0.2, 1.1) and first.fps == 30
    assert {video.fps for video in found.procedures} <= {24.0, 25.0, 30.0}


@public
def test_the_tables_and_the_database_of_thumos14_agree():
    tables = {video.video: sorted(video.steps) for video in read_thumos14(PUBLIC / "thumos14").procedures}
    database = read_database(PUBLIC / "thumos14" / "thumos_gt.json", ambiguous="Ambiguous")
    assert {video.video: sorted(video.steps) for video in database.procedures} == tables


@public
def test_activitynet_as_published():
    found = read_activitynet(PUBLIC / "activitynet")
    assert len(found.steps) == 200
    assert len(found.split("train")) > 9600 and len(found.split("test")) > 4700
    assert all(step.start < step.end for video in found.procedures for step in video.steps)
    assert all(video.seconds > 0 for video in found.procedures)


def database(folder, name="activity_net.v1-3.min.json", **changes):
    entry = {
        "subset": "validation",
        "duration": 20.0,
        "annotations": [
            {"segment": [5.0, 9.0], "label": "run"},
            {"segment": [1.0, 2.0], "label": "jump"},
            {"segment": [5.0, 9.0001], "label": "run"},  # the same again
            {"segment": [3.0, 3.0], "label": "jump"},  # no time at all
        ],
    }
    videos = {"v": entry | changes, "hidden": {"subset": "testing", "duration": 3.0, "annotations": []}}
    (folder / f"{name}.gz").write_bytes(gzip.compress(json.dumps({"database": videos}).encode()))
    return folder


def test_activitynets_own_file_is_read_packed_and_without_what_says_nothing(tmp_path):
    found = read_activitynet(database(tmp_path))
    assert found.steps == ("jump", "run")
    expected = Procedure(video="v", split="test", steps=(Step(0, 1.0, 2.0), Step(1, 5.0, 9.0)), seconds=20.0)
    assert found.procedures == (expected,)


def test_annotations_that_are_something_else_are_refused(tmp_path):
    with pytest.raises(UserError, match="not annotated as in ActivityNet"):
        read_activitynet(database(tmp_path, annotations=[{"label": "run"}]))
    (tmp_path / "val_Annotation.csv").write_text("video,start\na,1\n")
    (tmp_path / "test_Annotation.csv").write_text("video,start\na,1\n")
    with pytest.raises(UserError, match=r"val_Annotation.csv is not a table of THUMOS14"):
        read_thumos14(tmp_path)
    with pytest.raises(UserError, match="need annotations"):
        open_source(Data(reads=UntrimmedVideos()))


@pytest.fixture
def annotated(tmp_path):
    videos = (VIDEO, replace(VIDEO, video="b", split="test"), replace(VIDEO, video="missing"))
    folder = tmp_path / "annotations"
    folder.mkdir()
    made = Annotations(root=folder, steps=("run", "jump"), tasks=(), procedures=videos)
    write_own(made, folder / "procedures.json")
    return folder


def test_arrays_are_rows_of_windows_that_slide_over_frames(tmp_path, annotated):
    rows = np.arange(24 * 3, dtype=np.float32).reshape(24, 3)
    (tmp_path / "features").mkdir()
    for name in "ab":
        np.save(tmp_path / "features" / f"{name}.npy", rows)
    config = UntrimmedVideos(annotations=annotated, stride=4, window=8, fps=30.0)
    source = open_source(Data(path=tmp_path / "features", reads=config))
    assert [sample.name for sample in source.samples] == ["a", "b"] and source.info("train").width == 3
    clip = source.split("test")[0].cut(Data())[0]
    # At 10 frames a second, as the annotations say: the first row is centred at 0.4 s, the next 0.4 s later.
    assert clip.content["timing"].tolist() == pytest.approx([0.4, 0.4])
    assert clip.content["sequence"].equal(torch.from_numpy(rows)) and clip.content["length"] == 24
    expected = [[(1.0 - 0.4) / 0.4, (3.0 - 0.4) / 0.4], [(6.0 - 0.4) / 0.4, (7.0 - 0.4) / 0.4]]
    assert clip.content["segments"].tolist() == [pytest.approx(row) for row in expected]
    assert clip.content["classes"].tolist() == [0, 1] and clip.times == pytest.approx((0.4, 0.4 * 24))


def encode(folder, spans):
    with FeatureWriter(folder, about={"encoder": "toy"}) as writer:
        for name in ("a.mp4", "b.mp4"):
            writer.add(name, torch.arange(float(len(spans)))[:, None, None].expand(-1, 1, 3), spans=spans)


def test_encoded_clips_become_a_sequence(tmp_path, annotated):
    encode(tmp_path / "features", [(t, t + 1.0) for t in (4.0, 0.0, 2.0)])
    source = open_source(Data(path=tmp_path / "features", reads=UntrimmedVideos(annotations=annotated)))
    clip = source.split("train")[0].cut(Data())[0]
    assert clip.content["sequence"][:, 0].tolist() == [1.0, 2.0, 0.0]
    assert clip.content["timing"].tolist() == pytest.approx([0.5, 2.0])


@pytest.mark.parametrize(("spans", "said"), [([(0.0, 1.0)], "1 clips"), ([(0, 1), (1, 2), (5, 6)], "evenly")])
def test_clips_that_make_no_sequence_are_refused(tmp_path, annotated, spans, said):
    encode(tmp_path / "features", [(float(a), float(b)) for a, b in spans])
    source = open_source(Data(path=tmp_path / "features", reads=UntrimmedVideos(annotations=annotated)))
    with pytest.raises(OSError, match=said):
        source.split("train")[0].cut(Data())


def test_embeddings_stand_where_something_happens():
    config = UntrimmedVideos(stride=2, window=4, noise=0.0, width=8)
    sequences = open_sequences(None, config, 2)
    features, first, step, reach = sequences.sequence(VIDEO)
    assert (first, step, reach) == (0.2, 0.2, 0.2) and len(features) == 49
    centre = first + step * torch.arange(49)
    inside = ((centre - 0.2 >= 1.0 - 1e-6) & (centre + 0.2 <= 3.0 + 1e-6)).nonzero()[:, 0]
    torch.testing.assert_close(features[inside], sequences.embeddings[0].expand(len(inside), -1))
    assert not features[(centre + 0.2 <= 1.0) | (centre - 0.2 >= 7.0)].any()
    noisy = open_sequences(None, replace(config, noise=1.0), 2)
    assert noisy.sequence(VIDEO).features.equal(noisy.sequence(VIDEO).features)
    with pytest.raises(OSError, match="how long"):
        sequences.sequence(replace(VIDEO, seconds=None))


def test_resizing_keeps_times():
    ramp = FeatureSequence(torch.arange(10.0)[:, None], 0.5, 1.0, 0.5)
    features, first, step, reach = resized(ramp, 20)
    assert (first, step, reach) == (0.25, 0.5, 0.25) and features.shape == (20, 1)
    # Away from the ends, what stood at a time still does.
    torch.testing.assert_close(features[2:-2, 0], first + step * torch.arange(2, 18) - 0.5)


def test_training_takes_parts_with_an_action_in_them_and_pads():
    config = UntrimmedVideos(stride=2, window=4, noise=1.0, width=8, max_length=12)
    data = Data(synthetic=Untrimmed(num_train=8, num_test=2), reads=config, batch_size=4, num_workers=0)
    source = open_source(data)
    loader = TrainLoader(source, data, seed=0)
    batch = next(iter(loader.stream(0)))
    loader.close()
    assert list(source.kind.specification.faults(batch)) == []
    assert batch["sequence"].shape == (4, 12, 8) and (batch["length"] == 12).all()
    assert (batch["classes"] >= 0).any(dim=1).all()
    for row, classes in zip(batch["segments"], batch["classes"]):
        # A row is made of two rows' frames, one on either side of its centre.
        assert (row[classes >= 0] >= -1).all() and (row[classes >= 0] <= 13).all() and not row[classes < 0].any()
    # What a part says of an action is when it is in the whole video.
    video = source.split("train")[int(batch["index"][0])].video
    seconds = batch["timing"][0, 0] + batch["segments"][0, 0].double() * batch["timing"][0, 1]
    nearest = min(abs(step.start - float(seconds[0])) for step in video.steps)
    assert nearest < 1e-4 or batch["segments"][0, 0, 0] == -1
    padded = open_source(replace(data, reads=replace(config, max_length=500, crop=0.5)))
    clip = padded.split("train")[0].cut(Data(), rng=np.random.default_rng(0))[0]
    length = int(clip.content["length"])
    whole = len(padded.split("train")[0].cut(Data())[0].content["sequence"])
    assert clip.content["sequence"].shape == (500, 8) and not clip.content["sequence"][length:].any()
    assert 0.5 * whole - 1 <= length <= whole


def crops(tmp_path, annotated, actions, rows=40, **config):
    """What training shows of video ``a`` (a row each 0.4 s, of 0.8 s), over many draws."""
    videos = (replace(VIDEO, steps=tuple(Step(0, *times) for times in actions)),)
    write_own(Annotations(root=annotated, steps=("run",), tasks=(), procedures=videos), annotated / "procedures.json")
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "a.npy", np.arange(rows * 3, dtype=np.float32).reshape(rows, 3))
    config = UntrimmedVideos(annotations=annotated, stride=4, window=8, **config)
    (sample,) = open_source(Data(path=tmp_path / "features", reads=config)).samples
    return [sample.cut(Data(), rng=np.random.default_rng(seed))[0].content for seed in range(30)]


def test_parts_show_half_a_window_beyond_their_centres(tmp_path, annotated):
    found = crops(tmp_path, annotated, [(2.0, 6.0)], max_length=10)
    first, last = (2.0 - 0.4) / 0.4, (6.0 - 0.4) / 0.4  # rows 4 to 14
    for content in found:
        start = round((float(content["timing"][0]) - 0.4) / 0.4)
        expected = [max(first, start - 1) - start, min(last, start + 10 + 1) - start]
        assert content["segments"][0].tolist() == pytest.approx(expected, abs=1e-4)
        assert expected[1] - expected[0] > 4.99  # half of the action
    assert len({float(content["segments"][0, 1]) for content in found}) > 3


def test_whole_videos_keep_what_is_done_beyond_their_features_but_not_resized_ones(tmp_path, annotated):
    actions = [(0.0, 1.0), (4.0, 30.0), (17.0, 18.0), (20.0, 21.0)]  # features end at 16.4 s
    (content, *_) = crops(tmp_path, annotated, actions, max_length=50)
    assert content["classes"].tolist() == [0, 0, 0, 0]
    assert content["segments"][0, 0] == -1 and content["segments"][3, 1] == pytest.approx((21.0 - 0.4) / 0.4)


def test_resized_videos_end_where_their_features_do(tmp_path, annotated):
    actions = [(4.0, 20.0), (16.0, 20.0), (20.0, 21.0)]
    (content, *_) = crops(tmp_path, annotated, actions, max_length=20, resized=True)
    assert content["classes"].tolist() == [0, -1, -1]
    step = 16.4 / 20
    assert content["segments"][0].tolist() == pytest.approx([4.0 / step - 0.5, 20.5])


def test_evaluation_takes_whole_videos():
    data = Data(synthetic=Untrimmed(num_test=3), reads=UntrimmedVideos(max_length=12), num_workers=0)
    source = open_source(data)
    for batch, sample in zip(EvalLoader(source, data, "test", batch_size=1), source.split("test")):
        assert (batch["classes"] >= 0).sum() == len(sample.video.steps) and batch["length"] > 12
        assert batch["seconds"] == sample.video.seconds


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"crop": 0.0}, {"kept": 2.0}, {"noise": -1.0}, {"fps": 0.0}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match="untrimmed videos:"):
        open_source(Data(synthetic=Untrimmed(), reads=UntrimmedVideos(**wrong)))
