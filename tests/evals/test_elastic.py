"""Tokens against error, of a tokenizer whose error at every length is known by hand."""

import pytest
import torch
from in_memory import MemorySource, Video, memory_batches
from torch import nn

from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.evals.elastic import TokensAgainstError
from filmstrip.nn.length_search import Search
from filmstrip.objectives.elastic import Fitted, mean_squared_error
from filmstrip.protocols import Grid, Objective, Tokens
from filmstrip.runs.evaluation import Subject


class Fader(Objective):
    """Blocks of one frame; a share of the tokens rebuilds that share of the brightness."""

    tokens_per_block, block_frames, min_tokens, max_tokens = 10, 1, 2, 10

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, video, lengths=None):
        brightness = video.float().mean(dim=(2, 3, 4))
        lengths = torch.as_tensor(self.tokens_per_block if lengths is None else lengths).expand_as(brightness)
        return Tokens(Grid(video.shape[1], 1, 1), latents=brightness[..., None], lengths=lengths)

    def decode(self, tokens):
        shown = tokens.latents[..., 0] * tokens.lengths / self.tokens_per_block
        return shown[:, :, None, None, None].expand(-1, -1, 3, 4, 4)

    def encode_to(self, video, target, *, method, bins, distance):
        video = video.float() / 255
        search = Search(self.min_tokens, self.tokens_per_block, method, bins)

        def rebuilt(lengths):
            return self.decode(self.encode(video, lengths[:, None]))

        lengths = search(lambda n: distance(rebuilt(n), video), target, len(video))
        fitted, blocks = rebuilt(lengths), lengths[:, None].expand(-1, video.shape[1])
        errors = distance(fitted, video)[:, None].expand(-1, video.shape[1])
        return Fitted(Tokens(Grid(2, 1, 1), lengths=blocks), fitted, errors, search.evaluations)


@pytest.fixture
def subject(monkeypatch):
    monkeypatch.setattr("filmstrip.evals.elastic.EvalLoader", memory_batches)
    source = MemorySource("ab", test=[Video("dark", 0, (0,)), Video("grey", 0, (102,)), Video("bright", 1, (255,))])
    return Subject(objective=Fader(), source=source, data=Data(), device=torch.device("cpu"))


def test_errors_at_shares_of_all_tokens(subject):
    protocol = TokensAgainstError(shares=(0.1, 0.5, 1.0), targets=())
    values = dict(protocol(subject))
    # Half the tokens lose half the brightness: 0, 0.2 and 0.5 squared. One token of ten is fewer than there may be.
    assert values == {"mse_at_5": pytest.approx((0 + 0.04 + 0.25) / 3), "mse_at_10": pytest.approx(0, abs=1e-9)}


@pytest.mark.parametrize("method", ["binary", "full", "binned"])
def test_tokens_for_an_error(subject, method):
    values = dict(TokensAgainstError(shares=(), targets=(0.05,), method=method)(subject))
    # 0.05 allows to lose 0.2236 of the brightness: nothing is needed, 4.4 of ten tokens, and 7.8.
    assert values["tokens_for_0.05"] == pytest.approx((2 + 5 + 8) / 3)
    assert values["met_0.05"] == 1.0
    never = TokensAgainstError(method=method).at_error(subject, -1.0)
    assert never.tokens.mean() == 10 and not never.met(-1.0).any()


def test_every_block_is_counted(subject):
    spent = TokensAgainstError().at_error(subject, 0.05)
    assert spent.tokens.shape == spent.errors.shape == (6,)
    assert spent.evaluations == 4  # nine lengths
    fixed = TokensAgainstError().at_length(subject, 4)
    assert fixed.tokens.tolist() == [4] * 6 and fixed.evaluations == 1
    assert fixed.met(0.1).sum() == 4


def test_only_tokenizers_of_variable_length(subject):
    class Fixed(Objective):
        pass

    other = Subject(objective=Fixed(), source=subject.source, data=subject.data, device=subject.device)
    with pytest.raises(UserError, match="Fixed is not a variable-length tokenizer"):
        next(TokensAgainstError()(other))


def test_an_unreadable_split(subject):
    source = MemorySource("a", test=[Video("broken", 0, ())])
    nothing = Subject(objective=Fader(), source=source, data=subject.data, device=subject.device)
    with pytest.raises(UserError, match="nothing to evaluate"):
        TokensAgainstError().at_error(nothing, 0.1)
    with pytest.raises(UserError, match="nothing to evaluate"):
        TokensAgainstError().at_length(nothing, 4)


def test_the_error_is_of_pixels():
    video = torch.rand(3, 2, 3, 4, 4)
    assert mean_squared_error(video + 0.1, video).tolist() == pytest.approx([0.01] * 3, rel=1e-4)
