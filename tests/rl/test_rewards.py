"""Rewards by likelihood: what a frame's likelihood is, windows, units, episodes' ends, and nothing computed twice."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.data.blanking import blank
from filmstrip.errors import UserError
from filmstrip.evals.reward_alignment import Trajectory, alignment, auc, correlation, ranks
from filmstrip.protocols import FrameScorer
from filmstrip.rl.reward_config import RewardConfig
from filmstrip.rl.rewards import RewardStream, VideoReward
from filmstrip.systems import find

FRAMES = 4


def model(name="tiny", seed=0):
    torch.manual_seed(seed)
    built = find(f"rewards.viper:{name}").objective.build().eval()
    for parameter in built.parameters():  # heads begin at zero in some
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return built


@pytest.fixture(scope="module")
def gpt():
    return model()


@pytest.fixture(scope="module")
def maskgit():
    return model("tiny_maskgit")


@pytest.fixture
def films():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(256, (length, 3, 32, 32), generator=generator, dtype=torch.uint8) for length in (11, 3, 7)]


def reward_of(objective, **settings):
    return VideoReward(objective, RewardConfig(**settings), size=32)


def sums(objective, codes, seed=0):
    """Log-likelihoods of frames of one clip of codes ``T n``."""
    with torch.inference_mode():
        return objective.frame_log_probs(codes[None], {"seed": torch.tensor([seed])})[0].sum(dim=(1, 2)).numpy()


@pytest.mark.parametrize("name", ["gpt", "maskgit"])
def test_frames_add_up_to_the_clip(name, request, films):
    objective = request.getfixturevalue(name)
    assert isinstance(objective, FrameScorer)
    batch = {"video": films[0][None, :FRAMES], "seed": torch.tensor([5])}
    each = objective.frame_log_probs(objective.frame_codes(batch["video"]), batch)
    assert each.shape == (1, FRAMES, 4, 4)
    torch.testing.assert_close(each.sum(dim=(1, 2, 3)), objective.log_prob(batch))


def test_a_frame_is_the_product_of_its_positions(gpt, films):
    """Against one pass of the transformer for each position, with nothing but what comes before it."""
    codes = gpt.frame_codes(films[0][None, :FRAMES])
    each = gpt.frame_log_probs(codes, {}).flatten()
    ids = codes.flatten(1)
    for place in (0, 1, 17, 40, 63):
        logits = gpt.transformer(ids[:, : place + 1])[0, -1]
        torch.testing.assert_close(each[place], logits.log_softmax(-1)[ids[0, place]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt", "maskgit"])
def test_the_past_decides_alone(name, request, films):
    objective = request.getfixturevalue(name)
    codes = objective.frame_codes(films[0][None, :FRAMES])
    changed = codes.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 8
    seed = {"seed": torch.tensor([0])}
    before, after = (objective.frame_log_probs(c, seed)[0].sum(dim=(1, 2)) for c in (codes, changed))
    torch.testing.assert_close(before[:3], after[:3])
    assert abs(before[3] - after[3]) > 1e-3
    changed = codes.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 8
    assert abs(objective.frame_log_probs(changed, seed)[0, 2].sum() - before[2]) > 1e-4


@pytest.mark.parametrize("name", ["gpt", "maskgit"])
def test_every_frame_is_rewarded_by_its_own_window(name, request, films):
    """The first frames of an episode by one pass, later ones by a window of their own: as if each were alone."""
    objective = request.getfixturevalue(name)
    found = reward_of(objective, unit="frame").of_films(films)
    for film, rewards in zip(films, found):
        codes = objective.frame_codes(film[None])[0]
        assert rewards.values.shape == (len(film),) and rewards.maps.shape == (len(film), 4, 4)
        for t in range(len(film)):
            start = max(0, t - FRAMES + 1)
            own = sums(objective, codes[start : t + 1], seed=start)[-1]
            assert rewards.values[t] == pytest.approx(own, abs=2e-3)
            assert rewards.maps[t].sum() == pytest.approx(own, abs=2e-3)


def test_windows_of_other_lengths(gpt, films):
    codes = gpt.frame_codes(films[0][None])[0]
    found = reward_of(gpt, unit="frame", window=1).of_films(films[:1])[0].values
    assert found[6] == pytest.approx(sums(gpt, codes[6:7])[0], abs=2e-3)
    found = reward_of(gpt, unit="frame", window=2).of_films(films[:1])[0].values
    assert found[6] == pytest.approx(sums(gpt, codes[5:7])[1], abs=2e-3)
    with pytest.raises(UserError, match="up to 4 frames"):
        reward_of(gpt, window=5)


def test_skipped_frames_are_left_out(gpt, films):
    codes = gpt.frame_codes(films[0][None])[0]
    found = reward_of(gpt, unit="frame", skip=2).of_films(films[:1])[0].values
    assert found[9] == pytest.approx(sums(gpt, codes[[3, 5, 7, 9]])[-1], abs=2e-3)
    assert found[1] == pytest.approx(sums(gpt, codes[[1]])[-1], abs=2e-3)
    assert found[4] == pytest.approx(sums(gpt, codes[[0, 2, 4]])[-1], abs=2e-3)


def test_a_joint_reward_sums_its_window(gpt, films):
    codes = gpt.frame_codes(films[0][None])[0]
    found = reward_of(gpt, unit="frame", kind="joint").of_films(films[:1])[0].values
    assert found[8] == pytest.approx(sums(gpt, codes[5:9]).sum(), abs=5e-3)
    assert found[1] == pytest.approx(sums(gpt, codes[:2]).mean() * FRAMES, abs=5e-3)
    with pytest.raises(UserError, match="stride at 1"):
        RewardConfig(kind="joint", stride=2)


def test_a_window_that_moves_in_strides_has_shorter_contexts(gpt, films):
    codes = gpt.frame_codes(films[0][None])[0]
    found = reward_of(gpt, unit="frame", stride=2).of_films(films[:1])[0].values
    assert found[4] == pytest.approx(sums(gpt, codes[2:5])[-1], abs=2e-3)
    assert found[5] == pytest.approx(sums(gpt, codes[2:6])[-1], abs=2e-3)


def test_units_and_ranges(gpt, films):
    whole = reward_of(gpt, unit="frame").of_films(films[:1])[0].values
    np.testing.assert_allclose(reward_of(gpt).of_films(films[:1])[0].values, whole / 16)
    low, high = np.quantile(whole, [0.2, 0.8])
    ranged = reward_of(gpt, unit="frame", range=(low, high)).of_films(films[:1])[0].values
    assert ranged.min() == 0 and ranged.max() == 1
    joint = reward_of(gpt, kind="joint").of_films(films[:1])[0].values
    np.testing.assert_allclose(joint * 64, reward_of(gpt, kind="joint", unit="frame").of_films(films[:1])[0].values)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gpt", {}),
        ("gpt", {"skip": 3}),
        ("gpt", {"stride": 2}),
        ("gpt", {"kind": "joint"}),
        ("gpt", {"window": 2, "batch_size": 3}),
        ("maskgit", {}),
    ],
)
def test_a_stream_of_episodes_is_rewarded_as_whole_ones(name, settings, request, films):
    """Whatever comes at once, and beside whatever else; and never over the end of an episode."""
    objective = request.getfixturevalue(name)
    reward = reward_of(objective, unit="frame", **settings)
    long = torch.cat([films[0], films[2].flip(3), films[0].flip(2)])
    whole = [reward.of_films([film])[0].values for film in (long, films[1], films[2])]
    stream, done, second = RewardStream(reward, 2), [], []
    for at in range(0, len(long), 2):
        if at == 4:  # the other episode is over
            stream.begin(1)
        other = {0: films[1][:2], 2: films[1][2:], 4: films[2][:1], 6: films[2][1:]}.get(at, films[1][:0])
        for_long, for_other = stream.add([long[at : at + 2], other])
        done.append(for_long)
        second.append(for_other)
    np.testing.assert_allclose(np.concatenate(done), whole[0], atol=5e-3)
    np.testing.assert_allclose(np.concatenate(second), np.concatenate(whole[1:]), atol=5e-3)
    assert len(stream._codes[0]) < len(long)


def test_nothing_is_coded_or_rewarded_twice(gpt, films, monkeypatch):
    coded, scored = [], []
    frame_codes, frame_log_probs = gpt.frame_codes, gpt.frame_log_probs
    monkeypatch.setattr(gpt, "frame_codes", lambda video: (coded.append(len(video)), frame_codes(video))[1])
    monkeypatch.setattr(
        gpt, "frame_log_probs", lambda codes, batch: (scored.append(len(codes)), frame_log_probs(codes, batch))[1]
    )
    stream = RewardStream(reward_of(gpt), 2)
    for t in range(7):
        stream.add([films[0][t : t + 1], films[2][t : t + 1]])
    assert sum(coded) == 14 and len(coded) == 7  # the frames of both in one pass
    assert sum(scored) == 14 and len(scored) == 7


def test_what_is_blanked_counts_for_nothing(gpt, films):
    reward = VideoReward(gpt, RewardConfig(), size=32, blanked=[(0.0, 0.0, 1.0, 0.25)])
    other = films[0].clone()
    other[..., :8, :] = 7
    np.testing.assert_array_equal(reward.of_films([other])[0].values, reward.of_films(films[:1])[0].values)
    assert (blank(other, [(0.0, 0.0, 1.0, 0.25)])[..., :8, :] == 0).all()
    half = blank(other, [(0.0, 0.0, 1.0, 0.25)], shown=(0.0, 0.125, 1.0, 0.625))
    assert (half[..., :8, :] == 0).all() and (half[..., 8:, :] == other[..., 8:, :]).all()


def test_what_is_no_reward_is_refused(gpt, films):
    with pytest.raises(UserError, match="no likelihood of single frames"):
        VideoReward(find("tokenizers.dvae:tiny").objective.build(), RewardConfig(), size=32)
    with pytest.raises(UserError, match="no classes as conditions"):
        VideoReward(gpt, RewardConfig(label="point"), size=32)
    with pytest.raises(UserError, match="32 x 32"):
        reward_of(gpt).codes(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    together = replace(find("rewards.viper:tiny_maskgit").objective, frames="together").build()
    with pytest.raises(UserError, match="in_order"):
        together.frame_log_probs(torch.zeros(1, 4, 16, dtype=torch.int64), {"seed": torch.zeros(1)})
    jointly = find("generation.videogpt:tiny").objective.build()
    with pytest.raises(UserError, match="codes frames together"):
        jointly.frame_codes(films[0][None])


def test_a_class_is_given_by_name():
    objective = replace(find("rewards.viper:tiny").objective, conditions=("label",), num_classes=2).build()
    reward = VideoReward(objective, RewardConfig(label="orbit"), size=32, classes=("point", "orbit"))
    assert reward.label == 1
    with pytest.raises(UserError, match="one of point, orbit"):
        VideoReward(objective, RewardConfig(), size=32, classes=("point", "orbit"))


@pytest.mark.parametrize("address", ["pretraining.toto:tiny", "generation.teco:tiny"])
def test_other_models_are_rewards(address):
    torch.manual_seed(0)
    run = find(address)
    objective, size = run.objective.build().eval(), run.data.clip.size
    film = torch.randint(256, (5, 3, size, size), dtype=torch.uint8)
    found = VideoReward(objective, RewardConfig(unit="frame"), size=size).of_films([film])[0]
    assert np.isfinite(found.values).all() and found.values[1:].std() > 0
    window = objective.num_frames
    if address.startswith("pretraining") and window >= 3:
        clip = film[None, : min(5, window)]
        total = objective.log_prob({"video": clip}).item()
        assert found.values[: clip.shape[1]].sum() == pytest.approx(total, rel=1e-4)


def test_statistics():
    assert ranks(np.array([3.0, 1.0, 3.0])).tolist() == [2.5, 1.0, 2.5]
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(0.875)
    assert correlation(np.array([1.0, 2.0, 4.0]), np.array([-1.0, -2.0, -4.0])) == pytest.approx(-1)


def test_alignment_of_a_reward_that_is_known(films):
    """A reward that is the film's brightness, of trajectories whose returns are."""

    class Bright:
        def of_films(self, films):
            return [type("R", (), {"values": film.float().mean(dim=(1, 2, 3)).numpy()}) for film in films]

    generator = torch.Generator().manual_seed(0)
    seen = []
    for quality in (0.0, 0.5, 1.0, 0.0, 0.5, 1.0):
        film = (torch.rand(6, 3, 4, 4, generator=generator) * 20 + 100 * quality).byte()
        seen.append(Trajectory(film, quality * 10 + len(seen) * 1e-3, quality))
    values = dict(alignment(Bright(), seen, 0))
    assert values["auc_random"] == 1 and values["pearson/n6"] > 0.98 and values["spearman/n6"] > 0.8
    assert 0.2 < values["auc_shuffled"] < 0.8 and values["reward_1/frame_003"] > values["reward_0.5/frame_003"]
    with pytest.raises(UserError, match="four or more"):
        list(alignment(Bright(), seen[:3], 0))
