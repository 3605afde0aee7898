"""The protocols of tokenizers and generators, on throw-away models whose results are known."""

import math

import pytest
import torch
from torch import nn

from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.evals import clips
from filmstrip.evals.frame_metrics import EQUAL_PSNR, psnr
from filmstrip.evals.generation import Generation
from filmstrip.evals.likelihood import Likelihood
from filmstrip.evals.reconstruction import CodeUse, Reconstruction
from filmstrip.evals.video_prediction import VideoPrediction, best_samples
from filmstrip.protocols import Grid, Objective, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.evaluation import Subject

SIZE = 16


@pytest.fixture
def subject_of(monkeypatch):
    """``subject_of(objective, videos, ...)``: a subject whose clips lie in memory, two in a batch, cut to length."""

    def build(objective, videos, *, num_frames=4, **columns):
        def batches(source, data, split, *, batch_size=2):
            for start in range(0, len(videos), batch_size):
                rows = slice(start, start + batch_size)
                length = data.clip.num_frames
                batch = {"video": videos[rows, :length], "name": ["x"] * len(videos[rows])}
                for key, value in columns.items():
                    batch[key] = value[rows, :length] if key == "action" else value[rows]
                yield batch

        monkeypatch.setattr(clips, "EvalLoader", batches)
        data = Data()
        clip = type(data.clip)(num_frames=num_frames, size=SIZE)
        return Subject(objective=objective, source=None, data=type(data)(clip=clip), device=torch.device("cpu"))

    return build


def random_videos(count, frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, frames, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


class FourLevels(Objective):
    """A tokenizer of a code a frame: its mean red in four levels; frames come back grey."""

    codebook_size = 8

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.arange(8) / 4 + 1 / 8)

    def encode(self, video):
        assert not self.training and torch.is_inference_mode_enabled()
        ids = (as_float(video)[:, :, 0].mean(dim=(2, 3)) * 4).long().clamp(max=3)
        return Tokens(Grid(video.shape[1], 1, 1), ids=ids)

    def decode(self, tokens):
        grey = self.levels[tokens.ids].view(*tokens.ids.shape, 1, 1, 1)
        return grey.expand(-1, -1, 3, SIZE, SIZE)


def test_reconstruction(subject_of):
    grey = torch.tensor([[20, 20, 90, 90], [150, 150, 220, 220], [20, 90, 150, 220]], dtype=torch.uint8)
    videos = grey.view(3, 4, 1, 1, 1).expand(3, 4, 3, SIZE, SIZE).contiguous()
    objective = FourLevels().train()
    found = dict(Reconstruction(batch_size=2)(subject_of(objective, videos)))
    level = (torch.tensor([32, 96, 159, 223]).float() / 255)[(grey / 64).long()]
    error = (grey / 255 - level).square()
    assert found["psnr/16x16/4f/n3"] == pytest.approx((-10 * error.log10()).mean().item(), abs=1e-3)
    assert found["code_perplexity/n3"] == pytest.approx(4.0)
    assert found["codes_used/n3"] == 0.5
    assert 0 < found["ssim/16x16/4f/n3"] < 1 and found["random_features/16x16/4f/n3"] >= 0
    assert "rfvd/random_i3d/64px_bilinear/4f/n3" in found
    assert all(math.isfinite(value) for value in found.values())
    assert objective.training


def test_reconstruction_looks_at_the_first_videos_alone(subject_of):
    videos = random_videos(5, 4)
    assert {name.split("/n")[-1] for name, _ in Reconstruction(num_videos=3)(subject_of(FourLevels(), videos))} == {
        "3"
    }


class Owner(Objective):
    """A generator's stand-in that owns a tokenizer."""

    def __init__(self):
        super().__init__()
        self.tokenizer = FourLevels()


def test_a_tokenizer_within_a_prior_is_found_and_others_are_refused(subject_of):
    videos = random_videos(2, 4)
    own = dict(Reconstruction()(subject_of(FourLevels(), videos)))
    assert dict(Reconstruction()(subject_of(Owner(), videos))) == own
    with pytest.raises(UserError, match="Objective is not a tokenizer"):
        dict(Reconstruction()(subject_of(Objective(), videos)))


