"""Numbers drawn from a sample's seed do not depend on the batch, and look uniform."""

import torch

from filmstrip.randomness import normal, uniform


def test_does_not_depend_on_the_batch():
    seeds = torch.tensor([5, -7, 2**62, 0])
    together = uniform(seeds, 33, salt=4)
    alone = torch.cat([uniform(seed[None], 33, salt=4) for seed in seeds])
    assert torch.equal(together, alone)
    assert torch.equal(uniform(seeds, 7, salt=4), together[:, :7])


def test_uniform_and_independent():
    numbers = uniform(torch.arange(2000), 100, salt=1)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, bins=50, min=0, max=1)
    chi_squared = ((counts - 4000) ** 2 / 4000).sum()
    assert chi_squared < 95  # 49 degrees of freedom: 1 in 10,000 lies above
    other = uniform(torch.arange(2000), 100, salt=2)
    correlations = torch.corrcoef(torch.stack([numbers.flatten(), other.flatten(), numbers.roll(1, 0).flatten()]))
    assert (correlations - torch.eye(3)).abs().max() < 0.01


def test_normal_numbers_are_normal_and_begin_alike():
    seeds = torch.arange(2000)
    numbers = normal(seeds, 101, salt=1)
    assert torch.equal(normal(seeds, 7, salt=1), numbers[:, :7])
    assert numbers.isfinite().all() and abs(numbers.mean()) < 0.01 and abs(numbers.std() - 1) < 0.01
    assert abs((numbers.abs() < 1.96).float().mean() - 0.95) < 0.005
    neighbours = torch.corrcoef(torch.stack([numbers[:, :-1].flatten(), numbers[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours) < 0.01
