"""The two-branch block against SD3's in ``diffusers``, from which VEDIT's comes: the same without positions."""

import pytest
import torch

from filmstrip.nn.two_branch import Placement, TwoBranchBlock, allow_keys

diffusers = pytest.importorskip("diffusers")
WIDTH, HEADS = 16, 2
NAMES = {
    "norm1.linear": "target_norm.linear",
    "norm1_context.linear": "seen_norm.linear",
    "attn.to_q": "attention.target_q",
    "attn.add_q_proj": "attention.seen_q",
    "attn.to_out.0": "attention.target_out",
    "attn.to_add_out": "attention.seen_out",
    "ff.net.0.proj": "target_mlp.fc1",
    "ff.net.2": "target_mlp.fc2",
    "ff_context.net.0.proj": "seen_mlp.fc1",
    "ff_context.net.2": "seen_mlp.fc2",
}
PAIRS = {
    "attention.target_kv": ("attn.to_k", "attn.to_v"),
    "attention.seen_kv": ("attn.add_k_proj", "attn.add_v_proj"),
}


@torch.no_grad()
def test_block(assert_close):
    from diffusers.models.attention import JointTransformerBlock

    torch.manual_seed(0)
    theirs = JointTransformerBlock(WIDTH, HEADS, WIDTH // HEADS).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = TwoBranchBlock(WIDTH, HEADS).eval()
    weights = theirs.state_dict()
    renamed = {
        f"{ours_}.{kind}": weights[f"{name}.{kind}"] for name, ours_ in NAMES.items() for kind in ("weight", "bias")
    }
    for name, pair in PAIRS.items():
        for kind in ("weight", "bias"):
            renamed[f"{name}.{kind}"] = torch.cat([weights[f"{one}.{kind}"] for one in pair])
    ours.load_state_dict(renamed)
    for mlp in (ours.target_mlp, ours.seen_mlp):
        mlp.act = torch.nn.GELU(approximate="tanh")  # SD3's; VEDIT names none
    target, seen, time = torch.randn(2, 3, WIDTH), torch.randn(2, 4, WIDTH), torch.randn(2, WIDTH)
    still = [torch.zeros(2, count, WIDTH // HEADS // 2) for count in (3, 4)]
    keys = [allow_keys(torch.ones(2, count, dtype=torch.bool)) for count in (3, 4, 7)]
    got = ours(target, seen, time, Placement(*still, *keys))
    want_seen, want_target = theirs(hidden_states=target, encoder_hidden_states=seen, temb=time)
    assert_close(got[0], want_target)
    assert_close(got[1], want_seen)
