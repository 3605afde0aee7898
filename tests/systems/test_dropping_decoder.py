"""A decoder that drops visual tokens: which stay, what they cost, and what text makes of them."""

import dataclasses

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.nn.masks import causal, without_first
from filmstrip.nn.rotary import rotate
from filmstrip.nn.sampling import Sampling
from filmstrip.systems.language.internvideo2_5.dropping import Dropping, DroppingDecoder

CONFIG = DecoderConfig(vocab_size=30, width=32, depth=4, num_heads=4, num_kv_heads=2, mlp_dim=48)
DROPPING = Dropping(after=(1, 3), keep=(0.5, 0.25))


def built(dropping=DROPPING):
    torch.manual_seed(0)
    decoder = DroppingDecoder(CONFIG, dropping).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return decoder


def given(rows=2, length=20, count=12):
    """Tokens, and ``count`` visual ones that begin at the third, or the fifth, place."""
    tokens = torch.randn(rows, length, 32, generator=torch.Generator().manual_seed(1))
    visual = torch.zeros(rows, length, dtype=torch.bool)
    for i in range(rows):
        visual[i, 2 + 2 * i : 2 + 2 * i + count] = True
    return tokens, visual


def by_hand(decoder, tokens, visual, asks, by):
    """One row, block by block: the last hidden states and where their tokens stood."""
    at = torch.arange(len(tokens))
    x, first = tokens[None], int(visual.sum())
    for i, block in enumerate(decoder.blocks):
        if i in DROPPING.after:
            stage = DROPPING.after.index(i)
            places = [j for j in range(len(at)) if visual[at[j]]]
            then = int(first * DROPPING.keep[stage])
            if by == "even" or (by == "even_then_attention" and stage == 0):
                stay = [places[int(j)] for j in torch.linspace(0, len(places) - 1, then)]
            else:
                y = block.norm1(x)
                q, k, _ = block.attention.qkv(y).split((32, 16, 16), dim=-1)
                angles = decoder.rotary(at[:, None])
                q, k = (rotate(z.unflatten(2, (-1, 8)).transpose(1, 2), angles)[0] for z in (q, k))
                me = int((at <= asks).sum()) - 1
                scores = torch.stack([q[h, me] @ k[h // 2, : me + 1].T / 8**0.5 for h in range(4)])
                weights = scores.softmax(dim=1).mean(dim=0)
                stay = sorted(places, key=lambda j: -float(weights[j]))[:then]
            kept = sorted(set(range(len(at))) - set(places) | set(stay))
            x, at = x[:, kept], at[kept]
        x = block(x, mask=causal(), angles=decoder.rotary(at[:, None]))
    return decoder.norm(x)[0], at


@torch.no_grad()
@pytest.mark.parametrize("by", ["even", "attention", "even_then_attention"])
def test_it_is_what_is_computed_block_by_block(by):
    decoder, (tokens, visual) = built(dataclasses.replace(DROPPING, by=by)), given()
    asks = torch.tensor([16, 17])
    found = decoder(tokens, visual=visual, count=12, asks=asks).hidden
    for i in range(2):
        hidden, at = by_hand(decoder, tokens[i], visual[i], int(asks[i]), by)
        assert len(at) == 20 - 12 + 3
        torch.testing.assert_close(found[i, at], hidden, rtol=1e-4, atol=1e-5)
        for place in set(range(20)) - set(at.tolist()):
            assert torch.equal(found[i, place], found[i, int(at[at < place].max())])


@torch.no_grad()
def test_later_blocks_see_fewer_tokens():
    decoder, (tokens, visual) = built(), given()
    lengths = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda module, x, out: lengths.append(out.shape[1]))
    decoder(tokens, visual=visual, count=12, asks=torch.tensor([16, 17]))
    assert lengths == [20, 14, 14, 11]
    caches = decoder.new_caches(2, 20)
    decoder(tokens, visual=visual, count=12, asks=torch.tensor([16, 17]), caches=caches)
    assert [cache.length for cache in caches] == [20, 14, 14, 11]


@torch.no_grad()
def test_a_later_token_changes_no_earlier_one_and_nothing_is_dropped_unasked():
    decoder, (tokens, visual) = built(), given()
    asks, changed = torch.tensor([16, 17]), tokens.clone()
    changed[:, 18:] += 1
    before = decoder(tokens, visual=visual, count=12, asks=asks).hidden
    after = decoder(changed, visual=visual, count=12, asks=asks).hidden
    torch.testing.assert_close(after[:, :18], before[:, :18])
    plain = Decoder(CONFIG).eval()
    plain.load_state_dict(decoder.state_dict())
    assert torch.equal(plain(tokens).hidden, decoder(tokens).hidden)
    alone = decoder(tokens[:1], visual=visual[:1], count=12, asks=asks[:1]).hidden
    torch.testing.assert_close(alone, before[:1], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_cached_decoding_goes_on_as_the_whole_does():
    """Padding stands first; each new token is what the whole sequence gives, with what was dropped for the prompt."""
    decoder, (tokens, visual) = built(), given()
    padding = torch.tensor([0, 2])
    tokens[1, :2] = 0
    options = dict(visual=visual, count=12, asks=torch.tensor([19, 19]))
    drawn = decoder.decode(tokens, torch.rand(2, 4), Sampling(temperature=0.0), padding=padding, of_prompt=options)
    ids = torch.stack(list(drawn), dim=1)
    for n in range(4):
        whole = torch.cat([tokens, decoder.embed(ids[:, :n])], dim=1)
        visual_of_whole = torch.nn.functional.pad(visual, (0, n))
        positions = (torch.arange(20 + n) - padding[:, None]).clamp(min=0)
        hidden = decoder(
            whole,
            mask=causal() & without_first(padding),
            positions=positions,
            visual=visual_of_whole,
            count=12,
            asks=torch.tensor([19, 19]),
        ).hidden[:, -1]
        assert torch.equal(decoder.logits(hidden).argmax(dim=1), ids[:, n])


def test_what_does_not_fit_is_refused():
    for wrong in (Dropping(after=(1, 4), keep=(0.5, 0.25)), Dropping(after=(1,), keep=(0.5, 0.25))):
        with pytest.raises(UserError, match="dropping after blocks"):
            DroppingDecoder(CONFIG, wrong)
    with pytest.raises(UserError, match="shares must fall"):
        DroppingDecoder(CONFIG, Dropping(after=(1, 2), keep=(0.25, 0.5)))
