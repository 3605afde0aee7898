"""Retrieval by judging every pair: on one colour a file, by a model that reads colour and text together."""

from __future__ import annotations

import pytest
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.evals.pair_matching import PairMatching
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject
from filmstrip.video.write import write_grid

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class Judge(Objective):
    """Says how much of the colour that a text names there is; it takes the ``blind`` one for blue."""

    def __init__(self, tokenizer, blind=None):
        super().__init__()
        self.tokenizer, self.blind = tokenizer, blind
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def see(self, video):
        return video.float().mean(dim=(1, 3, 4))[:, None]

    def match(self, visual, ids, lengths):
        texts = [self.tokenizer.decode(row[:count].tolist()).split() for row, count in zip(ids, lengths)]
        named = [next(word for word in text if word in COLOURS) for text in texts]
        wanted = torch.tensor([COLOURS["blue" if word == self.blind else word] for word in named])
        return (visual[:, 0] * wanted).sum(dim=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("judged")
    rows = ["path,split,caption"]
    for split in ("train", "test"):
        for i, colour in enumerate(("red", "green", "blue", "red")):
            image = torch.tensor(COLOURS[colour]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
            write_grid(root / f"{split}_{i}.png", [image], gap=0)
            rows.append(f"{split}_{i}.png,{split},a {colour} picture")
    (root / "manifest.csv").write_text("\n".join(rows))
    clip = Clip(num_frames=1, size=16, short_side=(16, 16))
    return Data(path=root, reads=Captioned(max_length=8), clip=clip, num_workers=0)


def subject(data, objective=None, **options):
    source = open_source(data)
    objective = objective or Judge(source.text_tokenizer, **options)
    return Subject(objective=objective, source=source, data=data, device=torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_model_that_sees_all_finds_all(data, batch_size):
    values = dict(PairMatching(at=(1,), batch_size=batch_size)(subject(data)))
    assert set(values.values()) == {1.0} and len(values) == 4


def test_what_is_taken_for_something_else_is_not_found(data):
    values = dict(PairMatching(at=(1, 3))(subject(data, blind="green")))
    assert values["matching/text_to_video_r1"] == pytest.approx(2 / 3)  # texts in the same words are one
    assert values["matching/video_to_text_r1"] == 2 / 4  # green, and blue, which two texts name as well
    assert values["matching/video_to_text_r3"] == 1.0


def test_what_cannot_be_judged_is_refused(data):
    with pytest.raises(UserError, match="judges no pairs"):
        PairMatching().check(subject(data, objective=Objective()))
    clips = Data(path=data.path, reads=Clips(), clip=data.clip, num_workers=0)
    source = open_source(clips)
    with pytest.raises(UserError, match="was read without captions"):
        PairMatching().check(Subject(objective=Judge(None), source=source, data=clips, device=torch.device("cpu")))
