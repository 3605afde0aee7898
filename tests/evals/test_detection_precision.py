"""Mean average precision in key frames and along tubes: by hand, against a slow counterpart, and what must hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from filmstrip import systems
from filmstrip.data.annotations.ava import read_boxes
from filmstrip.data.config import Data
from filmstrip.data.detection.types import Actor
from filmstrip.data.kinds.actors import ActorClips
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.actors import Actors
from filmstrip.errors import UserError
from filmstrip.evals.detection import DetectionMAP, Scored, frame_precision, top_rows, track_iou, video_precision
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject
from filmstrip.video.write import write_video

LEFT, RIGHT, ELSEWHERE = (0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 0.1, 0.1)


def scored(*rows):
    """Boxes and their scores."""
    boxes = torch.tensor([box for box, _ in rows], dtype=torch.float64).view(-1, 4)
    return Scored(boxes, torch.tensor([scores for _, scores in rows]))


def test_every_box_counts_for_every_class():
    truth = {("a", 1.0): [Actor(LEFT, (0, 1)), Actor(RIGHT, (1,))]}
    found = {("a", 1.0): scored((LEFT, [0.9, 0.3]), (RIGHT, [0.2, 0.8]))}
    assert frame_precision(truth, found, 2, 0.5).tolist() == [1.0, 1.0]
    # The first class: the wrong box is the surer one.
    worse = {("a", 1.0): scored((LEFT, [0.2, 0.3]), (RIGHT, [0.9, 0.8]))}
    assert frame_precision(truth, worse, 2, 0.5).tolist() == [0.5, 1.0]


def test_precision_is_the_best_at_a_recall_or_beyond_and_what_is_missed_counts():
    truth = {("a", float(s)): [Actor(LEFT, (0,))] for s in range(4)}
    found = {
        ("a", 0.0): scored((LEFT, [0.9])),
        ("a", 1.0): scored((ELSEWHERE, [0.8])),
        ("a", 2.0): scored((LEFT, [0.7])),
        ("a", 3.0): scored((LEFT, [0.6])),
        ("b", 0.0): scored((LEFT, [0.1])),  # nobody is annotated there
    }
    # Right, wrong, right, right, wrong of four: 1, 3/4, 3/4 and nothing.
    assert frame_precision(truth, found, 1, 0.5)[0] == pytest.approx((1 + 3 / 4 + 3 / 4) / 4)
    assert frame_precision(truth, {}, 1, 0.5)[0] == 0.0


def test_who_was_found_before_makes_the_next_one_wrong():
    near = (0.05, 0.0, 0.4, 1.0)
    truth = {("a", 1.0): [Actor(LEFT, (0,)), Actor(near, (0,))]}
    # Both boxes overlap the second actor most: as in the public evaluation the later one does not take the first.
    found = {("a", 1.0): scored((near, [0.9]), ((0.04, 0.0, 0.4, 1.0), [0.8]))}
    assert frame_precision(truth, found, 1, 0.5).tolist() == [0.5]


def test_the_threshold_is_enough_and_classes_that_nobody_does_are_unknown():
    truth = {("a", 1.0): [Actor((0.0, 0.0, 1.0, 1.0), (0,))]}
    found = {("a", 1.0): scored(((0.0, 0.0, 0.5, 1.0), [0.9, 0.9]))}
    assert frame_precision(truth, found, 2, 0.5)[0] == 1.0 and frame_precision(truth, found, 2, 0.51)[0] == 0.0
    assert np.isnan(frame_precision(truth, found, 2, 0.5)[1])


def slow(truth, found, num_classes, threshold):
    """The same as written out: a class at a time, a prediction at a time."""
    values = []
    for kind in range(num_classes):
        own = {key: [a.box for a in actors if kind in a.classes] for key, actors in truth.items()}
        total = sum(map(len, own.values()))
        rows = [
            (float(score[kind]), key, box.tolist())
            for key, (boxes, scores) in found.items()
            for box, score in zip(boxes, scores)
        ]
        seen, right, points = set(), 0, []
        for count, (_, key, box) in enumerate(sorted(rows, key=lambda row: -row[0]), 1):
            best, where = 0.0, None
            for i, other in enumerate(own.get(key, [])):
                width = min(box[2], other[2]) - max(box[0], other[0])
                height = min(box[3], other[3]) - max(box[1], other[1])
                shared = max(width, 0) * max(height, 0)
                either = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)) - shared
                if shared / either > best:
                    best, where = shared / either, (key, i)
            if best >= threshold and where not in seen:
                seen.add(where)
                right += 1
            points.append((right / count, right / total if total else 0.0))
        area, recall = 0.0, 0.0
        for i, (_, reached) in enumerate(points):
            area += max(p for p, _ in points[i:]) * (reached - recall)
            recall = reached
        values.append(area if total else float("nan"))
    return values


@st.composite
def scenes(draw):
    """Some key frames of three classes, and what a poor detector says of them; no two scores alike."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))

    def boxes(count):
        corner = rng.uniform(0, 0.5, (count, 2))
        return np.concatenate([corner, corner + rng.uniform(0.2, 0.5, (count, 2))], axis=1)

    truth, found = {}, {}
    for second in range(draw(st.integers(1, 4))):
        true = boxes(rng.integers(0, 4))
        truth["v", float(second)] = [
            Actor(tuple(box), tuple(np.flatnonzero(rng.uniform(size=3) < 0.5).tolist())) for box in true
        ]
        said = np.concatenate([true + rng.normal(0, 0.05, true.shape), boxes(rng.integers(0, 3))])
        found["v", float(second)] = Scored(torch.from_numpy(said), torch.from_numpy(rng.uniform(size=(len(said), 3))))
    return truth, found


