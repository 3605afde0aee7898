"""Vid2Robot: its losses against their formulas, what the policy goes by, and how it acts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.data.kinds.prompted import Prompted
from filmstrip.errors import UserError
from filmstrip.protocols import PromptedAgent
from filmstrip.systems import find
from filmstrip.systems.control.vid2robot import Contrast, cycle_loss

SIZES = {"B": 4, "T": 4, "P": 4, "L": 8, "K": 3, "C": 3, "H": 32, "W": 32, "A": 2}


@pytest.fixture
def config():
    return replace(find("control.vid2robot:tiny").objective, action_dim=2)


@pytest.fixture
def policy(config):
    torch.manual_seed(0)
    return config.build().eval()


@pytest.fixture
def batch():
    return Prompted.example(SIZES, torch.Generator().manual_seed(0))


def test_cycle_consistency_is_that_of_the_formulas():
    """Equations 1 and 2, frame by frame."""
    rng = np.random.default_rng(0)
    there, back = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 7, 3))
    values = []
    for u, v in zip(there, back):
        for t in range(5):
            alpha = np.exp(-((u[t] - v) ** 2).sum(axis=1))
            near = (alpha / alpha.sum()) @ v
            beta = np.exp(-((near - u) ** 2).sum(axis=1))
            values.append(((beta * np.arange(5)).sum() / beta.sum() / 5 - t / 5) ** 2)
    found = cycle_loss(torch.from_numpy(there), torch.from_numpy(back))
    assert found.item() == pytest.approx(np.mean(values), rel=1e-9)


def test_films_that_go_on_alike_come_back_and_others_do_not():
    angle = torch.linspace(0, 1.5, 8)
    film = 5 * torch.stack([angle.cos(), angle.sin()], dim=-1)[None]
    slower = 5 * torch.stack([(angle**1.2).cos(), (angle**1.2).sin()], dim=-1)[None]
    still = film[:, :1].expand(-1, 8, -1)
    along, apart = (cycle_loss(film, other) for other in (slower, still))
    assert along < 0.2 * apart


def test_the_contrast_is_that_of_the_formula():
    """Equation 3: the negative log-likelihood of all pairs' labels, 1 and -1, which films of one task share."""
    rng = np.random.default_rng(1)
    rows, others, label = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), np.array([0, 1, 0])
    contrast = Contrast()
    with torch.no_grad():
        contrast.log_scale.fill_(0.3)
        contrast.bias.fill_(-0.2)
        same = torch.from_numpy(label[:, None] == label)
        found = contrast(*(torch.from_numpy(x).float() for x in (rows, others)), same)
    value = 0.0
    for i in range(3):
        for j in range(3):
            sign = 1 if label[i] == label[j] else -1
            value += np.log1p(np.exp(-sign * (rows[i] @ others[j] * np.exp(0.3) - 0.2)))
    assert found.item() == pytest.approx(value / 3, rel=1e-5)


def test_the_loss_is_the_weighted_mean_of_four(config, batch):
    weights = {"align": 0.5, "videos": 2.0, "texts": 0.25}
    names = ("align_weight", "video_weight", "text_weight")
    torch.manual_seed(0)
    policy = replace(config, **dict(zip(names, weights.values()))).build()
    loss = policy(batch)
    total = loss.metrics["cloned"] + sum(weight * loss.metrics[name] for name, weight in weights.items())
    torch.testing.assert_close(loss.total.detach(), total / 3.75)
    alone = replace(config, **dict.fromkeys(names, 0.0)).build()(batch)
    assert set(alone.metrics) == {"cloned", "accuracy"}
    torch.testing.assert_close(alone.total.detach(), alone.metrics["cloned"])


def test_the_policy_goes_by_the_prompt_unless_it_is_black(policy, config, batch):
    first, other = torch.ones(4, dtype=torch.bool), batch["prompt"].flip(0)

    def acts(agent, prompt):
        return agent.decide(batch["video"][:, 0], agent.prompted(prompt), first, seed=None)[0]

    with torch.no_grad():
        assert not torch.allclose(acts(policy, batch["prompt"]), acts(policy, other))
        blind = replace(config, sees_prompt=False).build().eval()
        assert torch.equal(acts(blind, batch["prompt"]), acts(blind, other))
        assert blind(batch).total == blind({**batch, "prompt": other}).total


