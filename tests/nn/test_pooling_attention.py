import pytest
import torch

from filmstrip.nn.pooling_attention import Pool, PoolingAttention
from filmstrip.protocols import Grid

GRID = Grid(2, 4, 4)


def test_a_pool_leaves_the_first_token_out_and_normalises_all():
    torch.manual_seed(0)
    pool = Pool(6, (1, 2, 2))
    x = torch.randn(2, 3, 33, 6)
    y, grid = pool(x, GRID)
    assert grid == Grid(2, 2, 2) and y.shape == (2, 3, 9, 6)
    torch.testing.assert_close(y[:, :, 0], pool.norm(x[:, :, 0]))
    video = x[0, 1, 1:].T.reshape(1, 6, 2, 4, 4)
    places = pool.conv(video)[0].flatten(1).T
    torch.testing.assert_close(y[0, 1, 1:], pool.norm(places), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool_first", [False, True])
def test_without_strides_pools_and_positions_it_is_plain_attention(pool_first):
    torch.manual_seed(0)
    attention = PoolingAttention(
        8, 12, 2, grid=GRID, q_stride=None, kv_stride=(1, 1, 1), relative=True, pool_first=pool_first
    )
    with torch.no_grad():
        for table in attention.positions.parameters():
            table.zero_()
    same = torch.nn.Identity()
    attention.pool_k.forward = attention.pool_v.forward = lambda x, grid: (same(x), grid)
    x = torch.randn(2, 33, 8)
    y, grid = attention(x, GRID)
    if pool_first:
        q, k, v = attention.q(x), attention.k(x), attention.v(x)
    else:
        q, k, v = attention.qkv(x).chunk(3, dim=-1)
    heads = [
        ((q[..., part] @ k[..., part].mT) / 6**0.5).softmax(-1) @ v[..., part] for part in (slice(6), slice(6, 12))
    ]
    torch.testing.assert_close(y, attention.out(torch.cat(heads, -1)), rtol=1e-4, atol=1e-5)
    assert grid == GRID


def test_pooled_queries_are_added_but_for_the_class_token():
    torch.manual_seed(0)
    attention = PoolingAttention(8, 8, 2, grid=GRID, q_stride=(1, 2, 2), kv_stride=(1, 2, 2), residual=True)
    x = torch.randn(2, 33, 8)
    with_queries, grid = attention(x, GRID)
    q, _, _, _, _ = attention._pooled(x, GRID)
    attention.residual = False
    without, _ = attention(x, GRID)
    assert grid == Grid(2, 2, 2)
    torch.testing.assert_close(with_queries[:, 0], without[:, 0])
    added = (q.transpose(1, 2).flatten(2) @ attention.out.weight.T)[:, 1:]
    torch.testing.assert_close(with_queries[:, 1:], without[:, 1:] + added, rtol=1e-4, atol=1e-5)
