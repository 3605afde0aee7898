"""Own environments: pictures, seeds, saved state, experts, speed; and what others are refused for."""

import importlib.util
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from filmstrip.errors import UserError
from filmstrip.rl.envs import OWN, Environment, EnvironmentConfig, named
from filmstrip.rl.envs.environment import MAX_CRASHES
from filmstrip.rl.envs.own import OwnEnvironment
from filmstrip.rl.policies import scripted, scripted_action
from filmstrip.rl.recording import play

NAMES = ("point", "orbit", "reach/up/steel", "reach/left/orange", "pick/down/orange", "pong", "push")


def built(name, **settings):
    return EnvironmentConfig(name=name, **settings).build()


def value(name, kind, episodes=4, quality=1.0):
    env, found = built(name), []
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        found.append(play(env, scripted(kind, rng, quality), seed).value)
    return float(np.mean(found))


@pytest.mark.parametrize("name", NAMES)
def test_they_are_gymnasiums(name):
    check_env(named(name, size=32), skip_render_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_goes_on_where_it_was(name):
    env, other = built(name), built(name)
    rng = np.random.default_rng(0)
    env.reset(3)
    actions = [scripted_action(env, "random", rng) for _ in range(30)]
    for action in actions[:12]:
        env.step(action)
    state = env.state_dict()
    other.reset(99)
    other.load_state_dict(state)
    for action in actions[12:]:
        one, two = env.step(action), other.step(action)
        assert np.array_equal(one.frame, two.frame) and one[1:] == two[1:]
        if one.last:
            break
    assert env.state_dict() == other.state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_an_expert_earns_more_than_chance_and_doing_nothing_earns_nothing(name):
    expert, chance = value(name, "expert"), value(name, "random")
    assert expert > chance + 2
    if name != "pong":
        assert value(name, "still") < 0.1 * expert
    assert value(name, "expert", quality=0.0) == pytest.approx(chance)


def test_nothing_but_the_task_says_which_goal_is_meant():
    """The first picture is the same in all tasks, each of which has a goal of its own, in either look."""
    for look in ("steel", "orange"):
        environments = [built(f"pick/{task}/{look}") for task in ("right", "down", "left", "up")]
        first = [environment.reset(5) for environment in environments]
        assert all(np.array_equal(picture, first[0]) for picture in first)
        ends = []
        for environment in environments:
            episode = play(environment, scripted("expert", np.random.default_rng(0)), 5)
            assert episode.rewards[-1] == 1
            ends.append(environment.own.state[:2])
        angles = [np.arctan2(y - 0.5, x - 0.5) / (np.pi / 2) % 4 for x, y in ends]
        assert np.round(angles).astype(int).tolist() in ([0, 1, 2, 3], [4, 1, 2, 3])


def test_quality_grades_returns():
    found = [value("point", "expert", episodes=6, quality=quality) for quality in (0.0, 0.4, 1.0)]
    assert found[0] < found[1] < found[2]


def test_rewards_are_hidden_from_those_who_step():
    env = OWN["point"](size=32)
    env.reset(seed=0)
    rewards = [env.step(env.expert()) for _ in range(30)]
    assert all(one[1] == 0 for one in rewards) and rewards[-1][4]["true_reward"] == 1


def test_a_time_limit_is_no_terminal_state_and_a_lost_game_is():
    env = built("point", max_steps=7)
    env.reset(0)
    steps = [env.step(np.zeros(2)) for _ in range(7)]
    assert [one.cut for one in steps] == [False] * 6 + [True] and not any(one.terminal for one in steps)
    episode = play(built("pong"), lambda e, f: 0, 0)
    assert episode.terminal and max((np.array(episode.rewards) == sign).sum() for sign in (1, -1)) == 5


def test_the_score_is_where_the_scoreboard_is():
    env = OWN["pong"](size=32)
    env.reset(seed=0)
    left, top, right, bottom = env.scoreboard
    before = env.render()
    env.state[6] += 1
    changed = (env.render() != before).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed.any()
    assert rows.max() < round(bottom * 32) and rows.min() >= round(top * 32)
    assert columns.min() >= left * 32 and columns.max() < right * 32


@pytest.mark.parametrize("name", NAMES)
def test_more_than_two_thousand_frames_a_second(name):
    env = named(name, size=32)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(50)]
    best = 0.0
    for _ in range(8):  # the best of several: others may use the core meanwhile
        env.reset(seed=1)
        start = time.thread_time()
        for action in actions:
            env.step(action)
        best = max(best, len(actions) / (time.thread_time() - start))
    assert best > 2000


