import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.errors import UserError
from filmstrip.models.vjepa import sincos_of_grid
from filmstrip.nn.patches import take
from filmstrip.protocols import Encoder, Grid
from filmstrip.runs.encoders import load
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.vjepa.masks import Blocks
from filmstrip.systems.pretraining.vjepa.model import VJEPAConfig, spread
from run_folders import save_run

SMALL = VJEPAConfig(
    width=24,
    depth=2,
    num_heads=2,
    num_frames=4,
    size=64,
    patch_size=(2, 8, 8),
    predictor_width=18,
    predictor_depth=1,
    predictor_num_heads=1,
    num_blocks=(4, 1),
    block_scales=(0.15, 0.6),
    momentum=0.9,
    momentum_end=1.0,
    momentum_steps=10,
)


def blocks(grid, number, scale, aspect=(0.75, 1.5), index=0):
    return Blocks(grid=grid, number=number, scale=scale, aspect=aspect, index=index)


def batch(size=3, **changes):
    video = torch.randint(0, 256, (size, 4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return {"video": video, "seed": torch.arange(size) + 11, **changes}


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return SMALL.build()


@settings(max_examples=60, deadline=None)
@given(
    grid=st.builds(Grid, st.integers(1, 4), st.integers(6, 16), st.integers(6, 16)),
    number=st.integers(1, 8),
    scale=st.floats(0.05, 0.3),
    seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=4),
)
def test_positions_are_visible_or_masked_or_left_out_with_the_same_counts(grid, number, scale, seeds):
    kind = blocks(grid, number, scale)
    counts = kind.counts()
    visible, masked = kind.choose(torch.tensor(seeds), counts)
    assert (visible.shape, masked.shape) == tuple((len(seeds), grid.t * count) for count in counts)
    for seen, hidden in zip(visible.tolist(), masked.tolist()):
        assert seen == sorted(set(seen)) and hidden == sorted(set(hidden)) and not set(seen) & set(hidden)
        places = grid.h * grid.w
        assert min(seen + hidden) >= 0 and max(seen + hidden) < grid.t * places
        for one in (seen, hidden):  # through all frames
            first = [position for position in one if position < places]
            assert one == [position + time * places for time in range(grid.t) for position in first]


def test_a_block_is_a_rectangle_of_the_scale_and_aspect_asked_for():
    grid = Grid(2, 14, 14)
    shapes = set()
    for cover in blocks(grid, 1, 0.15).cover(torch.arange(500)).view(-1, 14, 14):
        rows, columns = cover.any(dim=1), cover.any(dim=0)
        assert torch.equal(cover, rows[:, None] & columns)
        shapes.add((rows.sum().item(), columns.sum().item()))
        for line in (rows, columns):
            at = line.nonzero()[:, 0]
            assert torch.equal(at, torch.arange(at[0], at[-1] + 1))
    assert {h for h, _ in shapes} == {5, 6, 7} and {w for _, w in shapes} == {4, 5, 6}
    assert all(24 <= h * w <= 32 for h, w in shapes)  # of 29 positions asked for


def test_blocks_lie_anywhere_equally_often():
    share = blocks(Grid(1, 9, 9), 1, 1 / 9, (1.0, 1.0)).cover(torch.arange(8000)).float().mean(0).view(9, 9)
    # Three rows and columns of nine: the seven places of its corner are equally likely, an edge has fewer of them.
    expected = torch.tensor([1, 2, 3, 3, 3, 3, 3, 2, 1]) / 7
    assert (share - expected[:, None] * expected).abs().max() < 0.025


def test_what_is_visible_lies_outside_the_blocks_of_most_clips_and_what_is_masked_inside():
    kind = blocks(Grid(1, 14, 14), 8, 0.15)
    seeds = torch.arange(10_000, 11_000)
    cover, (visible, masked) = kind.cover(seeds), kind.choose(seeds, kind.counts())
    outside, inside = ~take(cover, visible).any(dim=1), take(cover, masked).all(dim=1)
    assert 0.93 < outside.float().mean() < 1 and 0.93 < inside.float().mean() < 1
    # What is cut is cut anywhere, so that no place is seen or masked much less than its mirror image.
    for index in (visible, masked):
        share = torch.zeros(1000, 196).scatter_(1, index, 1.0).mean(0).view(14, 14)
        assert (share - share.flip(0, 1)).abs().max() < 0.1


def test_masks_belong_to_the_clip_not_to_the_batch_and_differ_by_type(objective):
    together = objective.draw_masks(torch.tensor([5, 6, 7]))
    alone = objective.draw_masks(torch.tensor([6]))
    for (visible, masked), (seen, hidden) in zip(together, alone):
        assert torch.equal(visible[1:2], seen) and torch.equal(masked[1:2], hidden)
        assert not torch.equal(masked[0], masked[1])
    one, other = (blocks(Grid(1, 14, 14), 2, 0.3, index=index).cover(torch.arange(4)) for index in (0, 1))
    assert not torch.equal(one, other)


def test_drawing_masks_compiles_into_one_graph(objective):
    draw = torch.compile(objective.draw_masks, backend="eager", fullgraph=True)
    seeds = torch.tensor([5, 6, 7])
    for compiled, eager in zip(draw(seeds), objective.draw_masks(seeds)):
        assert all(map(torch.equal, compiled, eager))


def test_blocks_that_leave_nothing_to_see_are_refused():
    with pytest.raises(UserError, match="2 blocks of 1 of a frame cover all of its 8 x 8 positions"):
        dataclasses.replace(SMALL, num_blocks=(4, 2), block_scales=(0.15, 1.0)).build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": (4,)}, "num_blocks has 1 entries and block_scales 2"),
        ({"num_mask_tokens": 1}, "2 types of masks need as many mask tokens, got 1"),
    ],
)
def test_types_of_masks_have_all_that_they_need(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **changes).build()


