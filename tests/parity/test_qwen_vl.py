"""Qwen-VL's adapter against torch's attention; its positions are written out in ``test_q_former.py``."""

import torch
import torch.nn.functional as F
from blip import randomise
from test_q_former import table

from filmstrip.protocols import Grid
from filmstrip.systems.language.qwen_vl import AdapterConfig


@torch.no_grad()
def test_tokens_of_two_frames_agree(assert_close):
    torch.manual_seed(0)
    ours = randomise(AdapterConfig(side=2, num_heads=3).build(20, 24))
    pool, theirs = ours.pool, torch.nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([pool.attention.q.weight, pool.attention.kv.weight]))
    theirs.in_proj_bias.copy_(torch.cat([pool.attention.q.bias, pool.attention.kv.bias]))
    theirs.out_proj.load_state_dict(pool.attention.out.state_dict())
    tokens = torch.randn(1, 2 * 15, 20)
    places = table(2, 24)
    image = places.T.reshape(1, 24, 2, 2)
    resized = F.interpolate(image, size=(3, 5), mode="bicubic", align_corners=False).flatten(2)[0].T
    want = []
    for frame in tokens.view(2, 1, 15, 20):
        x = pool.context_norm(F.linear(frame, pool.project.weight))
        seen = theirs((pool.query_norm(pool.queries) + places)[None], x + resized, x)[0]
        want.append(F.linear(pool.norm(seen), ours.project.weight))
    assert_close(ours(tokens, Grid(2, 3, 5)), torch.cat(want, dim=1))
    assert ours.num_tokens(Grid(2, 3, 5)) == 8
