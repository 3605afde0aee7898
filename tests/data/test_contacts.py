"""Contacts: files in Ego4D's layout, clips that end at a frame, and hands that reach what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.contacts import ContactClips
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.reaches import NOUNS, VERBS, Reaches
from filmstrip.errors import UserError
from filmstrip.video import open_video
from filmstrip.video.sampling import dense_until

SMALL = Reaches(num_train=3, num_test=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = SMALL.generate(tmp_path_factory.mktemp("reaches") / "small")
    return Data(path=folder, reads=ContactClips(), clip=Clip(num_frames=4, stride=2, size=64), num_workers=0)


def test_a_clip_ends_at_its_moment_and_repeats_the_first_frame():
    assert dense_until(1.0, 3, 2, 8.0, 2.0) == pytest.approx([0.5 + 1 / 16, 0.75 + 1 / 16, 1 + 1 / 16])
    assert dense_until(0.125, 3, 1, 8.0, 2.0) == pytest.approx([1 / 16, 1 / 16, 0.125 + 1 / 16])


def test_batches_are_as_declared_and_show_the_annotated_frame(data):
    source = open_source(data)
    assert (source.classes, source.verbs, source.splits) == (NOUNS, VERBS, ("test", "train"))
    (batch,) = EvalLoader(source, data, "test", batch_size=8)
    assert list(source.kind.specification.faults(batch)) == []
    assert batch["video"].shape == (4, 4, 3, 64, 64) and batch["is_object"].all()
    annotated = json.loads((data.path / "fho_sta_val.json").read_text())["annotations"]
    assert batch["name"] == [row["uid"] for row in annotated]
    for i, row in enumerate(annotated):
        (touched,) = row["objects"]
        assert (batch["boxes"][i, 0] * 64).tolist() == pytest.approx(touched["box"], abs=1e-3)
        assert (
            batch["noun"][i, 0] == touched["noun_category_id"] and batch["verb"][i, 0] == touched["verb_category_id"]
        )
        assert batch["contact"][i, 0].item() == pytest.approx(touched["time_to_contact"])
        with open_video(data.path / f"{row['video_id']}.mp4") as video:
            frames = torch.cat([part.video for part in video.frames(0.0, 10.0)])
        assert torch.equal(batch["video"][i, -1], frames[row["frame"]])


def test_training_rows_are_padded(data):
    sample = open_source(data).split("train")[0]
    (row,) = sample.cut(data, rng=np.random.default_rng(0))
    assert row.content["boxes"].shape == (8, 4) and row.content["is_object"].tolist() == [True] + [False] * 7


def test_numbers_of_classes_become_their_order(data, tmp_path):
    for name in ("fho_sta_train.json", "fho_sta_val.json"):
        content = json.loads((data.path / name).read_text())
        del content["noun_categories"]
        for row in content["annotations"]:
            row["objects"][0]["noun_category_id"] = 7 * row["objects"][0]["noun_category_id"] + 5
        (tmp_path / name).write_text(json.dumps(content))
    source = open_source(replace(data, reads=ContactClips(annotations=tmp_path)))
    seen = {number for sample in source.samples for number in sample.nouns}
    assert source.noun_numbers == tuple(sorted(source.noun_numbers)) and seen == set(range(len(source.classes)))
    assert all(number % 7 == 5 for number in source.noun_numbers)


def test_missing_videos_are_left_out_and_none_at_all_is_refused(data, tmp_path, caplog):
    for file in sorted(data.path.glob("*.json")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="holds none of the 5 annotated videos"):
        open_source(data.at(tmp_path))
    name = "reach_train_00001.mp4"
    (tmp_path / name).write_bytes((data.path / name).read_bytes())
    assert {sample.path for sample in open_source(data.at(tmp_path)).samples} == {str(tmp_path / name)}
    assert "4 of 5 annotated videos are not in" in caplog.text


def test_the_hand_gets_to_the_thing_when_it_says():
    for seed in range(20):
        _, reach = SMALL.scene(np.random.default_rng(seed))
        x, y = reach.hand[:, 0] - reach.thing.x, reach.hand[:, 1] - reach.thing.y
        distance = np.hypot(x, y)
        rest = (reach.contact - np.arange(len(distance))) / SMALL.fps
        speed = np.polyfit(rest, distance, 1)[0]
        gap = distance[-1] - speed * rest[-1]
        assert 0.05 < speed < 0.45 and gap == pytest.approx(reach.thing.radius + 0.05, abs=0.05)


def test_one_noun_does_not_tell_the_verb():
    pairs = [
        (reach.thing.noun, reach.verb)
        for reach in (SMALL.scene(np.random.default_rng((1, seed)))[1] for seed in range(300))
    ]
    table = np.zeros((len(NOUNS), len(VERBS)))
    np.add.at(table, tuple(np.array(pairs).T), 1)
    assert table.min() > 8


def test_a_larger_hand_covers_more_and_wider_waves_swing_further():
    def drawn(**settings):
        """The scene of a hand that comes in waves, its video, and how far it swings from its straight way."""
        made = Reaches(**settings)
        for seed in range(20):
            rng = np.random.default_rng(seed)
            _, reach = made.scene(rng)
            if VERBS[reach.verb] == "shake":
                break
        way = reach.hand[:, :2] - [reach.thing.x, reach.thing.y]
        ahead = np.array([np.cos(reach.hand[0, 2]), np.sin(reach.hand[0, 2])])
        aside = np.abs(way[:, 1] * ahead[0] - way[:, 0] * ahead[1]).max()
        video = made.render([], reach, rng).float()
        return aside, (video[:, 0] > 150).float().mean().item()

    aside, covered = drawn()
    assert aside == pytest.approx(0.04, rel=0.1)
    wider, same = drawn(wave=0.08)
    assert wider == pytest.approx(2 * aside) and same == pytest.approx(covered, rel=0.3)
    narrow, more = drawn(hand=0.09)
    assert narrow == pytest.approx(aside) and more > 1.5 * covered
