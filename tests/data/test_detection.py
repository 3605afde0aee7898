"""Key frames with boxes: AVA's files, detectors' boxes, and clips in which boxes lie where they should."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from filmstrip.data.annotations.ava import read_ava, read_boxes, read_label_map, read_moments, write_scores
from filmstrip.data.augment.pipeline import apply_augment, check_augment
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.detection.types import Actor
from filmstrip.data.kinds.actors import ActorClips
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.video import DecodeError
from filmstrip.video.write import write_video

PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "annotations" / "ava_sample"
public = pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs ../shared/data/annotations: public annotations")

LIST = 'item {\n  name: "sit"\n  id: 3\n}\nitem {\n  name: "stand"\n  id: 7\n}\n'
BOX = (0.25, 0.25, 0.5, 0.75)


@public
def test_rows_as_published():
    found = read_boxes(PUBLIC / "ava_sample.csv", {12: 0, 17: 1, 74: 2, 79: 3, 80: 4})
    assert found["0f39OWEqJ24", 902.0] == (Actor((0.031, 0.162, 0.670, 0.995), (0, 1, 3), 0),)
    assert found["_-Z6wFjXtGQ", 902.0] == (Actor((0.063, 0.049, 0.524, 0.996), (0, 2, 4), 0),)
    assert read_moments(PUBLIC / "ava_excluded_timestamps_sample.csv") == {
        ("0f39OWEqJ24", 903.0),
        ("_-Z6wFjXtGQ", 902.0),
    }
    assert read_label_map(PUBLIC / "action_list.txt") == {12: "action1", 17: "action2", 79: "action3", 80: "action3"}


def write(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        suffix = "pbtxt" if "list" in name else "csv"
        (folder / f"{name.replace('__', '.')}.{suffix}").write_text(text)
    return folder


@pytest.fixture
def annotated(tmp_path):
    return write(
        tmp_path / "annotations",
        ava_action_list=LIST,
        ava_train="a,0001,0.25,0.25,0.5,0.75,3,0\na,0001,0.25,0.25,0.5,0.75,7,0\na,0002,0.0,0.0,0.5,0.5,7,1\n",
        ava_val="b,0001,0.25,0.25,0.5,0.75,7,0\nb,0002,0.25,0.25,0.5,0.75,3,0\nb,0003,0.1,0.1,0.9,0.9,3,4\n",
        ava_val_excluded_timestamps="b,0003\n",
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """White within ``BOX`` of a wide black frame, four seconds at eight frames a second; ``a`` and ``b``."""
    folder = tmp_path_factory.mktemp("videos")
    video = torch.zeros(32, 3, 96, 160)
    video[:, :, 24:72, 40:80] = 1.0
    for name in "ab":
        write_video(folder / f"{name}.mp4", video, 8, crf=5)
    return folder


def data_of(videos, annotated, clip=None, **detection):
    clip = clip or Clip(num_frames=4, stride=2, size=64, short_side=(64, 80))
    return Data(
        path=videos, reads=ActorClips(annotations=annotated, **detection), clip=clip, num_workers=0, batch_size=2
    )


def test_rows_of_one_box_are_one_actor_of_several_classes(annotated):
    found = read_ava(annotated)
    assert found.classes == ("sit", "stand") and found.evaluated == {0, 1}
    assert found.splits["train"]["a", 1.0] == (Actor(BOX, (0, 1), 0),)
    assert found.excluded == {("b", 3.0)}


def test_versions_and_the_classes_that_are_evaluated(tmp_path):
    folder = write(
        tmp_path / "ava",
        ava_action_list_v2__2=LIST,
        ava_action_list_v2__2_for_activitynet_2019='label {\n  name: "stand"\n  label_id: 7\n  label_type: POSE\n}\n',
        ava_train_v2__2="a,0902,0.1,0.1,0.5,0.5,3,0\n",
        ava_val_v2__2="b,0902,,,,,,\n",
    )
    (folder / "ava_train_v2.2.csv.gz").write_bytes(gzip.compress((folder / "ava_train_v2.2.csv").read_bytes()))
    (folder / "ava_train_v2.2.csv").unlink()
    found = read_ava(folder, "_v2.2")
    assert found.classes == ("sit", "stand") and found.evaluated == {1}
    assert found.splits == {
        "train": {("a", 902.0): (Actor((0.1, 0.1, 0.5, 0.5), (0,), 0),)},
        "test": {("b", 902.0): ()},
    }
    # Without the whole list, what is not evaluated is not learned, but the box is there.
    (folder / "ava_action_list_v2.2.pbtxt").unlink()
    found = read_ava(folder, "_v2.2")
    assert found.classes == ("stand",) and found.splits["train"]["a", 902.0] == (Actor((0.1, 0.1, 0.5, 0.5), (), 0),)
    with pytest.raises(UserError, match=r"ava_action_list_v2.1.pbtxt"):
        read_ava(folder, "_v2.1")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,1,0.1,0.1,0.5", "line 2: expected video, second, left"),
        ("a,x,0.1,0.1,0.5,0.5,3,0", "line 2: the second is 'x', which is not a number"),
        ("a,1,0.1,nan,0.5,0.5,3,0", "line 2: the top is 'nan'"),
        ("a,1,10,20,50,60,3,0", "line 2: the box 10,20,50,60 is outside the frame"),
        ("a,1,0.5,0.1,0.1,0.5,3,0", "line 2: the box 0.5,0.1,0.1,0.5 ends before it begins"),
        ("a,1,0.1,0.1,0.5,0.5,4,0", "line 2: there is no class 4"),
        ("a,1,0.1,0.1,0.5,0.5,3,0.9\na,1,0.1,0.1,0.5,0.5,3,sure", "line 3: the score is 'sure'"),
    ],
)
def test_bad_rows_are_named_with_their_line(tmp_path, row, said):
    (tmp_path / "boxes.csv").write_text(f"a,1,0.1,0.1,0.5,0.5,3,0\n{row}\n")
    with pytest.raises(UserError, match=said):
        read_boxes(tmp_path / "boxes.csv", {3: 0})


def test_bad_lists_are_refused(tmp_path):
    (tmp_path / "list.pbtxt").write_text("sit stand")
    with pytest.raises(UserError, match="lists no classes"):
        read_label_map(tmp_path / "list.pbtxt")
    (tmp_path / "list.pbtxt").write_text(LIST.replace("7", "3"))
    with pytest.raises(UserError, match="two classes with the number 3"):
        read_label_map(tmp_path / "list.pbtxt")
    (tmp_path / "moments.csv").write_text("a,1\nb\n")
    with pytest.raises(UserError, match="line 2: expected a video and a second"):
        read_moments(tmp_path / "moments.csv")


def test_a_detectors_table_has_scores_and_maybe_no_classes(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("a,1,-0.01,0.1,0.5,1.01,,0.9\na,1,0.2,0.2,0.2,0.6,,0.99\na,1,0.5,0.5,1,1,-1,1\n")
    assert read_boxes(path) == {
        ("a", 1.0): (Actor((0.0, 0.1, 0.5, 1.0), (), None, 0.9), Actor((0.5, 0.5, 1.0, 1.0), (), None, 1.0))
    }
    path.write_text("a,1,0,0.1,0.5,1\n")
    assert read_boxes(path) == {("a", 1.0): (Actor((0.0, 0.1, 0.5, 1.0)),)}


def test_evaluation_shows_whole_frames_with_the_key_frame_in_the_middle(videos, annotated):
    source = open_source(data_of(videos, annotated))
    assert [sample.name for sample in source.split("test")] == ["b,0001", "b,0002"]  # the third is excluded
    assert source.truth["test"].keys() == {("b", 1.0), ("b", 2.0)}
    clip = source.split("test")[0].cut(data_of(videos, annotated))[0]
    assert clip.content["video"].shape == (4, 3, 64, 96)  # 107 would be in proportion: the next multiple of 32
    assert clip.content["boxes"].tolist() == [list(BOX)] and clip.content["is_actor"].tolist() == [True]
    assert clip.content["box_labels"].tolist() == [[0.0, 1.0]]
    # Frame 8 of 8 a second is on screen at 1 s; two frames apart, it is the third of four.
    assert clip.times == (0.5, 1.25)
    near_the_start = open_source(data_of(videos, annotated, Clip(num_frames=8, stride=4, size=64)))
    assert near_the_start.split("test")[0].cut(data_of(videos, annotated, Clip(num_frames=8, stride=4, size=64)))[
        0
    ].times == (0.0, 2.5)


def white_share(video, box):
    """How white a clip is within a box, and outside it."""
    _, _, height, width = video.shape
    left, top, right, bottom = (round(float(side) * n) for side, n in zip(box, (width, height) * 2))
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    bright = video.float().mean(dim=(0, 1)) / 255
    return bright[inside].mean(), bright[~inside].mean()


def test_boxes_follow_random_crops_and_mirroring(videos, annotated):
    data = replace(data_of(videos, annotated), clips_per_video=2, batch_size=8)
    source = open_source(data)
    loader = TrainLoader(source, data, seed=1)
    batch = next(iter(loader.stream(0)))
    loader.close()
    assert batch["video"].shape == (8, 4, 3, 64, 64) and batch["boxes"].shape == (8, 16, 4)
    assert torch.equal(batch["is_actor"], torch.arange(16).expand(8, 16) < batch["is_actor"].sum(dim=1, keepdim=True))
    mirrored = apply_augment(batch, Augment(mirror=1.0), num_classes=None, specification=ActorClips.specification)
    compared = 0
    for seen in (batch, mirrored):
        for name, video, boxes, there in zip(seen["name"], seen["video"], seen["boxes"], seen["is_actor"]):
            if name == "a,0001" and there.any():  # its box is the white one
                inside, outside = white_share(video, boxes[0])
                assert inside > 0.85 and outside < 0.15
                compared += 1
    assert compared >= 4
    assert not torch.equal(mirrored["boxes"], batch["boxes"])
    half = apply_augment(batch, Augment(mirror=0.5), num_classes=None, specification=ActorClips.specification)
    swapped = (half["boxes"] != batch["boxes"]).any(dim=(1, 2))
    assert torch.equal(swapped, (half["video"] != batch["video"]).flatten(1).any(dim=1))


def test_who_is_not_in_the_crop_is_left_out(tmp_path, videos):
    folder = write(
        tmp_path / "far",
        ava_action_list=LIST,
        ava_train="a,1,0.0,0.0,0.3,1.0,3,0\na,1,0.7,0.0,1.0,1.0,7,1\n",
        ava_val="b,1,0,0,1,1,3,0\n",
    )
    data = data_of(videos, folder, Clip(num_frames=1, stride=1, size=64, short_side=(128, 128)))
    sample = open_source(data).split("train")[0]
    for seed in range(5):
        content = sample.cut(data, rng=np.random.default_rng(seed))[0].content
        assert content["is_actor"].sum() == 1  # the two are further apart than a crop is wide
        assert content["box_labels"][content["is_actor"]].sum() == 1
    crowded = replace(data, reads=replace(data.reads, max_actors=1), clip=replace(data.clip, short_side=(64, 64)))
    sample = open_source(crowded).split("train")[0]
    assert sample.cut(crowded, rng=np.random.default_rng(0))[0].content["boxes"].shape == (1, 4)


def test_a_detectors_boxes_in_place_of_annotated_ones_and_beside_them(tmp_path, videos, annotated):
    (tmp_path / "found.csv").write_text(
        "b,1,0.1,0.1,0.5,0.5,,0.95\nb,1,0.5,0.5,0.9,0.9,,0.5\nb,3,0.1,0.1,0.5,0.5,,0.95\na,1,0.1,0.1,0.5,0.5,7,0.9\n"
    )
    source = open_source(data_of(videos, annotated, proposals=tmp_path / "found.csv"))
    assert [(s.name, [a.box for a in s.actors]) for s in source.split("test")] == [("b,0001", [(0.1, 0.1, 0.5, 0.5)])]
    assert source.truth["test"].keys() == {("b", 1.0), ("b", 2.0)}  # what no box was found for is missed
    assert len(source.split("train")[0].actors) == 1
    more = open_source(data_of(videos, annotated, train_boxes=tmp_path / "found.csv")).split("train")
    assert [actor.classes for actor in more[0].actors] == [(0, 1), (1,)]
    assert {sample.key[0] for sample in more} == {"a"}


def test_a_key_frame_that_the_file_does_not_have_is_an_unreadable_one(videos, annotated):
    data = data_of(videos, annotated, offset=-10.0)
    source = open_source(data)
    with pytest.raises(DecodeError, match="key frame is at 11 s"):
        source.samples[0].cut(data)
    batches = EvalLoader(source, data, "test", batch_size=1)
    assert list(batches) == [] and len(batches.unreadable) == 2
    early = data_of(videos, annotated, offset=1.0)
    assert open_source(early).split("test")[1].moment == 1.0


def test_what_is_missing_is_said(tmp_path, videos, annotated, caplog):
    with pytest.raises(UserError, match=r"holds none of the 2 annotated videos, such as a\.mp4"):
        open_source(data_of(annotated, annotated))
    with pytest.raises(UserError, match="need annotations"):
        open_source(data_of(videos, None))
    with pytest.raises(UserError, match="need videos"):
        open_source(data_of(None, annotated))
    with pytest.raises(UserError, match=r"not a folder of videos"):
        open_source(data_of(tmp_path / "nowhere", annotated))
    (annotated / "ava_train.csv").write_text("a,1,0,0,1,1,3,0\nmissing,1,0,0,1,1,3,0\n")
    open_source(data_of(videos, annotated))
    assert "1 of 3 annotated videos" in caplog.text


@pytest.mark.parametrize("wrong", [{"max_actors": 0}, {"kept": 0.0}, {"min_score": 2.0}])
def test_settings_that_cannot_be_are_refused(videos, annotated, wrong):
    with pytest.raises(UserError, match="actors:"):
        open_source(data_of(videos, annotated, **wrong))


def test_other_cuts_and_mixing_are_refused(videos, annotated):
    with pytest.raises(UserError, match="actors: clips"):
        open_source(data_of(videos, annotated, Clip(sampling="uniform")))
    data = data_of(videos, annotated)
    with pytest.raises(UserError, match="num_clips and num_crops"):
        open_source(data).samples[0].cut(data, num_crops=3)
    with pytest.raises(UserError, match="learns from boxes"):
        check_augment(Augment(mixup=0.8), ("video", "boxes"), ActorClips.specification)


def test_scores_come_back_as_they_were(tmp_path):
    scores = torch.tensor([[0.1, 1.0], [1e-12, 0.0], [1 / 3, 0.7]])
    boxes = [(0.031, 0.162, 0.67, 0.995), (0.1 + 0.2, 0.5, 1 / 3, 0.625), (0.031, 0.162, 0.6700001, 0.995)]
    said = [(("a", 902.0), boxes[:2], scores[:2].tolist()), (("b,c", 1 / 3), boxes[2:], scores[2:].tolist())]
    write_scores(tmp_path / "said.csv", said, (3, 80))
    for place, number in enumerate((3, 80)):
        found = read_boxes(tmp_path / "said.csv", {number: place}, others=True)
        assert [key for key in found] == [("a", 902.0), ("b,c", 1 / 3)]
        assert [actor.box for actors in found.values() for actor in actors] == boxes
    best = [actor.score for actors in found.values() for actor in actors]
    assert torch.equal(torch.tensor(best), scores.amax(dim=1))


def test_the_numbers_of_classes_are_known_after_training(videos, annotated):
    source = open_source(data_of(videos, annotated))
    assert source.info("train").class_numbers == (3, 7) and source.info("train").classes == ("sit", "stand")
