import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.query_connector import QueryConnectorConfig
from filmstrip.models.query_transformer import QueryTransformerConfig
from filmstrip.nn.decoding import Writing
from filmstrip.objectives.matching import similar
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.systems.language.blip2 import Blip2Config, Blip2LanguageConfig
from filmstrip.systems.language.instructblip import InstructBlipConfig

TOWER = dict(width=16, depth=1, num_heads=2, num_frames=2, size=16, patch_size=8, pool="class")
QUERIES = dict(num_queries=3, width=16, depth=2, num_heads=2, mlp_dim=32, cross_every=2, max_length=10)
DECODER = DecoderConfig(vocab_size=20, width=16, depth=1, num_heads=2, mlp_dim=32)
PLACE = 19


def first_stage(vocab_size=20):
    torch.manual_seed(0)
    queries = QueryTransformerConfig(**QUERIES, vocab_size=vocab_size)
    return Blip2Config(vision=ImageTowerArchitecture(**TOWER), queries=queries, embed_dim=8).build()


def batch(count=4):
    generator = torch.Generator().manual_seed(1)
    return {
        "video": torch.randint(0, 256, (count, 2, 3, 16, 16), dtype=torch.uint8, generator=generator),
        "text": torch.randint(3, 19, (count, 8), generator=generator),
        "text_length": torch.tensor([8, 5, 6, 3])[:count],
        "index": torch.arange(count),
        "seed": torch.arange(count) + 7,
    }


def test_the_frozen_encoder_is_untouched_and_stays_in_evaluation():
    model = first_stage().train()
    assert not model.encoder.training and model.bridge.training
    before = {name: x.clone() for name, x in model.encoder.state_dict().items()}
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        model(batch()).total.backward()
        optimiser.step()
    assert all(torch.equal(x, before[name]) for name, x in model.encoder.state_dict().items())


@torch.no_grad()
def test_the_most_similar_query_counts():
    model = first_stage().eval()
    told = batch()
    video, text = model.encode_video(told["video"]), model.encode_text(told["text"], told["text_length"])
    assert video.shape == (4, 3, 8) and text.shape == (4, 8)
    want = (video @ text.T).amax(dim=1) * model.log_scale.exp()
    torch.testing.assert_close(model.similarity(video, text), want)
    torch.testing.assert_close(video.norm(dim=-1), torch.ones(4, 3))


def test_hard_negatives_are_similar_and_never_the_same():
    logits = torch.tensor([[9.0, 8.0, -9.0], [0.0, 9.0, 9.0], [0.0, 9.0, 0.0]])
    same = torch.eye(3, dtype=torch.bool)
    same[1, 2] = same[2, 1] = True
    chance = torch.full((3, 1), 0.5)
    assert similar(logits, same, chance).tolist() == [1, 0, 0]


def test_equal_captions_are_no_negatives():
    model = first_stage().eval()
    told = batch(2)
    told["text"], told["text_length"] = told["text"][:1].expand(2, -1), torch.tensor([8, 8])
    loss = model(told)
    assert loss.total.isfinite()
    assert loss.metrics["contrast"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=0.05)


@pytest.mark.parametrize("kind", [Blip2LanguageConfig, InstructBlipConfig])
@pytest.mark.parametrize("vocab_size", [20, 23])
def test_language_models_start_from_the_first_stage(kind, vocab_size):
    first = first_stage(vocab_size)
    has_text = kind is InstructBlipConfig
    queries = QueryTransformerConfig(**QUERIES, vocab_size=20 if has_text else None)
    torch.manual_seed(1)
    model = kind(
        encoder=ImageTowerConfig(**TOWER),
        connector=QueryConnectorConfig(queries=queries),
        decoder=DECODER,
        placeholders=(PLACE,),
    ).build()
    taken = model.taken_from(first)
    began = {name for name in model.state_dict() if not name.startswith("decoder.")} - set(taken)
    other_words = {"connector.reader.bridge.embed.weight"} if has_text and vocab_size != 20 else set()
    assert began == {"connector.project.weight", "connector.project.bias"} | other_words
    model.load_state_dict(taken, strict=False)
    told = batch()
    with torch.no_grad():
        want = first.eval().bridge(first.see(told["video"])).queries
        tokens, _ = model.eval().encoded(told["video"])
        torch.testing.assert_close(model.connector.reader.of_steps(tokens, 1), want)
    assert model.taken_from(model.decoder) is None


@torch.no_grad()
def test_queries_know_the_question_and_not_the_answer():
    torch.manual_seed(0)
    queries = QueryTransformerConfig(**QUERIES, vocab_size=20)
    model = InstructBlipConfig(
        encoder=ImageTowerConfig(**TOWER),
        connector=QueryConnectorConfig(queries=queries, per_frame=True),
        decoder=DECODER,
        placeholders=(PLACE,),
    ).build()
    for parameter in model.connector.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.eval()
    told = batch(1)
    told["text"] = torch.tensor([[1, PLACE, 5, 6, 7, 8, 9, 2]])
    told["learnt"] = torch.tensor([[False] * 5 + [True] * 3])
    seen = model.see(told["video"])

    def read(place=None):
        text = told["text"].clone()
        if place is not None:
            text[0, place] += 4
        return model.in_text(seen, told | {"text": text})

    assert read().shape == (1, 2 * 3, 16)
    assert torch.equal(read(), read(5)) and torch.equal(read(), read(6))
    assert not torch.equal(read(), read(3))
    prompt = {"text": told["text"][:, :5], "text_length": torch.tensor([5])}
    torch.testing.assert_close(model.in_text(seen, prompt), read())


@torch.no_grad()
def test_the_first_stage_writes_captions():
    model = first_stage().eval()
    told = batch()
    said = model.caption(model.see(told["video"]), (4,), end=2, writing=Writing(max_tokens=5, beams=2, min_tokens=2))
    assert said.shape == (4, 5) and not (said == model.starts_caption).any() and not (said[:, :2] == 2).any()
    visual = model.see(told["video"])
    text = torch.tensor([[model.starts_caption, 4]]).expand(4, -1)
    logits = model.words(model.bridge(visual, text, sees="generation").text[:, -1], model.bridge.embed.weight)
    greedy = model.caption(visual, (4,), end=2, writing=Writing(max_tokens=3))
    assert torch.equal(greedy[:, 0], logits[:, : model.starts_caption].argmax(dim=1))
    with pytest.raises(UserError, match="are longer than the 10 tokens"):
        model.caption(visual, (4,), end=2, writing=Writing(max_tokens=9))
