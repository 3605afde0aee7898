"""Training steps under ``torch.compile`` with static shapes: one graph, and the loss and gradients of eager steps."""

import pytest
import torch

from filmstrip import systems

pytestmark = pytest.mark.slow

PRETRAINING = [
    name for name in systems.names() if name.startswith(("pretraining.", "language.siglip", "language.clip"))
]
"""What trains longest."""


def losses_and_gradients(objective, batch, **compiling):
    """The loss of every phase and the gradients of all of them; compiled, if it is said how."""
    objective.zero_grad()
    run = torch.compile(objective, fullgraph=True, dynamic=False, **compiling) if compiling else objective
    losses = []
    for phase in objective.phases():
        loss = run(batch, phase.name).total
        loss.backward()
        losses.append(loss.detach())
    gradients = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    return torch.stack(losses), gradients


def agrees(objective, batch, **compiling):
    torch._dynamo.reset()
    losses, gradients = losses_and_gradients(objective, batch)
    compiled, their = losses_and_gradients(objective, batch, **compiling)
    torch.testing.assert_close(compiled, losses, rtol=1e-4, atol=1e-5)
    assert their.keys() == gradients.keys()
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (their[name] - gradient).abs().max() <= 1e-3 * largest, name


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_step_of_pretraining_is_one_graph(name, objective, batches):
    agrees(objective, batches[0], backend="aot_eager")


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_step_of_pretraining_is_compiled_to_machine_code(name, objective, batches):
    agrees(objective, batches[0], backend="inductor")


@pytest.mark.parametrize("name", ["pretraining.toto"])
def test_a_step_on_encoded_videos_is_one_graph(name, objective, batches):
    ids = objective.codes(batches[0]).ids
    agrees(objective, {"tokens": ids}, backend="aot_eager")
