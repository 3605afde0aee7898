"""Toto on patches: what it sees, what it predicts, and its features."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.nn.patches import patchify
from filmstrip.protocols import LayeredLearner, find_encoder, find_tokenizer
from filmstrip.runs import experiment
from filmstrip.runs.loading import load_objective
from filmstrip.systems.pretraining import toto
from filmstrip.systems.pretraining.toto.model import IMAGES, SPECIALS, VIDEO
from filmstrip.train.lengths import Steps

PER_FRAME, FRAMES = 16, 4


def built(preset, **changes):
    torch.manual_seed(0)
    return replace(systems.find(f"pretraining.toto:{preset}").objective, **changes).build().eval()


@pytest.fixture
def video():
    return torch.rand(2, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_next_patch_is_predicted_normalised(video):
    model = built("tiny_patches")
    with torch.no_grad():
        hidden, _ = model.encoder.run(video)
        assert hidden.shape == (2, FRAMES * PER_FRAME + 1, 64)
        pixels = patchify(video, (1, 8, 8))
        normal = (pixels - pixels.mean(dim=2, keepdim=True)) / pixels.std(dim=2, keepdim=True)
        expected = F.mse_loss(model.out(hidden[:, :-1]), normal.flatten(2))
        torch.testing.assert_close(model({"video": video}).total, expected, rtol=1e-4, atol=1e-5)
    assert find_tokenizer(model) is None and model.encoder.decoder.head is None


def test_the_next_patchs_code_is_predicted(video):
    """The tokenizer sees frames of half the size: four pixels of a code stand for eight of a patch."""
    model = built("tiny_patches_to_codes")
    with torch.no_grad():
        small = F.avg_pool2d(video.flatten(0, 1), 2).unflatten(0, (2, FRAMES))
        codes = model.tokenizer.encode(small).ids
        assert codes.shape == (2, FRAMES * PER_FRAME)
        logits = model.encoder.decoder.logits(model.encoder.run(video)[0])[:, :-1, SPECIALS:]
        torch.testing.assert_close(model({"video": video}).total, F.cross_entropy(logits.mT, codes))
    assert find_tokenizer(model) is model.tokenizer and not model.train().tokenizer.training


def test_patches_see_nothing_after_them(video):
    model = built("tiny_patches")
    changed = video.clone()
    changed[:, 2:] = 1 - changed[:, 2:]
    with torch.no_grad():
        first, second = model.encoder(video, layers=True), model.encoder(changed, layers=True)
    assert tuple(first.grid) == (FRAMES, 4, 4) and len(first.layers) == model.encoder.depth
    for a, b in zip((first.tokens, *first.layers), (second.tokens, *second.layers)):
        assert torch.equal(a[:, : 2 * PER_FRAME], b[:, : 2 * PER_FRAME])
        assert not torch.equal(a[:, 2 * PER_FRAME :], b[:, 2 * PER_FRAME :])


def test_images_and_videos_begin_differently(video):
    model = built("tiny_patches")
    with torch.no_grad():
        both, _ = model.encoder.run(video, torch.tensor([True, False]))
        starts = model.encoder.decoder.embed.weight
        for row, start in enumerate((IMAGES, VIDEO)):
            embedded = model.encoder.embed(video[row : row + 1])
            sequence = torch.cat([starts[start].expand(1, 1, -1), embedded], dim=1)
            torch.testing.assert_close(both[row : row + 1], model.encoder.decoder(sequence).hidden)
        one = model.encoder(video[:, :1])
        torch.testing.assert_close(one.tokens, model.encoder.run(video[:, :1], torch.tensor([True, True]))[0][:, 1:])


def test_probes_can_learn_beside_it(video):
    run = systems.find("recognition.probe:tiny")
    for preset in ("tiny_patches", "tiny_patches_to_codes"):
        model = replace(run.objective, learner=systems.find(f"pretraining.toto:{preset}").objective).build()
        assert isinstance(model.learner, LayeredLearner) and find_encoder(model) is model.learner.encoder
        batch = {"video": video, "label": torch.tensor([1, 2]), "index": torch.arange(2)}
        loss = model(batch)
        torch.testing.assert_close(loss.metrics["learner"], model.learner(batch).total)
        assert model.classify(video).shape == (2, 8)


def test_a_run_starts_from_another_with_its_tokenizer(tmp_path, synthetic_cache):
    run = systems.find("pretraining.toto:tiny_patches_to_codes")
    short = replace(run.train, length=Steps(1))
    data = replace(run.data, num_workers=0)
    first = experiment.train(replace(run, train=short, data=data, seed=1), tmp_path / "first").objective
    again = experiment.train(replace(run, train=short, data=data, init=str(tmp_path / "first")), tmp_path / "again")
    given, own = first.tokenizer.state_dict(), again.objective.tokenizer.state_dict()
    assert all(torch.equal(given[name], own[name]) for name in given)
    probe = systems.find("recognition.probe:tiny")
    words = {"objective": replace(probe.objective, learner=run.objective), "init": str(tmp_path / "first")}
    named = experiment.train(replace(probe, train=short, data=data, evals=(), **words), tmp_path / "named").objective
    assert named.kept_elsewhere == ("learner.coder.tokenizer",)
    loaded, _ = load_objective(tmp_path / "named", "cpu")
    own = loaded.learner.tokenizer.state_dict()
    assert all(torch.equal(given[name], own[name]) for name in given)


def test_what_does_not_go_together_is_refused():
    tiny = toto.tiny_patches().objective
    with pytest.raises(UserError, match="no multiple of patches of 7"):
        replace(tiny, patch_size=7).build()
    with pytest.raises(UserError, match="needs a tokenizer"):
        replace(tiny, targets="codes").build()
    with pytest.raises(UserError, match="codes frames one by one"):
        tokenizer = systems.find("tokenizers.vqvae3d:tiny").objective
        replace(tiny, targets="codes", tokenizer=tokenizer, untrained_tokenizer=True).build()


@pytest.mark.parametrize("preset", ["large_patches_in1k", "large_patches_to_codes_in1k"])
def test_presets_have_the_large_network(preset):
    with torch.device("meta"):
        model = systems.find(f"pretraining.toto:{preset}").objective.build()
        large = systems.find("pretraining.toto:large").objective.build()
    blocks = sum(p.numel() for p in model.encoder.decoder.blocks.parameters())
    assert blocks == sum(p.numel() for p in large.encoder.decoder.blocks.parameters())
    if model.coder is not None:
        assert tuple(model.coder.grid) == (16, 16, 16)
