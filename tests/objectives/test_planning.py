"""Plans cut out of windows, and the best chain of steps."""

import itertools

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.objectives.planning import Planner, best_paths, plan_steps, start_and_goal, target_positions

SEEN = torch.tensor([[False, True, False, False, True], [True, False, False, True, False]])
TARGET = torch.tensor([[False, False, True, True, False], [False, True, True, False, False]])


def batch():
    features = torch.arange(2 * 5 * 2 * 3.0).view(2, 5, 2, 3)
    step = torch.tensor([[-1, -1, 4, 5, -1], [-1, 6, 7, -1, -1]])
    return {"features": features, "seen": SEEN, "target": TARGET, "step": step, "seed": torch.zeros(2).long()}


def test_start_and_goal_are_the_first_and_the_last_seen():
    ends = start_and_goal(batch())
    assert torch.equal(ends[0], batch()["features"][0, [1, 4]])
    assert torch.equal(ends[1], batch()["features"][1, [0, 3]])


def test_logits_of_a_plan_go_to_the_places_that_are_asked_for():
    class Counting(Planner):
        def plan(self, ends, horizon, seeds):
            return torch.arange(1.0, 1 + len(ends) * horizon * 8).view(len(ends), horizon, 8)

    logits = Counting().logits(batch(), batch()["seed"])
    assert logits.shape == (2, 5, 8)
    assert torch.equal(logits[TARGET].flatten(), torch.arange(1.0, 33.0))
    assert not logits[~TARGET].any()
    assert plan_steps(batch()).tolist() == [[4, 5], [6, 7]]


@pytest.mark.parametrize("target", [torch.zeros(2, 3), torch.tensor([[1, 1, 0], [0, 1, 0]])])
def test_plans_of_a_batch_are_of_one_length(target):
    with pytest.raises(UserError, match="as many steps"):
        target_positions(target.bool())


def test_best_paths_are_those_of_a_search_through_all():
    generator = torch.Generator().manual_seed(0)
    emission = torch.randn(1, 4, 3, generator=generator)
    transition = torch.randn(3, 3, generator=generator)
    scores = {}
    for path in itertools.product(range(3), repeat=4):
        steps = sum(emission[0, t, step].item() for t, step in enumerate(path))
        scores[path] = steps + sum(transition[a, b].item() for a, b in itertools.pairwise(path))
    found = best_paths(emission, transition)
    assert tuple(found[0].argmax(dim=-1).tolist()) == max(scores, key=scores.get)
    for t in range(4):
        for step in range(3):
            best = max(score for path, score in scores.items() if path[t] == step)
            assert found[0, t, step].item() == pytest.approx(best, abs=1e-5)