@given(scenes(), st.sampled_from([0.3, 0.5, 0.75]))
def test_a_slow_counterpart_agrees(scene, threshold):
    np.testing.assert_allclose(frame_precision(*scene, 3, threshold), slow(*scene, 3, threshold))


@given(scenes(), st.integers(1, 12), st.sampled_from([{0, 1, 2}, {0, 2}]))
def test_only_the_top_rows_rows_of_a_key_frame_count(scene, most, evaluated):
    truth, found = scene
    capped = {key: top_rows(scored, most, frozenset(evaluated)) for key, scored in found.items()}
    for key, (_, scores) in found.items():
        rows = sorted((float(p) for row in scores for k, p in enumerate(row) if k in evaluated), reverse=True)
        kept = capped[key].scores
        assert sorted(kept[kept > -torch.inf].tolist(), reverse=True) == rows[:most]
    # A class at a time, so that the slow counterpart sees only what is left.
    values = frame_precision(truth, capped, 3, 0.5)
    for kind in evaluated:
        left = {}
        for key, (boxes, scores) in capped.items():
            there = scores[:, kind] > -torch.inf
            left[key] = Scored(boxes[there], scores[there])
        np.testing.assert_allclose(values[kind], slow(truth, left, 3, 0.5)[kind])
    many = {key: top_rows(scored, 10**6, frozenset({0, 1, 2})) for key, scored in found.items()}
    np.testing.assert_array_equal(frame_precision(truth, many, 3, 0.5), frame_precision(truth, found, 3, 0.5))


def test_the_cap_is_an_option(subject):
    values = [dict(DetectionMAP(max_rows=n)(subject))["mAP@0.5"] for n in (1, 50)]
    assert values[0] < values[1] == dict(DetectionMAP()(subject))["mAP@0.5"] == 1.0
    with pytest.raises(UserError, match="max_rows is 0"):
        list(DetectionMAP(max_rows=0)(subject))


@given(scenes(), st.randoms())
def test_order_does_not_matter_and_the_truth_is_perfect(scene, random):
    truth, found = scene
    shuffled = {}
    for key in random.sample(list(found), len(found)):
        order = random.sample(range(len(found[key].boxes)), len(found[key].boxes))
        shuffled[key] = Scored(found[key].boxes[order], found[key].scores[order])
    np.testing.assert_allclose(frame_precision(truth, shuffled, 3, 0.5), frame_precision(truth, found, 3, 0.5))
    perfect = {
        key: scored(*((a.box, [float(kind in a.classes) for kind in range(3)]) for a in actors))
        if actors
        else scored()
        for key, actors in truth.items()
    }
    perfect = {key: Scored(s.boxes, s.scores.view(-1, 3)) for key, s in perfect.items()}
    values = frame_precision(truth, perfect, 3, 0.5)
    assert set(values[~np.isnan(values)]) <= {1.0}


def moved(x):
    return (x, 0.0, x + 0.4, 1.0)


