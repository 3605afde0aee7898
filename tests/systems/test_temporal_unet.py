import pytest
import torch

from filmstrip.systems.procedures.pdpp import TemporalUNet


@pytest.mark.parametrize("length", [3, 4, 6])
def test_sequences_keep_their_shape_and_every_step_sees_every_other(length):
    torch.manual_seed(0)
    network = TemporalUNet(5, widths=(32, 64, 64))
    for parameter in network.parameters():  # second convolutions begin at zero
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, length, 5, requires_grad=True)
    out = network(x, torch.tensor([3]))
    assert out.shape == x.shape
    out[0, 0].sum().backward()
    assert (x.grad.abs().amax(dim=2) > 0).all()


def test_the_time_matters():
    torch.manual_seed(0)
    network = TemporalUNet(4, widths=(32, 64, 64))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 3, 4)
    assert (network(x, torch.tensor([1])) - network(x, torch.tensor([7]))).abs().max() > 1e-4


def test_sequences_shorter_than_the_levels_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        TemporalUNet(4, widths=(32, 32, 32))(torch.zeros(1, 2, 4), torch.zeros(1))