def test_a_predictor_that_knows_the_targets_has_no_loss(objective):
    given = batch()
    targets = objective.targets(given["video"])
    objective.predict = lambda video, visible, masked, kind: take(targets, masked)
    assert objective(given).total == 0
    objective.predict = lambda video, visible, masked, kind: take(targets, masked) + 1 + kind
    loss = objective(given)
    torch.testing.assert_close(loss.total, torch.tensor(1.5))
    torch.testing.assert_close(loss.metrics["loss_mask_1"], torch.tensor(2.0))


def test_targets_are_normalised_token_by_token_and_see_the_whole_clip(objective):
    video = batch()["video"]
    targets = objective.targets(video)
    torch.testing.assert_close(targets.mean(2), torch.zeros(3, 128), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.std(2, correction=0), torch.ones(3, 128), atol=1e-3, rtol=0)
    changed = video.clone()
    changed[:, -1, :, -8:, -8:] = 0
    assert (objective.targets(changed)[:, 0] - targets[:, 0]).abs().max() > 1e-6


def test_the_student_sees_visible_positions_alone(objective):
    video, (visible, masked) = batch()["video"], objective.draw_masks(torch.tensor([11, 12, 13]))[1]
    hidden = torch.ones(3, 128, dtype=torch.bool).scatter_(1, visible, False).view(3, 2, 8, 8)
    hidden = hidden.repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    covered = torch.where(hidden[:, :, None], torch.zeros_like(video), video)
    assert not torch.equal(covered, video)
    predicted = objective.predict(video, visible, masked, 1)
    assert torch.equal(objective.predict(covered, visible, masked, 1), predicted)
    assert not torch.equal(objective.predict(255 - video, visible, masked, 1), predicted)


def test_each_type_of_mask_has_its_token_or_both_the_first():
    torch.manual_seed(0)
    for shared, used in ((False, [True, True, False]), (True, [True, False, False])):
        objective = dataclasses.replace(SMALL, num_mask_tokens=3, shared_mask_token=shared).build()
        assert [token.requires_grad for token in objective.predictor.mask_tokens] == used
        objective(batch()).total.backward()
        assert [
            token.grad is not None and bool(token.grad.any()) for token in objective.predictor.mask_tokens
        ] == used


def test_the_teacher_is_the_moving_average_and_gets_no_gradient(objective):
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.5)
    expected = {name: value.clone() for name, value in objective.student.named_parameters()}
    for name, value in objective.teacher.named_parameters():
        assert torch.equal(value, expected[name]) and not value.requires_grad
    for step in range(1, 4):
        optimiser.zero_grad()
        objective(batch()).total.backward()
        assert all(p.grad is None for p in objective.teacher.parameters())
        optimiser.step()
        objective.after_step(step)
        momentum = 0.9 + (step - 1) * 0.01
        for name, value in objective.student.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * value.detach()
    for name, value in objective.teacher.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
    assert not torch.equal(objective.teacher.norm.bias, objective.student.norm.bias)


