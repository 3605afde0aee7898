"""LongVLM: what is merged with what, where class tokens stand, what is trained, and what it starts from."""

import dataclasses
import json

import pytest
import torch
from drawn import draw_batch, info_for
from safetensors.torch import save_file
from torch import nn

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.errors import UserError
from filmstrip.protocols import Grid
from filmstrip.systems.language.longvlm import SegmentsConfig

RUN = systems.find("language.longvlm")
RUN = RUN.bound(info_for(RUN.data.reads))


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(RUN.objective, **changes).build().eval()


def seen_by(connector, tokens, grid):
    """Tokens of the language model as they enter its one layer."""
    connector.layers = nn.Identity()
    return connector(tokens, grid)


def test_a_clip_of_the_paper_has_305_tokens():
    connector = SegmentsConfig().build(32, 8)
    assert connector.num_tokens(Grid(100, 16, 16)) == 305
    tokens = torch.randn(1, 5 + 25_600, 32, generator=torch.Generator().manual_seed(0))
    assert connector(tokens, Grid(100, 16, 16)).shape == (1, 305, 8)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 9])
def test_tokens_stay_in_their_segment_and_all_count(steps):
    connector, grid = SegmentsConfig(segments=3, to=4, class_layers=2, num_heads=1).build(3, 3), Grid(steps, 2, 4)
    local = torch.ones(1, steps * 8, 3)
    local[..., 0] = torch.arange(steps).repeat_interleave(8)
    classes = torch.full((1, 2, 3), -1.0)
    found = seen_by(connector, torch.cat([classes, local], dim=1), grid)
    count = min(3, steps)
    assert found.shape[1] == connector.num_tokens(grid) == 2 + 4 * count
    assert (found[:, :2] == -1).all()
    ends = [i * steps // count for i in range(count + 1)]
    for part, low, high in zip(found[0, 2:, 0].split(4), ends, ends[1:]):
        assert low <= part.min() and part.max() <= high - 1


def test_class_tokens_are_means_over_time_of_the_last_layers():
    model = built()
    video = draw_batch(RUN.data, size=2, seed=0)["video"]
    with torch.no_grad():
        features = model.encoder(video, layers=True)
        encoded = model.encoded(video)
        found = seen_by(model.connector, *encoded)
    assert len(features.summaries) == 3 and features.summaries[-1].shape == (2, 6, 64)
    assert not torch.equal(features.summaries[-1], features.summary)  # that one is normalised
    for place, layer in enumerate((-2, -1)):
        torch.testing.assert_close(found[:, place], features.summaries[layer].mean(dim=1))
    last = built(connector=dataclasses.replace(RUN.objective.connector, classes="last"))
    with torch.no_grad():
        behind = seen_by(last.connector, *encoded)
    torch.testing.assert_close(behind, found.roll(-2, dims=1))


def test_an_encoder_without_class_tokens_is_refused():
    encoder = dataclasses.replace(RUN.objective.encoder, pool="none")
    with pytest.raises(UserError, match="class tokens of the last 2 layers, and the encoder has no such"):
        built(encoder=encoder).see(draw_batch(RUN.data, size=1, seed=0)["video"])
    plain = dataclasses.replace(RUN.objective.connector, class_layers=0)
    seen = built(encoder=encoder, connector=plain).see(draw_batch(RUN.data, size=1, seed=0)["video"])
    assert seen.shape[1] == 15


def test_the_linear_layer_alone_is_trained():
    model = built(trains=systems.find("language.longvlm:vicuna_7b").objective.trains)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names == ["connector.layers.0.weight", "connector.layers.0.bias"]


@pytest.fixture
def llava(tmp_path):
    """A LLaVA in its authors' layout, with one layer and no encoder, and the tokens of its texts."""
    decoder = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 262,
        "rms_norm_eps": 1e-6,
    }
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "mm_hidden_size": 64, **decoder}))
    kept = {"model.embed_tokens.weight": (262, 64), "model.norm.weight": (64,), "lm_head.weight": (262, 64)}
    for i in range(2):
        name = f"model.layers.{i}."
        kept |= {name + f"self_attn.{x}_proj.weight": (64, 64) for x in "qkvo"}
        kept |= {name + f"mlp.{x}_proj.weight": (128, 64) for x in ("gate", "up")}
        kept |= {name + "mlp.down_proj.weight": (64, 128)}
        kept |= {name + f"{x}_layernorm.weight": (64,) for x in ("input", "post_attention")}
    kept |= {"model.mm_projector.weight": (64, 64), "model.mm_projector.bias": (64,)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in kept.items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path, weights


def test_it_starts_from_a_llava_of_its_authors_and_an_encoder(llava, tmp_path_factory, capsys):
    folder, weights = llava
    out = tmp_path_factory.mktemp("runs")
    few = ["--train.steps", "1", "--data.num-workers", "0", "--data.batch-size", "2"]
    few += ["--data.synthetic.num-train", "4", "--data.synthetic.num-test", "2"]
    assert main(["train", "language.longvlm:tiny", "--out", str(out / "first"), *few]) == 0
    start = ["train", "language.longvlm:tiny", "--init", f"hf:{folder}", "--data.reads.tokenizer", "bytes", *few]
    start += ["--objective.trains", "connector", "--data.reads.max-length", "512", "--out", str(out / "second")]
    assert main(start) == 2
    assert "holds no encoder: name the one that it is for" in capsys.readouterr().err
    assert main([*start, "--objective.encoder-run", str(out / "first"), "--optim.lr", "1e-9"]) == 0
    from filmstrip.runs.loading import load_objective

    model, first = (load_objective(out / name, "cpu")[0] for name in ("second", "first"))
    torch.testing.assert_close(model.connector.layers[0].weight, weights["model.mm_projector.weight"])
    torch.testing.assert_close(model.decoder.embed.weight, weights["model.embed_tokens.weight"])
    assert all(torch.equal(a, b) for a, b in zip(model.encoder.parameters(), first.encoder.parameters()))