def test_tubes_share_key_frames_and_boxes():
    def track(*boxes):
        return {float(s): torch.tensor(box, dtype=torch.float64) for s, box in enumerate(boxes)}

    assert track_iou(track(LEFT, LEFT), track(LEFT, LEFT)) == 1.0
    assert track_iou(track(LEFT), track(LEFT, LEFT)) == 0.5
    assert track_iou(track(LEFT, RIGHT), track(LEFT, LEFT)) == 0.5
    assert track_iou({0.0: torch.zeros(4)}, {1.0: torch.zeros(4)}) == 0.0


def test_a_persons_action_is_a_tube():
    truth = {("a", float(s)): [Actor(moved(0.1 * s), (0,), 5), Actor(moved(0.6), (1,), 2)] for s in range(3)}
    found = {("a", float(s)): scored((moved(0.1 * s), [0.9, 0.1]), (moved(0.6), [0.2, 0.3])) for s in range(3)}
    assert video_precision(truth, found, 2, 0.9).tolist() == [1.0, 1.0]
    # The person stops in the last key frame: two of three are shared, and 0.66 is not enough.
    truth["a", 2.0][0] = Actor(moved(0.2), (), 5)
    assert video_precision(truth, found, 2, 0.6).tolist() == [1.0, 1.0]
    assert video_precision(truth, found, 2, 0.7).tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match="which person acts in a at 0 s"):
        video_precision({("a", 0.0): [Actor(LEFT, (0,))]}, found, 2, 0.5)


class Oracle(Objective):
    """Says what the annotations say; with ``silent`` nothing."""

    def __init__(self, source, silent=False):
        super().__init__()
        self.known = {actor.box: actor.classes for sample in source.split("test") for actor in sample.actors}
        self.silent = silent

    def detect(self, video, boxes):
        assert len(video) == len(boxes) and video.shape[1] == 2
        scores = torch.zeros(*boxes.shape[:2], 8)
        for row, box in zip(scores.flatten(0, 1), boxes.flatten(0, 1)):
            nearest = min(self.known, key=lambda known: (torch.tensor(known) - box).abs().sum())
            row[list(self.known[nearest])] = 0.0 if self.silent else 1.0
        return scores


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = Actors(num_train=1, num_test=3, seconds=3).generate(tmp_path_factory.mktemp("actors") / "small")
    run = systems.find("detection.actor_roi")
    clip = replace(run.data.clip, num_frames=2)
    data = Data(path=folder, reads=ActorClips(annotations=folder), clip=clip, num_workers=0)
    source = open_source(data)
    return Subject(objective=Oracle(source), source=source, data=data, device=torch.device("cpu"))


def test_what_the_annotations_say_is_right(subject):
    values = dict(DetectionMAP()(subject))
    assert values == {"mAP@0.5": 1.0, "count": len(subject.source.split("test"))}
    silent = replace(subject, objective=Oracle(subject.source, silent=True))
    assert dict(DetectionMAP()(silent))["mAP@0.5"] < 0.7


def test_key_frames_without_boxes_are_missed_and_only_evaluated_classes_count(subject, tmp_path):
    source = subject.source
    half = replace(source, samples=[s for s in source.samples if s.split == "train" or s.moment == 1.0])
    assert dict(DetectionMAP()(replace(subject, source=half)))["mAP@0.5"] < 1.0
    done = {kind for actors in source.truth["test"].values() for actor in actors for kind in actor.classes}
    nobody = replace(source, evaluated=frozenset(range(8)) - done)
    assert dict(DetectionMAP()(replace(subject, source=nobody)))["mAP@0.5"] == 0.0


def test_a_detectors_boxes_are_looked_at_instead(subject, tmp_path):
    def write(shift):
        rows = [
            f"{video},{second:g},{','.join(f'{min(side + shift, 1.0):.3f}' for side in actor.box)},,0.9\n"
            for (video, second), actors in subject.source.truth["test"].items()
            for actor in actors
        ]
        (tmp_path / f"{shift}.csv").write_text("".join(rows))
        return DetectionMAP(proposals=tmp_path / f"{shift}.csv")

    assert dict(write(0.01)(subject))["mAP@0.5"] == 1.0
    assert dict(write(0.3)(subject))["mAP@0.5"] < 0.2