class Odd(gymnasium.Env):
    """An environment of a person's own, whose space and pictures tests choose."""

    def __init__(self, space=None, picture=None, fails=False, render_mode=None):
        self.action_space = space or spaces.Box(np.array([0.0, -4.0]), np.array([2.0, 4.0]), dtype=np.float64)
        self.observation_space = spaces.Box(0, 1, (1,))
        self.picture = np.zeros((48, 64, 3), np.uint8) if picture is None else picture
        self.fails, self.given = fails, []

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.fails:
            raise RuntimeError("the simulator is gone")
        self.given.append(np.array(action))
        return np.zeros(1, np.float32), 1.5, False, False, {}

    def render(self):
        return self.picture


def test_other_environments_are_scaled():
    odd = Odd()
    env = Environment(EnvironmentConfig(name="odd", action_repeat=2), odd)
    assert env.reset(0).shape == (3, 32, 32)
    step = env.step(np.array([-1.0, 0.5]))
    assert step.reward == 3.0 and step.frame.shape == (3, 32, 32)
    assert np.allclose(odd.given[0], [0.0, 2.0]) and len(odd.given) == 2
    assert env.state_dict() is None


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (Odd(space=spaces.MultiDiscrete([2, 3])), "one of several"),
        (Odd(space=spaces.Box(-np.inf, np.inf, (2,))), "with bounds"),
        (Odd(picture=np.zeros((48, 64), np.uint8)), "H x W x 3 uint8 are expected"),
        (Odd(picture=np.zeros((8, 8, 3), np.float32)), "H x W x 3 uint8 are expected"),
    ],
)
def test_what_agents_cannot_use_is_refused(odd, message):
    with pytest.raises(UserError, match=message):
        Environment(EnvironmentConfig(name="odd"), odd).reset(0)


def test_crashes_are_counted_and_limited():
    env = Environment(EnvironmentConfig(name="odd"), Odd(fails=True))
    for number in range(MAX_CRASHES - 1):
        env.reset(0)
        step = env.step(np.zeros(2))
        assert step.cut and not step.terminal and env.crashes == number + 1
    with pytest.raises(UserError, match=r"crashed 20 times.*simulator is gone"):
        env.step(np.zeros(2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("poin", "did you mean 'point'"),
        ("point/far", "has no variants"),
        ("reach/up/steel/far", "reach/TASK/LOOK"),
        ("reach/up/green", "looks steel, orange"),
        ("pick/up/steel/far", "pick/TASK/LOOK"),
        ("pick/in/steel", "tasks are right, down, left, up"),
        ("dm_control/walker-walk", "pip install"),
        ("my_module:MyEnv", "on the command line"),
    ],
)
def test_names_that_are_none(name, message):
    if name.startswith("dm_control") and importlib.util.find_spec("dm_control"):
        pytest.skip("it is installed")
    with pytest.raises(UserError, match=message):
        built(name)


def test_own_code_is_imported_where_it_is_allowed():
    class Module:
        Mine = Odd
        Wrong = dict

    config = EnvironmentConfig(name="my_module:Mine")
    assert config.build(lambda name: Module).reset(0).shape == (3, 32, 32)
    for name, message in (("Wrong", "environment of Gymnasium is expected"), ("None_", "cannot be imported")):
        with pytest.raises(UserError, match=message):
            EnvironmentConfig(name=f"my_module:{name}").build(lambda name: Module)


def test_every_own_environment_says_what_it_lacks():
    assert all(issubclass(cls, OwnEnvironment) for cls in OWN.values())
    with pytest.raises(UserError, match="16 or more"):
        OWN["point"](size=8)
    with pytest.raises(UserError, match="has no expert"):
        env = Environment(EnvironmentConfig(name="odd"), Odd())
        scripted_action(env, "expert", np.random.default_rng(0))
