from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.nn.masked_sampling import MaskedSampling
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Condition, Generator
from filmstrip.systems.generation.maskgit import tiny, tiny_in_order

VIDEO = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABEL, ACTION = torch.tensor([1, 5]), torch.tensor([[0, 1, 2, 0], [2, 2, 2, 1]])
BOTH = dict(conditions=("label", "action"), num_classes=8, num_actions=3)
FRAMES = systems.find("tokenizers.vqgan:tiny").objective
KINDS = {
    "full": (tiny, dict(attention="full", num_classes=8)),
    "maskvit": (tiny, dict(num_classes=8)),
    "axial": (tiny, dict(attention="axial", tokenizer=FRAMES, **BOTH)),
    "context": (tiny, dict(num_classes=8, context_frames=2)),
    "in_order": (tiny_in_order, BOTH),
    "in_order_pairs": (tiny_in_order, dict(tokenizer=tiny().objective.tokenizer, conditions=())),
}


def build(kind):
    preset, changes = KINDS[kind]
    torch.manual_seed(0)
    small = dict(num_frames=4, width=24, num_heads=2, history_width=24, history_num_heads=2, code_width=16)
    model = replace(preset().objective, **(small | changes)).build()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad and p.ndim > 1 and "embed" not in name:
                p.mul_(3)  # conditions matter from the start
    return model.eval()


@pytest.fixture(params=KINDS)
def model(request):
    return build(request.param)


def condition_for(model, **changes):
    label = LABEL if model.conditions.known.num_classes else None
    action = ACTION if model.conditions.known.has_action else None
    return Condition(**(dict(batch_size=2, num_frames=4, video=VIDEO[:, :2], label=label, action=action) | changes))


def batch(**more):
    return {"video": VIDEO, "label": LABEL, "action": ACTION, "seed": torch.tensor([3, 4]), **more}


def row(condition, i):
    parts = {k: None if (v := getattr(condition, k)) is None else v[i : i + 1] for k in ("video", "label", "action")}
    return replace(condition, batch_size=1, **parts)


@pytest.mark.parametrize("video", [None, VIDEO[:, :2], VIDEO])
def test_samples_begin_as_told_whatever_the_batch(model, video):
    assert isinstance(model, Generator)
    condition = condition_for(model, video=video)
    made = model.sample(condition, seed=7)
    assert made.shape == VIDEO.shape and made.min() >= 0 and made.max() <= 1
    if video is not None:
        assert torch.equal(made[:, : video.shape[1]], video)
    torch.testing.assert_close(model.sample(row(condition, 1), seed=8)[0], made[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampling", [Sampling(top_k=3), MaskedSampling(method="draft_and_revise", steps=3)], ids=str)
def test_samples_differ_by_seed_and_sampling(model, sampling):
    condition = condition_for(model, video=None)
    first = model.sample(condition, seed=7, sampling=sampling)
    assert not torch.equal(first, model.sample(condition, seed=70, sampling=sampling))
    assert not torch.equal(first, model.sample(condition, seed=7))


def test_frames_in_order_are_made_one_by_one_and_each_from_those_before():
    model = build("in_order")
    condition = condition_for(model, video=None)
    pieces = list(model.stream(condition, seed=7))
    assert [piece.shape[1] for piece in pieces] == [1] * 4
    made = torch.cat(pieces, dim=1)
    later = ACTION.clone()
    later[:, 2] = (later[:, 2] + 1) % 3
    changed = model.sample(replace(condition, action=later), seed=7)
    torch.testing.assert_close(changed[:, :2], made[:, :2])
    assert not torch.equal(changed[:, 2], made[:, 2])
    assert model.sample(replace(condition, num_frames=3, action=ACTION[:, :3]), seed=7).shape[1] == 3


def test_training_in_order_predicts_each_frame_from_clean_ones_before():
    model = build("in_order")
    ids = model.codes(batch()).ids
    given = model._given(ids, LABEL, ACTION)
    with torch.no_grad():
        before = model._context(ids, given)
        ids[:, 2 * model.per_frame] = (ids[:, 2 * model.per_frame] + 1) % 64
        moved = (model._context(ids, given) - before).abs().amax(dim=(0, 2)).unflatten(0, (4, -1)).amax(dim=1)
    assert (moved[:3] < 1e-6).all() and moved[3] > 1e-5


def test_context_frames_are_always_shown():
    model = build("context")
    assert not model._masks(torch.arange(50))[:, : model.per_frame].any()
    assert model._masks(torch.arange(50))[:, model.per_frame :].any()


def test_log_prob_of_codes_that_depend_on_nothing(model):
    with torch.no_grad():
        for p in model.transformer.head.parameters():
            p.zero_()
        model.transformer.bias.normal_()
    ids = model.codes(batch()).ids[:, model.context * model.per_frame :]
    expected = model.transformer.bias.log_softmax(0)[ids].sum(dim=1)
    torch.testing.assert_close(model.log_prob(batch()), expected, rtol=1e-4, atol=1e-3)
    assert model.dims_of(batch()) == ids.shape[1]


def test_log_prob_belongs_to_the_clip(model):
    both = model.log_prob(batch())
    one = model.log_prob({key: value[1:] for key, value in batch().items()})
    torch.testing.assert_close(one[0], both[1], rtol=1e-4, atol=1e-3)
    assert both.shape == (2,) and (both < 0).all()


def test_guidance_strengthens_the_condition():
    for kind in ("axial", "in_order"):
        model = build(kind)
        made = [model.sample(condition_for(model), seed=7, sampling=Sampling(guidance=g)) for g in (1.0, 1.0001, 4.0)]
        torch.testing.assert_close(made[1], made[0], atol=0.02, rtol=0)
        assert not torch.equal(made[2], made[0])
        with pytest.raises(UserError, match="guidance strengthens a condition"):
            model.sample(condition_for(model, label=None, action=None), seed=7, sampling=Sampling(guidance=2.0))


def test_classes_and_actions_come_from_the_data():
    info = ClipInfo(classes=("a", "b"), num_train=1, directional=True)
    assert tiny().objective.bind(info).num_classes == 2
    config = replace(tiny_in_order().objective, conditions=("action",))
    assert config.bind(replace(info, action_dim=4)).build().requires == ("seed", "action")
    with pytest.raises(UserError, match="need data with actions"):
        config.bind(info)


def test_what_it_cannot_make_is_refused():
    together, in_order, pairs = build("maskvit"), build("in_order"), build("in_order_pairs")
    with pytest.raises(UserError, match="fills clips of 4 frames"):
        together.sample(condition_for(together, num_frames=2), seed=0)
    with pytest.raises(UserError, match="up to 4 frames"):
        in_order.sample(condition_for(in_order, num_frames=5), seed=0)
    with pytest.raises(UserError, match="2 at a time"):
        pairs.sample(condition_for(pairs, video=VIDEO[:, :1]), seed=0)
    with pytest.raises(UserError, match="knows no actions"):
        together.sample(condition_for(together, action=ACTION), seed=0)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(window=3), "windows of 3 x 3"),
        (dict(context_frames=3), "multiple of 2 below 8"),
        (dict(conditions=("action",), num_actions=2), "belong to single frames"),
        (dict(frames="in_order", stride=3), "stride of 3"),
    ],
)
def test_sizes_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        replace(tiny().objective, **changes).build()
