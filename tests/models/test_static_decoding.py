"""Decoding with memory of one length: the logits and tokens of memory that grows, by steps that are one graph."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from filmstrip import systems
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.nn.attention import KVCache, StaticKVCache
from filmstrip.nn.sampling import Sampling

PLACE = 41
GREEDY = Sampling(temperature=0.0)
VARIANTS = {
    "llama": {},
    "grouped keys": {"num_kv_heads": 2, "qkv_bias": True},
    "one head of keys": {"num_kv_heads": 1, "qk_norm": True},
    "three axes": {"num_kv_heads": 2, "rope_sections": (2, 3, 3)},
    "window": {"window": 4},
    "gpt2": {"block": "gpt2", "positions": "learned", "max_length": 60},
    "sines": {"positions": "sincos"},
}


def decoder(**options):
    torch.manual_seed(0)
    made = Decoder(DecoderConfig(vocab_size=50, width=64, depth=3, num_heads=4, mlp_dim=96, **options))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.2)
    return made.eval()


def prompt(length=7, rows=3):
    return torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(1))


def decoded(model, steps, *given, **options):
    """The tokens ``B N``, and the logits that each is taken from, ``N B vocab_size``."""
    seen, plain = [], model.next_logits

    def noted(*arguments, **more):
        seen.append(plain(*arguments, **more))
        return seen[-1]

    model.steps, model.next_logits = steps, noted
    try:
        ids = torch.stack(list(model.decode(*given, **options)), dim=1)
    finally:
        del model.next_logits
        model.steps = "growing"
    return ids, torch.stack(seen)


def agree(model, *given, **options):
    ids, logits = decoded(model, "growing", *given, **options)
    same, found = decoded(model, "static", *given, **options)
    assert torch.equal(same, ids)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5 * logits.abs().max().item())
    return ids


@pytest.mark.parametrize("variant", VARIANTS)
def test_static_steps_are_those_of_growing_memory(variant):
    model = decoder(**VARIANTS[variant])
    agree(model, prompt(), torch.zeros(3, 12), GREEDY)
    drawn = torch.rand(3, 12, generator=torch.Generator().manual_seed(2))
    agree(model, prompt(), drawn, Sampling(temperature=1.5, top_k=20), padding=torch.tensor([0, 2, 5]))


def test_positions_along_three_axes_and_embedded_prompts_are_decoded_alike():
    model = decoder(**VARIANTS["three axes"])
    positions = torch.arange(18).view(1, 18, 1).repeat(3, 1, 3)
    positions[:, 2:6, 1:] += torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    padding = torch.tensor([3, 0, 1])
    plain = agree(model, model.embed(prompt()).detach(), torch.zeros(3, 12), GREEDY, padding=padding)
    axes = {"padding": padding, "positions": positions}
    assert not torch.equal(agree(model, model.embed(prompt()).detach(), torch.zeros(3, 12), GREEDY, **axes), plain), (
        "positions are read"
    )


def test_what_is_done_before_blocks_and_a_choice_of_ids_hold_for_static_steps():
    model = decoder()
    change = torch.randn(64, generator=torch.Generator().manual_seed(3))
    options = {"before": lambda i, x: x + change if i == 1 else x, "allowed": slice(10, 20)}
    ids = agree(model, prompt(), torch.zeros(3, 12), GREEDY, **options)
    assert ids.min() >= 10 and ids.max() < 20


def test_memory_that_nothing_was_written_to_is_never_read():
    cache = KVCache(1, 1, 8, 4)
    cache.keys.fill_(float("nan"))
    cache.values.fill_(float("nan"))
    cache.extend(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4))
    held = StaticKVCache(cache)
    keys, values = held.extend(torch.full((1, 1, 1, 4), 2.0), torch.full((1, 1, 1, 4), 3.0))
    assert held.length == 4
    assert keys[0, 0, :, 0].tolist() == [1, 1, 1, 2, 0, 0, 0, 0]
    assert values[0, 0, :, 0].tolist() == [1, 1, 1, 3, 0, 0, 0, 0]


@torch.no_grad()
@pytest.mark.parametrize(
    "address", ["language.qwen2_vl:tiny", "language.internvideo2_5:tiny", "language.lavila:tiny_narrator"]
)
def test_language_models_that_see_answer_the_same(address, monkeypatch):
    """Positions on three axes; memory that holds other numbers of tokens in later blocks; a look between blocks."""
    torch.manual_seed(0)
    config = systems.find(address).objective
    model = (
        (config if address == "language.lavila:tiny_narrator" else replace(config, placeholders=(PLACE,)))
        .build()
        .eval()
    )
    for name, parameter in model.named_parameters():
        if name.startswith("decoder."):
            torch.nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=0.2)
        elif name.endswith("_gate"):
            torch.nn.init.ones_(parameter)
    clip = systems.find(address).data.clip
    shape = (2, clip.num_frames, 3, clip.size, clip.size)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    text = torch.randint(1, 40, (2, 8), generator=torch.Generator().manual_seed(5))
    text[:, 2] = PLACE
    asked = {"text": text, "text_length": torch.tensor([8, 5])}
    said = torch.stack(list(model.answer(model.see(video), asked, count=8)))
    graphs = count_graphs(monkeypatch, "eager")
    for steps in ("static", "compiled"):
        model.decoder.steps = steps
        assert torch.equal(torch.stack(list(model.answer(model.see(video), asked, count=8))), said), steps
    list(model.answer(model.see(video.flip(1)), asked, count=4))
    assert graphs() == 1, "another video needs no other graph"


def count_graphs(monkeypatch, backend):
    """Compile whole graphs or fail, and count from none."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("variant", ["three axes", "window", "gpt2"])
def test_one_graph_serves_all_positions_and_prompts_of_other_lengths(variant, monkeypatch):
    model, padding = decoder(**VARIANTS[variant]), torch.tensor([0, 2, 4])
    ids = torch.stack(list(model.decode(prompt(), torch.zeros(3, 12), GREEDY, padding=padding)), dim=1)
    graphs = count_graphs(monkeypatch, "eager")
    model.steps = "compiled"
    with torch.inference_mode():
        again = torch.stack(list(model.decode(prompt(), torch.zeros(3, 12), GREEDY, padding=padding)), dim=1)
        assert torch.equal(again, ids)
        assert graphs() == 1, "all positions have the same shapes"
        list(model.decode(prompt(9), torch.zeros(3, 4), GREEDY, padding=padding))
        assert graphs() == 1, "a prompt of another length needs no other graph"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["three axes", "gpt2"])
def test_steps_of_machine_code_say_the_same(variant, monkeypatch):
    model, padding = decoder(**VARIANTS[variant]), torch.tensor([0, 2, 4])
    expected = torch.stack(list(model.decode(prompt(), torch.zeros(3, 12), GREEDY, padding=padding)), dim=1)
    graphs = count_graphs(monkeypatch, "inductor")
    model.steps = "compiled"
    with torch.inference_mode():
        found = list(model.decode(prompt(), torch.zeros(3, 12), GREEDY, padding=padding))
    assert torch.equal(torch.stack(found, dim=1), expected)
    assert graphs() == 1
