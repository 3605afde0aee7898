"""Toto's tokens, causality, likelihood and continuations."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.models.llama_layout import to_llama
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Condition, Tokens
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.systems.pretraining import toto
from filmstrip.systems.pretraining.toto.model import END, IMAGES, SPECIALS, VIDEO

PER_FRAME, FRAMES = 64, 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = toto.tiny().objective.build().eval()
    for parameter in made.encoder.decoder.parameters():  # far from uniform predictions
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    return made


@pytest.fixture
def ids():
    return torch.randint(0, 64, (2, FRAMES * PER_FRAME), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def video():
    return torch.rand(2, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def logits_of(model, ids):
    tokens = model.encoder.sequence(ids, VIDEO)
    return model.encoder.decoder.logits(model.encoder.decoder(tokens).hidden)


def test_codes_and_special_tokens_have_different_numbers(model):
    code = torch.tensor([[1]])
    assert model.encoder.sequence(code, VIDEO).tolist() == [[VIDEO, 1 + SPECIALS]]
    assert model.encoder.sequence(code, IMAGES).tolist() == [[IMAGES, 1 + SPECIALS]]
    embed = model.encoder.decoder.embed
    assert embed.num_embeddings == 64 + SPECIALS
    assert not torch.equal(embed.weight[VIDEO], embed.weight[1 + SPECIALS])


def test_loss_is_that_of_llama_over_the_same_tokens(model, ids):
    transformers = pytest.importorskip("transformers")
    config = model.encoder.decoder.config
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim,
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=True,
        )
    ).eval()
    theirs.load_state_dict(to_llama(model.encoder.decoder.state_dict(), config), strict=False)
    tokens = torch.cat([torch.full((2, 1), VIDEO), ids + SPECIALS, torch.full((2, 1), END)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model({"tokens": ids}).total, theirs(tokens, labels=tokens).loss)


def test_the_loss_counts_every_code_and_the_end(model, ids):
    with torch.no_grad():
        logits = logits_of(model, ids)
        targets = torch.cat([ids + SPECIALS, torch.full((2, 1), END)], dim=1)
        assert logits.shape[1] == FRAMES * PER_FRAME + 1
        torch.testing.assert_close(model({"tokens": ids}).total, F.cross_entropy(logits.mT, targets))


def test_videos_and_images_begin_with_different_tokens(model, video):
    with torch.no_grad():
        features = model.encoder(video[:, :1], layers=True)
        ids = model.encoder.codes({"video": video[:, :1]}).ids
        expected = model.encoder.decoder(model.encoder.sequence(ids, IMAGES)).hidden[:, 1:]
    assert torch.equal(features.tokens, expected)
    assert not torch.allclose(features.tokens, model.encoder(video).tokens[:, :PER_FRAME], rtol=0.1)


def test_rows_of_images_and_of_videos_share_a_batch(model, ids):
    images = torch.tensor([True, False])
    with torch.no_grad():
        both = model.encoder.run(Tokens(model.encoder.grid, ids=ids), images).hidden
        for row, start in enumerate((IMAGES, VIDEO)):
            alone = model.encoder.decoder(model.encoder.sequence(ids[row : row + 1], start)).hidden
            torch.testing.assert_close(both[row : row + 1], alone)
        plain = model({"tokens": ids}).total
        assert torch.equal(model({"tokens": ids, "images": torch.zeros(2, dtype=torch.bool)}).total, plain)
        assert not torch.allclose(model({"tokens": ids, "images": images}).total, plain)


@pytest.mark.parametrize("network", ["llama", "gpt2"])
def test_with_a_document_mask_images_do_not_see_each_other(network, ids):
    """Each is encoded, and predicted, as if it were alone; videos are left as they are."""
    torch.manual_seed(0)
    positions = {"llama": "rotary", "gpt2": "sincos"}[network]
    changes = {"network": network, "positions": positions, "document_mask": True}
    model = dataclasses.replace(toto.tiny().objective, **changes).build().eval()
    for parameter in model.encoder.decoder.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    encoder, images = model.encoder, torch.tensor([True, False])
    single = Tokens(encoder.grid._replace(t=1), ids=ids[0].view(FRAMES, PER_FRAME))
    with torch.no_grad():
        made = encoder.run(Tokens(encoder.grid, ids=ids), images, layers=True)
        alone = encoder.run(single, layers=True)
        for one, each in zip((made.hidden, *made.layers), (alone.hidden, *alone.layers)):
            torch.testing.assert_close(one[0, 1:].view(FRAMES, PER_FRAME, -1), each[:, 1:], rtol=1e-4, atol=1e-4)
        video = encoder.decoder(encoder.sequence(ids[1:], VIDEO)).hidden
        torch.testing.assert_close(made.hidden[1:], video, rtol=1e-4, atol=1e-4)
        together = model.log_prob({"tokens": ids, "images": images})
        log_prob = model.nats_of(single, alone.hidden, None)[:, :-1].sum()
        torch.testing.assert_close(together[0], -log_prob)
        torch.testing.assert_close(together[1:], model.log_prob({"tokens": ids[1:]}))


def test_without_a_document_mask_images_see_those_before_them(model, ids):
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 64
    images = torch.tensor([True, True])
    with torch.no_grad():
        first, second = (model.encoder.run(Tokens(model.encoder.grid, ids=x), images).hidden for x in (ids, changed))
    assert not torch.equal(first[:, PER_FRAME + 1 :], second[:, PER_FRAME + 1 :])


def test_mamba_has_no_attention_to_mask():
    with pytest.raises(UserError, match="Mamba has none"):
        dataclasses.replace(toto.tiny().objective, network="mamba", document_mask=True).build()


def test_an_image_file_is_encoded_as_an_image(model, tmp_path):
    level = torch.arange(48, dtype=torch.uint8).repeat(32, 1)
    Image.fromarray(torch.stack([level, level.flip(1), level], dim=2).numpy()).save(tmp_path / "a.png")
    features = VideoEncoder(model.encoder, toto.tiny().data.clip).encode(tmp_path / "a.png")
    assert tuple(features.grid) == (1, 8, 8)
    with torch.no_grad():
        frame = torch.from_numpy(np.asarray(Image.open(tmp_path / "a.png"))[:, 8:40].copy()).permute(2, 0, 1)
        assert torch.equal(features.tokens, model.encoder(frame[None, None]).tokens)


def test_a_code_changes_nothing_before_it(model, ids):
    changed = ids.clone()
    changed[:, 100] = (changed[:, 100] + 1) % 64
    with torch.no_grad():
        before, after = logits_of(model, ids), logits_of(model, changed)
    assert torch.equal(before[:, :101], after[:, :101])
    assert not torch.equal(before[:, 101], after[:, 101])


def test_features_lie_where_their_codes_do(model, video):
    changed = video.clone()
    changed[:, 1:] = 1 - changed[:, 1:]
    with torch.no_grad():
        first, second = model.encoder(video, layers=True), model.encoder(changed, layers=True)
    assert tuple(first.grid) == (FRAMES, 8, 8) and first.tokens.shape == (2, FRAMES * PER_FRAME, 64)
    assert len(first.layers) == 4
    for a, b in zip((first.tokens, *first.layers), (second.tokens, *second.layers)):
        assert torch.equal(a[:, :PER_FRAME], b[:, :PER_FRAME])  # of the first frame, which is the same
        assert not torch.equal(a[:, PER_FRAME:], b[:, PER_FRAME:])


def test_other_lengths_and_sizes_can_be_encoded(model):
    with torch.no_grad():
        assert tuple(model.encoder(torch.rand(1, 6, 3, 48, 32)).grid) == (6, 12, 8)
        assert tuple(model.encoder(torch.rand(1, 1, 3, 32, 32)).grid) == (1, 8, 8)


def test_log_prob_is_the_sum_of_the_codes_nats(model, video):
    ids = model.encoder.codes({"video": video}).ids
    with torch.no_grad():
        nats = F.cross_entropy(logits_of(model, ids)[:, :-1].mT, ids + SPECIALS, reduction="none").sum(dim=1)
        torch.testing.assert_close(model.log_prob({"video": video}), -nats)
    assert model.dims_of({"video": video}) == FRAMES * PER_FRAME


def test_continuations_keep_their_context_and_are_those_of_each_code_in_turn(model, video):
    with torch.no_grad():  # special tokens are far more likely than codes, and yet never drawn
        model.encoder.decoder.embed.weight[:SPECIALS] *= 20
    whole = Condition(batch_size=2, num_frames=2, video=video[:, :2])
    assert torch.equal(model.sample(whole, seed=0), video[:, :2])
    condition = Condition(batch_size=2, num_frames=3, video=video[:, :1])
    made = model.sample(condition, seed=0, sampling=Sampling(temperature=0.0))
    assert made.shape == (2, 3, 3, 32, 32) and torch.equal(made[:, :1], video[:, :1])
    known = model.encoder.codes({"video": video[:, :1]}).ids
    with torch.no_grad():
        for _ in range(2 * PER_FRAME):
            known = torch.cat([known, logits_of(model, known)[:, -1:, SPECIALS:].argmax(dim=-1)], dim=1)
        expected = model.encoder.video_of(Tokens(model.encoder.grid._replace(t=3), ids=known))
    assert torch.equal(made[:, 1:], expected[:, 1:])


def test_conditions_that_it_cannot_serve_are_refused(model, video):
    with pytest.raises(UserError, match="knows no classes"):
        model.sample(Condition(batch_size=2, num_frames=4, label=torch.zeros(2, dtype=torch.int64)), seed=0)
    with pytest.raises(UserError, match="32 x 32"):
        model.sample(Condition(batch_size=2, num_frames=4, video=video[..., :16, :16]), seed=0)


@pytest.mark.parametrize("network", [{"network": "gpt2", "positions": "sincos"}, {"network": "mamba"}])
def test_comparators_train_encode_and_continue(network, video):
    torch.manual_seed(0)
    model = dataclasses.replace(toto.tiny().objective, **network).build()
    model({"video": video}).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.decoder.parameters())
    assert len(model.encoder(video, layers=True).layers) == 4
    assert model.sample(Condition(batch_size=2, num_frames=2, video=video[:, :1]), seed=0).shape[1] == 2


def test_a_tokenizer_of_several_frames_is_refused():
    config = dataclasses.replace(toto.tiny().objective, tokenizer=systems.find("tokenizers.vqvae3d:tiny").objective)
    with pytest.raises(UserError, match="codes frames one by one"):
        config.build()
