"""Boxes in the answers of a model that reads the brightness of a picture: how well each overlaps is known."""

import json

import pytest
import torch
from PIL import Image
from torch import nn

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.sources import open_source
from filmstrip.evals import protocol
from filmstrip.evals.answered_boxes import AnsweredBoxes
from filmstrip.evals.answers import AnswerAccuracy
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject
from filmstrip.text.tokenizers import Bytes

WANTED = [0.1, 0.2, 0.5, 0.6]
SAID = {
    0: "<box>(100,200),(500,400)</box>",  # half of it
    60: "It is at (100,200),(300,600), or at (100,200),(500,600).",  # the first counts: half, too
    120: "<box>(100,200),(499,399)</box>",  # a little less than half
    180: "at the left (100,200)",  # no box
    240: "<|box_start|>(100,200),(500,600)<|box_end|>",
}


class Looker(Objective):
    """Writes what belongs to the brightness of a picture; without one it is dark."""

    sees_several = False

    def __init__(self, source):
        super().__init__()
        self.serialiser = source.serialiser
        self.weight = nn.Parameter(torch.zeros(1))

    def see(self, video):
        return video.float().mean(dim=(1, 2, 3, 4)).view(-1, 1, 1)

    see_among = see

    def watch(self, batch):
        return self.see(batch["video"])

    def answer(self, visual, prompt, *, count, seed=0, sampling=None):
        said = [SAID[min(SAID, key=lambda level: abs(level - float(v)))] for v in visual]
        rows = [self.serialiser.answer(text) for text in said]
        most = max(map(len, rows))
        yield from torch.tensor([[*row, *[0] * (most - len(row))] for row in rows]).T

    def score(self, visual, batch):
        raise NotImplementedError


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    records = []
    for level in SAID:
        Image.new("RGB", (16, 16), (level, level, level)).save(folder / f"{level}.png")
        record = {"image": f"{level}.png", "split": "test", "boxes": [WANTED]}
        for kind, answer in (("place", "<box>"), ("other", "a box")):
            talk = [{"from": "human", "value": "where?"}, {"from": "gpt", "value": answer}]
            own = record if kind == "place" else {k: v for k, v in record.items() if k != "boxes"}
            records.append({"id": f"{level} {kind}", "kind": kind, **own, "conversations": talk})
    records += [{**record, "split": "train"} for record in records[:2]]
    (folder / "dialogues.json").write_text(json.dumps(records))
    data = Data(
        path=folder,
        clip=Clip(num_frames=1, size=16, short_side=(16, 16)),
        reads=Conversations(tokenizer=Bytes()),
        num_workers=0,
    )
    source = open_source(data)
    return Subject(objective=Looker(source), source=source, data=data, device=torch.device("cpu"))


def test_boxes_count_by_their_overlap_and_the_first_of_an_answer(subject):
    values = dict(AnsweredBoxes(batch_size=3, max_tokens=99)(subject))
    overlaps = [0.5, 0.5, 0.399 * 0.199 / 0.16, 0.0, 1.0]
    assert values == {
        "accuracy": pytest.approx(3 / 5),
        "accuracy/place": pytest.approx(3 / 5),
        "mean_iou": pytest.approx(sum(overlaps) / 5, abs=1e-6),
        "unreadable": pytest.approx(1 / 5),
        "blind/accuracy": 1.0,
        "blind/accuracy/place": 1.0,
        "blind/mean_iou": pytest.approx(0.5),
        "blind/unreadable": 0.0,
        "count": 5.0,
    }
    strict = dict(AnsweredBoxes(iou=0.6, max_tokens=99, blind=False, num_questions=4)(subject))
    assert strict["accuracy"] == 0.0 and strict["count"] == 4.0 and "blind/accuracy" not in strict


def test_questions_without_a_box_are_not_asked(subject):
    assert dict(AnswerAccuracy(blind=False)(subject))["count"] == 10.0
    samples = tuple(s for s in subject.source.samples if s.dialogue.kind == "other")
    without = type(subject.source)(**{**vars(subject.source), "samples": samples})
    assert "answers with one box" in AnsweredBoxes().lacking(without, subject.data)
    assert AnsweredBoxes().lacking(subject.source, subject.data) is None


def test_the_protocol_is_found_by_its_name():
    assert protocol("answered_boxes") is AnsweredBoxes
