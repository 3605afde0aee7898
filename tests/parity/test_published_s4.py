"""S4 of ``recognition.s5`` and ``pretraining.lsmcl`` and the published layer (of ViS4mer), by stored outputs."""

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.models.selective_s4 import S4, hippo

NAMES = {
    "D": "skip",
    "kernel.krylov.log_dt": "log_step",
    "kernel.krylov.w": "poles",
    "kernel.krylov.B": "inputs",
    "kernel.krylov.C": "outputs",
    "output_linear.weight": "out.weight",
    "output_linear.bias": "out.bias",
}


@pytest.fixture
def layer():
    ours = S4(6, 16, state=8).eval()
    weights = {NAMES[name]: tensor for name, tensor in stored("s4").weights().items()}
    weights["out.bias"] = weights["out.bias"].flatten()
    weights["poles"][:, 0] = -weights["poles"][:, 0].abs()  # stable ones
    ours.load_state_dict(weights)
    return ours


@torch.no_grad()
def test_kernel_and_outputs_are_the_published_ones(layer):
    kept = stored("s4")
    assert kept.error("kernel", layer.kernel()) < TOLERANCE
    for name, length in (("outputs", 16), ("shorter", 12)):
        given = recipe_input("u", (2, 6, length)).transpose(1, 2)
        assert kept.error(name, layer(given).transpose(1, 2)) < TOLERANCE


def test_the_start_is_the_published_one():
    """Vectors up to the phase of each eigenvector, which is arbitrary."""
    kept, (poles, inputs, low_rank) = stored("s4"), hippo(8)
    assert kept.error("poles", torch.view_as_real(poles)) < TOLERANCE
    assert kept.error("inputs", inputs.abs()) < TOLERANCE
    assert kept.error("low_rank", low_rank.abs()) < TOLERANCE


@torch.no_grad()
def test_the_convolution_is_the_recurrence(layer):
    """The kernel is an aliased one, as published: exact once the response has died away within its length."""
    layer = S4(2, 512, state=4)
    layer.log_step.fill_(-1.0)
    step = layer.log_step.exp()[0].double()
    poles, low = torch.view_as_complex(layer.poles).to(torch.complex128), torch.view_as_complex(layer.inputs)[0, 1]
    pair = torch.cat([poles, poles.conj()]), torch.cat([low, low.conj()]).to(torch.complex128)
    matrix = torch.diag(pair[0]) - pair[1][:, None] * pair[1].conj()
    given, out = (torch.view_as_complex(x)[0, 0].to(torch.complex128) for x in (layer.inputs, layer.outputs))
    given, out = torch.cat([given, given.conj()]), torch.cat([out, out.conj()])
    eye = torch.eye(4, dtype=torch.complex128)
    backward = torch.linalg.inv(eye - step / 2 * matrix)
    forward, drive = backward @ (eye + step / 2 * matrix), backward @ (step * given)
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    state, expected = torch.zeros(4, dtype=torch.complex128), []
    for value in x:
        state = forward @ state + drive * value
        expected.append((out.conj() @ state).real + layer.skip[0] * value)
    found = layer.convolve(x[None, :, None].expand(1, 64, 2))[0, :, 0]
    expected = torch.stack(expected).float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
