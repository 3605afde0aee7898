"""Metrics of moments and highlights: on cases worked out by hand, and equal to the public evaluation of QVHighlights.

What the latter gives was computed once with ``standalone_eval/eval.py`` of jayleicn/moment_detr at ``b7e553a`` for
the answers of :func:`drawn`. (On its own sample of the 1,550 validation queries, which is not kept here, all figures
are the same to the last of their digits, too.)
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip import systems
from filmstrip.data.config import Data
from filmstrip.data.moments.types import Query, Rated
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.grounding import (
    MomentRetrieval,
    by_length,
    clip_precision,
    first_overlaps,
    highlight_metrics,
    moment_metrics,
    moment_precision,
)
from filmstrip.protocols import Grounding, Objective
from filmstrip.runs.evaluation import Subject

PUBLISHED = {"R1@0.5": 65.0, "R1@0.7": 45.0, "R1@0.95": 5.0, "mAP@0.5": 59.16, "mAP@0.75": 38.02, "mAP": 36.84}
HIGHLIGHTS = {2: (52.18, 87.5), 3: (38.86, 77.5), 4: (23.66, 50.0)}
LENGTHS = {"short": (0, 10), "middle": (10, 30), "long": (30, 150)}
BY_LENGTH = {"short": 9.98, "middle": 34.19, "long": 52.3}


def drawn():
    """Forty queries about videos of 20 to 75 clips of 2 s, with twelve moments and ties of scores in each answer."""
    rng, asked, found = np.random.default_rng(5), [], []
    for name in range(40):
        clips, moments = int(rng.integers(20, 76)), []
        at = int(rng.integers(0, 5))
        while at < clips - 3 and len(moments) < 3:
            end = min(clips, at + int(rng.integers(2, 20)))
            moments.append((2 * at, 2 * end))
            at = end + int(rng.integers(2, 15))
        good = [i for start, end in moments for i in range(start // 2, end // 2)]
        scores, made = rng.integers(0, 5, (len(good), 3)).tolist(), []
        for _ in range(12):
            if rng.random() < 0.7:
                start, end = moments[int(rng.integers(len(moments)))]
            else:
                start, end = rng.uniform(0, clips), rng.uniform(clips, 2 * clips)
            start, end = sorted((start + rng.normal(0, 4), end + rng.normal(0, 4)))
            row = float(max(0, start)), float(min(2 * clips, end)), float(rng.random())
            made.append([float(f"{number:.4f}") for number in row])
        made = torch.tensor(sorted(made, key=lambda row: -row[2]), dtype=torch.float64)
        saliency = np.round(rng.normal(0, 1, clips) + np.isin(np.arange(clips), good), 1)
        rated = tuple(Rated(2 * i, 2 * i + 2, tuple(score)) for i, score in zip(good, scores))
        asked.append(query(*moments, rated=rated, seconds=2 * clips, name=str(name)))
        found.append(Grounding(made[:, :2], made[:, 2], torch.from_numpy(saliency)))
    return asked, found


def query(*moments, rated=(), seconds=100.0, name="0"):
    return Query(name=name, video="v", text="a", split="test", moments=moments, rated=rated, seconds=seconds)


def answer(*rows, saliency=None):
    """Rows of (start, end, score)."""
    made = torch.tensor(rows, dtype=torch.float64).view(-1, 3)
    return Grounding(made[:, :2], made[:, 2], None if saliency is None else torch.tensor(saliency))


def test_figures_are_those_of_the_public_evaluation():
    asked, found = drawn()
    metrics = dict(moment_metrics(asked, found, (0.5, 0.7, 0.95)))
    assert {name: round(100 * metrics[name], 2) for name in PUBLISHED} == PUBLISHED
    for least, expected in HIGHLIGHTS.items():
        values = dict(highlight_metrics(asked, found, 2.0, least))
        assert (round(100 * values["highlight mAP"], 2), round(100 * values["HIT@1"], 2)) == expected
    short = {name: dict(moment_metrics(*part, (0.5,)))["mAP"] for name, *part in by_length(asked, found, LENGTHS)}
    assert {name: round(100 * value, 2) for name, value in short.items()} == BY_LENGTH


def test_the_first_moment_is_compared_with_the_nearest_annotated_one():
    asked = [query((0.0, 10.0), (50.0, 60.0)), query((0.0, 10.0)), query((0.0, 10.0))]
    found = [answer((50.0, 58.0, 0.9), (0.0, 10.0, 0.8)), answer((5.0, 15.0, 0.9)), answer()]
    assert first_overlaps(asked, found).tolist() == pytest.approx([0.8, 5 / 15, 0.0])
    values = dict(moment_metrics(asked, found, (0.3, 0.5)))
    assert values["R1@0.3"] == pytest.approx(2 / 3) and values["R1@0.5"] == pytest.approx(1 / 3)
    assert values["mIoU"] == pytest.approx((0.8 + 1 / 3) / 3)


def test_moments_after_the_tenth_do_not_count():
    asked, wrong = [query((0.0, 10.0))], [(80.0, 90.0, 0.9)] * 10
    assert set(moment_precision(asked, [answer(*wrong, (0.0, 10.0, 0.1))]).values()) == {0.0}
    assert moment_precision(asked, [answer(*wrong[1:], (0.0, 10.0, 0.1))])[0.5] == pytest.approx(0.1)


def test_precision_of_clips_takes_ties_at_once():
    good = np.array([True, False, True, False])
    assert clip_precision(good, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx((1 + 2 / 3) / 2)
    assert clip_precision(good, np.array([1.0, 1.0, 1.0, 1.0])) == pytest.approx(0.5)
    assert clip_precision(~good & False, np.arange(4.0)) == 0.0
    assert clip_precision(good | True, np.arange(4.0)) == 1.0


def test_a_hit_is_a_clip_that_one_rater_liked_and_unrated_queries_are_left_out():
    rated = (Rated(0, 2, (4, 1, 1)), Rated(2, 4, (3, 3, 3)))
    asked = [query((0.0, 4.0), rated=rated, seconds=8.0), query((0.0, 4.0))]
    values = dict(highlight_metrics(asked, [answer(saliency=[1.0, 0.0, 0.0, 0.0])] * 2, 2.0))
    assert values == {"HIT@1": 1.0, "highlight mAP": pytest.approx(1 / 3)}
    assert dict(highlight_metrics(asked, [answer(saliency=[0.0, 1.0, 0.0, 0.0])] * 2, 2.0))["HIT@1"] == 0.0
    assert dict(highlight_metrics(asked[1:], [answer(saliency=[0.0])], 2.0)) == {}


class Oracle(Objective):
    """Says what the annotations say."""

    def __init__(self, source):
        super().__init__()
        self.queries = {sample.name: sample.queries for sample in source.split("test")}

    def ground(self, batch):
        return [
            [answer(*((start, end + 0.2, 1.0) for start, end in asked.moments)) for asked in self.queries[name]]
            for name in batch["name"]
        ]


@pytest.mark.parametrize("preset", ["moment_detr", "lvtr"])
def test_the_protocol_compares_seconds_with_seconds(preset):
    data = systems.find(f"grounding.{preset}:tiny").data
    source = open_source(data)
    subject = Subject(objective=Oracle(source), source=source, data=data, device=torch.device("cpu"))
    values = dict(MomentRetrieval(round_to=0.5)(subject))
    assert values["mIoU"] == values["mAP"] == values["R1@0.7"] == 1.0
    assert values["count"] == sum(len(sample.queries) for sample in source.split("test"))
    assert dict(MomentRetrieval()(subject))["mIoU"] < 1.0


def test_what_finds_nothing_or_has_no_queries_is_refused(tmp_path, monkeypatch):
    data = systems.find("grounding.moment_detr:tiny").data
    source = open_source(data)
    subject = Subject(objective=Objective(), source=source, data=data, device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"a run of grounding"):
        MomentRetrieval().check(subject)
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path))
    clips = open_source(Data(synthetic=Motions(train_per_class=1, test_per_class=1, size=16, num_frames=4)))
    with pytest.raises(UserError, match="no queries"):
        MomentRetrieval().check(replace(subject, objective=Oracle(source), source=clips))
