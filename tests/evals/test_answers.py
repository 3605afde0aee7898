"""Answers and choices of a model that reads the brightness of a video: what is right is known."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.evals.answers import AnswerAccuracy, normalised
from filmstrip.evals.multiple_choice import MultipleChoice
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject
from filmstrip.video.write import write_video

LEVELS = {"dark": 10, "grey": 120, "bright": 240}


class Reader(Objective):
    """Says how bright a video is; without one it says "dark", and to every other question "yes"."""

    def __init__(self, source):
        super().__init__()
        self.tokenizer, self.stop = source.serialiser.tokenizer, source.serialiser.stop
        self.weight = nn.Parameter(torch.zeros(1))

    sees_several = False

    def see(self, video):
        return video.float().mean(dim=(1, 2, 3, 4)).view(-1, 1, 1)

    see_among = see

    def watch(self, batch):
        return self.see(batch["video"])

    def word(self, visual, text):
        if "how" not in self.tokenizer.decode(text):
            return "Yes."
        return min(LEVELS, key=lambda name: abs(LEVELS[name] - float(visual)))

    def answer(self, visual, prompt, *, count, seed=0, sampling=None):
        said = [self.tokenizer.encode(self.word(v, t)) for v, t in zip(visual, prompt["text"])]
        rows = [[*ids, *self.stop, 0, 0, 0][:4] for ids in said]
        yield from torch.tensor(rows).T

    def score(self, visual, batch):
        found = []
        for v, text, learnt in zip(visual, batch["text"], batch["learnt"]):
            said = self.tokenizer.decode(text[learnt])
            level = next(LEVELS[name] for name in LEVELS if name in said)
            found.append(-abs(level - float(v)) / 100 * learnt.sum())
        return torch.tensor(found), batch["learnt"].sum(dim=1)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")
    records = []
    for name, level in LEVELS.items():
        write_video(folder / f"{name}.mp4", torch.full((4, 3, 16, 16), level, dtype=torch.uint8), 8)
        for kind, question, answer in (("level", "how bright?", f"The {name}!"), ("other", "really?", "no")):
            talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            options = {"options": [f"The {other}!" for other in LEVELS]} if kind == "level" else {}
            record = {"id": f"{name} {kind}", "video": f"{name}.mp4", "kind": kind, "split": "test", **options}
            records.append({**record, "conversations": talk})
    records.append({**records[0], "split": "train"})
    texts = "yes Yes . dark grey bright"
    talk = [{"from": "human", "value": texts}, {"from": "gpt", "value": texts}]
    records.append({"id": "words", "split": "train", "conversations": talk})
    (folder / "dialogues.json").write_text(json.dumps(records))
    data = Data(
        path=folder,
        clip=Clip(num_frames=2, size=16, short_side=(16, 16)),
        reads=Conversations(),
        num_workers=0,
    )
    source = open_source(data)
    return Subject(objective=Reader(source), source=source, data=data, device=torch.device("cpu"))


def test_answers_are_counted_by_kind_with_and_without_the_video(subject):
    values = dict(AnswerAccuracy(batch_size=4)(subject))
    assert values == {
        "accuracy": 0.5,
        "accuracy/level": 1.0,
        "accuracy/other": 0.0,
        "blind/accuracy": pytest.approx(1 / 6),
        "blind/accuracy/level": pytest.approx(1 / 3),
        "blind/accuracy/other": 0.0,
        "count": 6.0,
    }
    assert "blind/accuracy" not in dict(AnswerAccuracy(blind=False)(subject))


def test_choices_need_options(subject):
    why = MultipleChoice().lacking(subject.source, subject.data)
    assert "dark other" in why and "has none" in why


def chosen(subject, order, **settings):
    """Figures of multiple choice for the questions with options, these in another order."""
    samples = []
    for sample in subject.source.samples:
        if sample.dialogue.options:
            options = tuple(sample.dialogue.options[i] for i in order)
            samples.append(replace(sample, dialogue=replace(sample.dialogue, options=options)))
    source = replace(subject.source, samples=tuple(samples))
    asked = Subject(objective=subject.objective, source=source, data=subject.data, device=subject.device)
    assert MultipleChoice().lacking(source, subject.data) is None
    return dict(MultipleChoice(**settings)(asked))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("by", ["token", "answer"])
def test_the_most_probable_option_counts_in_any_order(subject, order, by):
    values = chosen(subject, order, by=by, batch_size=2)
    assert values["accuracy"] == values["accuracy/level"] == 1.0
    # Without the video all are dark, as one in three is.
    assert values["blind/accuracy"] == pytest.approx(1 / 3) and values["count"] == 3.0
    assert "blind/accuracy" not in chosen(subject, order, blind=False)


def test_case_articles_and_marks_do_not_count():
    assert normalised(" The red  disc, a big one. ") == "red disc big one"
    assert normalised("no") != normalised("not")


def test_other_models_and_other_data_are_refused(subject):
    other = Subject(objective=Objective(), source=subject.source, data=subject.data, device=subject.device)
    with pytest.raises(UserError, match="does not answer"):
        AnswerAccuracy().check(other)
