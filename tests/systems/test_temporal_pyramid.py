"""The pyramid over time: its lengths, what its rows see, and that padding does not matter."""

from dataclasses import replace

import pytest
import torch

from filmstrip.systems.localisation.actionformer import TemporalPyramid, tiny


def build(windows=(5, 5, 5), **settings):
    torch.manual_seed(0)
    sizes = dict(feature_width=6, width=16, num_heads=2, windows=windows, drop_path=0.0)
    config = replace(tiny().objective, **sizes, **settings)
    pyramid = TemporalPyramid(config).eval()
    with torch.no_grad():
        for parameter in pyramid.parameters():  # biases and scales too, so that whatever leaks shows
            parameter.normal_(std=0.5)
    return pyramid


@pytest.mark.parametrize("windows", [(5, 5, 5), (5, 5, None)])
@pytest.mark.parametrize("positions", [False, True])
def test_what_stands_in_padding_does_not_matter(windows, positions):
    pyramid = build(windows, positions=positions)
    sequence, length = torch.randn(2, 21, 6), torch.tensor([21, 14])
    longer = torch.cat([sequence, torch.full((2, 30, 6), 7.0)], dim=1)
    longer[1, 14:] = -3.0
    with torch.no_grad():
        pairs = list(zip(pyramid(sequence, length), pyramid(longer, length)))
    for level, ((short, valid), (long, valid_of_long)) in enumerate(pairs):
        assert valid.sum(dim=1).tolist() == [-(-21 // 2**level), -(-14 // 2**level)]
        assert valid_of_long.sum() == valid.sum() and short.isfinite().all() and long.isfinite().all()
        torch.testing.assert_close(long[:, : short.shape[1]][valid], short[valid], rtol=1e-4, atol=1e-4)


def test_levels_halve_and_windows_bound_what_a_row_sees():
    pyramid = build()
    sequence = torch.randn(1, 64, 6)
    levels = pyramid(sequence, torch.tensor([64]))
    assert [level.features.shape for level in levels] == [(1, 64, 16), (1, 32, 16), (1, 16, 16)]
    sequence.requires_grad_()
    pyramid(sequence, torch.tensor([64]))[0].features[0, 32].square().sum().backward()
    seen = sequence.grad[0].abs().sum(dim=1).nonzero()[:, 0]
    # Two convolutions; in each of two blocks the one before attention, and two rows of a window of five.
    assert (int(seen.min()), int(seen.max())) == (32 - 8, 32 + 8)
