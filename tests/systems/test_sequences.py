"""What the recurrent systems promise beyond what every system does."""

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.systems.recognition.lrcn import LRCNConfig, frozen_c3d_ucf101
from filmstrip.systems.recognition.recurrent_conv import RecurrentConvConfig

SMALL = {
    "lrcn": lambda **o: LRCNConfig(widths=(8, 8), depths=(1, 1), width=16, num_classes=5, **o).build(),
    "conv": lambda **o: RecurrentConvConfig(widths=(8, 8), num_classes=5, **o).build(),
}


@pytest.fixture(params=SMALL)
def build(request):
    torch.manual_seed(0)
    return SMALL[request.param]


@torch.no_grad()
def test_many_to_many_averages_what_each_step_says_of_its_past(build):
    objective, video = build(readout="every").eval(), torch.rand(2, 4, 3, 32, 32)
    probabilities = objective.step_logits(video).softmax(-1)
    assert probabilities.shape == (2, 4, 5)
    torch.testing.assert_close(objective.classify(video).exp(), probabilities.mean(1))
    changed = torch.cat([video[:, :2], torch.rand(2, 2, 3, 32, 32)], dim=1)
    torch.testing.assert_close(objective.step_logits(changed).softmax(-1)[:, :2], probabilities[:, :2])


@torch.no_grad()
def test_many_to_one_is_the_last_step(build):
    one, many = build(readout="last").eval(), build(readout="every").eval()
    one.load_state_dict(many.state_dict())
    video = torch.rand(2, 4, 3, 32, 32)
    torch.testing.assert_close(one.classify(video).exp(), many.step_logits(video)[:, -1].softmax(-1))
    assert not torch.allclose(one.classify(video.flip(1)), one.classify(video), atol=1e-5)


def test_a_frozen_network_stays_as_it_is_and_in_evaluation():
    objective = SMALL["lrcn"](frozen=True).train()
    before = {name: tensor.clone() for name, tensor in objective.encoder.state_dict().items()}
    objective({"video": torch.rand(2, 4, 3, 32, 32), "label": torch.tensor([0, 1])}).total.backward()
    assert not objective.encoder.training and objective.lstm.training
    assert all(p.grad is None for p in objective.encoder.parameters()) and objective.lstm.weight_ih_l0.grad.any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.encoder.state_dict().items())
    groups = objective.param_groups(objective.phases()[0])
    assert not any(name.startswith("encoder.") for group in groups for name in group.names)


def test_steps_of_a_3d_network_are_whole_clips():
    with torch.device("meta"):
        objective = frozen_c3d_ucf101().objective.build()
        assert objective.states(torch.rand(1, 48, 3, 64, 64)).shape == (1, 3, 512)
    with pytest.raises(ValueError, match="40 frames do not make whole steps of 16"):
        objective.states(torch.rand(1, 40, 3, 64, 64))


def test_steps_are_seen_by_one_network():
    both = dict(widths=(8,), depths=(1,), layers=frozen_c3d_ucf101().objective.layers)
    for networks in ({}, both, {"widths": (8,)}):
        with pytest.raises(UserError, match="one network of steps"):
            LRCNConfig(width=16, num_classes=5, **networks).build()
