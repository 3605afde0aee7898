import dataclasses
import math

import pytest
import torch

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.inference import stepwise
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Condition, Generator
from filmstrip.systems.generation.videogpt import tiny

FRAMES = torch.rand(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL = dict(width=24, depth=2, num_heads=2, num_classes=8, frames_depths=(1, 1, 1, 1), frames_widths=(8, 8, 12, 12))


def build(**changes):
    """A small model of 4 x 4 x 4 codes."""
    torch.manual_seed(0)
    config = tiny().objective
    coarse = dataclasses.replace(config.tokenizer, patch_size=(2, 8, 8))
    objective = dataclasses.replace(config, **({"tokenizer": coarse} | SMALL | changes)).build()
    for parameter in objective.transformer.parameters():  # conditions matter from the start
        torch.nn.init.normal_(parameter, std=0.3)
    return objective.eval()


def batch(**changes):
    drawn = {"video": FRAMES, "label": torch.tensor([1, 5]), "seed": torch.tensor([0, 1])}
    return drawn | {"action": torch.arange(16).view(2, 8) % 5} | changes


KINDS = {
    "nothing": (dict(conditions=()), {}),
    "label": (dict(conditions=("label",)), {"label": torch.tensor([1, 5])}),
    "action": (dict(conditions=("action",), num_actions=5), {"action": torch.arange(16).view(2, 8) % 5}),
    "vectors": (dict(conditions=("action",), action_dim=3), {"action": torch.ones(2, 8, 3)}),
    "frames": (dict(conditions=("frames",), context_frames=2), {"video": FRAMES[:, :2]}),
    "all": (
        dict(conditions=("label", "action", "frames"), num_actions=5),
        {"label": torch.tensor([1, 5]), "action": torch.arange(16).view(2, 8) % 5, "video": FRAMES[:, :1]},
    ),
}
BOTH = (dict(conditions=("label", "action"), num_actions=5), {})


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_samples_are_video_that_begins_as_told_whatever_the_batch(kind):
    changes, given = kind
    objective = build(**changes)
    assert isinstance(objective, Generator)
    made = objective.sample(Condition(batch_size=2, num_frames=8, **given), seed=7)
    assert made.shape == FRAMES.shape and made.min() >= 0 and made.max() <= 1
    if "video" in given:
        assert torch.equal(made[:, : given["video"].shape[1]], given["video"])
    second = {key: value[1:] for key, value in given.items()}
    alone = objective.sample(Condition(batch_size=1, num_frames=8, **second), seed=8)
    torch.testing.assert_close(alone[0], made[1])


def test_training_needs_what_it_is_conditioned_on_and_nothing_else(kind):
    changes, given = kind
    objective = build(**changes).train()
    assert set(objective.requires) == {"label", "action", "video"} & given.keys() | (
        {"seed"} if changes["conditions"] else set()
    )
    ids = objective.codes(batch()).ids
    needed = batch(action=torch.ones(2, 8, 3)) if changes.get("action_dim") else batch()
    loss = objective({key: needed[key] for key in objective.requires} | {"tokens": ids})
    loss.total.backward()
    lacking = [n for n, p in objective.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not lacking


@pytest.mark.parametrize("key", ["label", "action", "video"])
def test_conditions_change_the_likelihood(key):
    objective = build(**KINDS["all"][0])
    other = {"label": torch.tensor([2, 5]), "action": batch()["action"].clone(), "video": FRAMES.clone()}
    other["action"][0, 3] = 1
    other["video"][0, 0] = 0
    ids = objective.codes(batch()).ids
    before, after = (objective.log_prob(batch(tokens=ids, **change)) for change in ({}, {key: other[key]}))
    assert (before != after).tolist() == [True, False]


def test_the_first_frames_action_lies_before_the_clip():
    objective = build(**KINDS["action"][0])
    changed = batch()["action"].clone()
    changed[:, 0] = 4
    assert torch.equal(objective.log_prob(batch()), objective.log_prob(batch(action=changed)))


def test_log_probability_is_of_all_codes_and_bits_are_of_one():
    objective = build()
    bits = objective(batch()).metrics["bits_per_dim"].item()
    assert objective.dims_of(batch()) == 64
    nats = objective.log_prob(batch())
    assert nats.shape == (2,)
    assert -nats.mean().item() / 64 / math.log(2) == pytest.approx(bits, rel=1e-5)


def test_hidden_conditions_are_no_conditions():
    objective = build(condition_drop=1.0).train()
    for parameter in objective.transformer.parameters():
        parameter.requires_grad_(False)
    one, two = (objective(batch(label=label)).total for label in (torch.tensor([1, 5]), torch.tensor([0, 0])))
    assert torch.equal(one, two)
    assert not torch.equal(
        *(objective.log_prob(batch(label=label)) for label in (torch.tensor([1, 5]), torch.tensor([0, 0])))
    )


def test_frames_that_no_network_sees_are_continued_from_their_codes():
    objective = build(conditions=())
    given = objective.sample(Condition(batch_size=2, num_frames=8, video=FRAMES[:, :4]), seed=0)
    assert torch.equal(given[:, :4], FRAMES[:, :4])
    free = objective.sample(Condition(batch_size=2, num_frames=8), seed=0)
    assert not torch.equal(given[:, 4:], free[:, 4:])


def test_fewer_frames_are_the_first_codes_of_more():
    objective = build(conditions=())
    seen = []
    objective.tokenizer.decode = lambda tokens: seen.append(tokens) or FRAMES[:, : 2 * tokens.grid.t]
    for frames in (3, 8):
        made = objective.sample(Condition(batch_size=2, num_frames=frames), seed=0)
        assert made.shape[1] == frames
    few, all_ = seen
    assert few.grid == (2, 4, 4) and torch.equal(few.ids, all_.ids[:, :32])


def streamed(objective, condition):
    """Pieces of a stream, after a check that together they are what ``sample`` draws."""
    pieces = list(stepwise(objective, objective.stream(condition, seed=3)))
    context = [] if condition.video is None else [condition.video]
    assert torch.equal(torch.cat([*context, *pieces], dim=1), objective.sample(condition, seed=3))
    return pieces


@pytest.mark.parametrize("given", [0, 1, 3])
@pytest.mark.parametrize("conditions", [(), ("frames",)])
def test_frames_that_are_coded_apart_are_streamed_one_by_one(given, conditions):
    if conditions and not given:
        pytest.skip("the model continues frames")
    objective = build(
        tokenizer=systems.find("tokenizers.vqgan:tiny").objective,
        num_frames=4,
        conditions=conditions,
        context_frames=given,
        width=16,
        depth=1,
    )
    drawn, step = [], objective.transformer.embed.register_forward_hook(lambda *_: drawn.append(1))
    condition = Condition(batch_size=2, num_frames=4, video=FRAMES[:, :given] if given else None)
    assert [piece.shape[1] for piece in streamed(objective, condition)] == [1] * (4 - given)
    drawn.clear()
    next(objective.stream(condition, seed=3))
    assert len(drawn) <= (given + 1) * objective.transformer.places // 4, "a frame waits for its own codes alone"
    step.remove()


@pytest.mark.parametrize("frames", [5, 8])
def test_frames_that_are_coded_together_come_at_the_end(frames):
    condition = Condition(batch_size=2, num_frames=frames, video=FRAMES[:, :2])
    (piece,) = streamed(build(conditions=()), condition)
    assert piece.shape[1] == frames - 2


def test_what_is_hidden_in_training_need_not_be_given():
    objective = build(condition_drop=0.5)
    given, draw = [], objective.transformer.stream
    objective.transformer.stream = lambda *of, **more: given.append(more["vector"]) or draw(*of, **more)
    assert objective.sample(Condition(batch_size=2, num_frames=8), seed=0).shape == (2, 8, 3, 32, 32)
    assert given[0].shape == (2, 8) and not given[0].any(), "as in training"
    with pytest.raises(UserError, match="guidance strengthens"):
        objective.sample(Condition(batch_size=2, num_frames=8), seed=0, sampling=Sampling(guidance=2.0))


def test_guidance_with_a_temperature_of_zero_is_deterministic():
    objective = build(condition_drop=0.5)
    condition = Condition(batch_size=2, num_frames=8, label=torch.tensor([1, 5]))
    sampling = Sampling(temperature=0.0, guidance=2.0)
    assert torch.equal(*(objective.sample(condition, seed=seed, sampling=sampling) for seed in (0, 100)))


@pytest.mark.parametrize(
    ("changes", "condition", "message"),
    [
        ("label", dict(num_frames=9, label=torch.tensor([1, 5])), "1 to 8 frames; 9"),
        ("label", dict(), r"needs labels.*--condition CLASS"),
        ("both", dict(label=torch.tensor([1, 5])), "needs actions"),
        ("label", dict(label=torch.tensor([1, 8])), "below 8; 1..8"),
        ("label", dict(label=torch.tensor([1])), r"shape \(2,\)"),
        ("nothing", dict(label=torch.tensor([1, 5])), "knows no labels"),
        ("nothing", dict(video=FRAMES[:, :1]), "multiple of 2 first frames"),
        ("nothing", dict(video=FRAMES[:, :2, :, :16]), "first frames of shape"),
        ("action", dict(num_frames=6, action=torch.zeros(2, 6, dtype=torch.int64)), "all 8 frames"),
        ("action", dict(action=torch.zeros(2, 8, 5)), "whole numbers below 5"),
        ("vectors", dict(action=torch.zeros(2, 8, 2)), "actions of shape"),
        ("frames", dict(), "continues 2 first"),
        ("frames", dict(video=FRAMES[:, :4]), "continues 2 first"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(changes, condition, message):
    objective = build(**KINDS.get(changes, BOTH)[0], condition_drop=0.0 if changes == "label" else 0.5)
    with pytest.raises(UserError, match=message):
        objective.sample(Condition(**({"batch_size": 2, "num_frames": 8} | condition)), seed=0)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="condition_drop"):
        build(conditions=()).sample(Condition(batch_size=1, num_frames=8), seed=0, sampling=Sampling(guidance=2.0))
    with pytest.raises(UserError, match="classes"):
        build(num_classes=0)
    with pytest.raises(UserError, match="actions"):
        build(conditions=("action",))
    longer = torch.zeros(1, 10, 3, 32, 32)
    with pytest.raises((UserError, ValueError), match="positions"):
        build(conditions=()).log_prob({"video": longer})


PAPER = {  # the codes of a clip, how many there are of them, and values of the condition (tables A.2 and E.2)
    "moving_mnist": ((4, 16, 16), 512, 0),
    "bair": ((8, 32, 32), 1024, 0),
    "bair_actions": ((8, 32, 32), 1024, 60),
    "vizdoom": ((8, 32, 32), 1024, 0),
    "vizdoom_health": ((8, 32, 32), 1024, 60),
    "vizdoom_battle": ((8, 32, 32), 1024, 315),
    "ucf101": ((4, 32, 32), 1024, 0),
    "ucf101_128": ((4, 32, 32), 1024, 0),
    "tgif": ((4, 32, 32), 1024, 0),
    "viper_dmc": ((16, 8, 8), 1024, 16),
    "viper_atari": ((16, 16, 16), 1024, 8),
    "viper_rlbench": ((4, 16, 16), 1024, 0),
    "viper_rlbench_multi": ((4, 16, 16), 1024, 34),
}


def test_the_papers_presets_have_the_papers_sizes():
    assert PAPER.keys() == set(systems.presets("generation.videogpt")) - {"tiny"}
    for preset, (grid, codes, condition) in PAPER.items():
        with torch.device("meta"):
            objective = systems.find(f"generation.videogpt:{preset}").objective.build()
        assert (objective.grid, objective.codebook_size, objective.vector.width) == (grid, codes, condition), preset
