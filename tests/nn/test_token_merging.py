"""Merging similar tokens: what is left, and what each token stands for."""

import torch

from filmstrip.nn.token_merging import merged, schedule


def by_hand(tokens, sizes, gone):
    """One step for one sample, token by token."""
    even, odd = list(range(0, len(tokens), 2)), list(range(1, len(tokens), 2))
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    partner = {i: max(odd, key=lambda j: float(unit[i] @ unit[j])) for i in even}
    order = sorted(even, key=lambda i: -float(unit[i] @ unit[partner[i]]))
    members = {j: [j] for j in odd}
    for i in order[:gone]:
        members[partner[i]].append(i)
    groups = [[i] for i in order[gone:]] + [members[j] for j in odd]
    size = torch.stack([sizes[group].sum() for group in groups])
    return torch.stack([(tokens[g] * sizes[g, None]).sum(dim=0) / sizes[g].sum() for g in groups]), size


def test_two_steps_are_those_by_hand():
    tokens = torch.randn(2, 10, 6, generator=torch.Generator().manual_seed(0))
    found = merged(tokens, 3)
    for row in range(2):
        expected, sizes = tokens[row], torch.ones(10)
        for gone in (5, 2):
            expected, sizes = by_hand(expected, sizes, gone)
        torch.testing.assert_close(found.tokens[row], expected)
        assert torch.equal(found.sizes[row], sizes)


def test_sizes_add_up_and_the_weighted_mean_stays():
    tokens = torch.randn(3, 37, 8, generator=torch.Generator().manual_seed(1))
    for count in (36, 20, 5, 1):
        found = merged(tokens, count, num_heads=2)
        assert found.tokens.shape == (3, count, 8) and (found.sizes.sum(dim=1) == 37).all()
        mean = (found.tokens * found.sizes[..., None]).sum(dim=1) / 37
        torch.testing.assert_close(mean, tokens.mean(dim=1))
    assert merged(tokens, 40).tokens is tokens
    assert torch.equal(merged(tokens[1:2], 5).tokens[0], merged(tokens, 5).tokens[1])


def test_what_is_unlike_all_others_stays_alone():
    tokens = torch.ones(1, 64, 4) + 0.01 * torch.randn(1, 64, 4, generator=torch.Generator().manual_seed(2))
    tokens[0, 20] = torch.tensor([5.0, -5.0, 5.0, -5.0])
    found = merged(tokens, 40)
    alone = (found.tokens[0] - tokens[0, 20]).norm(dim=1).argmin()
    assert found.sizes[0, alone] == 1 and torch.allclose(found.tokens[0, alone], tokens[0, 20])


def test_half_of_the_tokens_are_gone_in_each_step():
    assert schedule(2560, 30) == [1280, 640, 320, 160, 80, 40, 10] and schedule(5, 5) == []


def test_a_segment_of_the_paper_and_its_sizes():
    tokens = torch.randn(2, 2560, 32, generator=torch.Generator().manual_seed(3))
    found = merged(tokens, 30, num_heads=16)
    assert found.sizes.shape == (2, 30) and (found.sizes.sum(dim=1) == 2560).all() and found.sizes.max() > 1


def test_merging_what_is_all_the_same_changes_nothing():
    found = merged(torch.linspace(-1, 1, 8).expand(1, 100, 8), 7)
    torch.testing.assert_close(found.tokens, torch.linspace(-1, 1, 8).expand(1, 7, 8))
