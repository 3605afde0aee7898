"""Low-rank adaptation of the encoders of classifiers: what is trained, saved, merged and exported."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from colour_videos import write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.config import Clip, Data
from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.nn.lora import adapted_layers, is_adaptation
from filmstrip.objectives.adaptation import adapt_part, to_peft
from filmstrip.objectives.config import LowRank
from filmstrip.runs import experiment
from filmstrip.runs.config import read_config
from filmstrip.runs.loading import load_objective
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps

NETWORKS = ("vit", "video_swin", "mvit", "hiera", "timesformer", "vivit", "vtn", "uniformer_v2", "finetuned")


def tiny(system):
    torch.manual_seed(0)
    run = systems.find(f"recognition.{system}:tiny")
    return run, run.objective.build()


@pytest.mark.parametrize("system", NETWORKS)
def test_every_adapted_layer_learns_and_nothing_else_of_the_encoder(system):
    run, objective = tiny(system)
    objective.eval()
    clip = run.data.clip
    video = torch.randint(0, 256, (2, clip.num_frames, 3, clip.size, clip.size), dtype=torch.uint8)
    expected = objective.classify(video)
    adapt_part(objective, LowRank(rank=2))
    torch.testing.assert_close(objective.classify(video), expected, msg="it begins as the network itself")
    for name, parameter in objective.named_parameters():
        if is_adaptation(name):
            torch.nn.init.normal_(parameter, std=0.1)
    objective.classify(video).square().sum().backward()
    trained = {name for name, p in encoder_of(objective).named_parameters() if p.requires_grad}
    assert trained and all(is_adaptation(name) for name in trained)
    unused = [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in unused if is_adaptation(name)], unused


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    for colour in ("red", "blue"):
        for number in range(3):
            write_colours(folder / "videos" / colour / f"{number}.mp4", colour, frames=8)
    run = systems.find("recognition.vit:tiny")
    run = replace(
        run,
        data=Data(
            path=folder / "videos",
            clip=Clip(num_frames=4, stride=1, size=16, short_side=(16, 16)),
            batch_size=2,
            num_workers=0,
        ),
        objective=replace(run.objective, width=12, depth=2, num_heads=2, num_frames=4, size=16),
        train=Loop(length=Steps(2), save_every=1, log_every=1),
        evals=(),
    )
    experiment.train(run, folder / "start")
    adapted = replace(run, init=str(folder / "start"), lora=LowRank(rank=2, layers=("qkv", "out")), seed=1)
    experiment.train(replace(adapted, train=replace(adapted.train, length=Steps(4))), folder / "through")
    experiment.train(adapted, folder / "run")
    longer = replace(adapted, train=replace(adapted.train, length=Steps(4)))
    result = experiment.train(replace(longer, init=str(folder / "start")), folder / "run")
    return folder, result


def test_a_run_keeps_its_adaptation_and_loads_merged(trained):
    folder, result = trained
    assert read_config(folder / "run" / "config.json").lora.rank == 2
    weights, start = (load_file(folder / name / "weights.safetensors") for name in ("run", "start"))
    learnt = {name for name in weights if is_adaptation(name)}
    assert (
        learnt == {name for name, _ in result.objective.named_parameters() if is_adaptation(name)}
        and len(learnt) == 8
    )
    same = [name for name in start if name.startswith("encoder.")]
    assert same and all(torch.equal(weights[name], start[name]) for name in same)
    assert not torch.equal(weights["head.weight"], start["head.weight"])
    merged, _ = load_objective(folder / "run", "cpu")
    assert merged.state_dict().keys() == start.keys()
    video = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(merged.classify(video), result.objective.eval().classify(video))
    # Another run starts from the merged weights.
    again = replace(result.run, init=str(folder / "run"), lora=None, train=Loop(length=Steps(1)))
    experiment.train(again, folder / "again")


def test_the_layout_is_that_of_peft(trained, capsys):
    folder, result = trained
    out = folder / "peft"
    assert main(["export", str(folder / "run"), "--format", "peft", "--out", str(out)]) == 0
    config, weights = (
        json.loads((out / "adapter_config.json").read_text()),
        load_file(out / "adapter_model.safetensors"),
    )
    assert (config["r"], config["modules_to_save"]) == (2, ["norm", "head"])
    assert weights["base_model.model.encoder.blocks.0.attention.qkv.lora_A.weight"].shape == (2, 12)
    assert "base_model.model.head.bias" in weights
    assert main(["export", str(folder / "start"), "--format", "peft", "--out", str(folder / "no")]) == 2
    assert "is not adapted (--lora)" in capsys.readouterr().err and not (folder / "no").exists()
    peft = pytest.importorskip("peft")
    base, _ = load_objective(folder / "start", "cpu")
    model = peft.PeftModel.from_pretrained(base, out).eval()
    video = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = result.objective.eval().classify(video)
        torch.testing.assert_close(model.base_model.model.classify(video), expected)


def test_the_command_line_asks_for_it(trained, tmp_path):
    folder, _ = trained
    flags = [
        "--data",
        str(folder / "videos"),
        "--train.steps",
        "1",
        "--data.clip.num-frames",
        "8",
        "--data.num-workers",
        "0",
    ]
    common = ["train", "recognition.vit:tiny", *flags, "--out"]
    assert main([*common, str(tmp_path / "one"), "--lora"]) == 0
    assert main([*common, str(tmp_path / "two"), "--lora.rank", "3", "--lora.layers", "qkv"]) == 0
    found = [read_config(tmp_path / name / "config.json").lora for name in ("one", "two")]
    assert found == [LowRank(), LowRank(rank=3, layers=("qkv",))]


def test_what_cannot_be_adapted_is_refused():
    _, objective = tiny("vit")
    with pytest.raises(UserError, match=r"no linear layer of the encoder ends in 'k_proj'; they end in .*qkv"):
        adapt_part(objective, LowRank(layers=("k_proj",)))
    with pytest.raises(UserError, match="is not adapted"):
        to_peft(objective)
    with pytest.raises(UserError, match="has no linear layer that could be adapted"):
        adapt_part(tiny("r2plus1d")[1], LowRank())
    pretraining = systems.find("pretraining.videomae:tiny").objective.build()
    with pytest.raises(UserError, match="does not fine-tune an encoder"):
        adapt_part(pretraining, LowRank())
    assert not list(adapted_layers(objective))
