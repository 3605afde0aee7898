"""Frozen in Time: clips grow without a change at first, and time is learnt where the published start cannot."""

import dataclasses
import json
import shutil

import pytest
import torch
from drawn import draw_batch, info_for
from safetensors.torch import load_file, save_file

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.nn.space_time import DividedAttention
from filmstrip.protocols import Grid
from filmstrip.runs.initial_weights import start
from filmstrip.runs.loading import load_objective
from filmstrip.text.tokenizers import open_tokenizer


def built(num_frames=4):
    run = systems.find("language.frozen_in_time")
    run = run.bound(info_for(run.data.reads)).on_clip(dataclasses.replace(run.data.clip, num_frames=num_frames))
    torch.manual_seed(0)
    return run.objective.build().eval(), run


@torch.no_grad()
def test_a_fresh_network_sees_frames_apart():
    """At first patches see their own frame, as in an image; the class token reads all frames."""
    objective, run = built()
    video = draw_batch(run.data, size=2, seed=0)["video"]
    first = objective.encoder(video, layers=True).layers[0].unflatten(1, (4, -1))
    for frame in range(4):
        alone = objective.encoder(video[:, frame : frame + 1], layers=True)
        assert alone.grid == Grid(1, 6, 6)
        torch.testing.assert_close(alone.layers[0], first[:, frame])
    changed = objective.encoder(torch.cat([video[:, :3], video.roll(1, dims=0)[:, 3:]], dim=1))
    assert not torch.allclose(changed.summary, objective.encoder(video).summary)


@torch.no_grad()
def test_attention_over_an_axis_sees_that_axis_and_the_class_token():
    torch.manual_seed(0)
    attention = DividedAttention(16, 2)
    x, grid = torch.randn(1, 1 + 12, 16), Grid(3, 2, 2)
    for along, seen in (("space", [1, 2, 3, 4]), ("time", [2, 6, 10])):
        before = attention(x, grid, along=along)
        for token in range(13):
            changed = x.clone()
            changed[:, token] += 1
            differs = (attention(changed, grid, along=along)[0] != before[0]).any(dim=1)
            assert differs[0]  # the class token reads everything
            assert bool(differs[2]) == (token == 0 or token in seen), (along, token)


def test_longer_clips_go_on_where_shorter_ones_ended(tmp_path, synthetic_cache, capsys):
    few = ["--train.steps", "2", "--data.synthetic.num-train", "12", "--data.synthetic.num-test", "4"]
    few += ["--data.num-workers", "0", "--data.batch-size", "4"]
    one, four = tmp_path / "one", tmp_path / "four"
    assert main(["train", "language.frozen_in_time", "--data.clip.num-frames", "1", "--out", str(one), *few]) == 0
    assert main(["train", "language.frozen_in_time", "--init", str(one), "--out", str(four), *few]) == 0
    objective, _ = built()
    start(objective, one)
    shorter, _ = built(1)
    start(shorter, one)
    begun, before = objective.state_dict(), shorter.state_dict()
    assert begun["encoder.time_pos_embed"].shape[0] == 4 and before["encoder.time_pos_embed"].shape[0] == 1
    assert torch.equal(begun["encoder.time_pos_embed"][:1], before["encoder.time_pos_embed"])
    assert before["encoder.time_pos_embed"].any() and not begun["encoder.time_pos_embed"][1:].any()
    others = [name for name in begun if not name.endswith("time_pos_embed")]
    assert all(torch.equal(begun[name], before[name]) for name in others)
    videos = NarratedShapes(num_train=12, num_test=4, num_frames=4, size=48, labels="form").generate()
    capsys.readouterr()
    assert main(["search", str(four), str(videos), "a red disc", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"][0]["found"]
    assert len(found) == 10 and all(-1 <= one["similarity"] <= 1 for one in found)


def test_longer_clips_than_the_network_was_built_for_are_refused():
    objective, run = built()
    video = draw_batch(run.data, size=1, seed=0)["video"]
    with pytest.raises(ValueError, match="built for a grid of"):
        objective.encoder(torch.cat([video, video], dim=1))


def test_captions_that_are_too_long_are_refused():
    run = systems.find("language.frozen_in_time")
    with pytest.raises(UserError, match="longer than the network's"):
        run.bound(dataclasses.replace(info_for(run.data.reads), max_length=99))


def test_time_is_learnt():
    """Queries and keys of attention over time leave their start, which those of the published code never do."""
    objective, run = built()
    start_of = {name: value.clone() for name, value in objective.named_parameters()}
    optimiser = torch.optim.AdamW(objective.parameters(), lr=1e-3, weight_decay=0.0)
    for seed in range(3):
        optimiser.zero_grad()
        objective(draw_batch(run.data, size=4, seed=seed)).total.backward()
        optimiser.step()
    for name, value in objective.named_parameters():
        if name.endswith("time_attention.qkv.weight"):
            q, k, _ = (value - start_of[name]).chunk(3)
            assert q.any() and k.any()


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "big", "small", "red", "blue", "disc", "square", "moves"]
KINDS = {"bert": "Bert", "distilbert": "DistilBert"}


@pytest.fixture(scope="module", params=KINDS)
def text_model(request, tmp_path_factory):
    """A small random BERT or DistilBERT, as its folder, and the model itself."""
    transformers = pytest.importorskip("transformers")
    folder, kind = tmp_path_factory.mktemp(request.param), KINDS[request.param]
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    if kind == "DistilBert":
        sizes = {"dim": 24, "hidden_dim": 40, "n_layers": 2, "n_heads": 3}
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(WORDS), max_position_embeddings=20, **sizes)
    torch.manual_seed(3)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name.lower() and "weight" in name), std=0.3)
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder, model


