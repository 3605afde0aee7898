"""The two-branch block, against attention written out by hand and what each kind promises."""

import pytest
import torch
from einops import rearrange

from filmstrip.nn.rotary import Rotary, rotate
from filmstrip.nn.two_branch import JointAttention, Placement, TwoBranchBlock, allow_keys

WIDTH, HEADS, BATCH, TARGETS, SEEN = 16, 2, 2, 3, 4
KINDS = ("joint", "self", "cross")


def random(module, std=0.3):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return module.eval()


def tokens(count, seed):
    return torch.randn(BATCH, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def place(target_used=None, seen_used=None):
    rotary = Rotary(WIDTH // HEADS)
    targets = torch.ones(BATCH, TARGETS, dtype=torch.bool) if target_used is None else target_used
    seen = torch.ones(BATCH, SEEN, dtype=torch.bool) if seen_used is None else seen_used
    return Placement(
        target_angles=rotary(torch.tensor([1, 3, 5])[:, None]).expand(BATCH, -1, -1),
        seen_angles=rotary(torch.tensor([0, 2, 4, 6])[:, None]).expand(BATCH, -1, -1),
        targets=allow_keys(targets),
        seen=allow_keys(seen),
        both=allow_keys(torch.cat([targets, seen], dim=1)),
    )


def by_hand(attention, target, seen, placement):
    """Each branch's output from softmax over the keys that its kind allows, head by head."""

    def heads(x):
        return rearrange(x, "b n (h d) -> b h n d", h=HEADS)

    of_seen = {"q": "target_q", "kv": "target_kv", "out": "target_out"}
    if attention.kind != "self":
        of_seen = {part: f"seen_{part}" for part in of_seen}
    layers = {True: of_seen, False: {part: f"target_{part}" for part in of_seen}}
    read = {}
    for is_seen, (x, angles) in {
        False: (target, placement.target_angles),
        True: (seen, placement.seen_angles),
    }.items():
        q = getattr(attention, layers[is_seen]["q"])(x)
        k, v = getattr(attention, layers[is_seen]["kv"])(x).chunk(2, dim=-1)
        read[is_seen] = rotate(heads(q), angles), rotate(heads(k), angles), heads(v)
    out = []
    for is_seen in (False, True):
        branches = (not is_seen,) if attention.kind == "cross" else (False, True)
        k, v = (torch.cat([read[b][i] for b in branches], dim=2) for i in (1, 2))
        weights = (read[is_seen][0] @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(dim=-1)
        out.append(getattr(attention, layers[is_seen]["out"])(rearrange(weights @ v, "b h n d -> b n (h d)")))
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_softmax_over_what_its_kind_allows(kind):
    attention = random(JointAttention(WIDTH, HEADS, head_dim=8, kind=kind))
    target, seen = tokens(TARGETS, 1), tokens(SEEN, 2)
    for ours, hand in zip(attention(target, seen, place()), by_hand(attention, target, seen, place())):
        torch.testing.assert_close(ours, hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_block_gives_the_same_targets_without_the_seen_ends(kind):
    whole = random(TwoBranchBlock(WIDTH, HEADS, attention=kind))
    last = TwoBranchBlock(WIDTH, HEADS, attention=kind, last=True)
    weights = whole.state_dict()
    if kind != "self":  # the seen branch has a shift and a scale, and no more
        for name in ("seen_norm.linear.weight", "seen_norm.linear.bias"):
            weights[name] = weights[name][: 2 * WIDTH]
    last.load_state_dict({name: weights[name] for name in last.state_dict()})
    time = tokens(1, 3)[:, 0]
    target, seen = last.eval()(tokens(TARGETS, 1), tokens(SEEN, 2), time, place())
    torch.testing.assert_close(target, whole(tokens(TARGETS, 1), tokens(SEEN, 2), time, place())[0])
    assert seen is None


def test_at_first_a_block_changes_nothing():
    block, target, seen = TwoBranchBlock(WIDTH, HEADS), tokens(TARGETS, 1), tokens(SEEN, 2)
    after = block(target, seen, torch.ones(1, WIDTH), place())
    assert torch.equal(after[0], target) and torch.equal(after[1], seen)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_do_not_count_change_nothing(kind):
    block, time = random(TwoBranchBlock(WIDTH, HEADS, attention=kind)), torch.ones(1, WIDTH)
    target, seen = tokens(TARGETS, 1), tokens(SEEN, 2)
    used = torch.tensor([True, False, True, True]).expand(BATCH, -1)
    placement = place(target_used=torch.tensor([True, True, False]).expand(BATCH, -1), seen_used=used)
    changed_target, changed_seen = target.clone(), seen.clone()
    changed_target[:, 2], changed_seen[:, 1] = 9.0, -9.0
    before, after = block(target, seen, time, placement), block(changed_target, changed_seen, time, placement)
    torch.testing.assert_close(before[0][:, :2], after[0][:, :2])
    torch.testing.assert_close(before[1][:, used[0]], after[1][:, used[0]])
    changed_seen[:, 0] = 9.0
    assert not torch.allclose(block(target, changed_seen, time, placement)[0][:, :2], before[0][:, :2])


@pytest.mark.parametrize("kind", KINDS)
def test_without_seen_tokens_targets_are_alone(kind):
    block, time = random(TwoBranchBlock(WIDTH, HEADS, attention=kind)), torch.ones(1, WIDTH)
    alone, nobody = block(tokens(TARGETS, 1), None, time, place())
    assert nobody is None and alone.isfinite().all()
    if kind != "cross":
        hidden = place(seen_used=torch.zeros(BATCH, SEEN, dtype=torch.bool))
        torch.testing.assert_close(block(tokens(TARGETS, 1), tokens(SEEN, 2), time, hidden)[0], alone)
