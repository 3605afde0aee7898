import dataclasses

import numpy as np
import pytest
import torch
from drawn import draw_batch

from filmstrip import systems
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.protocols import GoalPlanner
from filmstrip.runs import experiment
from filmstrip.runs.initial_weights import start
from filmstrip.systems.control.vjepa_ac import CrossEntropy, VJEPAACConfig
from run_folders import save_run

RUN = systems.find("control.vjepa_ac:tiny")


@pytest.fixture
def objective():
    torch.manual_seed(0)
    built = RUN.objective.build()
    for parameter in built.predictor.parameters():  # so that attention is no average
        torch.nn.init.normal_(parameter, std=0.2)
    return built


@pytest.fixture
def batch():
    return draw_batch(RUN.data, size=2, seed=1)


@torch.no_grad()
def test_a_prediction_depends_on_the_past_alone_and_on_all_of_it(objective, batch):
    features, action, state = objective.encoder.frames(batch["video"]), batch["action"], batch["state"]
    before = objective.next(features, action, state)
    for part in range(3):
        for moment in (0, 3):
            given = [features.clone(), action.clone(), state.clone()]
            given[part][:, moment] += 1.0 if part else torch.randn_like(given[part][:, moment])
            changed = (objective.next(*given) - before).abs().amax(dim=(0, 2, 3)) > 1e-4
            assert changed.tolist() == [time >= moment for time in range(6)]


@torch.no_grad()
def test_the_action_after_a_frame_predicts_the_next_one(objective, batch):
    """``action[:, t]`` of a batch leads to frame ``t``; the first one lies before the clip and is not read."""
    whole = objective(batch).total
    first = {**batch, "action": batch["action"].clone()}
    first["action"][:, 0] += 1
    assert objective(first).total == whole
    first["action"][:, 1] += 1
    assert objective(first).total != whole


@torch.no_grad()
def test_a_rollout_goes_on_from_what_was_predicted(objective, batch):
    features, action, state = objective.encoder.frames(batch["video"]), batch["action"][:, 1:], batch["state"]
    one = objective.next(features[:, :1], action[:, :1], state[:, :1])
    two = objective.next(torch.cat([features[:, :1], one], dim=1), action[:, :2], state[:, :2])[:, -1:]
    loss = objective(batch).metrics["rollout"]
    expected = (torch.cat([one, two], dim=1) - features[:, 1:3]).abs().mean()
    torch.testing.assert_close(loss, expected)


@torch.no_grad()
def test_features_are_of_each_frame_alone(objective, batch):
    features = objective.encoder.frames(batch["video"])
    assert features.shape == (2, 6, 64, 96)
    single = objective.encoder.frames(batch["video"][:, 2:3])
    torch.testing.assert_close(features[:, 2:3], single)
    torch.testing.assert_close(features.std(dim=3, correction=0), torch.ones(2, 6, 64), atol=1e-3, rtol=0)


def test_the_encoder_stays_as_it_is(objective, batch):
    objective.train()
    assert not objective.encoder.training and objective.predictor.training
    objective(batch).total.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.encoder.parameters())


def slide(features, action, state):
    """A world whose features are positions: an action moves them."""
    return features + action[:, :, None] * torch.tensor([1.0, 2.0])


def test_the_planner_finds_the_actions_that_lead_to_a_goal():
    begin, goal = (
        torch.zeros(3, 1, 4, 2),
        torch.tensor([[0.6, -1.0], [0.0, 0.4], [-0.8, 0.8]])[:, None].expand(3, 4, 2),
    )
    planner = CrossEntropy(samples=200, elites=10, iterations=12, horizon=2)
    found = planner.plan(slide, begin, goal, None, action_dim=2, seed=5)
    assert found.shape == (3, 2, 2)
    torch.testing.assert_close(found[:, :1], found[:, :1].clamp(-1, 1))
    # What follows the last action is where the first ones' prediction ended, plus the last action.
    energy = planner.energy(slide, begin, goal, None, found[:, None])
    assert energy.max() < 0.03
    assert torch.equal(found[1:2], planner.plan(slide, begin[1:2], goal[1:2], None, action_dim=2, seed=6))


def test_limits_hold_and_a_limit_of_zero_keeps_an_entry_at_zero():
    begin, goal = torch.zeros(1, 1, 4, 2), torch.full((1, 4, 2), 9.0)
    planner = CrossEntropy(samples=50, elites=5, iterations=5, horizon=1, limits=(0.5, 0.0))
    found = planner.plan(slide, begin, goal, None, action_dim=2, seed=0)[0, 0]
    assert found[0] == pytest.approx(0.5, abs=1e-3) and found[1] == 0


def test_states_move_with_the_actions_in_planning():
    seen = []

    def world(features, action, state):
        seen.append(state.clone())
        return features

    planner = CrossEntropy(samples=2, elites=1, iterations=1, horizon=2, state_per_action=0.1)
    actions = torch.tensor([[[[1.0, -2.0], [0.0, 0.0]]]])
    planner.energy(world, torch.zeros(1, 1, 4, 2), torch.zeros(1, 4, 2), torch.tensor([[5.0, 5.0]]), actions)
    torch.testing.assert_close(seen[1], torch.tensor([[[5.0, 5.0], [5.1, 4.8]]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(elites=60, samples=50), "60 elites are more than 50 samples"),
        (dict(limits=(1.0, 1.0, 1.0)), "planner.limits has 3 values, and an action 2"),
    ],
)
def test_a_search_that_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        CrossEntropy(**changes).plan(slide, torch.zeros(1, 1, 4, 2), torch.zeros(1, 4, 2), None, action_dim=2, seed=0)


