"""RoIAlign: cases that are known, a loop over every sample, and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.nn.roi_align import roi_align, roi_align_levels


def loops(features, box, size, samples, aligned=True):
    """One box of one map ``C H W``, a sample at a time: ``C size size``."""
    channels, height, width = features.shape
    shift = 0.5 if aligned else 0.0
    left, top, right, bottom = (float(side) - shift for side in box)
    if not aligned:
        right, bottom = max(right, left + 1), max(bottom, top + 1)
    across, down = (right - left) / size, (bottom - top) / size
    columns = samples or max(1, math.ceil(across))
    rows = samples or max(1, math.ceil(down))
    out = torch.zeros(channels, size, size, dtype=features.dtype)
    for p in range(size):
        for q in range(size):
            for i in range(rows):
                for j in range(columns):
                    y, x = top + (p + (i + 0.5) / rows) * down, left + (q + (j + 0.5) / columns) * across
                    if not (-1 <= y <= height and -1 <= x <= width):
                        continue
                    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                    y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
                    fy, fx = y - y0, x - x0
                    above = (1 - fx) * features[:, y0, x0] + fx * features[:, y0, x0 + 1]
                    below = (1 - fx) * features[:, y0 + 1, x0] + fx * features[:, y0 + 1, x0 + 1]
                    out[:, p, q] += ((1 - fy) * above + fy * below) / (rows * columns)
    return out


def ramp(height, width):
    """Two channels that say where they are: row and column of each place's centre."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([y, x])[None]


def test_a_constant_map_is_constant_in_every_box():
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 6.0], [2.3, 1.1, 2.4, 5.9], [8.0, 5.0, 9.0, 6.0]]])
    assert roi_align(torch.full((1, 2, 6, 9), 3.0), boxes).allclose(torch.tensor(3.0))


@pytest.mark.parametrize("samples", [None, 1, 2, 5])
def test_a_ramp_is_read_at_the_centres_of_cells(samples):
    # Away from the border, where interpolation has two neighbours, a linear map is read exactly.
    left, top, right, bottom = 1.3, 2.1, 7.9, 6.6
    found = roi_align(ramp(8, 10), torch.tensor([[[left, top, right, bottom]]]), size=3, samples=samples)[0, 0]
    rows, columns = (
        start + (torch.arange(3) + 0.5) / 3 * (end - start) for start, end in ((top, bottom), (left, right))
    )
    torch.testing.assert_close(found[0], rows[:, None].expand(3, 3))
    torch.testing.assert_close(found[1], columns.expand(3, 3))


def test_a_box_of_whole_places_holds_their_mean():
    features = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[[2.0, 1.0, 6.0, 5.0]]]).expand(2, -1, -1)
    # One sample for each place, at its centre.
    torch.testing.assert_close(roi_align(features, box, size=4)[:, 0], features[:, :, 1:5, 2:6])
    torch.testing.assert_close(roi_align(features, box, size=1)[:, 0, :, 0, 0], features[:, :, 1:5, 2:6].mean((2, 3)))


def test_the_whole_map_is_its_mean():
    features = torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(0))
    found = roi_align(features, torch.tensor([[[0.0, 0.0, 14.0, 14.0]]]))
    torch.testing.assert_close(found[0, 0], torch.nn.functional.avg_pool2d(features, 2)[0])


sides = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(sides, sides, sides, sides), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
)
def test_loops_over_samples_agree(corners, size, samples, aligned):
    features = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0, y0, x1, y1 = torch.tensor(corners, dtype=torch.float64).unbind(1)
    boxes = torch.stack([x0.minimum(x1) * 7, y0.minimum(y1) * 5, x0.maximum(x1) * 7, y0.maximum(y1) * 5], dim=1)
    found = roi_align(features, boxes.expand(2, -1, -1), size=size, samples=samples, aligned=aligned)
    for b in range(2):
        for box, one in zip(boxes, found[b]):
            torch.testing.assert_close(one, loops(features[b], box, size, samples, aligned))


def test_far_outside_there_is_nothing_and_nearby_the_border_goes_on():
    features = torch.ones(1, 1, 4, 4)
    boxes = torch.tensor([[[-9.0, 0.0, -5.0, 4.0], [-0.4, 0.0, -0.2, 4.0]]])
    outside, near = roi_align(features, boxes, size=2)[0]
    assert not outside.any() and near.allclose(torch.ones(1, 2, 2))


def test_each_clip_of_a_batch_reads_its_own_map():
    features = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4)
    found = roi_align(features, torch.tensor([0.5, 1.0, 3.0, 3.5]).expand(3, 2, 4))
    assert found.shape == (3, 2, 2, 7, 7) and found.mean((1, 2, 3, 4)).tolist() == pytest.approx([0, 1, 2])


def test_gradients_of_map_and_boxes():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    # Off the kinks of the interpolation, where a difference quotient would see both sides.
    boxes = torch.tensor([[[0.71, 0.63, 3.37, 3.19]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, b: roi_align(f, b, size=2, samples=2), (features, boxes))


def test_low_precision_keeps_coordinates():
    features = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[3.1, 2.2, 11.7, 14.6]]])
    low = roi_align(features.bfloat16(), boxes)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), roi_align(features, boxes), rtol=0.05, atol=0.05)


def test_what_is_no_map_or_no_box_is_refused():
    with pytest.raises(ValueError, match=r"boxes \(B, M, 4\), got \(2, 3, 4, 4\), \(1, 5, 4\)"):
        roi_align(torch.zeros(2, 3, 4, 4), torch.zeros(1, 5, 4))
    with pytest.raises(ValueError, match="one or more"):
        roi_align(torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 4), samples=0)


@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_each_box_is_read_from_its_level(samples, aligned):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 8 // n, 12 // n, generator=generator, requires_grad=True) for n in (1, 2, 4)]
    first = torch.rand(2, 20, 2, generator=generator) * 4
    boxes = torch.cat([first, first + torch.rand(2, 20, 2, generator=generator) * 6], dim=-1)
    level = torch.arange(40).view(2, 20) % 3
    scaled = [boxes / n for n in (1, 2, 4)]
    found = roi_align_levels(maps, scaled, level, size=4, samples=samples, aligned=aligned)
    each = [roi_align(m, b, size=4, samples=samples, aligned=aligned) for m, b in zip(maps, scaled)]
    expected = sum(x * (level == i)[..., None, None, None] for i, x in enumerate(each))
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=generator)
    for one, other in zip(*(torch.autograd.grad((x * weight).sum(), maps) for x in (found, expected))):
        torch.testing.assert_close(one, other)