def few(*more):
    words = ["train", "language.frozen_in_time", "--data.synthetic.num-train", "12", "--data.synthetic.num-test", "4"]
    return [*words, "--data.num-workers", "0", "--data.batch-size", "4", "--optim.lr", "1e-12", *more]


def test_texts_begin_as_a_bert(text_model, tmp_path, synthetic_cache):
    folder, theirs = text_model
    out = tmp_path / "run"
    command = few("--objective.text-run", f"hf:{folder}", "--out", str(out), "--optim.weight-decay", "0")
    assert main([*command, "--train.steps", "1"]) == 0
    assert main([*command, "--train.steps", "2"]) == 0  # it goes on
    objective, run = load_objective(out, "cpu")
    text = run.objective.text
    assert (text.width, text.depth, text.num_heads, text.mlp_ratio) == (24, 2, 3, 40 / 24)
    ids, lengths = torch.tensor([[2, 5, 8, 10, 12, 3], [2, 7, 11, 3, 0, 0]]), torch.tensor([6, 4])
    with torch.no_grad():
        mask = (torch.arange(6) < lengths[:, None]).long()
        first = theirs(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        expected = torch.nn.functional.normalize(objective.text_head(first.relu()), dim=1)
        torch.testing.assert_close(objective.encode_text(ids, lengths), expected, rtol=1e-4, atol=1e-5)
    told = open_tokenizer(out)
    assert told.encode("a red disc") == [5, 8, 10] and len(objective.text.embed.weight) == told.size


def test_other_models_of_text_are_refused(text_model, tmp_path, synthetic_cache, capsys):
    folder, _ = text_model
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    command = few("--objective.text-run", str(other), "--out", str(tmp_path / "run"))

    def refused(message, **changes):
        config = json.loads((folder / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | changes))
        assert main(command) == 2
        assert message in capsys.readouterr().err

    refused("can begin as a BERT or a DistilBERT", model_type="roberta")
    refused("'gelu' and absolute positions are known", hidden_act="relu", activation="relu")
    refused("has other shapes", max_position_embeddings=30)
    state = load_file(folder / "model.safetensors")
    gone = next(name for name in state if name.endswith("LayerNorm.weight"))
    save_file({name: x for name, x in state.items() if name != gone}, other / "model.safetensors")
    refused("cannot start the tower of texts: it lacks text.embed_norm.weight")
    save_file(state | {"adapter.weight": torch.ones(2)}, other / "model.safetensors")
    refused("no place for: adapter.weight")