@pytest.mark.parametrize("acts", ["likeliest", "mean"])
def test_it_acts_on_the_frames_that_it_learns_from(config, batch, acts):
    torch.manual_seed(0)
    policy = replace(config, acts=acts).build().eval()
    assert isinstance(policy, PromptedAgent)
    with torch.no_grad():
        memory = policy.prompted(batch["prompt"])
        for t, begins in ((0, True), (1, False)):
            action, memory = policy.decide(batch["video"][:, t], memory, torch.full((4,), begins), seed=None)
        tokens = policy._encoded(batch["video"][:, :2])
        logits = policy.logits(policy.prompt_tokens(policy._encoded(batch["prompt"])), tokens)[:, 0]
        centres = (torch.arange(16) + 0.5) / 8 - 1
        wanted = centres[logits.argmax(dim=-1)] if acts == "likeliest" else logits.softmax(dim=-1) @ centres
        torch.testing.assert_close(action, wanted)
        assert torch.equal(memory["frames"], batch["video"][:, :2])
        # Where an episode begins, what came before is forgotten, and the prompt is not.
        begins = torch.tensor([True, False, False, False])
        fresh = policy.decide(batch["video"][:, 2], memory, begins, seed=None)[1]
        assert torch.equal(fresh["frames"][0], batch["video"][0, 2:3].expand(2, -1, -1, -1))
        assert torch.equal(fresh["frames"][1], batch["video"][1, 1:3])
        seeds = torch.arange(4)
        drawn, _ = policy.decide(batch["video"][:, 2], memory, torch.zeros(4, dtype=torch.bool), seed=seeds)
        part = {key: value[2:] for key, value in memory.items()}
        alone, _ = policy.decide(batch["video"][2:, 2], part, torch.zeros(2, dtype=torch.bool), seed=seeds[2:])
    assert torch.equal(drawn[2:], alone) and drawn.abs().max() < 1


def test_the_next_actions_are_what_is_learnt(config, batch):
    """At each place of a clip: the two actions after the two frames that are seen."""
    torch.manual_seed(0)
    policy = replace(config, num_frames=6).build().eval()
    batch = Prompted.example({**SIZES, "T": 6}, torch.Generator().manual_seed(0))
    batch["action"] = torch.rand(4, 6, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        before = policy(batch).metrics["cloned"]
        for key, changed, matters in (
            ("action", 1, False),
            ("action", 2, True),
            ("action", 5, True),
            ("video", 4, False),
        ):
            other = {**batch, key: batch[key].clone()}
            other[key][:, changed] = -1 if key == "action" else 0
            assert (policy(other).metrics["cloned"] != before) == matters
        tokens = policy._encoded(batch["video"])
        prompt = policy.prompt_tokens(policy._encoded(batch["prompt"]))
        losses = []
        for t in range(3):
            logits = policy.logits(prompt, tokens[:, t : t + 2])
            for ahead in range(2):
                wanted = ((batch["action"][:, t + 2 + ahead] + 1) * 8).long()
                losses.append(torch.nn.functional.cross_entropy(logits[:, ahead].flatten(0, 1), wanted.flatten()))
    torch.testing.assert_close(torch.stack(losses).mean(), before)


def test_names_are_read_to_their_end(policy, batch):
    ids, lengths = batch["text"], batch["text_length"]
    padded = torch.cat([ids, ids.new_full((4, 3), 7)], dim=1)
    torch.testing.assert_close(policy.named(padded, lengths), policy.named(ids, lengths))


def test_what_it_cannot_learn_from_is_refused(policy, config, batch):
    told = {"classes": ("a",), "num_train": 1, "directional": True}
    assert replace(config, action_dim=0).bind(ClipInfo(**told, action_dim=5)).action_dim == 5
    with pytest.raises(UserError, match="is 2, and the robot's films have 5"):
        config.bind(ClipInfo(**told, action_dim=5))
    with pytest.raises(UserError, match="no actions that are vectors"):
        replace(config, action_dim=0).bind(ClipInfo(**told, num_actions=4))
    with pytest.raises(UserError, match="num-frames to 4"):
        replace(config, num_frames=3).build()
    with pytest.raises(UserError, match="--prompt FILM"):
        policy.decide(batch["video"][:, 0], None, torch.ones(4, dtype=torch.bool), seed=None)
    with pytest.raises(UserError, match="has 4 frames here, and 3"):
        policy.prompted(batch["prompt"][:, :3])
    with pytest.raises(UserError, match="sees 32 x 32 pixels, and the prompt's frames have 32 x 16"):
        policy.prompted(batch["prompt"][..., :16])
