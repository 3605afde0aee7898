"""Captions are scored as papers do, with and without Java, and again with the video hidden."""

from __future__ import annotations

import builtins
import shutil

import pytest
import torch

from filmstrip import systems
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.evals.caption_scores import PLAIN, caption_scores, plain
from filmstrip.evals.captions import Captions, writer_of
from filmstrip.nn.decoding import Writing
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject
from filmstrip.video.write import write_grid

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
NAMES = list(COLOURS)
GIVEN = ["a red disc moves left", "a big blue square"]
REFERENCES = [["a red disc moves left", "a red circle slides left"], ["a small green square", "a tiny green box"]]


def test_exact_captions_need_no_package():
    assert plain("A red Disc, moves-left!") == "a red disc moves left"
    found = dict(caption_scores(["A red disc.", "blue"], [["a red disc"], ["a blue one"]], ["exact"]))
    assert found == {"exact": 0.5}


def test_scores_are_those_by_hand(monkeypatch):
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = dict(caption_scores(GIVEN, REFERENCES, ["bleu", "rouge", "meteor"]))
    assert set(found) == {f"{name}{PLAIN}" for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l")}
    # 5 of 5 and 2 of 4 words ("a", "square") are in a reference, in texts as long as these.
    assert found[f"bleu_1{PLAIN}"] == pytest.approx(7 / 9, rel=1e-6)
    # 4 of 4 and 0 of 3 pairs of words.
    assert found[f"bleu_2{PLAIN}"] == pytest.approx((7 / 9 * 4 / 7) ** 0.5, rel=1e-6)
    # The longest common subsequence is all of the first, and 2 words of 4 ("a", "square") of the second.
    assert found[f"rouge_l{PLAIN}"] == pytest.approx((1 + 0.5) / 2, rel=1e-6)


def test_cider_is_ten_for_the_only_reference(monkeypatch):
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    told = ["a red disc moves left", "one big blue square grows", "two small green crosses turn"]
    found = dict(caption_scores(told, [[text] for text in told], ["cider"]))
    assert found[f"cider{PLAIN}"] == pytest.approx(10.0, rel=1e-6)
    assert dict(caption_scores(told, [["nothing of it"]] * 3, ["cider"]))[f"cider{PLAIN}"] == 0.0


@pytest.mark.skipif(shutil.which("java") is None, reason="the tokenizer and METEOR are Java programs")
def test_with_java_text_is_divided_as_papers_do():
    pytest.importorskip("pycocoevalcap")
    found = dict(caption_scores(["A red disc.", "a dog"], [["a red disc"], ["the cat"]], ["bleu", "meteor"]))
    assert found["bleu_1"] == pytest.approx(3 / 5, rel=1e-6)
    assert 0 < found["meteor"] < 1


def test_without_the_package_it_is_named(monkeypatch):
    imported = builtins.__import__

    def without(name, *rest):
        if name.startswith("pycocoevalcap"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"filmstrip\[captions\]"):
        dict(caption_scores(GIVEN, REFERENCES, ["cider"]))


class Painter(Objective):
    """Names the mean colour of a clip."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def see(self, video):
        return video.float().mean(dim=(1, 3, 4))[:, None]

    def caption(self, visual, prompt=(), *, end, seed=0, writing=None):
        texts = [f"a {NAMES[i]} picture" for i in visual[:, 0].argmax(dim=1).tolist()]
        return torch.tensor([[*self.tokenizer.encode(text), end] for text in texts])


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    root = tmp_path_factory.mktemp("colours")
    rows = ["path,split,caption_1,caption_2"]
    for name in NAMES:
        image = torch.tensor(COLOURS[name]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
        for split in ("train", "test"):
            write_grid(root / f"{split}_{name}.png", [image], gap=0)
            rows.append(f"{split}_{name}.png,{split},a {name} picture,{name} all over")
    (root / "manifest.csv").write_text("\n".join(rows))
    data = Data(path=root, reads=Captioned(max_length=8), clip=Clip(num_frames=1, size=16), num_workers=0)
    source = open_source(data)
    device = torch.device("cpu")
    return Subject(objective=Painter(source.text_tokenizer), source=source, data=data, device=device)


def test_a_model_that_sees_is_right_and_blind_it_is_not(subject):
    protocol = Captions(metrics=("exact",))
    protocol.check(subject)
    assert dict(protocol(subject)) == {
        "captions/exact": 1.0,
        "captions/blind/exact": pytest.approx(1 / 3),
        "captions/count": 3.0,
    }


def test_what_writes_no_captions_is_refused(subject):
    other = systems.find("recognition.vit").objective.build()
    with pytest.raises(UserError, match="writes no captions"):
        writer_of(other, subject.source.text_tokenizer, prompt="", writing=Writing(), beams=None)
    drawn = Writing(sampling=Sampling(temperature=1.0))
    with pytest.raises(UserError, match="give one"):
        writer_of(subject.objective, subject.source.text_tokenizer, prompt="", writing=drawn, beams=3)


class Talker(Objective):
    """A language model that says the mean colour of what it is asked about, if it is asked for it."""

    def __init__(self, serialiser):
        super().__init__()
        self.serialiser = serialiser
        self.weight = torch.nn.Parameter(torch.zeros(1))

    sees_several = False

    def see(self, video):
        return video.float().mean(dim=(1, 3, 4))[:, None]

    see_among = see

    def watch(self, batch):
        return self.see(batch["video"])

    def answer(self, visual, prompt, *, count, seed=0, sampling=None):
        colour = self.serialiser.tokenizer.encode("colour")[0]
        asked = (prompt["text"] == colour).any(dim=1).tolist()
        texts = [NAMES[i] if yes else "nothing" for i, yes in zip(visual[:, 0].argmax(dim=1).tolist(), asked)]
        rows = [self.serialiser.answer(text) for text in texts]
        yield from torch.tensor(rows).T

    def score(self, visual, batch):
        raise NotImplementedError


def test_a_language_model_is_asked_what_its_conversations_ask(tmp_path):
    rows = ["video,question,answer,split"]
    for name in NAMES:
        write_grid(
            tmp_path / f"{name}.png", [torch.tensor(COLOURS[name]).view(1, 3, 1, 1).expand(1, 3, 16, 16)], gap=0
        )
        rows += [f"{name}.png,which colour?,{name},{split}" for split in ("train", "test")]
        rows += [f"{name}.png,what else?,nothing,{split}" for split in ("train", "test")]
    (tmp_path / "dialogues.csv").write_text("\n".join(rows))
    data = Data(path=tmp_path, reads=Conversations(), clip=Clip(num_frames=1, size=16), num_workers=0)
    source = open_source(data)
    talker = Talker(source.serialiser)
    asked = Subject(objective=talker, source=source, data=data, device=torch.device("cpu"))
    found = dict(Captions(metrics=("exact",))(asked))
    assert (found["captions/exact"], found["captions/count"]) == (1.0, 6.0)
    assert found["captions/blind/exact"] == pytest.approx(4 / 6)  # all that is not of colours, and one colour
    with pytest.raises(UserError, match="is a language model, whose captions have no beams"):
        writer_of(talker, source.serialiser, prompt="", writing=Writing(), beams=3)