def test_code_use_counts_codebooks_apart_and_kept_tokens_alone():
    use = CodeUse()
    use.update(Tokens(Grid(1, 1, 2), ids=torch.tensor([[0, 5, 0, 6], [0, 7, 0, 8]])))
    assert dict(use.values(10, 2)) == {"code_perplexity/n2": pytest.approx(2.5), "codes_used/n2": pytest.approx(0.25)}
    use = CodeUse()
    use.update(Tokens(Grid(2, 1, 2), ids=torch.tensor([[1, 2, 3, 0]]), lengths=torch.tensor([[2, 1]])))
    use.update(Tokens(Grid(2, 1, 2), ids=torch.tensor([[1, 0, 0, 0]]), lengths=torch.tensor([[1, 0]])))
    share = torch.tensor([0.5, 0.25, 0.25])
    assert dict(use.values(8, 2))["code_perplexity/n2"] == pytest.approx(math.exp(-(share * share.log()).sum()))
    assert dict(use.values(8, 2))["codes_used/n2"] == 3 / 8
    continuous = CodeUse()
    continuous.update(Tokens(Grid(1, 1, 1), latents=torch.zeros(1, 1, 4)))
    assert dict(continuous.values(None, 1)) == {}


class Sliding(Objective):
    """Knows that pictures slide by ``action`` pixels a frame; with ``noise``, its sample's own."""

    def __init__(self, noise=0.0, still=False):
        super().__init__()
        self.noise, self.still = noise, still
        self.asked = []

    def sample(self, condition, *, seed, sampling=None):
        assert torch.is_inference_mode_enabled()
        self.asked.append((condition, seed))
        given = condition.video if condition.video is not None else self._fresh(condition, seed)
        frames = list(as_float(given).unbind(dim=1))
        seeds = seed + torch.arange(condition.batch_size)
        for t in range(len(frames), condition.num_frames):
            moves = [0] * condition.batch_size if condition.action is None else condition.action[:, t].tolist()
            last = torch.stack([f.roll(0 if self.still else m, dims=-1) for f, m in zip(frames[-1], moves)])
            added = uniform(seeds, last[0].numel(), "test.added", t).view_as(last)
            frames.append((last + self.noise * added).clamp(0, 1))
        return torch.stack(frames, dim=1)

    def _fresh(self, condition, seed):
        seeds = seed + torch.arange(condition.batch_size)
        colour = uniform(seeds, 3 * SIZE * SIZE, "test.colour").view(-1, 1, 3, SIZE, SIZE)
        return colour if condition.label is None else colour * 0 + condition.label.view(-1, 1, 1, 1, 1) / 2

    def log_prob(self, batch):
        return -batch["video"].flatten(1).double().mean(dim=1).float()

    def dims_of(self, batch):
        return 10


