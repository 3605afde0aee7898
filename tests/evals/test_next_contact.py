"""Short-term anticipation: the metric on cases computed by hand and against the public code, and Ego4D's files.

``PUBLISHED`` is what ``STAMeanAveragePrecision`` of ``stillfast/evaluation/sta_metrics.py`` (fpv-iplab/stillfast at
commit 199ba49) returns for :func:`drawn`, in per cent.
"""

import json

import numpy as np
import pytest
import torch

from filmstrip.data.annotations.ego4d_contacts import read_contacts
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.contacts import ContactClips
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.reaches import Reaches
from filmstrip.errors import UserError
from filmstrip.evals.next_contact import Contacts, NextContactMAP, contact_precision
from filmstrip.protocols import NextContacts, Objective
from filmstrip.runs.evaluation import Subject

PUBLISHED = {
    1: (41.76005634184543, 29.456783952604678, 26.194340555059718, 15.571847736312469),
    5: (72.57992606644186, 65.3533839756669, 56.04140315743571, 43.504723839063345),
}
BOX, AWAY = [10, 10, 109, 109], [300, 300, 399, 399]


def contacts(*rows, predicted=False):
    """Rows of box, noun, verb, seconds and, of predictions, score."""
    columns = list(zip(*rows)) if rows else [[]] * 5
    arrays = [np.array(column, float) for column in columns]
    boxes = arrays[0].reshape(-1, 4)
    nouns, verbs = (array.astype(int) for array in arrays[1:3])
    return Contacts(boxes=boxes, nouns=nouns, verbs=verbs, seconds=arrays[3], scores=arrays[4] if predicted else None)


def predicted(*rows):
    return contacts(*rows, predicted=True)


def drawn():
    """Forty images, whose predictions scatter around the annotations, in whole pixels, all scores different."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(40):
        count, guesses = rng.integers(1, 4), rng.integers(3, 25)
        corner = rng.integers(0, 300, (count, 2))
        boxes = np.concatenate([corner, corner + rng.integers(40, 200, (count, 2))], axis=1)
        truth = [boxes, rng.integers(0, 5, count), rng.integers(0, 3, count), rng.uniform(0.2, 2, count)]
        of = rng.integers(0, count, guesses)
        guess = [
            boxes[of] + rng.integers(-25, 25, (guesses, 4)),
            np.where(rng.random(guesses) < 0.6, truth[1][of], rng.integers(0, 5, guesses)),
            np.where(rng.random(guesses) < 0.6, truth[2][of], rng.integers(0, 3, guesses)),
            truth[3][of] + rng.normal(0, 0.3, guesses),
        ]
        names = ("boxes", "nouns", "verbs", "seconds")
        scores = rng.random(guesses)
        images.append((Contacts(**dict(zip(names, guess)), scores=scores), Contacts(**dict(zip(names, truth)))))
    return images


@pytest.mark.parametrize("top_k", PUBLISHED)
def test_it_is_the_published_metric(top_k):
    found = contact_precision(drawn(), top_k=top_k)
    assert [100 * value for value in found.values()] == pytest.approx(PUBLISHED[top_k], abs=1e-6)


def test_verb_and_time_each_cost_a_match():
    truth = contacts((BOX, 1, 2, 1.0))
    for verb, seconds, expected in ((2, 1.25, (1, 1, 1, 1)), (3, 1.0, (1, 0, 1, 0)), (2, 1.3, (1, 1, 0, 0))):
        found = contact_precision([(predicted((BOX, 1, verb, seconds, 0.5)), truth)])
        assert tuple(found.values()) == expected


def test_four_false_positives_for_each_object_are_forgiven_and_no_fifth():
    truth = contacts((BOX, 1, 2, 1.0))
    hit = (BOX, 1, 2, 1.0, 0.1)
    wrong = [(AWAY, 1, 2, 1.0, 0.9 - 0.01 * i) for i in range(6)]
    for count, expected in ((4, 1.0), (5, 1 / 2), (6, 1 / 3)):
        assert contact_precision([(predicted(*wrong[:count], hit), truth)])["noun"] == pytest.approx(expected)
    assert contact_precision([(predicted(*wrong[:1], hit), truth)], top_k=1)["noun"] == pytest.approx(1 / 2)
    two = contacts((BOX, 1, 2, 1.0), ([500, 500, 599, 599], 1, 2, 1.0))
    # Eight are forgiven of two objects; one object is found, with recall one half.
    assert contact_precision([(predicted(*wrong, hit), two)])["noun"] == pytest.approx(0.5)


def test_forgiven_are_the_highest_of_an_image_whatever_their_noun():
    truth = contacts((BOX, 1, 0, 1.0))
    others = [(AWAY, 7, 0, 1.0, 0.9 - 0.01 * i) for i in range(4)]
    images = [(predicted(*others, (AWAY, 1, 0, 1.0, 0.5), (BOX, 1, 0, 1.0, 0.4)), truth)]
    assert contact_precision(images)["noun"] == pytest.approx(0.5)  # the four of noun 7 used it up


def test_an_object_is_found_once_and_nouns_count_alike():
    truth = contacts((BOX, 1, 0, 1.0), (AWAY, 2, 0, 1.0))
    images = [(predicted((BOX, 1, 0, 1.0, 0.9), (BOX, 1, 0, 1.0, 0.8), (AWAY, 3, 0, 1.0, 0.7)), truth)]
    assert contact_precision(images, top_k=1)["noun"] == pytest.approx(0.5)  # noun 1 is found, noun 2 is not
    missed = [*images, (predicted(), contacts((BOX, 1, 0, 1.0)))]
    assert contact_precision(missed, top_k=1)["noun"] == pytest.approx(0.25)  # an image without predictions counts


def test_an_overlap_of_one_half_is_not_enough():
    truth = contacts(([0, 0, 99, 99], 1, 0, 1.0))
    for right, expected in ((49, 0.0), (50, 1.0)):
        assert contact_precision([(predicted(([0, 0, right, 99], 1, 0, 1.0, 0.5)), truth)])["noun"] == expected
    with pytest.raises(ValueError, match="no image has an annotated object"):
        contact_precision([(predicted((BOX, 1, 2, 1.0, 1.0)), contacts())])


def write(folder, name, frames, **more):
    metadata = {"v": {"frame_width": 1440, "frame_height": 1080}}
    (folder / name).write_text(json.dumps({"info": {"video_metadata": metadata}, "annotations": frames, **more}))


def frame(uid, *boxes):
    objects = [
        {"box": box, "noun_category_id": 4, "verb_category_id": 1, "time_to_contact": 0.5 + i}
        for i, box in enumerate(boxes)
    ]
    return {"uid": uid, "video_id": "v", "frame": 120, "objects": objects}


def test_ego4ds_files_are_read(tmp_path):
    names = {"noun_categories": [{"id": 4, "name": "knife"}], "verb_categories": [{"id": 1, "name": "take"}]}
    write(tmp_path, "fho_sta_train.json", [frame("a", BOX, AWAY), frame("b", [5, 5, 5, 9])], **names)
    write(tmp_path, "fho_sta_val.json", [frame("c", AWAY, [9, 5, 5, 9])])
    found = read_contacts(tmp_path)
    assert [each.uid for each in found.frames["train"]] == ["a"]  # boxes without an area are left out
    (kept,) = found.frames["test"]
    assert (kept.video, kept.frame, kept.height, kept.width) == ("v", 120, 1080, 1440)
    assert kept.contacts[0].box == tuple(AWAY) and len(kept.contacts) == 1
    assert [each.seconds for each in found.frames["train"][0].contacts] == [0.5, 1.5]
    assert found.nouns == {4: "knife"} and found.verbs == {1: "take"}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no fho_sta_train.json or fho_sta_val.json"):
        read_contacts(tmp_path)
    (tmp_path / "fho_sta_val.json").write_text('{"clips": []}')
    with pytest.raises(UserError, match="not annotated as Ego4D's short-term anticipation: KeyError"):
        read_contacts(tmp_path)
    write(tmp_path, "fho_sta_val.json", [frame("c", AWAY)], noun_categories=[{"id": 4, "name": "a"}])
    write(tmp_path, "fho_sta_train.json", [frame("c", AWAY)], noun_categories=[{"id": 4, "name": "b"}])
    with pytest.raises(UserError, match="calls class 4 a, and another file b"):
        read_contacts(tmp_path)


class Oracle(Objective):
    """Finds what is annotated of each clip, by its first pixel, and a box that is wrong with more confidence."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def next_contacts(self, video):
        rows = [self.answers[tuple(clip[-1, :, 0, :8].flatten().tolist())] for clip in video]
        boxes, nouns, verbs, seconds = (torch.stack(column) for column in zip(*rows))
        wrong = torch.tensor([0.0, 0.0, 0.05, 0.05]).expand_as(boxes)
        scores = torch.tensor([[0.9, 0.5]]).expand(len(video), 2)
        both = (torch.cat([x, x], dim=1) for x in (nouns, verbs, seconds))
        return NextContacts(torch.cat([wrong, boxes], dim=1), *both, scores)