def test_momentum_rises_linearly_and_stays(objective):
    assert [round(objective.momentum_at(step), 6) for step in (1, 2, 6, 11, 500)] == [0.9, 0.91, 0.95, 1.0, 1.0]


def test_features_are_the_teachers_at_every_layer(objective):
    assert isinstance(objective.encoder, Encoder) and objective.encoder is objective.teacher
    features = objective.encoder(batch()["video"], layers=True)
    assert features.grid == (2, 8, 8) and features.tokens.shape == (3, 128, 24)
    assert [layer.shape for layer in features.layers] == [(3, 128, 24)] * 2


def test_the_spread_of_features_that_have_collapsed_is_zero(objective):
    same = torch.randn(1, 1, 24).expand(3, 50, 24)
    assert spread(same) < 1e-6
    assert abs(spread(torch.randn(100, 50, 24)) - 1) < 0.02
    with torch.no_grad():
        for part in (objective.teacher.norm, objective.predictor.norm):
            part.weight.zero_()
    metrics = objective(batch()).metrics
    assert metrics["target_std"] < 1e-5 and metrics["prediction_std"] < 1e-5


def test_rotary_positions_take_clips_of_any_size_and_fixed_ones_do_not(objective):
    longer = torch.randint(0, 256, (1, 6, 3, 32, 72), dtype=torch.uint8)
    assert objective.encoder(longer).grid == (3, 4, 9)
    fixed = dataclasses.replace(SMALL, positions="sincos").build()
    with pytest.raises(ValueError, match=r"grid of \(2, 8, 8\) tubelets, got \(3, 4, 9\)"):
        fixed.encoder(longer)


def test_rotary_attention_depends_on_where_tokens_lie(objective):
    video = batch()["video"]
    visible = torch.arange(40).expand(3, -1)
    here = objective.student(video, visible=visible).tokens
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled = objective.student(video, visible=visible[:, order]).tokens
    torch.testing.assert_close(shuffled, here[:, order], rtol=1e-4, atol=1e-5)
    moved = objective.student(torch.zeros_like(video), visible=visible + 8).tokens
    again = objective.student(torch.zeros_like(video), visible=visible).tokens
    torch.testing.assert_close(moved, again, rtol=1e-4, atol=1e-5)  # all moved alike


def test_fixed_positions_have_a_third_of_the_channels_for_each_axis():
    table = sincos_of_grid(Grid(3, 4, 5), 18).view(3, 4, 5, 3, 6)
    assert torch.equal(table[:, :1, :1, 0].expand(3, 4, 5, 6), table[..., 0, :])
    assert torch.equal(table[:1, :, :1, 1].expand(3, 4, 5, 6), table[..., 1, :])
    assert torch.equal(table[:1, :1, :, 2].expand(3, 4, 5, 6), table[..., 2, :])
    torch.testing.assert_close(table[2, 0, 0, 0, 1], torch.tensor(2 / 10_000 ** (1 / 3)).sin())
    torch.testing.assert_close(table[2, 0, 0, 0, 3], torch.tensor(2.0).cos())


def test_a_run_goes_on_from_another_with_its_teacher_and_predictor(tmp_path):
    given, run = save_run(tmp_path / "run", "pretraining.vjepa:tiny")
    objective = run.objective.build()
    start(objective, tmp_path / "run")
    wanted = given.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in objective.state_dict().items())
    assert not torch.equal(given.teacher.norm.bias, given.student.norm.bias)


def test_a_run_of_another_method_does_not_start_it(objective, tmp_path):
    save_run(tmp_path / "run", "pretraining.videomae:tiny")
    with pytest.raises(UserError, match="holds a VideoMAE, and this run trains a VJEPA: start it from a run of its"):
        start(objective, tmp_path / "run")


def test_a_run_offers_its_teacher_as_an_encoder(tmp_path):
    given, _ = save_run(tmp_path / "run", "pretraining.vjepa:tiny")
    video = torch.randint(0, 256, (1, 8, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "run", "cpu")(video).tokens, given.teacher(video).tokens)


def test_loss_with_one_seed_does_not_depend_on_the_rest_of_the_batch(objective):
    """So that processes with parts of a batch compute what one with all of it does."""
    whole, parts = (
        batch(4),
        [{key: value[part] for key, value in batch(4).items()} for part in (slice(2), slice(2, 4))],
    )
    loss = sum(objective(part).total for part in parts) / 2
    torch.testing.assert_close(loss, objective(whole).total)


