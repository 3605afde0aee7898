from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.nn.masked_sampling import MaskedSampling
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Condition, Generator
from filmstrip.systems.generation.teco import tiny

VIDEO = torch.rand(2, 6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ACTION = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 2, 1, 1, 1]])
ON_CODES = dict(
    tokenizer=systems.find("tokenizers.vqgan:tiny").objective,
    encoder_widths=(16, 24),
    decoder_widths=(16, 24),
    stride=2,
)


def build(**changes):
    torch.manual_seed(0)
    config = replace(tiny().objective, num_frames=6, width=32, depth=1, prior_width=32, prior_depth=1, **changes)
    model = config.build()
    with torch.no_grad():  # the past and the codes matter from the start
        for p in (*model.history.parameters(), *model.prior.parameters(), *model.from_code.parameters()):
            if p.ndim > 1:
                p.mul_(4)
    return model.eval()


def batch(**more):
    return {"video": VIDEO, "seed": torch.tensor([3, 4]), **more}


@pytest.fixture(params=["pixels", "codes", "actions"])
def model(request):
    changes = {"pixels": {}, "codes": ON_CODES, "actions": dict(conditions=("action",), num_actions=3)}
    return build(**changes[request.param])


def condition_for(model, **changes):
    action = ACTION if model.conditions.known.has_action else None
    return Condition(**(dict(batch_size=2, num_frames=6, video=VIDEO[:, :2], action=action) | changes))


@pytest.mark.parametrize("context", [1, 2, 6])
def test_it_continues_the_frames_it_was_given_whatever_the_batch(model, context):
    assert isinstance(model, Generator)
    made = model.sample(condition_for(model, video=VIDEO[:, :context]), seed=7)
    assert made.shape == VIDEO.shape and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made[:, :context], VIDEO[:, :context])
    action = None if not model.conditions.known.has_action else ACTION[1:]
    alone = model.sample(condition_for(model, batch_size=1, video=VIDEO[1:, :context], action=action), seed=8)
    torch.testing.assert_close(alone[0], made[1], atol=1e-4, rtol=0)


def test_samples_differ_by_seed(model):
    made = [model.sample(condition_for(model), seed=seed) for seed in (7, 70)]
    assert not torch.equal(*made)


def test_a_stream_gives_the_same_frame_by_frame(model):
    pieces = list(model.stream(condition_for(model), seed=7))
    assert [piece.shape[1] for piece in pieces] == [1] * 4
    whole = model.sample(condition_for(model), seed=7)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole[:, 2:], atol=1e-5, rtol=0)


def test_the_prior_sees_the_past_only(model):
    """What is drawn at frame t depends on no later action, and on the frame before."""
    made = model.sample(condition_for(model), seed=7)
    other = VIDEO[:, :2].clone()
    other[:, 1] = 1 - other[:, 1]
    assert not torch.equal(model.sample(condition_for(model, video=other), seed=7)[:, 2:], made[:, 2:])
    if model.conditions.known.has_action:
        later = ACTION.clone()
        later[:, 4] = (later[:, 4] + 1) % 3
        changed = model.sample(condition_for(model, action=later), seed=7)
        assert torch.equal(changed[:, :4], made[:, :4]) and not torch.equal(changed[:, 4], made[:, 4])
        before = ACTION.clone()
        before[:, 0] += 1
        before %= 3
        assert torch.equal(model.sample(condition_for(model, action=before), seed=7), made)


def test_the_first_latent_is_not_quantised_and_the_others_are(model):
    targets = model.space.targets(batch())
    with torch.no_grad():
        z, passage = model.code(targets)
        frames = model.space.embed(targets)
        first = model.encoder(torch.cat([model.before_first.expand_as(frames[:, 0]), frames[:, 0]], dim=1))
    torch.testing.assert_close(z[:, 0], first)
    assert passage.ids.shape[1] == 6
    decoded = model.from_code(model.quantiser.decode(passage.ids[:, 1:])).movedim(-1, 2)
    torch.testing.assert_close(z[:, 1:], decoded, atol=1e-5, rtol=1e-4)
    assert model.quantiser.decode(passage.ids).norm(dim=-1).allclose(torch.tensor(1.0), atol=1e-5)