def test_the_protocol_finds_what_is_annotated_and_writes_it(tmp_path):
    folder = Reaches(num_train=1, num_test=3).generate(tmp_path / "reaches")
    data = Data(path=folder, reads=ContactClips(), clip=Clip(num_frames=2, stride=1, size=64), num_workers=0)
    source = open_source(data)
    (batch,) = EvalLoader(source, data, "test", batch_size=8)
    keys = [tuple(clip[-1, :, 0, :8].flatten().tolist()) for clip in batch["video"]]
    parts = zip(*(batch[key] for key in ("boxes", "noun", "verb", "contact")))
    oracle = Oracle(dict(zip(keys, parts)))
    subject = Subject(objective=oracle, source=source, data=data, device=torch.device("cpu"))
    found = dict(NextContactMAP(out=tmp_path / "found.json")(subject))
    assert found == {"noun_mAP": 1, "noun_verb_mAP": 1, "noun_ttc_mAP": 1, "overall_mAP": 1, "count": 6}
    strict = dict(NextContactMAP(top_k=1)(subject))
    assert strict["noun_mAP"] < 1
    written = json.loads((tmp_path / "found.json").read_text())["results"]
    annotated = json.loads((folder / "fho_sta_val.json").read_text())["annotations"]
    for row in annotated:
        wrong, right = written[row["uid"]]
        assert right["box"] == pytest.approx(row["objects"][0]["box"], abs=1e-3)
        assert right["noun_category_id"] == row["objects"][0]["noun_category_id"] and wrong["score"] > right["score"]


def test_runs_of_other_kinds_are_refused(tmp_path):
    folder = Reaches(num_train=1, num_test=1).generate(tmp_path / "reaches")
    data = Data(path=folder, reads=ContactClips(), clip=Clip(num_frames=2, stride=1, size=64))
    subject = Subject(objective=Objective(), source=open_source(data), data=data, device=torch.device("cpu"))
    with pytest.raises(UserError, match="finds no next contacts"):
        NextContactMAP().check(subject)
