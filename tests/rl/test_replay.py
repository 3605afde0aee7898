"""The replay: what sequences are, when frames are rewarded, and that training goes on exactly where it was saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.randomness import uniform
from filmstrip.rl import replay as module
from filmstrip.rl.envs import EnvironmentConfig
from filmstrip.rl.experience import Experience
from filmstrip.rl.replay import ReplayStream, Track
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.rl.rewards import RewardStream, VideoReward


class Wanderer(Objective):
    """An agent that goes where its seed and the number of frames that it has seen say."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def decide(self, frame, memory, first, *, seed):
        count = torch.zeros(len(frame)) if memory is None else torch.where(first, 0.0, memory["count"] + 1)
        drawn = uniform(seed, 2, "test") * 2 - 1
        return drawn * self.weight + 0.01 * count[:, None] + frame.float().mean(dim=(1, 2, 3))[:, None] / 1e4, {
            "count": count
        }


class Brightness(Objective):
    """A model whose score of a frame is how much brighter it is than the one before; counts what it is asked."""

    num_frames = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.coded = self.scored = 0

    def frame_codes(self, video):
        self.coded += video.shape[0] * video.shape[1]
        return video.float().mean(dim=(2, 3, 4))[..., None]

    def frame_log_probs(self, codes, batch):
        self.scored += len(codes)
        before = torch.cat([codes[:, :1] * 0, codes[:, :-1]], dim=1)
        return (codes - before)[..., None]


CONFIG = Experience(
    env=EnvironmentConfig(name="point", size=16, max_steps=9), num_envs=2, prefill=8, length=3, capacity=200
)


def stream_of(tmp_path, config=CONFIG, seed=0, rows=6, scorer=None):
    torch.manual_seed(0)
    stream = ReplayStream(config, rows, seed=seed)
    stream.begin(Wanderer(), tmp_path)
    if scorer is not None:
        stream._rewards = RewardStream(VideoReward(scorer, RewardConfig(), size=16), config.num_envs)
    return stream


def batches(stream, start, count):
    found = stream.stream(start)
    return [next(found) for _ in range(count)]


def same(one, other):
    return all(torch.equal(one[k], other[k]) if torch.is_tensor(one[k]) else one[k] == other[k] for k in one)


def test_batches_are_what_they_are_declared_to_be(tmp_path):
    for batch in batches(stream_of(tmp_path), 0, 3):
        assert not list(Experience.specification.faults(batch))
        assert batch["video"].shape == (6, 3, 3, 16, 16) and batch["action"].shape == (6, 3, 2)


def test_sequences_are_consecutive_steps_of_one_environment(tmp_path):
    stream = stream_of(tmp_path)
    for batch in batches(stream, 0, 40):
        assert not batch["first"][:, -1].any()
        for row, (number, (start, end)) in enumerate(zip(batch["index"].tolist(), batch["span"].int().tolist())):
            track = stream.tracks[number]
            assert np.array_equal(batch["video"][row], track.get("frame", start, end + 1))
            assert np.array_equal(batch["action"][row], track.get("action", start, end + 1))
            assert end == start + 2
    # An episode of nine steps has ten frames, the first of which no action led to.
    first = stream.tracks[0].get("first", 0, stream.tracks[0].count)
    assert np.flatnonzero(first).tolist() == list(range(0, len(first), 10))
    assert (stream.tracks[0].get("action", 0, len(first))[first] == 0).all()
    assert stream.progress.episodes[0]["steps"] == 9 and not stream.progress.episodes[0]["terminal"]


def test_as_many_steps_as_batches_ask_for(tmp_path):
    for rate, steps in ((1.0, 28), (0.25, 88), (4.0, 13)):
        stream = stream_of(tmp_path, replace(CONFIG, updates_per_step=rate))
        batches(stream, 0, 20)
        assert stream.progress.steps in (steps, steps + 1)  # two environments


def test_drawn_uniformly(tmp_path):
    stream = stream_of(tmp_path, replace(CONFIG, updates_per_step=1000.0, prefill=60), rows=40)
    ends = [
        (int(i), int(span[1])) for batch in batches(stream, 0, 60) for i, span in zip(batch["index"], batch["span"])
    ]
    possible = [
        (i, end)
        for i, track in enumerate(stream.tracks)
        for end in range(2, track.count)
        if not track.get("first", end, end + 1)[0]
    ]
    counts = np.array([ends.count(one) for one in possible])
    assert counts.sum() == len(ends)
    expected = len(ends) / len(possible)
    assert ((counts - expected) ** 2 / expected).sum() < 1.6 * len(possible)


