"""What makes retrieval, DDN and SCHEMA what they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import SIZES as DRAWN

from filmstrip.data.kinds.procedures import draw_windows
from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.objectives.planning import plan_steps, start_and_goal
from filmstrip.systems.procedures import ddn, retrieval, schema

SIZES = {"num_steps": 8, "num_tasks": 8, "feature_width": 16, "num_tokens": 2}


def build(module, **changes):
    torch.manual_seed(0)
    return replace(module.tiny().objective, **SIZES, **changes).build()


def windows(size=24, seed=0):
    batch = draw_windows({**DRAWN, "B": size}, torch.Generator().manual_seed(seed))
    return batch | {"index": torch.arange(size), "seed": torch.arange(size)}


def answers(model, batch):
    with inference(model):
        steps = model.forecast(batch)[:, 0].argmax(dim=-1)
    return steps.gather(1, batch["target"].nonzero()[:, 1].view(len(batch["step"]), -1))


def test_retrieval_is_exact_on_what_it_remembers():
    model, batch = build(retrieval, num_windows=24), windows()
    # plans that start and goal do not tell: only memory knows them
    batch["step"] = torch.randint(0, 8, (24, 5), generator=torch.Generator().manual_seed(3))
    model(batch)
    assert torch.equal(answers(model, batch), plan_steps(batch))


def test_retrieval_gives_the_whole_plan_of_the_nearest():
    model, batch, other = build(retrieval, num_windows=24), windows(), windows(seed=5)
    model(batch)
    ends = [torch.nn.functional.normalize(start_and_goal(b).mean(dim=2), dim=-1).flatten(1) for b in (other, batch)]
    nearest = torch.cdist(*ends).argmin(dim=1)
    assert torch.equal(answers(model, other), plan_steps(batch)[nearest])


def test_retrieval_learns_nothing_from_what_it_is_evaluated_on():
    model, batch = build(retrieval, num_windows=24), windows()
    model.eval()
    model(batch)
    assert not model.keys.any() and (model.plans == -1).all()


def test_retrieval_refuses_windows_it_has_no_room_for():
    with pytest.raises(UserError, match="room for 5 plans of 3 steps"):
        build(retrieval, num_windows=5)(windows())
    with pytest.raises(UserError, match="not of 2"):
        build(retrieval, num_windows=5).plan(torch.ones(1, 2, 2, 16), 2, torch.zeros(1))


def test_ddn_follows_the_best_plan_of_all_when_every_plan_is_a_beam():
    model, batch = build(ddn, beams=512).eval(), windows(4)
    ends = start_and_goal(batch)
    states = model._states(ends)
    plans = torch.cartesian_prod(*[torch.arange(8)] * 3)
    best = []
    for row in range(4):
        logits, reached = model._follow(states[row].expand(len(plans), 2, -1), plans)
        nats = logits.log_softmax(dim=-1).gather(2, plans[..., None]).sum(dim=(1, 2))
        best.append(plans[(nats - (reached - states[row, 1]).square().mean(dim=1)).argmax()])
    assert torch.equal(model.search(ends, 3), torch.stack(best))
    assert torch.equal(answers(model, batch), torch.stack(best))


def test_ddn_goes_where_its_states_end_at_the_goal():
    model = build(ddn, beams=8, width=16).eval()
    for parameter in model.conjugate.parameters():
        torch.nn.init.zeros_(parameter)  # every step is as likely: the goal decides
    model.state = torch.nn.Identity()
    moves = torch.eye(9, 16)
    model._move = lambda state, step: state + moves[step]
    ends = torch.zeros(1, 2, 1, 16)
    ends[0, 1, 0, 5] = 1.0
    assert model.search(ends, 1).tolist() == [[5]]


def test_schema_lets_the_chain_of_steps_decide_where_states_do_not():
    model, batch = build(schema), windows()
    model(batch)  # steps follow each other in a circle
    assert model.followed.sum() == 48 and (model.followed.argmax(dim=1)[:7] == torch.arange(1, 8)).all()
    for parameter in model.step_head.parameters():
        torch.nn.init.zeros_(parameter)
    model.step_head[-1].bias.data[2] = 1.0
    said = answers(model.eval(), batch)
    assert ((said[:, 1:] - said[:, :-1]) % 8 == 1).all()


@pytest.mark.parametrize("blocks", ["vanilla", "vedit"])
def test_schema_learns_plans_with_either_kind_of_blocks(blocks):
    model, batch = build(schema, blocks=blocks), windows()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first, horizons = model(batch).metrics["nats"], set()
    for _ in range(40):
        optimiser.zero_grad()
        model(batch).total.backward()
        optimiser.step()
    assert model(batch).metrics["nats"] < 0.4 * first
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for horizon in (1, 4):
        horizons.add(model.plan(start_and_goal(batch), horizon, batch["seed"]).shape[1])
    assert horizons == {1, 4}


def test_schema_counts_no_steps_while_it_is_evaluated():
    model = build(schema).eval()
    model(windows())
    assert not model.followed.any()


def test_schema_draws_start_and_goal_to_the_texts_before_and_after_their_steps():
    model = build(schema).eval()
    texts = torch.randn(8, 6, 32, generator=torch.Generator().manual_seed(0))
    before, after = texts[3, :3].mean(dim=0)[None], texts[3, 3:].mean(dim=0)[None]
    step = torch.tensor([3])
    assert model._match(before, texts, step, 0) < 0.1 < model._match(before, texts, step, 1)
    assert model._match(after, texts, step, 1) < 0.1 < model._match(after, texts, step, 0)


def test_schema_reads_the_texts_of_its_steps(tmp_path):
    texts = np.random.default_rng(0).normal(size=(8, 6, 20))
    np.save(tmp_path / "texts.npy", texts)
    model = build(schema, texts=tmp_path / "texts.npy")
    np.testing.assert_allclose(model.texts, texts, rtol=1e-6)
    np.save(tmp_path / "texts.npy", texts[:5])
    with pytest.raises(UserError, match="8 steps"):
        build(schema, texts=tmp_path / "texts.npy")
    with pytest.raises(UserError, match="cannot be read"):
        build(schema, texts=tmp_path / "none.npy")


@pytest.mark.parametrize("module", [schema])
def test_unknown_steps_are_refused(module):
    batch = windows()
    batch["step"] = batch["step"].where(batch["step"] != 2, -1)
    with pytest.raises(UserError, match="all known"):
        build(module)(batch)
