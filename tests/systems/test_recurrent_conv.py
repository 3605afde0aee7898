import pytest
import torch
from torch import nn

from filmstrip.systems.recognition.recurrent_conv import CELLS, ConvGRU, ConvLSTM, ConvRNN


@pytest.fixture(params=CELLS)
def cell(request):
    torch.manual_seed(0)
    return CELLS[request.param](3, 6, kernel=3)


@torch.no_grad()
def test_it_sees_the_past_and_its_neighbourhood_and_nothing_else(cell):
    x = torch.rand(2, 3, 5, 8, 8)
    before = cell(x)
    assert before.shape == (2, 6, 5, 8, 8)
    changed = x.clone()
    changed[:, :, 2, 4, 4] += 1
    touched = (cell(changed) - before).abs().amax(dim=(0, 1)) > 1e-7
    assert not touched[:2].any()
    reach = 2 if isinstance(cell, ConvGRU) else 1  # what a GRU's reset gate lets through is convolved once more
    assert touched[2].nonzero().amin(0).tolist() == [4 - reach] * 2
    assert touched[2].nonzero().amax(0).tolist() == [4 + reach] * 2
    assert touched[4].sum() > touched[2].sum()  # it spreads by a pixel a frame


@torch.no_grad()
@pytest.mark.parametrize(("kind", "published"), [(ConvRNN, nn.RNN), (ConvGRU, nn.GRU), (ConvLSTM, nn.LSTM)])
def test_a_place_alone_is_the_ordinary_recurrent_network(kind, published):
    """Torch's own, with 1 x 1 kernels; its gates lie in another order, and its GRU resets after the product."""
    torch.manual_seed(0)
    cell, ordinary = kind(3, 4, kernel=1), published(3, 4, batch_first=True)
    order = {1: [0], 3: [1, 0, 2], 4: [0, 1, 3, 2]}[cell.gates]

    def reordered(tensor):
        return torch.cat([tensor.chunk(cell.gates)[i] for i in order])

    ordinary.weight_ih_l0.copy_(reordered(cell.of_input.weight[:, :, 0, 0]))
    ordinary.bias_ih_l0.copy_(reordered(cell.of_input.bias))
    ordinary.weight_hh_l0.copy_(reordered(cell.of_state.weight[:, :, 0, 0]))
    ordinary.bias_hh_l0.zero_()
    x = torch.rand(5, 3, 7, 1, 1)
    if kind is ConvGRU:
        # Torch: h = (1 - z) n + z h, resetting U h; ours, as Ballas et al., h = z n + (1 - z) h, resetting h. They
        # are one where the update gate is turned around and U of the new state is diagonal.
        cell.of_state.weight[8:].copy_(torch.eye(4)[:, :, None, None])
        ordinary.weight_hh_l0[8:] = torch.eye(4)
        ordinary.weight_ih_l0[4:8] *= -1
        ordinary.bias_ih_l0[4:8] *= -1
        ordinary.weight_hh_l0[4:8] *= -1
    expected = ordinary(x[..., 0, 0].transpose(1, 2))[0]
    torch.testing.assert_close(cell(x)[..., 0, 0].transpose(1, 2), expected)


def test_an_lstm_starts_out_remembering():
    cell = ConvLSTM(3, 64)
    enter, keep = cell.of_input.bias.detach().chunk(4)[:2]
    assert keep.mean() - enter.mean() == pytest.approx(1, abs=0.1)