def sliding_videos(count, frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randint(0, 3, (count, frames), generator=generator)
    first = random_videos(count, 1, seed)[:, 0]
    videos = [first]
    for t in range(1, frames):
        videos.append(torch.stack([v.roll(int(a), dims=-1) for v, a in zip(videos[-1], actions[:, t])]))
    return torch.stack(videos, dim=1), actions


def test_who_knows_the_actions_predicts_every_frame(subject_of):
    videos, actions = sliding_videos(5, 9)
    objective = Sliding()
    found = dict(VideoPrediction(context=3, horizon=4, batch_size=2)(subject_of(objective, videos, action=actions)))
    label = "16x16/4f_after_3/n5x1"
    assert found[f"psnr/{label}"] == EQUAL_PSNR
    assert found[f"ssim/{label}"] == pytest.approx(1)
    assert [found[f"psnr/{label}/frame_{t:03d}"] for t in range(4)] == [EQUAL_PSNR] * 4
    assert found["fvd_after_3/random_i3d/64px_bilinear/4f/n5"] == pytest.approx(0, abs=1e-6)
    assert [(c.batch_size, c.num_frames, c.video.shape[1], c.action.shape[1], s) for c, s in objective.asked] == [
        (2, 7, 3, 7, 0),
        (2, 7, 3, 7, 2),
        (1, 7, 3, 7, 4),
    ]


def test_without_actions_it_gets_worse_with_time_as_the_curve_shows(subject_of):
    videos, actions = sliding_videos(6, 9)
    subject = subject_of(Sliding(), videos, action=actions)
    found = dict(VideoPrediction(context=3, horizon=6, use_actions=False)(subject))
    label = "16x16/6f_after_3/n6x1"
    still = psnr(videos[:, 3:] / 255, videos[:, 2:3].expand(-1, 6, -1, -1, -1) / 255)
    curve = [found[f"psnr/{label}/frame_{t:03d}"] for t in range(6)]
    assert curve == pytest.approx(still.mean(dim=0).tolist())
    assert found[f"psnr/{label}"] == pytest.approx(sum(curve) / 6)
    assert curve[0] > curve[-1]


def test_several_samples_give_the_mean_and_the_best(subject_of):
    videos, actions = sliding_videos(3, 6)
    objective = Sliding(noise=0.3)
    protocol = VideoPrediction(context=2, horizon=3, samples=4, batch_size=2, seed=7)
    found = dict(protocol(subject_of(objective, videos, action=actions)))
    label = "16x16/3f_after_2/n3x4"
    assert found[f"psnr_best/{label}"] > found[f"psnr/{label}"]
    assert found[f"random_features_best/{label}"] < found[f"random_features/{label}"]
    assert [seed for _, seed in objective.asked] == [7, 15]
    first = objective.asked[0][0]
    assert torch.equal(first.video, videos[[0, 0, 0, 0, 1, 1, 1, 1], :2])
    one_by_one = VideoPrediction(context=2, horizon=3, samples=4, batch_size=1, seed=7)
    assert dict(one_by_one(subject_of(Sliding(noise=0.3), videos, action=actions))) == pytest.approx(found)


def test_best_samples():
    values = torch.tensor([[[1.0, 9.0], [4.0, 4.0]], [[0.0, 1.0], [2.0, 2.0]]])
    assert best_samples(values, higher_is_better=True).tolist() == [[1, 9], [2, 2]]
    assert best_samples(values, higher_is_better=False).tolist() == [[4, 4], [0, 1]]


def test_generation_compares_sets(subject_of):
    videos = random_videos(6, 4)
    objective = Sliding()
    found = dict(Generation(num_samples=5, batch_size=2)(subject_of(objective, videos)))
    label = "random_i3d/64px_bilinear/4f/n5"
    assert list(found) == [f"{name}/{label}" for name in ("fvd", "fvd_bias", "fvd_unbiased")]
    assert [(c.batch_size, c.video, c.label, seed) for c, seed in objective.asked] == [
        (2, None, None, 0),
        (2, None, None, 2),
        (1, None, None, 4),
    ]
    batches = dict(Generation(num_samples=5, batch_size=5)(subject_of(Sliding(), videos)))
    assert batches == pytest.approx(found, rel=1e-3)


def test_generation_by_class_asks_for_the_classes_of_the_data(subject_of):
    videos, labels = random_videos(3, 4), torch.tensor([2, 0, 1])
    objective = Sliding()
    dict(Generation(num_samples=4, class_conditional=True, batch_size=3)(subject_of(objective, videos, label=labels)))
    assert [c.label.tolist() for c, _ in objective.asked] == [[2, 0, 1], [2]]
    with pytest.raises(UserError, match="need labelled videos"):
        dict(Generation(num_samples=4, class_conditional=True)(subject_of(objective, videos)))


def test_likelihood_is_bits_for_each_dimension(subject_of):
    videos = torch.full((3, 4, 3, SIZE, SIZE), 20, dtype=torch.uint8)
    videos[2] = 50
    found = dict(Likelihood(batch_size=2)(subject_of(Sliding(), videos)))
    bits = torch.tensor([20.0, 20.0, 50.0]) / 10 / math.log(2)
    assert found["nats/n3"] == pytest.approx(30)
    assert found["bits_per_dim/n3"] == pytest.approx(bits.mean().item())
    assert found["bits_per_dim_error/n3"] == pytest.approx((bits.std() / 3**0.5).item())
    assert dict(Likelihood(num_videos=1)(subject_of(Sliding(), videos)))["nats/n1"] == pytest.approx(20)


def test_objectives_that_cannot_do_it_are_refused(subject_of):
    videos = random_videos(2, 4)
    for protocol in (Generation(num_samples=2), VideoPrediction(context=1, horizon=1)):
        with pytest.raises(UserError, match="FourLevels is not a generator"):
            dict(protocol(subject_of(FourLevels(), videos)))
    with pytest.raises(UserError, match="no likelihood"):
        dict(Likelihood()(subject_of(FourLevels(), videos)))
    with pytest.raises(UserError, match="horizon is 0"):
        dict(VideoPrediction(context=1, horizon=0)(subject_of(Sliding(), videos)))
    with pytest.raises(UserError, match="readable"):
        dict(VideoPrediction(context=1, horizon=1)(subject_of(Sliding(), videos[:0])))


def test_still_ends_are_warned_of(subject_of, caplog):
    videos = random_videos(2, 4)
    videos[:, 3] = videos[:, 2]
    dict(VideoPrediction(context=1, horizon=3)(subject_of(Sliding(), videos)))
    assert "may be longer than the videos" in caplog.text


def test_likelihood_needs_no_pixels(monkeypatch, subject_of):
    subject = subject_of(Sliding(), random_videos(2, 4))
    monkeypatch.setattr(
        subject.objective, "log_prob", lambda batch: batch["tokens"].sum(dim=1).float(), raising=False
    )
    monkeypatch.setattr(clips, "EvalLoader", lambda *_, **__: [{"tokens": torch.ones(2, 3), "name": ["a", "b"]}])
    assert dict(Likelihood()(subject))["nats/n2"] == -3
    assert [p.requires for p in (Likelihood, Generation, Reconstruction)] == [set(), {"video"}, {"video"}]
