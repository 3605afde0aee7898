"""Numbers drawn from a sample's seed do not depend on the batch, and look uniform; every use draws its own."""

import ast
import itertools
from pathlib import Path

import pytest
import torch

import filmstrip
from filmstrip.randomness import normal, uniform

DRAWING = {
    "filmstrip.randomness": {"uniform": 2, "normal": 2},
    "filmstrip.nn.masked_sampling": {"draw_masks": None, "partition": 3, "fill": None, "draft_log_probs": None},
    "filmstrip.nn.tubelet_masking": {"choose_tubelets": None},
}
"""Functions that draw, and which of their arguments names the use; none where it is given by keyword alone."""


def test_does_not_depend_on_the_batch():
    seeds = torch.tensor([5, -7, 2**62, 0])
    together = uniform(seeds, 33, "a", 3)
    alone = torch.cat([uniform(seed[None], 33, "a", 3) for seed in seeds])
    assert torch.equal(together, alone)
    assert torch.equal(uniform(seeds, 7, "a", 3), together[:, :7])


def test_uniform_and_independent():
    numbers = uniform(torch.arange(2000), 100, "a")
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, bins=50, min=0, max=1)
    chi_squared = ((counts - 4000) ** 2 / 4000).sum()
    assert chi_squared < 95  # 49 degrees of freedom: 1 in 10,000 lies above
    others = [uniform(torch.arange(2000), 100, *use) for use in (("b",), ("a", 0), ("a", 1), ("a", 1, 0))]
    correlations = torch.corrcoef(torch.stack([x.flatten() for x in (numbers, *others, numbers.roll(1, 0))]))
    assert (correlations - torch.eye(6)).abs().max() < 0.01


def test_normal_numbers_are_normal_and_begin_alike():
    seeds = torch.arange(2000)
    numbers = normal(seeds, 101, "a")
    assert torch.equal(normal(seeds, 7, "a"), numbers[:, :7])
    assert numbers.isfinite().all() and abs(numbers.mean()) < 0.01 and abs(numbers.std() - 1) < 0.01
    assert abs((numbers.abs() < 1.96).float().mean() - 0.95) < 0.005
    neighbours = torch.corrcoef(torch.stack([numbers[:, :-1].flatten(), numbers[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours) < 0.01


def test_numbers_stay_what_they_are():
    seeds = torch.tensor([0, 2**40 + 1])
    assert (uniform(seeds, 2, "a") * 2**24).tolist() == [[103670, 3504631], [9751491, 194888]]
    assert (uniform(seeds, 2, "a", 1, 2) * 2**24).tolist() == [[6598844, 3435005], [11717928, 11456321]]


@pytest.mark.parametrize("index", [(), (3,), (3, 4)])
def test_compiled_draws_are_the_same(index):
    seeds = torch.arange(5)
    compiled = torch.compile(lambda seeds: uniform(seeds, 3, "a", *index), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(seeds), uniform(seeds, 3, "a", *index))


@pytest.mark.slow
def test_compiled_to_machine_code_the_numbers_stay_the_same():
    """As indices, which inductor makes of positions where it can, products do not wrap at 64 bits."""
    seeds = torch.tensor([1, 2**62, -5])
    compiled = torch.compile(normal, fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(seeds, 64, "test", 2), normal(seeds, 64, "test", 2))


def uses_in(path):
    """What each call of a drawing function says its numbers are for: text, or the expression that gives it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    drawing = {
        alias.asname or alias.name: DRAWING[node.module][alias.name]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in DRAWING
        for alias in node.names
        if alias.name in DRAWING[node.module]
    }
    drawing |= DRAWING.get(f"filmstrip.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}", {})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in drawing:
            place = drawing[node.func.id]
            named = [keyword.value for keyword in node.keywords if keyword.arg == "use"]
            use = named[0] if named else node.args[place]
            yield use.value if isinstance(use, ast.Constant) else use


PACKAGE = Path(filmstrip.__file__).parent


def test_no_two_places_draw_the_same_numbers():
    uses = list(itertools.chain.from_iterable(map(uses_in, sorted(PACKAGE.rglob("*.py")))))
    named = [use for use in uses if isinstance(use, str)]
    assert len(named) > 15 and len(named) == len(set(named)), sorted(named)
    handed_on = {ast.unparse(use) for use in uses if not isinstance(use, str)}
    of_callers = (part == "use" or part.startswith("f'{use}.") for part in handed_on)
    assert all(of_callers), "a use is a text, or what the caller called it, or a part of that"
