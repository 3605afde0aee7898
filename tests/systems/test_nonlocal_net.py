import pytest
import torch
from torch import nn

from filmstrip.systems.recognition.nonlocal_net import NonLocal


def by_the_book(block, x):
    """Wang et al., equations 1 to 6, place by place."""
    q, k, v = ((conv(x))[0].flatten(1).T for conv in (block.query, block.key, block.value))
    y = torch.zeros_like(q)
    for i in range(len(q)):
        if block.pairwise == "concatenation":
            f = torch.stack([block.compare(torch.cat([q[i], k[j]])).relu()[0] for j in range(len(k))])
        else:
            f = k @ q[i]
        if block.pairwise == "embedded_gaussian":
            f = f.exp()
            y[i] = (f[:, None] * v).sum(0) / f.sum()
        else:
            y[i] = (f[:, None] * v).sum(0) / len(k)
    return x + block.norm(block.out(y.T.reshape(1, -1, *x.shape[2:])))


@torch.no_grad()
@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product", "concatenation"])
def test_it_is_the_papers_formula(pairwise):
    torch.manual_seed(0)
    block = NonLocal(6, 4, pairwise=pairwise, pool=None, scaled=False, identity_start=False).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.rand(1, 6, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(block(x), by_the_book(block, x))


@torch.no_grad()
def test_scaling_divides_products_by_the_root_of_their_length():
    torch.manual_seed(0)
    plain, scaled = (NonLocal(8, 4, pool=None, scaled=s, identity_start=False).eval() for s in (False, True))
    scaled.load_state_dict(plain.state_dict())
    scaled.query.weight.mul_(2), scaled.query.bias.mul_(2)
    x = torch.rand(1, 8, 2, 4, 4)
    torch.testing.assert_close(scaled(x), plain(x))


@torch.no_grad()
def test_it_starts_as_the_identity_and_sees_everything_after():
    torch.manual_seed(0)
    block, x = NonLocal(8).eval(), torch.rand(1, 8, 2, 4, 4)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.norm.weight)
    changed = x.clone()
    changed[:, :, 1, 3, 3] += 5
    assert (block(changed) - block(x))[0, :, 0, 0, 0].abs().max() > 1e-6
    assert block.window((2, 4, 4)) == ((3, 7, 7), (1, 1, 1))