DENSE = dataclasses.replace(
    SMALL,
    positions="paired_rotary",
    position_range=16,
    feature_layers=(1, 2),
    image_tokens=True,
    image_weight=0.25,
    image_num_blocks=(3,),
    context_weight=0.5,
    context_warmup=(2, 6),
    context_by_distance=True,
    shared_mask_token=True,
)


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return DENSE.build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_layers": (2, 1)}, r"feature_layers \(2, 1\) must ascend and end with the last of 2 blocks"),
        ({"feature_layers": (1,)}, "must ascend and end with the last of 2 blocks"),
        ({"image_tokens": False}, "image_weight 0.25 needs image_tokens"),
        ({"image_num_blocks": (3, 3)}, "image_num_blocks has 2 entries and image_block_scales 1"),
    ],
)
def test_what_dense_features_need_is_said(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(DENSE, **changes).build()


def test_features_of_layers_are_normalised_each_and_the_last_are_the_encoders(dense):
    video = batch()["video"]
    features, grid = dense.teacher.features(video)
    assert features.shape == (3, 128, 48) and grid == (2, 8, 8)
    seen = dense.teacher(video, layers=True)
    assert torch.equal(features[..., 24:], seen.tokens)
    torch.testing.assert_close(features[..., :24], dense.teacher.level_norms[0](seen.layers[0]))
    for level in dense.targets(video).split(24, dim=2):
        torch.testing.assert_close(level.mean(2), torch.zeros(3, 128), atol=1e-5, rtol=0)
        torch.testing.assert_close(level.std(2, correction=0), torch.ones(3, 128), atol=1e-3, rtol=0)


def test_distances_are_those_to_the_nearest_masked_position(dense):
    for image, steps in ((False, 2), (True, 1)):
        visible, masked = dense.draw_masks(torch.tensor([3, 4]), image)[0]
        found = dense.distances(visible, masked, steps)
        for row in range(2):
            for place, distance in zip(visible[row].tolist(), found[row].tolist()):
                t, y, x = place // 64, place % 64 // 8, place % 8
                others = [(m // 64, m % 64 // 8, m % 8) for m in masked[row].tolist()]
                nearest = min(((t - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) ** 0.5 for a, b, c in others)
                assert distance == pytest.approx(nearest, abs=1e-4)


def test_the_weight_of_visible_positions_rises_and_is_saved(dense):
    assert [dense.context_weight_at(step) for step in (1, 3, 5, 7, 100)] == [0, 0, 0.25, 0.5, 0.5]
    assert dataclasses.replace(DENSE, context_warmup=(0, 0)).build().context_weight_at(1) == 0.5
    given = batch()
    without = dense(given).total
    dense.after_step(4)
    assert dense.state_dict()["context_share"] == 0.25
    weighted = dense(given)
    assert weighted.total > without + 0.1


def test_images_are_frames_of_the_clips_and_count_by_their_weight(dense):
    given = batch()
    loss, videos = dense(given), dense._loss(given["video"], given["seed"])
    images = (loss.total - 0.75 * videos.total) / 0.25
    torch.testing.assert_close(images.detach(), loss.metrics["loss_image"], rtol=1e-4, atol=1e-5)
    still = {**given, "video": given["video"][:, :1].expand(-1, 4, -1, -1, -1)}
    alone = dense({**given, "video": given["video"][:, :1]})
    torch.testing.assert_close(dense(still).metrics["loss_image"], alone.total.detach())
    assert "loss_image" not in alone.metrics
    assert dense.encoder(given["video"][:, :1]).grid == (1, 8, 8)


def test_positions_of_any_frame_span_the_same_range(dense):
    places = dense.student.positions
    corner = torch.tensor([[1.0, 7.0, 7.0]])
    small = places.angles(corner, Grid(2, 8, 8))
    large = places.angles(torch.tensor([[1.0, 31.0, 31.0]]), Grid(2, 32, 32))
    torch.testing.assert_close(small, large)
    angles = small[0, :12].view(3, 2, 2)  # axes, pairs, the two of a pair
    assert torch.equal(angles[..., 0], angles[..., 1])
    torch.testing.assert_close(angles[:, 0, 0], torch.tensor([1.0, 15.0, 15.0]))
