"""The choice of tokens by S5, its slow copy, and short and long clips of LSMCL."""

from dataclasses import replace

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.selective_s4 import S4, SelectiveS4
from filmstrip.runs.initial_weights import _copy
from filmstrip.systems.pretraining import lsmcl
from filmstrip.systems.recognition import s5

TINY = s5.tiny().objective
LENGTH = 8 * 16


def tokens(count=2):
    return torch.randn(count, LENGTH, TINY.width, generator=torch.Generator().manual_seed(1))


def layers(**changes):
    torch.manual_seed(0)
    return SelectiveS4(replace(TINY, **changes), LENGTH).eval()


@torch.no_grad()
def test_half_of_the_tokens_are_kept_in_their_order():
    network = layers()
    scores = network.scores(tokens())
    index = network.chosen(scores, None)
    assert index.shape == (2, LENGTH // 2) and (index.diff(dim=1) > 0).all()
    lost = torch.ones_like(scores, dtype=torch.bool).scatter(1, index, False)
    assert scores.gather(1, index).min(dim=1).values.ge(scores.masked_fill(~lost, -torch.inf).max(dim=1).values).all()
    assert torch.equal(network.selected(tokens(), None)[0], tokens().gather(1, index[..., None].expand(-1, -1, 64)))
    assert network(tokens())[0].shape == (2, LENGTH // 8, TINY.width // 4)


@torch.no_grad()
def test_a_drawn_choice_belongs_to_the_clip_and_prefers_high_scores():
    network = layers()
    scores = torch.linspace(-4, 4, LENGTH).expand(400, -1)
    seeds = torch.arange(400)
    drawn = network.chosen(scores, seeds)
    assert torch.equal(network.chosen(scores[:1], seeds[7:8])[0], drawn[7])
    assert not torch.equal(drawn[0], drawn[1])
    share = torch.zeros(400, LENGTH).scatter(1, drawn, 1.0).mean(0)
    assert share[-16:].mean() > 0.95 and share[:16].mean() < 0.1
    even = torch.zeros(400, LENGTH).scatter(1, network.chosen(torch.zeros(400, LENGTH), seeds), 1.0).mean(0)
    assert (even - 0.5).abs().max() < 0.12


def test_the_generator_learns_though_the_choice_is_hard():
    network = layers().train()
    network(tokens(), torch.arange(2))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.generator.parameters())
    with torch.no_grad():
        expected = network.eval()(tokens(), torch.arange(2))[0]
    torch.testing.assert_close(network.train()(tokens(), torch.arange(2))[0], expected, rtol=1e-5, atol=1e-6)
    assert all(p.grad is None for p in network.slow.parameters())


def test_tokens_that_are_left_out_have_a_say_too():
    network = layers().train()
    scores = network.scores(tokens()).detach().requires_grad_()
    network.scores = lambda given: scores
    index = network.chosen(scores.detach(), None)
    network(tokens())[0].square().sum().backward()
    left_out = torch.ones_like(scores, dtype=torch.bool).scatter(1, index, False)
    assert scores.grad[left_out].any() and scores.grad[~left_out].any()


def test_the_slow_copy_moves_towards_the_first_layer():
    network = layers(momentum=0.75)
    before = network.slow["s4"].skip.clone()
    with torch.no_grad():
        network.blocks[0].s4.skip.add_(1.0)
    network.move()
    torch.testing.assert_close(network.slow["s4"].skip, before + 0.25)


@torch.no_grad()
@pytest.mark.parametrize("selection", ["random", "none"])
def test_other_choices_have_no_generator(selection):
    network = layers(selection=selection)
    assert not hasattr(network, "generator")
    count = LENGTH if selection == "none" else LENGTH // 2
    assert network.selected(tokens(), None)[0].shape[1] == count
    assert network(tokens())[0].shape[1] == count // 4


@torch.no_grad()
def test_a_layer_is_causal_and_refuses_what_is_longer():
    layer, x = S4(4, 32, state=8), torch.randn(1, 20, 4)
    changed = x.clone()
    changed[:, 12:] = 0
    torch.testing.assert_close(layer(x)[:, :12], layer(changed)[:, :12], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(layer(x)[:, 12:], layer(changed)[:, 12:])
    with pytest.raises(ValueError, match="up to 32, got 33"):
        layer(torch.zeros(1, 33, 4))


def test_sizes_that_do_not_go_together_are_refused():
    with pytest.raises(UserError, match="width has to be a multiple of 4"):
        replace(TINY, width=62).build()
    with pytest.raises(UserError, match="state even"):
        replace(TINY, state=15).build()
    with pytest.raises(UserError, match="frame_pool 3"):
        replace(TINY, frame_pool=3).build()
    with pytest.raises(ValueError, match="clips of 8 frames, or multiples, got 12"):
        TINY.build().encoder(torch.zeros(1, 12, 3, 64, 64))


@torch.no_grad()
def test_patches_are_pooled_within_their_frame():
    encoder = replace(TINY, frame_pool=2).build().encoder.eval()
    video = torch.rand(1, 8, 3, 64, 64)
    whole = encoder.frames.norm(encoder.frames.steps(video)[0][:, :, 1:])[0].view(8, 4, 4, 64)
    found = encoder.tokens(video)[0].view(8, 2, 2, 64)
    torch.testing.assert_close(found[3, 1, 0], whole[3, 2:, :2].mean(dim=(0, 1)))


@torch.no_grad()
def test_short_clips_lie_in_the_long_one_and_a_long_one_is_read_thinned():
    objective = lsmcl.tiny().objective.build().eval()
    video = torch.arange(16.0).view(1, 16, 1, 1, 1).expand(300, 16, 3, 64, 64)
    short = objective.short(video, torch.arange(300))
    frames = short[:, :, 0, 0, 0]
    assert (frames.diff(dim=1) == 1).all() and set(frames[:, 0].tolist()) == set(range(13))
    clip = torch.rand(1, 16, 3, 64, 64)
    torch.testing.assert_close(objective.encoder(clip).tokens, objective.encoder(clip[:, ::4]).tokens)
    with pytest.raises(ValueError, match=r"set data\.clip\.num_frames to 16"):
        objective.short(video[:, :8], torch.arange(300))


def test_the_teacher_follows_and_a_classifier_starts_from_the_student():
    config = lsmcl.tiny().objective
    objective = replace(config, teacher_momentum=0.5).build()
    for step, follows in ((1, 1.0), (2, 0.5)):
        before = objective.teacher[1][0].weight.clone()
        with torch.no_grad():
            objective.projector[0].weight.add_(1.0)
        objective.after_step(step)
        torch.testing.assert_close(objective.teacher[1][0].weight, before + follows)
    classifier = replace(TINY, num_frames=4).build()
    _copy(objective.encoder.state_dict(), classifier.encoder, "a run")
    assert torch.equal(classifier.encoder.video.generator[0].weight, objective.encoder.video.generator[0].weight)
