"""LaViLa's narrator looks, says and ends; its frozen parts stay where they are."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.commands.caption import Caption
from filmstrip.data.config import DataInfo
from filmstrip.data.layouts.manifest import open_manifest
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.nn.decoding import Writing
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Answers
from filmstrip.runs import experiment
from filmstrip.runs.frozen import read_references
from filmstrip.runs.loading import load_objective
from filmstrip.train.lengths import Steps

TOWERS, NARRATOR = (systems.find(f"language.lavila:{name}") for name in ("tiny", "tiny_narrator"))
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def batch():
    return draw_batch(NARRATOR.data, size=3, seed=0)


def built(**changes):
    torch.manual_seed(0)
    own = NARRATOR.bound(info_for(NARRATOR.data.reads)).objective
    model = replace(own, **changes).build().eval()
    for gates in model.gated.values():
        torch.nn.init.constant_(gates.attention_gate, 1.0)
        torch.nn.init.constant_(gates.mlp_gate, 1.0)
    return model


@torch.no_grad()
def test_a_fresh_narrator_says_what_its_language_model_would(batch):
    own = NARRATOR.bound(info_for(NARRATOR.data.reads)).objective
    torch.manual_seed(0)
    model = own.build().eval()
    ids = batch["text"]
    alone = model.decoder.logits(model.decoder(ids[:, :-1]).hidden)
    assert torch.equal(model.logits(model.see(batch["video"]), ids, batch["text_length"]), alone)
    open_ = built()
    assert not torch.allclose(open_.logits(open_.see(batch["video"]), ids, batch["text_length"]), alone, atol=1e-3)


def test_only_what_lies_between_is_trained():
    model = built(trains=("connector",))
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"connector", "gated"}
    model.train()
    assert not model.encoder.training and not model.decoder.training and model.gated["0"].training


@torch.no_grad()
def test_narrations_are_drawn_alone_and_end(batch):
    model = built()
    visual = model.see(batch["video"])
    said = model.narrate(visual, samples=3, count=9, seed=5)
    assert said.shape == (3, 3, 9)
    assert torch.equal(said[1:2], model.narrate(visual[1:2], samples=3, count=9, seed=6))
    assert torch.equal(said[:, :2], model.narrate(visual, samples=2, count=9, seed=5))
    assert len({tuple(row) for row in said.flatten(0, 1).tolist()}) > 3
    most = model.narrate(visual, samples=1, count=9, sampling=GREEDY)[:, 0]
    prompt = {"text": torch.full((3, 1), model.start), "text_length": torch.ones(3, dtype=torch.int64)}
    assert isinstance(model, Answers)
    assert torch.equal(torch.stack(list(model.answer(visual, prompt, count=9)), dim=1)[:, 0], most[:, 0])
    model.decoder.head = torch.nn.Linear(64, model.decoder.vocab_size)  # says nothing but the end
    torch.nn.init.zeros_(model.decoder.head.weight)
    model.decoder.forward = lambda tokens, **_: SimpleNamespace(hidden=torch.zeros(*tokens.shape[:2], 64))
    model.decoder.logits = lambda hidden: torch.eye(128)[model.end].expand(len(hidden), -1) * 99
    assert (model.narrate(visual, samples=2, count=4) == model.end).all()


@torch.no_grad()
def test_a_narration_is_the_most_probable_text_step_by_step(batch):
    model = built()
    visual = model.see(batch["video"])
    text = torch.full((3, 1), model.start)
    for _ in range(6):
        longer = torch.cat([text, text[:, :1]], dim=1)
        logits = model.logits(visual, longer, torch.full((3,), longer.shape[1]))
        text = torch.cat([text, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    said = model.narrate(visual, samples=1, count=6, sampling=GREEDY)[:, 0]
    ended = (said == model.end).cumsum(dim=1) > 0
    assert torch.equal(text[:, 1:].masked_fill(ended, 0), said.masked_fill(ended, 0))
    assert torch.equal(model.caption(visual, end=model.end, writing=writing(6, GREEDY)), said[:, : len(said[0])])


def writing(most, sampling):
    return Writing(max_tokens=most, sampling=sampling)


@torch.no_grad()
def test_beams_find_texts_that_are_at_least_as_probable(batch):
    own = NARRATOR.bound(info_for(NARRATOR.data.reads)).objective.decoder
    model = built(decoder=replace(own, tied=False))
    torch.manual_seed(1)
    for parameter in model.decoder.parameters():  # a language model for which every word depends on those before
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    visual = model.see(batch["video"])
    means = []
    for beams in (1, 4):
        said = model.caption(visual, end=model.end, writing=replace(writing(5, GREEDY), beams=beams))
        length = 1 + ((said == model.end).cumsum(dim=1) <= 1).sum(dim=1).clamp(max=said.shape[1])
        text = torch.cat([torch.full((3, 1), model.start), said], dim=1)
        total, count = model.score(visual, {"text": text, "text_length": length})
        means.append(total / count)
    assert (means[1] >= means[0] - 1e-5).all() and (means[1] > means[0] + 1e-4).any()


@torch.no_grad()
def test_a_text_is_scored_without_its_padding(batch):
    model = built()
    visual = model.see(batch["video"])
    score, count = model.score(visual, batch)
    assert torch.equal(count, batch["text_length"] - 1)
    length = int(batch["text_length"][0])
    short = {"text": batch["text"][:1, :length], "text_length": batch["text_length"][:1]}
    assert torch.allclose(model.score(visual[:1], short)[0], score[:1], atol=1e-4)
    blind = built(sees=False)
    assert torch.equal(blind.see(batch["video"]), torch.zeros(3, 8, 64))


def test_the_temperature_is_fixed_and_towers_start_from_clip():
    clip = systems.find("language.clip:tiny").bound(info_for(TOWERS.data.reads)).objective
    own = TOWERS.bound(info_for(TOWERS.data.reads)).objective
    vision = {"width": 64, "depth": 3, "num_heads": 4, "size": 48, "patch_size": 12, "mlp_ratio": 4.0}
    text = replace(own.text, gelu=clip.text.gelu)
    image = replace(clip, vision=replace(clip.vision, **vision), text=text, embed_dim=16).build()
    towers = own.build()
    assert not towers.log_scale.requires_grad
    assert towers.log_scale.exp().item() == pytest.approx(1 / 0.07)
    taken = towers.taken_from(image)
    towers.load_state_dict(taken, strict=False)
    assert torch.equal(towers.text.embed.weight, image.text.embed.weight)
    block = towers.encoder.blocks[1]
    assert torch.equal(block.attention.qkv.weight, image.encoder.blocks[1].attention.qkv.weight)
    assert not block.time_attention.out.weight.any()  # frames are seen as images at first
    assert torch.equal(towers.encoder.norm_before.weight, image.encoder.norm_before.weight)
    assert towers.taken_from(built()) is None


def small(run, path, **changes):
    clip = replace(run.data.clip, num_frames=2, size=24, short_side=(24, 24))
    data = replace(run.data, path=path, synthetic=None, clip=clip, batch_size=4, num_workers=0)
    objective = replace(run.objective, **changes).for_clip(clip)
    return replace(run, data=data, objective=objective, train=replace(run.train, length=Steps(2)), evals=())


def test_a_narrator_keeps_its_frozen_parts_by_reference(tmp_path):
    transformers = pytest.importorskip("transformers")
    path = NarratedShapes(num_train=8, num_test=2, num_frames=2, size=24).generate(tmp_path / "shapes")
    experiment.train(small(TOWERS, path), tmp_path / "towers")
    torch.manual_seed(0)
    words = open_source(small(NARRATOR, path).data).text_tokenizer.size
    sizes = {"vocab_size": words, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt2")
    parts = {"encoder_run": str(tmp_path / "towers"), "decoder_run": str(tmp_path / "gpt2"), "trains": ("connector",)}
    experiment.train(small(NARRATOR, path, **parts), tmp_path / "narrator")
    assert set(read_references(tmp_path / "narrator")) == {"objective.encoder_run", "objective.decoder_run"}
    model, _ = load_objective(tmp_path / "narrator", "cpu")
    assert not any(p.requires_grad for p in (*model.decoder.parameters(), *model.encoder.parameters()))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2")
    assert torch.equal(model.decoder.embed.weight, theirs.transformer.wte.weight)
    assert model.gated["0"].attention_gate != 0
    out, drawn = tmp_path / "told" / "manifest.csv", {"number": 2, "temperature": 0.7, "top_p": 0.95}
    out.parent.mkdir()
    assert Caption(run=str(tmp_path / "narrator"), videos=path / "test", out=out, max_tokens=6, **drawn)() == 0
    assert [bool(sample.text) for sample in open_manifest(out).samples] == [True, True]
    towers, _ = load_objective(tmp_path / "towers", "cpu")
    assert torch.equal(model.encoder.blocks[0].mlp.fc1.weight, towers.encoder.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"info": DataInfo(classes=(), num_train=1, directional=False)}, "a narrator learns from captions"),
        ({"max_length": 99}, "captions of 99 tokens are longer than the language model's 16"),
        ({"decoder_run": "GPT2"}, "the tokenizer has 500 ids and the language model GPT2 128"),
        ({"start": None}, "begins with the tokenizer's start of text"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    info = info_for(NARRATOR.data.reads)
    own = NARRATOR.objective
    if "info" in changes:
        info = changes["info"]
    elif "max_length" in changes:
        info = replace(info, max_length=99)
    elif "start" in changes:
        info = replace(info, tokenizer=replace(info.tokenizer, start=None))
    else:
        info = replace(info, tokenizer=replace(info.tokenizer, size=500))
        own = replace(own, decoder_run="GPT2")
    with pytest.raises(UserError, match=message):
        own.bind(info)
