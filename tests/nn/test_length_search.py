import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.nn.length_search import Search


def curve(values, low):
    """Errors by length: row ``b`` of ``values`` is what sample ``b`` is worth at ``low``, ``low + 1``, ..."""
    return lambda lengths: values[torch.arange(len(values)), lengths - low]


def by_hand(values, low, target):
    """The first length that meets the target, or the longest."""
    rows = [[i for i, error in enumerate(row) if error <= target] for row in values.tolist()]
    return torch.tensor([low + (row[0] if row else values.shape[1] - 1) for row in rows])


falling = st.lists(st.lists(st.floats(0, 1), min_size=40, max_size=40), min_size=1, max_size=4)


@given(falling, st.integers(1, 5), st.floats(-0.1, 1.1), st.integers(1, 40))
def test_full_and_binary_search_agree_where_errors_fall(rows, low, target, count):
    values = torch.tensor(rows, dtype=torch.float64)[:, :count].sort(dim=1, descending=True).values
    want = by_hand(values, low, target)
    for method in ("full", "binary"):
        search = Search(low, low + count - 1, method)
        assert torch.equal(search(curve(values, low), target, len(values)), want), method


@given(falling, st.floats(0, 1))
def test_full_search_is_right_whatever_the_errors(rows, target):
    values = torch.tensor(rows, dtype=torch.float64)
    assert torch.equal(Search(3, 42, "full")(curve(values, 3), target, len(values)), by_hand(values, 3, target))


def test_binned_search_is_the_best_of_its_bins():
    values = torch.linspace(1, 0, 97)[None].repeat(3, 1) * torch.tensor([[1.0], [0.5], [2.0]])
    search = Search(4, 100, "binned", bins=8)
    lengths = search.candidates()
    assert len(lengths) == 8 and lengths[-1] == 100 and set(torch.tensor(lengths).diff().tolist()) == {12}
    want = by_hand(values, 4, 0.3)
    got = search(curve(values, 4), 0.3, 3)
    assert got.tolist() == [min(length for length in lengths if length >= best) for best in want.tolist()]


@pytest.mark.parametrize(
    "low, method, evaluations",
    [(1, "full", 4096), (1, "binned", 100), (1, "binary", 12), (256, "full", 3841), (256, "binary", 12)],
)
def test_evaluations_of_4096_tokens(low, method, evaluations):
    calls = []

    def errors(lengths):
        assert low <= lengths.min() and lengths.max() <= 4096
        calls.append(lengths)
        return 1 / lengths

    search = Search(low, 4096, method)
    search(errors, 1 / 1000, batch=2)
    assert len(calls) == search.evaluations == evaluations


def test_samples_are_searched_side_by_side():
    values = torch.linspace(1, 0, 33)[None] * torch.tensor([[0.01], [1.0], [9.0]])
    together = Search(2, 34)(curve(values, 2), 0.05, 3)
    alone = [Search(2, 34)(curve(row[None], 2), 0.05, 1).item() for row in values]
    assert together.tolist() == alone and alone[0] == 2 and alone[2] > alone[1] > 2


@pytest.mark.parametrize("low, high, bins", [(0, 3, 1), (4, 3, 1), (1, 3, 0)])
def test_nothing_to_choose_from(low, high, bins):
    with pytest.raises(ValueError, match="cannot choose a length"):
        Search(low, high, bins=bins)(lambda lengths: lengths, 0.5, 1)