@pytest.mark.parametrize("rate, frames", [(0.0, 5), (0.5, 2), (0.79, 1), (0.9, 1)])
def test_drop_loss_leaves_out_its_share(rate, frames):
    model = build(drop_loss=rate)
    seen = []
    model.decoder.register_forward_hook(lambda m, args, out: seen.append(len(out)))
    model.prior.register_forward_hook(lambda m, args, out: seen.append(len(out)))
    model(batch())
    assert seen == [2 * frames, 2 * frames]
    chosen = model._choose_frames(torch.arange(500), 5)
    assert chosen.shape == (500, frames) and (chosen.diff(dim=1) > 0).all()
    share = torch.bincount(chosen.flatten(), minlength=5) / 500
    torch.testing.assert_close(share, torch.full((5,), frames / 5), atol=0.08, rtol=0)


def test_the_loss_of_all_frames_is_the_mean_of_those_of_one():
    model = build(drop_loss=0.0)
    whole = model(batch()).metrics["frame_nats"]
    each = []
    for t in range(5):
        model._choose_frames = lambda seed, frames, t=t: torch.full((2, 1), t)
        each.append(model(batch()).metrics["frame_nats"])
    torch.testing.assert_close(torch.stack(each).mean(), whole)


def test_hidden_actions_change_nothing():
    model = build(conditions=("action",), num_actions=3, condition_drop=1.0)
    assert model.requires == ("seed", "action") and build().requires == ("seed",)
    losses = [model(batch(action=action)).total for action in (ACTION, 2 - ACTION)]
    assert torch.equal(*losses)


def test_actions_come_from_the_data():
    config = replace(tiny().objective, conditions=("action",))
    info = ClipInfo(classes=(), num_train=1, directional=True)
    assert config.bind(replace(info, num_actions=4)).num_actions == 4
    with pytest.raises(UserError, match="need data with actions"):
        config.bind(info)
    assert tiny().objective.bind(replace(info, num_actions=4)).build().requires == ("seed",)


def test_what_it_cannot_make_is_refused(model):
    for wrong in (dict(video=None), dict(num_frames=7), dict(video=VIDEO[:, :0]), dict(num_frames=1)):
        with pytest.raises(UserError, match="continues up to 6 frames"):
            model.sample(condition_for(model, **wrong), seed=0)
    with pytest.raises(UserError, match="without guidance"):
        model.sample(condition_for(model), seed=0, sampling=Sampling(guidance=2.0))
    if not model.conditions.known.has_action:
        with pytest.raises(UserError, match="knows no actions"):
            model.sample(condition_for(model, action=ACTION), seed=0)
    else:
        with pytest.raises(UserError, match=r"needs actions.*--condition FILE"):
            model.sample(condition_for(model, action=None), seed=0)
        sometimes = build(conditions=("action",), num_actions=3, condition_drop=0.5)
        assert sometimes.sample(condition_for(sometimes, action=None), seed=0).shape[1] == 6


def test_sizes_that_cannot_be():
    with pytest.raises(UserError, match="come out even"):
        build(stride=3)
    with pytest.raises(UserError, match="two frames or more"):
        replace(tiny().objective, num_frames=1).build()
    with pytest.raises(UserError, match="codes 2 together"):
        build(tokenizer=systems.find("tokenizers.vqvae3d:tiny").objective)


def test_settings_of_sampling_are_used():
    model = build()
    passes = []
    model.prior.register_forward_hook(lambda m, args, out: passes.append(1))
    model.sample(condition_for(model), seed=0)
    assert len(passes) == 4 * model.sampling.passes == 4 * 12
    model.sample(condition_for(model), seed=0, sampling=MaskedSampling(steps=2))
    assert len(passes) == 4 * 14
