"""LWM: streams of text and videos, the losses of both, and what is drawn."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip import systems
from filmstrip.data.kinds.vision_text import VisionText
from filmstrip.errors import UserError
from filmstrip.models.decoder import DecoderConfig
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.text import TextModelConfig
from filmstrip.protocols import Condition
from filmstrip.systems.language.lwm import LWMConfig, VisionSampling
from filmstrip.systems.language.lwm.stream import Alphabet, Grammar, Span, read_stream, streams, write_stream
from filmstrip.systems.tokenizers.vqgan import VQGANConfig

ALPHABET = Alphabet(text=12, codes=5, per_frame=3, begin=(7, 8, 9), end=(7, 10))
TEXT = st.lists(st.integers(0, 6), min_size=1, max_size=6).map(tuple)  # <vision> never comes up by chance
FRAME = st.tuples(*[st.integers(0, ALPHABET.codes - 1)] * ALPHABET.per_frame)
VIDEO = st.lists(FRAME, min_size=1, max_size=4).map(tuple)
SPANS = st.lists(st.one_of(TEXT.map(lambda t: Span(text=t)), VIDEO.map(lambda f: Span(frames=f))), max_size=5)


def merged(spans):
    """Pieces of text that follow each other as one."""
    found = []
    for span in spans:
        if found and span.text and found[-1].text:
            found[-1] = Span(text=found[-1].text + span.text)
        else:
            found.append(span)
    return found


@given(SPANS)
@settings(max_examples=60, deadline=None)
def test_a_stream_is_read_as_it_was_written(spans):
    tokens = write_stream(spans, ALPHABET)
    assert read_stream(tokens, ALPHABET) == merged(spans)
    videos = [span for span in spans if span.frames]
    assert sum(token == ALPHABET.eov for token in tokens) == len(videos)
    assert sum(token == ALPHABET.eof for token in tokens) == sum(len(video.frames) - 1 for video in videos)


def test_a_paper_frame_takes_257_tokens_and_the_last_ends_the_video():
    paper = Alphabet(text=32_000, codes=8192, per_frame=256, begin=(5,), end=(6,))
    assert (paper.eof, paper.eov) == (32_000 + 8192, 32_000 + 8193)
    tokens = write_stream([Span(frames=((0,) * 256,) * 3)], paper)
    assert len(tokens) == 3 * 257 + 2
    assert [tokens[1 + 257 * i - 1] for i in (1, 2, 3)] == [paper.eof, paper.eof, paper.eov] and tokens[-1] == 6


@given(st.integers(0, 2**32 - 1), st.one_of(st.none(), st.integers(1, 3)))
@settings(max_examples=40, deadline=None)
def test_whatever_the_grammar_allows_is_a_stream(seed, frames):
    generator = torch.Generator().manual_seed(seed)
    grammar, tokens = Grammar(ALPHABET, frames), []
    for _ in range(80):
        allowed = grammar.allowed
        choices = list(range(allowed.start, allowed.stop))
        if allowed.start == 0:  # so that videos come up
            choices += list(ALPHABET.begin) * 8
        token = choices[int(torch.randint(len(choices), (1,), generator=generator))]
        grammar.take(token)
        tokens.append(token)
    while grammar._place is not None or grammar._forced:
        token = grammar.allowed.stop - 1
        grammar.take(token)
        tokens.append(token)
    spans = read_stream(tokens, ALPHABET)
    assert write_stream(spans, ALPHABET) == tokens
    if frames is not None:
        assert all(len(span.frames) == frames for span in spans if span.frames)


def test_what_is_no_stream_is_refused():
    for tokens in ([7, 8, 9, 3], [7, 8, 9, 12, 13], [12], [7, 8, 9, 12, 13, 14, ALPHABET.eov, 3]):
        with pytest.raises(UserError, match="no stream of text and videos"):
            read_stream(tokens, ALPHABET)


def test_videos_take_their_places_and_are_learnt_where_these_are():
    text = torch.tensor([[1, 99, 2, 99, 3], [99, 4, 0, 0, 0]])
    place = text == 99
    learnt = torch.tensor([[False, True, False, False, True], [False, True, False, False, False]])
    vision = torch.tensor([[20, 21, 22, 23], [30, 31, 0, 0]])
    found = streams(text, torch.tensor([5, 2]), learnt, place, vision, torch.tensor([[3, 1], [2, 0]]))
    assert found.tokens[0, :7].tolist() == [1, 20, 21, 22, 2, 23, 3] and found.length.tolist() == [7, 3]
    assert found.learnt[0, :7].tolist() == [False, True, True, True, False, False, True]
    assert found.tokens[1, :4].tolist() == [30, 31, 4, 0] and found.learnt[1].sum() == 1


CODES, PER = 16, 4
TOKENIZER = VQGANConfig.small(codebook=Codebook(kind="learnt", size=CODES, dim=8))


@pytest.fixture
def config():
    return LWMConfig(
        tokenizer=TOKENIZER,
        untrained_tokenizer=True,
        num_frames=2,
        size=8,
        decoder=DecoderConfig(vocab_size=20, width=32, depth=2, num_heads=2, mlp_dim=48),
        placeholders=(19,),
        begin=(3, 4),
        end=(4, 3),
        start=1,
    )


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    built = config.build().eval()
    for parameter in built.decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return built


@pytest.fixture
def batch():
    """Two pairs in both orders, and text alone."""
    text = torch.tensor([[1, 6, 7, 3, 4, 19, 4, 3, 2], [1, 3, 4, 19, 4, 3, 8, 2, 0], [1, 9, 10, 11, 12, 2, 0, 0, 0]])
    length = torch.tensor([9, 8, 6])
    at = torch.arange(9)
    generator = torch.Generator().manual_seed(3)
    return {
        "text": text,
        "text_length": length,
        "learnt": (at > 0) & (at < length[:, None]),
        "frames": torch.tensor([[2], [1], [0]]),
        "video": torch.randint(256, (3, 2, 3, 8, 8), generator=generator, dtype=torch.uint8),
    }


def test_each_modality_is_half_of_the_loss_by_its_own_softmax(model, batch):
    stream = model._stream_of(batch)
    assert stream.length.tolist() == [8 + 2 * (PER + 1), 7 + PER + 1, 6]
    hidden = model.decoder(stream.tokens[:, :-1]).hidden
    target, learnt = stream.tokens[:, 1:], stream.learnt[:, 1:]
    text = F.linear(hidden, model.decoder.head.weight).log_softmax(-1)
    seen = F.linear(hidden, model.decoder.vision_head.weight).log_softmax(-1)
    halves = []
    for logs, first, kind in ((text, 0, target < 20), (seen, 20, target >= 20)):
        nats = -logs.gather(2, (target - first).clamp(min=0, max=logs.shape[2] - 1)[..., None])[..., 0]
        own = kind & learnt
        halves.append(((nats * own).sum(1) / own.sum(1).clamp(min=1)).mean())
    found = model(batch)
    torch.testing.assert_close(found.total, sum(halves) / 2)
    torch.testing.assert_close(found.metrics["text"], halves[0])
    torch.testing.assert_close(found.metrics["vision"], halves[1])
    joint = replace(model.config, losses="joint").build().eval()
    joint.load_state_dict(model.state_dict())
    assert joint(batch).total > found.total * 1.01  # among all ids each is less probable


def test_text_alone_has_half_a_loss_of_zero(model, batch):
    alone = {name: value[2:] for name, value in batch.items()}
    for rows in (alone, {name: value for name, value in alone.items() if name not in ("video", "frames")}):
        found = model(rows)
        assert found.metrics["vision"] == 0 and found.total.isfinite() and found.total > 0
        torch.testing.assert_close(found.total * 2, found.metrics["text"])
    found.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("losses", ["halves", "joint"])
def test_examples_that_share_rows_learn_as_if_each_had_its_own(model, config, batch, losses):
    model = replace(config, losses=losses).build()
    lengths = model._stream_of(batch).length.tolist()
    rows = torch.zeros(2, 32, dtype=torch.int64)
    rows[0, : lengths[0]], rows[0, lengths[0] : lengths[0] + lengths[2]] = 1, 3
    rows[1, : lengths[1]] = 2
    results = []
    for each in (batch, batch | {"document": rows}):
        model.zero_grad()
        loss = model(each).total
        loss.backward()
        results.append((loss.detach(), {n: p.grad.clone() for n, p in model.decoder.named_parameters()}))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-6)
    for name, grad in results[0][1].items():
        torch.testing.assert_close(grad, results[1][1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_codes_that_are_given_are_those_of_the_video(model, batch):
    codes, _ = model._codes(batch["video"], batch["frames"])
    found = model(batch | {"tokens": codes.flatten(1)})
    torch.testing.assert_close(found.total, model(batch).total, rtol=0, atol=0)
    assert (model._codes(batch["video"][:1], None)[0] == codes[:1]).all()


def prompt(*ids):
    return ({"text": torch.tensor([ids, ids]), "text_length": torch.tensor([len(ids)] * 2)},)


def drawn(model, sampling, text=None, frames=3, seed=5):
    text = prompt(1, 6, 7, 3, 4) if text is None else text
    condition = Condition(batch_size=2, num_frames=frames, text=text)
    codes = []
    given = model.video_of
    model.video_of = lambda tokens: codes.append(tokens.ids) or given(tokens)
    try:
        video = model.sample(condition, seed=seed, sampling=sampling)
    finally:
        del model.video_of
    return torch.stack(codes, dim=1), video


def test_frames_are_drawn_as_the_whole_stream_says(model):
    """Greedy codes with the cache are those that a pass over the whole stream puts first, the ends of frames between
    them; the first frame follows its own prompt."""
    first, whole = prompt(1, 8, 3, 4)[0], prompt(1, 6, 7, 3, 4)[0]
    greedy = VisionSampling(temperature=0.0, guidance=1.0, later=Sampling(temperature=0.0))
    codes, video = drawn(model, greedy, (first, whole))
    assert codes.shape == (2, 3, PER) and video.shape == (2, 3, 3, 8, 8) and 0 <= codes.min() <= codes.max() < CODES
    own = model.alphabet

    def best(ids):
        hidden = model.decoder(torch.tensor([ids])).hidden[0, -1]
        return int(F.linear(hidden, model.decoder.vision_head.weight)[:CODES].argmax()) + own.text

    ids = [1, 8, 3, 4]
    for _ in range(PER):
        ids.append(best(ids))
    ids = [1, 6, 7, 3, 4, *ids[4:], own.eof]
    for frame in range(2):
        for _ in range(PER):
            ids.append(best(ids))
        ids += [own.eof] * (frame == 0)
    expected = [i - own.text for i in ids[5:] if i != own.eof]
    assert codes[0].flatten().tolist() == expected == codes[1].flatten().tolist()


def test_guidance_of_one_is_none_and_costs_no_second_row(model):
    rows = []
    inner = model.decoder.forward
    model.decoder.forward = lambda tokens, **more: rows.append(len(tokens)) or inner(tokens, **more)
    plain = VisionSampling(guidance=1.0, later=Sampling())
    codes, _ = drawn(model, plain)
    assert set(rows) == {2}
    again, _ = drawn(model, Sampling())
    assert torch.equal(codes, again)
    rows.clear()
    strong, _ = drawn(model, VisionSampling(guidance=4.0, later=Sampling()))
    assert rows[:PER] == [4] * PER and set(rows[PER:]) == {2}
    assert not torch.equal(strong, codes)


def test_guidance_moves_logits_away_from_those_without_text(model):
    greedy = VisionSampling(temperature=0.0, guidance=3.0)
    codes, _ = drawn(model, greedy, frames=1)

    def logits(ids):
        hidden = model.decoder(torch.tensor([ids])).hidden[0, -1]
        return F.linear(hidden, model.decoder.vision_head.weight)[:CODES]

    ids, without = [1, 6, 7, 3, 4], [1, 3, 4]
    for code in codes[0, 0].tolist():
        one, other = logits(ids), logits(without)
        assert int((other + 3 * (one - other)).argmax()) == code
        ids, without = [*ids, code + 20], [*without, code + 20]


def test_a_sample_does_not_depend_on_its_batch_and_follows_frames_that_are_given(model):
    alone = model.sample(
        Condition(batch_size=1, num_frames=3, text=({n: v[1:] for n, v in prompt(1, 6, 7, 3, 4)[0].items()},)),
        seed=6,
        sampling=Sampling(),
    )
    assert torch.allclose(alone[0], drawn(model, Sampling())[1][1], atol=1e-5)
    first = torch.randint(256, (2, 1, 3, 8, 8), dtype=torch.uint8)
    video = model.sample(Condition(batch_size=2, num_frames=3, video=first), seed=0)
    assert video.shape[1] == 3 and torch.equal(video[:, :1], first / 255)
    with pytest.raises(UserError, match="follows text and first frames"):
        model.sample(Condition(batch_size=1, num_frames=1, label=torch.zeros(1, dtype=torch.int64)), seed=0)
    with pytest.raises(UserError, match="of 8 x 8 pixels, not 1 of 16 x 16"):
        model.sample(Condition(batch_size=1, num_frames=2, video=torch.rand(1, 1, 3, 16, 16)), seed=0)


def test_text_and_videos_are_written_in_one_go(model):
    prompts = [torch.tensor([1, 6, 3, 4]), torch.tensor([1, 6])]
    tokens = torch.stack(list(model.write(prompts, count=24, seed=1, frames=2, text=Sampling())), dim=1)
    first = [*prompts[0].tolist(), *tokens[0].tolist()]
    spans = read_stream(first[: first.index(model.alphabet.eov) + 3], model.alphabet)
    assert [len(span.frames) for span in spans] == [0, 2] and spans[0].text == (1, 6)
    grammar = Grammar(model.alphabet, 2)
    for token in [*prompts[1].tolist(), *tokens[1].tolist()]:
        grammar.take(token)
    alone = torch.cat(list(model.write(prompts[1:], count=24, seed=2, frames=2, text=Sampling())))
    assert alone.tolist() == tokens[1].tolist()
    with pytest.raises(UserError, match="this prompt is no stream"):
        next(model.write([torch.tensor([1, 25])], count=1))


def test_answers_are_text_and_read_the_video(model):
    text = {"text": torch.tensor([[1, 6, 3, 4, 19, 4, 3, 8]]), "text_length": torch.tensor([8])}
    video = torch.randint(256, (1, 2, 3, 8, 8), dtype=torch.uint8)
    seen = model.see(video)
    assert seen.shape == (1, 2 * (PER + 1), 1)
    ids = torch.cat(list(model.answer(seen, text, count=6)))
    assert ids.max() < 20
    stream = model._stream_of(text, seen).tokens
    for token in ids.tolist():
        hidden = model.decoder(stream).hidden[0, -1]
        assert int(F.linear(hidden, model.decoder.head.weight).argmax()) == token
        stream = torch.cat([stream, torch.tensor([[token]])], dim=1)
    learnt = torch.zeros(1, 8, dtype=torch.bool)
    learnt[0, -1] = True
    nats, count = model.score(seen, text | {"learnt": learnt})
    assert count == 1 and nats < 0


def test_it_starts_from_a_language_model_of_text_and_says_what_does_not_fit(config):
    words = replace(config.decoder, rope_base=5e5)
    text = TextModelConfig(decoder=words).build()
    model = config.build()
    before = model.decoder.vision_embed.weight.clone()
    taken = model.taken_from(text)
    model.load_state_dict(taken, strict=False)
    assert torch.equal(model.decoder.embed.weight, text.decoder.embed.weight)
    assert torch.equal(model.decoder.vision_embed.weight, before)
    assert {n.removeprefix("decoder.") for n in taken} == set(text.decoder.state_dict())
    deeper = TextModelConfig(decoder=replace(words, depth=3)).build()
    with pytest.raises(UserError, match=r"no place for: decoder\.blocks\.2"):
        model.taken_from(deeper)
    assert model.taken_from(config.build()) is None


def test_with_the_vision_table_unused_it_is_the_llama(config):
    transformers = pytest.importorskip("transformers")
    model = config.build().eval()
    described, weights = model.to_transformers()
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**described)).eval()
    llama.load_state_dict(weights)
    text = torch.randint(20, (2, 11))
    with torch.no_grad():
        ours = model.decoder.logits(model.decoder(text).hidden)[..., :20]
        torch.testing.assert_close(ours, llama(text).logits, rtol=1e-4, atol=1e-5)
    back = model.from_transformers(llama.state_dict())
    assert all(torch.equal(model.get_parameter(name), value) for name, value in back.items())


def test_sizes_that_do_not_fit_are_refused(config):
    with pytest.raises(UserError, match="16 codes with the ends of frames and of videos are 18"):
        replace(config, vision_vocab_size=17).build()
    with pytest.raises(UserError, match="has no rates of muP"):
        replace(config, decoder=replace(config.decoder, base_width=16)).build()
    assert replace(config, vision_vocab_size=32).build().decoder.vision_embed.num_embeddings == 32
    run = systems.find("language.lwm:vision_8k")
    assert run.objective.tokens_of_frame() == (257, 1)
    reads = run.data.reads
    assert isinstance(reads, VisionText) and reads.with_frame_tokens(257, 1, 30).visual_tokens == 7710
