"""Retrieval, classes as prompts and calibration, on one colour a file and a model that tells them apart."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from filmstrip import systems
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.evals.calibration import Calibration, calibration_error
from filmstrip.evals.compared import ranks, recalls
from filmstrip.evals.retrieval import Retrieval
from filmstrip.evals.zero_shot import ZeroShot
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject
from filmstrip.video.write import write_grid

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
FILES = (("a", "red"), ("b", "green"), ("c", "blue"), ("d", "red"))


class Colours(Objective):
    """The mean colour of a clip, and the colour that a text names, one of which (``blind``) it takes for blue."""

    def __init__(self, tokenizer, blind=None):
        super().__init__()
        self.tokenizer, self.blind = tokenizer, blind
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def encode_video(self, video):
        return F.normalize(video.float().mean(dim=(1, 3, 4)), dim=1)

    def encode_text(self, ids, lengths):
        texts = [self.tokenizer.decode(row[:count].tolist()).split() for row, count in zip(ids, lengths)]
        named = [["blue" if word == self.blind else word for word in text if word in COLOURS] for text in texts]
        return torch.tensor([COLOURS[words[0]] for words in named])

    def similarity(self, video, text):
        return 20 * video @ text.T - 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("colours")
    rows = ["path,label,split,caption_1,caption_2"]
    for name, colour in FILES:
        for split in ("train", "test"):
            image = torch.tensor(COLOURS[colour]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
            write_grid(root / f"{split}_{name}.png", [image], gap=0)
            rows.append(f"{split}_{name}.png,{colour},{split},a {colour} picture,{colour} all over")
    (root / "manifest.csv").write_text("\n".join(rows))
    clip = Clip(num_frames=1, size=16, short_side=(16, 16))
    return Data(path=root, reads=Captioned(max_length=8), clip=clip, num_workers=0)


def subject(data, **options):
    source = open_source(data)
    objective = Colours(source.text_tokenizer, **options)
    return Subject(objective=objective, source=source, data=data, device=torch.device("cpu"))


def test_a_model_that_sees_all_finds_all(data):
    values = dict(Retrieval(at=(1, 2))(subject(data)))
    assert values["retrieval/text_to_video_r1"] == values["retrieval/video_to_text_r1"] == 1
    assert values["retrieval/video_to_text_median_rank"] == 1
    kept = []
    assert dict(ZeroShot()(dataclasses.replace(subject(data), keep=kept.append))) == {"zero_shot/top1": 1.0}
    assert len(kept[0].names) == 4 and kept[0].accuracy() == 1.0


class Judge(Colours):
    """The same, which reads a video and a text together: never blind then."""

    def see(self, video):
        return video.float().mean(dim=(1, 3, 4))[:, None]

    def match(self, visual, ids, lengths):
        texts = [self.tokenizer.decode(row[:count].tolist()).split() for row, count in zip(ids, lengths)]
        told = torch.tensor([COLOURS[next(word for word in text if word in COLOURS)] for text in texts])
        return (F.normalize(visual[:, 0], dim=1) * told).sum(dim=1) - 0.5


def test_a_matching_head_orders_the_most_similar_anew(data):
    source = open_source(data)
    judge = Judge(source.text_tokenizer, blind="green")
    seen = Subject(objective=judge, source=source, data=data, device=torch.device("cpu"))
    values = dict(Retrieval(at=(1,), rerank=8)(seen))
    assert values["retrieval/text_to_video_r1"] < 1 and values["retrieval/video_to_text_r1"] < 1
    assert values["retrieval/reranked/text_to_video_r1"] == values["retrieval/reranked/video_to_text_r1"] == 1
    few = dict(Retrieval(at=(1,), rerank=1)(seen))
    assert few["retrieval/reranked/text_to_video_r1"] == few["retrieval/text_to_video_r1"]
    with pytest.raises(UserError, match="has no matching head"):
        Retrieval(rerank=4).check(subject(data))


def test_a_colour_that_is_not_read_is_not_found(data):
    seen = subject(data, blind="green")
    values = dict(Retrieval(at=(1, 4), all_captions=False)(seen))
    assert values["retrieval/text_to_video_r1"] == pytest.approx(3 / 4)
    assert values["retrieval/video_to_text_r1"] == pytest.approx(2 / 4)  # blue's own text is as near as green's
    assert dict(ZeroShot(templates=("a {}",))(seen))["zero_shot/top1"] < 1


def test_pairs_that_are_called_matching_with_certainty_match(data):
    values = dict(Calibration()(subject(data)))
    assert values["calibration/error"] < 0.01
    assert values["calibration/matching"] == pytest.approx(6 / 16)  # two of four are red
    assert dict(Calibration()(subject(data, blind="green")))["calibration/error"] > 0.05


def test_equal_captions_match_all_of_their_videos_and_ties_with_others_count_against():
    similarity = torch.tensor([[0.9, 0.9, 0.1], [0.2, 0.5, 0.5], [0.3, 0.2, 0.1]])
    matches = torch.eye(3, dtype=torch.bool)
    assert ranks(similarity, matches).tolist() == [2, 2, 3]
    matches[0, 1] = True
    assert ranks(similarity, matches).tolist() == [1, 2, 3]
    assert dict(recalls("x", torch.tensor([1, 2, 6]), (1, 5))) == {
        "x_r1": pytest.approx(1 / 3),
        "x_r5": pytest.approx(2 / 3),
        "x_median_rank": 2.0,
    }


def test_the_calibration_error_by_hand():
    probability = torch.tensor([0.05, 0.05, 0.95, 0.95])
    assert calibration_error(probability, torch.tensor([False, False, True, True]), 10) == pytest.approx(0.05)
    assert calibration_error(probability, torch.tensor([True, True, False, False]), 10) == pytest.approx(0.95)
    assert calibration_error(torch.ones(3), torch.tensor([True] * 3), 15) == 0


def test_what_cannot_be_asked_is_refused(data):
    seen = subject(data)
    with pytest.raises(UserError, match="has no place for a class"):
        ZeroShot(templates=("a photo",)).check(seen)
    other = systems.find("recognition.vit").objective.build()
    with pytest.raises(UserError, match="encodes no text"):
        Retrieval().check(dataclasses.replace(seen, objective=other))
    plain = dataclasses.replace(data, reads=type(Data().reads)())
    with pytest.raises(UserError, match="read without captions"):
        Retrieval().check(dataclasses.replace(seen, source=open_source(plain)))
