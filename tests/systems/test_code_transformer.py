import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.nn.sampling import Sampling
from filmstrip.randomness import uniform
from filmstrip.systems.generation.videogpt.transformer import CodeTransformer, patterns

GRID, CODES = (2, 4, 4), 11
KINDS = ("full", "axial", "sparse", "blocks")


def build(attention="full", seed=0, **changes):
    torch.manual_seed(seed)
    sizes = dict(codebook_size=CODES, grid=GRID, width=32, depth=4, num_heads=4, attention=attention)
    model = CodeTransformer(**(sizes | changes)).eval()
    for parameter in model.parameters():  # every part matters
        torch.nn.init.normal_(parameter, std=0.3)
    return model


CONDITIONS = dict(condition_dim=3, context_width=6)


def conditions(batch=2):
    generator = torch.Generator().manual_seed(3)
    return dict(
        vector=torch.randn(batch, 3, generator=generator), context=torch.randn(batch, 5, 6, generator=generator)
    )


def codes(batch=2, places=32):
    return torch.randint(0, CODES, (batch, places), generator=torch.Generator().manual_seed(1))


def numbers(batch=2, places=32, seed=0):
    return uniform(torch.arange(batch) + seed, places, "test")


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_depends_on_no_later_one(kind):
    model = build(kind, **CONDITIONS)
    ids, given = codes(), conditions()
    logits = model(ids, **given)
    for place in (0, 13, 31):
        changed = ids.clone()
        changed[:, place:] = (changed[:, place:] + 1) % CODES
        torch.testing.assert_close(model(changed, **given)[:, : place + 1], logits[:, : place + 1])


@pytest.mark.parametrize(("kind", "blind"), [("full", False), ("sparse", False), ("axial", True), ("blocks", False)])
def test_layers_together_see_all_that_was_before(kind, blind):
    # Column i: which inputs the last place still depends on.
    reach = torch.eye(32, dtype=torch.bool)
    for pattern in patterns(kind, GRID):
        step = torch.zeros(32, 32, dtype=torch.bool)
        for place in range(32):
            step[place, pattern.seen(place)] = True
        reach = (step.float() @ reach.float()) > 0
    assert bool((~reach.tril().logical_or(torch.ones(32, 32).triu(1).bool())).any()) == blind


def test_blocks_are_those_of_the_published_code():
    # 4 frames of 8 x 8 codes are 8 blocks, two of them a frame: each sees itself and the four before it, and in every
    # earlier frame the one that lies as it does.
    (pattern,) = patterns("blocks", (4, 8, 8))
    blocks = {place // 32 for place in pattern.seen(7 * 32)}
    assert blocks == {1, 3, 4, 5, 6, 7} and max(pattern.seen(7 * 32)) == 7 * 32
    # A frame of 32 x 64: lines along both of the first axes.
    (pattern,) = patterns("blocks", (3, 32, 64))
    assert {place // 32 for place in pattern.seen((2 * 64 + 11) * 32)} == (
        {2 * 64 + n for n in (7, 8, 9, 10, 11, 1, 3, 5)} | {11, 64 + 11}
    )
    with pytest.raises(UserError, match=r"does not fit a grid of \(4, 6, 6\)"):
        patterns("blocks", (4, 6, 6))


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("num_codebooks", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_logits_equal_uncached_ones(kind, num_codebooks, static, monkeypatch):
    model = build(kind, num_codebooks=num_codebooks, **CONDITIONS)
    places = 32 * num_codebooks
    seen = []
    monkeypatch.setattr(
        "filmstrip.systems.generation.videogpt.transformer.draw",
        lambda logits, numbers, sampling: seen.append(logits) or logits.argmax(-1),
    )
    prefix = codes(places=7)
    ids = model.generate(numbers(places=places), Sampling(), prefix=prefix, static=static, **conditions())
    assert torch.equal(ids[:, :7], prefix)
    with torch.no_grad():
        whole = model(ids, **conditions())
    torch.testing.assert_close(torch.stack(seen, dim=1), whole[:, 7:], rtol=1e-4, atol=1e-4)


def test_each_code_costs_one_step_whatever_the_length():
    model = build()
    calls = []
    model.embed.register_forward_hook(lambda module, inputs, output: calls.append(output.shape))
    model.generate(numbers(places=20), Sampling())
    assert calls == [(2, 32)] * 20


@pytest.mark.parametrize("prefix", [None, 8, 11, 32])
@pytest.mark.parametrize("piece", [1, 8, 12, 32, 40])
def test_pieces_are_the_whole(prefix, piece):
    model = build()
    prefix = None if prefix is None else codes(places=prefix)
    pieces = list(model.stream(numbers(), Sampling(), piece=piece, prefix=prefix))
    assert [part.shape[1] for part in pieces[:-1]] == [piece] * (len(pieces) - 1)
    assert torch.equal(torch.cat(pieces, dim=1), model.generate(numbers(), Sampling(), prefix=prefix))


def test_samples_do_not_depend_on_their_batch():
    model = build("sparse", **CONDITIONS)
    given = conditions(3)
    sampling = Sampling(temperature=0.9, top_k=8, top_p=0.95, guidance=1.5)
    together = model.generate(numbers(3), sampling, **given)
    for i in range(3):
        alone = model.generate(numbers(1, seed=i), sampling, **{k: v[i : i + 1] for k, v in given.items()})
        assert torch.equal(alone[0], together[i])
    assert not torch.equal(together[0], together[1])


def test_samples_follow_the_model():
    # Two codes on two places: all four outcomes, as often as the model says.
    model = build(codebook_size=2, grid=(1, 1, 2), width=8, num_heads=2)
    ids = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        nats = model(ids).log_softmax(-1).gather(2, ids[..., None])[..., 0].sum(1)
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-5)
    drawn = model.generate(uniform(torch.arange(4000), 2, "test"), Sampling())
    share = (drawn @ torch.tensor([2, 1])).bincount(minlength=4) / 4000
    assert share.tolist() == pytest.approx(nats.exp().tolist(), abs=0.03)


def test_guidance_moves_away_from_the_model_without_its_condition():
    model = build(**CONDITIONS)
    given, none = conditions(), {k: torch.zeros_like(v) for k, v in conditions().items()}
    unguided = model.generate(numbers(), Sampling(guidance=0.0), **given)
    assert torch.equal(unguided, model.generate(numbers(), Sampling(), **none))


@pytest.mark.slow
def test_compiled_steps_draw_the_same():
    model = build("sparse", **CONDITIONS)
    expected = model.generate(numbers(), Sampling(), **conditions())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert torch.equal(model.generate(numbers(), Sampling(), compile=True, **conditions()), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "all steps have the same shapes"


def test_more_codes_than_positions_are_refused():
    with pytest.raises(ValueError, match="32 positions"):
        build().generate(numbers(places=33), Sampling())
    with pytest.raises(ValueError, match="32 positions"):
        build()(codes(places=33))