def test_plans_are_of_single_rows_and_need_a_state(objective, batch):
    assert isinstance(objective, GoalPlanner)
    frame, goal, state = batch["video"][:, 0], batch["video"][:, 5], batch["state"][:, 0]
    both = objective.plan_actions(frame, goal, state, seed=3)
    assert both.shape == (2, 1, 2) and both.abs().max() <= 1
    alone = objective.plan_actions(frame[1:], goal[1:], state[1:], seed=4)
    torch.testing.assert_close(both[1:], alone)
    for given, message in ((None, "none was given"), (state[:, :1], r"\(2, 1\) were given")):
        with pytest.raises(UserError, match=f"a state of 2 numbers beside the image, and {message}"):
            objective.plan_actions(frame, goal, given, seed=3)


def info(**changes):
    return ClipInfo(classes=(), num_train=4, directional=True, **changes)


def test_sizes_come_from_the_data_or_must_agree_with_them():
    config = VJEPAACConfig()
    assert config.bind(info(action_dim=4, state_dim=3)).state_dim == 3
    assert config.bind(info(action_dim=4)).action_dim == 4
    with pytest.raises(UserError, match=r"these videos have none: put NAME.actions.npz"):
        config.bind(info(num_actions=4))
    with pytest.raises(UserError, match=r"state_dim is 7, and the videos have 0 \(--data.reads.states"):
        dataclasses.replace(config, state_dim=7).bind(info(action_dim=7))
    with pytest.raises(UserError, match="action_dim is not set"):
        config.build()
    with pytest.raises(UserError, match="a rollout of 2 steps needs clips of more frames, not 2"):
        dataclasses.replace(config, action_dim=2, num_frames=2).build()


def test_without_states_there_is_no_token_of_them():
    objective = dataclasses.replace(RUN.objective, state_dim=0).build()
    assert objective.requires == ("video", "action") and objective.predictor.num_conditions == 1
    objective(draw_batch(RUN.data, size=2, seed=1)).total.backward()


def test_an_untrained_encoder_is_refused_before_training(synthetic_cache, tmp_path):
    run = dataclasses.replace(RUN, objective=dataclasses.replace(RUN.objective, untrained_encoder=False))
    with pytest.raises(UserError, match=r"the frozen encoder is untrained.*--init RUN"):
        experiment.train(run, tmp_path / "run")


def test_a_run_of_pretraining_starts_the_encoder(objective, tmp_path):
    given, _ = save_run(tmp_path / "run", "pretraining.vjepa:tiny")
    start(objective, tmp_path / "run")
    state = given.teacher.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in objective.encoder.state_dict().items())
    save_run(tmp_path / "large", "pretraining.vjepa:tiny", width=192)
    with pytest.raises(UserError, match="other shapes"):
        start(objective, tmp_path / "large")


def test_actions_and_states_are_read_with_the_frames_they_belong_to(synthetic_cache):
    from filmstrip.data.reading.loader import EvalLoader
    from filmstrip.data.sources import open_source

    data = dataclasses.replace(RUN.data, num_workers=0)
    source = open_source(data)
    assert source.state_dim == 2 and source.info("train").state_dim == 2 and "state" in source.gives
    batch = next(iter(EvalLoader(source, data, "test", batch_size=2)))
    assert list(source.kind.specification.faults(batch)) == []
    moved = batch["state"].diff(dim=1)
    inside = ((batch["state"][:, 1:] > 0.07) & (batch["state"][:, 1:] < 0.93)).all(dim=-1)
    torch.testing.assert_close(moved[inside], 0.06 * batch["action"][:, 1:][inside], atol=1e-5, rtol=1e-4)
    plain = open_source(dataclasses.replace(data, reads=dataclasses.replace(data.reads, states="")))
    assert plain.state_dim == 0 and "state" not in plain.gives
    with pytest.raises(UserError, match=r"no states 'wrist': .*it has no array 'wrist', but 'actions', 'gripper'"):
        open_source(dataclasses.replace(data, reads=dataclasses.replace(data.reads, states="wrist")))


def test_states_without_actions_are_refused(tmp_path, synthetic_cache):
    from filmstrip.data.sources import open_source
    from filmstrip.data.synthetic.motions import Motions

    data = dataclasses.replace(RUN.data, synthetic=Motions(train_per_class=1, test_per_class=1))
    with pytest.raises(UserError, match="has no actions, beside which states 'gripper' are read"):
        open_source(data)


def test_states_that_are_no_numbers_for_each_frame_are_refused(tmp_path):
    from filmstrip.data.actions import Sidecar

    path = tmp_path / "clip.actions.npz"
    np.savez(path, actions=np.zeros((4, 2)), flat=np.zeros(4), bad=np.full((4, 2), np.nan))
    for name in ("flat", "bad"):
        with pytest.raises(ValueError, match=f"{name!r} is float64 of shape .*expected finite numbers"):
            Sidecar(str(path)).read_states(name)