def test_what_cannot_be_evaluated_is_refused(subject):
    with pytest.raises(UserError, match="does not classify boxes"):
        list(DetectionMAP()(replace(subject, objective=Objective())))
    clips = open_source(systems.find("procedures.transformer").data)
    with pytest.raises(UserError, match="no key frames with boxes"):
        list(DetectionMAP()(replace(subject, source=clips)))
    late = replace(subject.data, reads=replace(subject.data.reads, offset=-99.0))
    with pytest.raises(UserError, match="no key frame of the split 'test' is readable"):
        list(DetectionMAP()(replace(subject, source=open_source(late), data=late)))


def test_the_size_of_batches_changes_nothing(subject, tmp_path):
    # Films of two sizes, whose key frames are listed one of each in turn and with one to three boxes.
    films = {"wide": (32, 64), "high": (64, 32)}
    for seed, (name, size) in enumerate(films.items()):
        noise = torch.randint(0, 256, (16, 3, *size), generator=torch.Generator().manual_seed(seed))
        write_video(tmp_path / f"{name}.mp4", noise.to(torch.uint8), 4)
    side = np.random.default_rng(0).uniform(0, 0.5, (30, 2)).round(3).tolist()
    rows = [
        f"{name},{second},{side[k][0]},{side[k][1]},{side[k][0] + 0.4:.3f},{side[k][1] + 0.4:.3f},{k % 2 + 1},{k}\n"
        for second in (1, 2, 3)
        for name in films
        for k in range(second if name == "wide" else 1)
    ]
    (tmp_path / "ava_val.csv").write_text("".join(rows))
    (tmp_path / "ava_train.csv").write_text(rows[0])
    names = [f'item {{\n name: "{name}"\n id: {k + 1}\n}}\n' for k, name in enumerate("ab")]
    (tmp_path / "ava_action_list.pbtxt").write_text("".join(names))
    run = systems.find("detection.actor_roi:tiny_one_frame")
    clip = replace(run.data.clip, size=32, short_side=(32, 32))
    data = Data(path=tmp_path, reads=ActorClips(annotations=tmp_path), clip=clip, num_workers=0)
    source = open_source(data)
    torch.manual_seed(0)
    detector = replace(run.objective, num_classes=2).build()
    sizes = []
    detector.encoder.register_forward_hook(lambda module, given, out: sizes.append(len(given[0])))
    subject = replace(subject, objective=detector, source=source, data=data)
    alone = dict(DetectionMAP(batch_size=1, threshold=0.1)(subject))
    together = dict(DetectionMAP(batch_size=16, threshold=0.1)(subject))
    pairs = dict(DetectionMAP(batch_size=2, threshold=0.1)(subject))
    assert sizes == [1] * 6 + [3, 3] + [2, 1, 2, 1]
    assert alone == together == pairs and alone["count"] == 6.0 and 0.0 < alone["mAP@0.1"] < 1.0


def test_what_is_said_is_written_as_the_public_evaluation_reads_it(subject, tmp_path):
    class Unsure(Oracle):
        def detect(self, video, boxes):
            noise = torch.rand(*boxes.shape[:2], 8, generator=torch.Generator().manual_seed(len(boxes)))
            return (super().detect(video, boxes) + 2 * noise) / 3

    source = replace(subject.source, numbers=(1, 3, 4, 6, 7, 10, 11, 80))
    path = tmp_path / "new" / "said.csv"
    values = dict(DetectionMAP(out=path)(replace(subject, objective=Unsure(source), source=source)))
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert {len(row) for row in rows} == {8} and {len(row[1]) for row in rows} == {4}
    said = {}  # a class at a time, since our reader keeps of each box the best score
    for kind, number in enumerate(source.numbers):
        one = tmp_path / f"{number}.csv"
        one.write_text("".join(",".join(row) + "\n" for row in rows if row[6] == str(number)))
        for key, actors in read_boxes(one, {number: kind}).items():
            assert [actor.classes for actor in actors] == [(kind,)] * len(actors)
            boxes = torch.tensor([actor.box for actor in actors], dtype=torch.float64)
            known = said.setdefault(key, Scored(boxes, torch.zeros(len(boxes), 8)))
            known.scores[:, kind] = torch.tensor([actor.score for actor in actors])
    assert said.keys() == {sample.key for sample in source.split("test")}
    precision = frame_precision(source.truth["test"], said, 8, 0.5)
    assert float(np.nanmean(precision)) == values["mAP@0.5"]
    assert 0.1 < values["mAP@0.5"] < 1.0
