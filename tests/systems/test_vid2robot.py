"""Vid2Robot: cycle consistency against its formulas, what the policy goes by, and how it acts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.data.kinds.prompted import Prompted
from filmstrip.errors import UserError
from filmstrip.protocols import PromptedAgent
from filmstrip.systems import find
from filmstrip.systems.control.vid2robot import NARROWEST, cycle_loss

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
    """Equations 2 to 4 of Dwibedi et al. 2019, frame by frame."""
    rng = np.random.default_rng(0)
    there, back = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 7, 3))
    values = []
    for u, v in zip(there, back):
        for i in range(5):
            alpha = np.exp(-((u[i] - v) ** 2).sum(axis=1) / 0.5)
            near = (alpha / alpha.sum()) @ v
            beta = np.exp(-((near - u) ** 2).sum(axis=1) / 0.5)
            beta /= beta.sum()
            mean = (beta * np.arange(5) / 5).sum()
            variance = max((beta * (np.arange(5) / 5 - mean) ** 2).sum(), NARROWEST)
            values.append((i / 5 - mean) ** 2 / variance + 0.01 * np.log(np.sqrt(variance)))
    found = cycle_loss(torch.from_numpy(there), torch.from_numpy(back), 0.5, 0.01)
    assert found.item() == pytest.approx(np.mean(values), rel=1e-5)


def test_films_that_go_on_alike_come_back_and_others_do_not():
    angle = torch.linspace(0, 1.5, 8)
    film = torch.stack([angle.cos(), angle.sin()], dim=-1)[None]
    slower = torch.stack([(angle**1.2).cos(), (angle**1.2).sin()], dim=-1)[None]
    still = film[:, :1].expand(-1, 8, -1)
    along, apart = (cycle_loss(film, other, 0.02, 0.0) for other in (slower, still))
    assert along < 0.6 * apart


def test_the_policy_goes_by_the_prompt_unless_it_is_black(policy, config, batch):
    first = torch.ones(4, dtype=torch.bool)
    other = batch["prompt"].flip(0)

    def acts(agent, prompt):
        return agent.decide(batch["video"][:, 0], agent.prompted(prompt), first, seed=torch.arange(4))[1]["prompt"]

    with torch.no_grad():
        assert not torch.allclose(acts(policy, batch["prompt"]), acts(policy, other))
        blind = replace(config, sees_prompt=False).build().eval()
        assert torch.equal(acts(blind, batch["prompt"]), acts(blind, other))
        one, two = blind(batch), blind({**batch, "prompt": other})
    assert one.total == two.total


def test_it_acts_on_the_frames_that_it_learns_from(policy, batch):
    assert isinstance(policy, PromptedAgent)
    with torch.no_grad():
        memory = policy.prompted(batch["prompt"])
        for t, begins in ((0, True), (1, False)):
            action, memory = policy.decide(batch["video"][:, t], memory, torch.full((4,), begins), seed=None)
        tokens = policy._encoded(batch["video"][:, :2])
        logits = policy.logits(policy.prompt_tokens(policy._encoded(batch["prompt"])), tokens)
        assert torch.equal(policy._bins(action), logits.argmax(dim=-1))  # the middle of a bin lies in it
        assert torch.equal(memory["frames"], batch["video"][:, :2])
        # Where an episode begins, what came before is forgotten, and the prompt is not.
        fresh = policy.decide(batch["video"][:, 2], memory, torch.tensor([True, False, False, False]), seed=None)[1]
        assert torch.equal(fresh["frames"][0], batch["video"][0, 2:3].expand(2, -1, -1, -1))
        assert torch.equal(fresh["frames"][1], batch["video"][1, 1:3])
        seeds = torch.arange(4)
        drawn, _ = policy.decide(batch["video"][:, 2], memory, torch.zeros(4, dtype=torch.bool), seed=seeds)
        part = {key: value[2:] for key, value in memory.items()}
        alone, _ = policy.decide(batch["video"][2:, 2], part, torch.zeros(2, dtype=torch.bool), seed=seeds[2:])
    assert torch.equal(drawn[2:], alone) and drawn.abs().max() < 1


def test_the_next_action_is_what_is_learnt(policy, batch):
    with torch.no_grad():
        before = policy(batch).metrics["cloned"]
        changed = {**batch, "action": batch["action"].clone()}
        changed["action"][:, :2] = -1  # actions that led to the first frames
        assert policy(changed).metrics["cloned"] == before
        changed["action"][:, 2] = -1
        assert policy(changed).metrics["cloned"] != before
        changed = {**batch, "video": batch["video"].clone()}
        changed["video"][:, 3] = 0  # what the last action leads to
        assert policy(changed).metrics["cloned"] == before
        tokens = policy._encoded(batch["video"])
        prompt = policy.prompt_tokens(policy._encoded(batch["prompt"]))
        logits = torch.stack([policy.logits(prompt, tokens[:, t : t + 2]) for t in range(2)], dim=1)
        wanted = policy._bins(batch["action"][:, 2:])
        alone = torch.nn.functional.cross_entropy(logits.flatten(0, 2), wanted.flatten())
    torch.testing.assert_close(alone, before)


def test_names_are_read_to_their_end(policy, batch):
    ids, lengths = batch["text"], batch["text_length"]
    padded = torch.cat([ids, ids.new_full((4, 3), 7)], dim=1)
    torch.testing.assert_close(policy.named(padded, lengths), policy.named(ids, lengths))


def test_what_it_cannot_learn_from_is_refused(policy, config, batch):
    told = {"classes": ("a",), "num_train": 1, "directional": True}
    assert config.bind(ClipInfo(**told, action_dim=5)).action_dim == 5
    with pytest.raises(UserError, match="no actions that are vectors"):
        replace(config, action_dim=0).bind(ClipInfo(**told, num_actions=4))
    with pytest.raises(UserError, match="num-frames to 3"):
        replace(config, num_frames=2).build()
    with pytest.raises(UserError, match="--prompt FILM"):
        policy.decide(batch["video"][:, 0], None, torch.ones(4, dtype=torch.bool), seed=None)
    with pytest.raises(UserError, match="has 4 frames, and 3"):
        policy.prompted(batch["prompt"][:, :3])
