import pytest
import torch
from in_memory import MemorySource, Video
from torch import nn

from filmstrip.errors import UserError
from filmstrip.evals import features
from filmstrip.evals.features import extract, train_and_test
from filmstrip.protocols import Features, Grid, Objective


class Ramp(nn.Module):
    """Layer ``i`` has tokens ``v + i`` and ``3 v + i`` for a video of value ``v``."""

    width = 1

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.scale = nn.Parameter(torch.ones(()))

    def __call__(self, video, layers=False):
        self.calls += 1
        value = video[:, 0, 0, 0, 0].float()
        tokens = torch.stack([value, 3 * value], dim=1)[..., None]
        tokens = tokens * self.scale
        return Features(tokens, Grid(2, 1, 1), (tokens, tokens + 1) if layers else ())


@pytest.fixture
def subject(subject_of):
    objective = Objective()
    objective.encoder = Ramp()
    videos = [Video("x", 1, (1, 3)), Video("broken", 0, ()), Video("y", 0, (5, 5)), Video("unlabelled", None, (9,))]
    return subject_of(objective, MemorySource("ab", train=videos))


def test_pooled_over_tokens_and_clips(subject):
    found = extract(subject, "train", num_clips=2, batch_size=3)
    assert found.labels.tolist() == [1, 0]
    assert [layer.tolist() for layer in found.layers] == [[[4.0], [10.0]], [[5.0], [11.0]]]
    assert subject.objective.encoder.calls == 2, "every view is encoded once"


def test_tokens_of_one_clip(subject):
    found = extract(subject, "train", tokens=True)
    assert found.layers[1].tolist() == [[[2.0], [4.0]], [[6.0], [16.0]]]
    assert not found.layers[0].is_inference(), "a probe must be able to train on them"


def test_refuses_to_fill_the_memory(subject, monkeypatch):
    monkeypatch.setattr(features, "MAX_BYTES", 4 * (2 + 2) * 4 - 1)
    with pytest.raises(UserError, match="features of 4 videos"):
        extract(subject, "train", tokens=True)


def test_an_objective_without_encoder_is_refused(subject_of):
    with pytest.raises(UserError, match="Objective has no encoder"):
        extract(subject_of(Objective(), MemorySource("ab", train=[])), "train")


@pytest.mark.parametrize("tokens", [False, True])
def test_a_cache_is_used_while_the_weights_are_the_same(subject, tmp_path, tokens):
    subject.source.splits["test"] = subject.source.splits["train"]
    options = {"tokens": tokens, "cache": tmp_path / "cache"}
    first = train_and_test(subject, **options)
    calls = subject.objective.encoder.calls
    again = train_and_test(subject, **options)
    assert subject.objective.encoder.calls == calls
    for one, other in zip(first, again):
        assert one.labels.tolist() == other.labels.tolist()
        assert [x.tolist() for x in one.layers] == [x.tolist() for x in other.layers]
    torch.nn.init.constant_(subject.objective.encoder.scale, 2.0)
    changed, _ = train_and_test(subject, **options)
    assert subject.objective.encoder.calls > calls
    assert torch.equal(changed.layers[0], 2 * first[0].layers[0])
