"""Every layer of several encoders probed by one command."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from transformers import ViTConfig, ViTModel

from colour_videos import CLIP, RGB, write_colours
from filmstrip.__main__ import main
from filmstrip.evals import features
from filmstrip.runs import experiment
from filmstrip.systems.pretraining import vjepa
from filmstrip.train.lengths import Steps


@pytest.fixture
def videos(tmp_path):
    """Six training videos and two test videos of each colour."""
    for split, count in (("train", 6), ("test", 2)):
        for colour in RGB:
            for i in range(count):
                write_colours(tmp_path / "videos" / split / colour / f"{i}.mp4", colour)
    return tmp_path / "videos"


@pytest.fixture
def run(tmp_path):
    made = vjepa.tiny()
    made = replace(made, train=replace(made.train, length=Steps(1)), evals=())
    experiment.train(made, tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def hub(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    ViTModel(ViTConfig(**sizes, image_size=CLIP.size, patch_size=8)).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_every_layer_of_every_encoder_from_one_pass(run, hub, videos, tmp_path, capsys, monkeypatch):
    passes = []
    extract = features.extract
    monkeypatch.setattr(features, "extract", lambda *a, **k: passes.append(a[1]) or extract(*a, **k))
    out = tmp_path / "out"
    options = ["--data", str(videos), "--out", str(out), "--k", "3", "--epochs", "2"]
    assert main(["probe", str(run), str(hub), *options]) == 0
    assert passes == ["train", "test"] * 2
    said = capsys.readouterr().out
    assert "ours" in said and "theirs" in said and said.splitlines()[-1] == str(out / "probes.html")
    kept = sorted(path.name for path in (out / "predictions").iterdir())
    assert kept == [f"{name}-{probe}" for name in ("ours", "theirs") for probe in ("attentive", "knn", "linear")]
    with (out / "predictions/ours-knn/predictions.csv").open() as file:
        said = list(csv.DictReader(file))
    assert [row["label"] for row in said] == [colour for colour in sorted(RGB) for _ in range(2)]
    assert all(sum(float(row[f"score_{i}"]) for i in (1, 2, 3)) == pytest.approx(1.0, abs=1e-4) for row in said)
    with (out / "probes.csv").open() as file:
        rows = list(csv.DictReader(file))
    depths = {"ours": 4, "theirs": 2}
    assert [row["encoder"] for row in rows].count("theirs") == 3 * depths["theirs"]
    for name, depth in depths.items():
        for probe in ("linear", "knn", "attentive"):
            mine = [row for row in rows if (row["encoder"], row["probe"]) == (name, probe)]
            assert [int(row["layer"]) for row in mine] == list(range(depth))
            chosen = [row for row in mine if row["chosen"] == "True"]
            assert len(chosen) == 1
            assert float(chosen[0]["held_out_top1"]) == max(float(row["held_out_top1"]) for row in mine)
    assert any(float(row["top1"]) == 1.0 for row in rows if row["probe"] == "linear")  # colours are easily told
    curves = json.loads((out / "probes.json").read_text())
    assert [curve["encoder"] for curve in curves] == ["ours"] * 3 + ["theirs"] * 3
    assert curves[0]["videos"] == 6 and curves[0]["chance"] == pytest.approx(1 / 3)
    page = (out / "probes.html").read_text()
    assert page.count("<svg") == 3 and "depth, as a share of the layers" in page and "theirs" in page


def test_the_values_are_those_of_the_protocols(hub, videos, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["probe", str(hub), "--data", str(videos), "--probes", "linear", "knn", "--k", "3", "--out", str(out)])
        == 0
    )
    found = {(row["probe"], row["layer"]): row for row in csv.DictReader((out / "probes.csv").open())}
    capsys.readouterr()
    for protocol, options in (("linear_probe", []), ("knn", ["--k", "3"])):
        arguments = ["eval", str(hub), "--data", str(videos), "--protocol", protocol, "--choose-layer", *options]
        assert main(arguments) == 0
        said = dict(line.split() for line in capsys.readouterr().out.splitlines())
        name = protocol.removesuffix("_probe")
        for layer in ("0", "1"):
            assert float(said[f"{name}/layer_{layer}/top1"]) == pytest.approx(
                float(found[name, layer]["top1"]), abs=1e-4
            )
        assert found[name, str(int(float(said[f"{name}/chosen_layer"])))]["chosen"] == "True"


def test_what_cannot_be_probed_is_refused(run, videos, tmp_path, capsys):
    def refused(*arguments):
        assert main(["probe", *arguments, "--out", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    assert "nothing to probe" in refused()
    assert "has no data of its own: give --data" in refused("hf:somebody/something")
    assert "use a smaller --k" in refused(str(run), "--data", str(videos), "--k", "99")
    assert "not a run folder" in refused(str(tmp_path / "nowhere"), "--data", str(videos))
    assert not (tmp_path / "out").exists()