def test_the_oldest_make_room(monkeypatch):
    monkeypatch.setattr(module, "SHARD", 4)
    track = Track(capacity=10)
    for number in range(57):
        track.add({"frame": np.full((2,), number)})
        assert track.count - track.oldest <= 14 and (number < 14 or track.count - track.oldest >= 10)
    assert track.get("frame", 45, 57)[:, 0].tolist() == list(range(45, 57))


def test_frames_are_rewarded_once_and_never_over_the_end_of_an_episode(tmp_path):
    scorer = Brightness()
    stream = stream_of(tmp_path, scorer=scorer)
    batches(stream, 0, 30)
    entries = sum(track.count for track in stream.tracks)
    assert scorer.coded == entries
    for track in stream.tracks:
        bright = track.get("frame", 0, track.count).astype(np.float32).mean(axis=(1, 2, 3))
        first, reward = track.get("first", 0, track.count), track.get("reward", 0, track.count)
        expected = np.where(first, 0, np.diff(bright, prepend=0))
        np.testing.assert_allclose(reward, expected, atol=1e-3)
    assert np.isfinite(stream.tracks[0].get("true_reward", 0, 20)).all()


@pytest.mark.parametrize("rewarded", [False, True])
@pytest.mark.parametrize("at", [5, 13])
def test_it_goes_on_exactly(tmp_path, monkeypatch, rewarded, at):
    monkeypatch.setattr(module, "SHARD", 8)
    scorer = Brightness if rewarded else lambda: None
    whole = stream_of(tmp_path / "a", scorer=scorer())
    expected = batches(whole, 0, 24)[at:]
    interrupted = stream_of(tmp_path / "b", scorer=scorer())
    running = interrupted.stream(0)
    for step in range(1, 19):
        next(running)
        if step in (at - 3, at, 16):  # the last save is of a step that the run does not go back to
            interrupted.save(step)
    again = stream_of(tmp_path / "b", scorer=scorer())
    assert all(same(*pair) for pair in zip(expected, batches(again, at, 24 - at), strict=True))
    assert again.progress == whole.progress
    again.save(24)
    assert (tmp_path / "b/replay/episodes.csv").read_text().startswith("step,env,steps,true_return,reward,terminal\n")
    last = stream_of(tmp_path / "b", scorer=scorer())
    assert same(batches(last, 24, 1)[0], batches(stream_of(tmp_path / "c", scorer=scorer()), 0, 25)[24])


def test_environments_without_a_state_begin_anew_and_what_was_saved_is_kept(tmp_path, monkeypatch):
    stream = stream_of(tmp_path)
    monkeypatch.setattr(type(stream.environments[0]), "state_dict", lambda self: None)
    batches(stream, 0, 4)
    stream.save(4)
    again = stream_of(tmp_path)
    batches(again, 4, 3)
    counts = [track.count for track in stream.tracks]
    for one, other, count in zip(stream.tracks, again.tracks, counts):
        assert np.array_equal(one.get("frame", 0, count), other.get("frame", 0, count))
        assert other.get("first", count, count + 1)[0]


def test_a_replay_that_is_damaged_is_told(tmp_path):
    stream = stream_of(tmp_path)
    batches(stream, 0, 4)
    stream.save(4)
    with pytest.raises(UserError, match="no replay of step 3"):
        batches(stream_of(tmp_path), 3, 1)
    next((tmp_path / "replay/env-1").glob("part-4.*")).write_bytes(b"torn")
    with pytest.raises(UserError, match="missing or damaged"):
        batches(stream_of(tmp_path), 4, 1)


def test_who_does_not_act_is_refused(tmp_path):
    stream = ReplayStream(CONFIG, 6, seed=0)
    with pytest.raises(UserError, match="does not act in environments"):
        stream.begin(Brightness(), tmp_path)
    with pytest.raises(UserError, match="share it"):
        ReplayStream(CONFIG, 5, seed=0, world=2)
