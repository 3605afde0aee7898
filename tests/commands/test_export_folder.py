"""``filmstrip export`` into folders: what another library reads says what the run says."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.runs.config import write_config
from filmstrip.runs.encoders import load
from filmstrip.runs.initial_weights import start
from filmstrip.runs.loading import load_objective
from run_folders import INFO, save_run

IN_TRANSFORMERS = {
    "recognition.vit:tiny": "VideoMAEForVideoClassification",
    "recognition.timesformer:tiny": "TimesformerForVideoClassification",
    "recognition.vivit:tiny": "VivitForVideoClassification",
    "pretraining.videomae:tiny": "VideoMAEForPreTraining",
}
IN_DIFFUSERS = {"tokenizers.vqgan:tiny": "VQModel", "tokenizers.vae_kl:tiny": "AutoencoderKL"}


def export(folder, out, format, *more):
    return main(["export", str(folder), "--out", str(out), "--format", format, *more])


@pytest.mark.parametrize("address", IN_TRANSFORMERS)
def test_transformers_says_what_the_run_says(tmp_path, capsys, address):
    transformers = pytest.importorskip("transformers")
    objective, run = save_run(tmp_path / "run", address)
    assert export(tmp_path / "run", tmp_path / "out", "transformers") == 0
    said = capsys.readouterr().out
    assert IN_TRANSFORMERS[address] in said and "largest difference from the network itself" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    theirs = getattr(transformers, IN_TRANSFORMERS[address]).from_pretrained(tmp_path / "out").eval()
    clip = run.data.clip
    video = torch.randint(0, 256, (2, clip.num_frames, 3, clip.size, clip.size), dtype=torch.uint8)
    if address.startswith("recognition"):
        assert tuple(theirs.config.id2label.values()) == INFO.classes
        with torch.no_grad():
            expected = objective.classify(video)
            found = theirs(objective.encoder.embed.normalise(video)).logits
        assert (found - expected).abs().max() < 1e-5
    again = load(tmp_path / "out", "cpu")
    assert (again.clip.num_frames, again.clip.size) == (clip.num_frames, clip.size)
    with torch.no_grad():
        pooled, mine = (encoder(video).pooled() for encoder in (again, objective.encoder))
    torch.testing.assert_close(pooled, mine, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("short_side", [None, 72])
def test_the_processor_makes_our_pixels(tmp_path, short_side):
    transformers = pytest.importorskip("transformers")
    run = systems.find("recognition.vit:tiny").bound(INFO)
    clip = replace(run.data.clip, eval_short_side=short_side)
    objective, _ = save_run(tmp_path / "run", "recognition.vit:tiny")
    write_config(replace(run, data=replace(run.data, clip=clip)), tmp_path / "run" / "config.json")
    assert export(tmp_path / "run", tmp_path / "out", "transformers") == 0
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    side = short_side or clip.size
    # Already as large as frames are scaled to, so that no filter of scaling comes in; wider than high.
    video = torch.randint(0, 256, (clip.num_frames, 3, side, side + 16), dtype=torch.uint8)
    top, left = (side - clip.size) // 2, (side + 16 - clip.size) // 2
    cut = video[None, :, :, top : top + clip.size, left : left + clip.size]
    frames = [frame.permute(1, 2, 0).numpy() for frame in video]
    found = processor(frames, return_tensors="pt").pixel_values
    torch.testing.assert_close(found, objective.encoder.embed.normalise(cut), rtol=0, atol=1e-5)
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(found).logits, objective.classify(cut), rtol=0, atol=1e-5)


@pytest.mark.parametrize("address", IN_DIFFUSERS)
def test_diffusers_says_what_the_run_says(tmp_path, capsys, address):
    diffusers = pytest.importorskip("diffusers")
    objective, _ = save_run(tmp_path / "run", address)
    assert export(tmp_path / "run", tmp_path / "out", "diffusers") == 0
    assert "largest difference from the network itself" in capsys.readouterr().out
    theirs = getattr(diffusers, IN_DIFFUSERS[address]).from_pretrained(tmp_path / "out")
    weights = objective.from_published(theirs.state_dict())
    assert weights and all(torch.equal(value, objective.state_dict()[name]) for name, value in weights.items())


def test_what_the_other_library_says_otherwise_is_not_written(tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    save_run(tmp_path / "run", "recognition.vit:tiny")
    written = "filmstrip.commands.work.export_folder.write_tensors"
    from filmstrip.files import write_tensors

    monkeypatch.setattr(written, lambda weights, path: write_tensors({n: t * 1.5 for n, t in weights.items()}, path))
    assert export(tmp_path / "run", tmp_path / "out", "transformers") == 2
    assert "differs from the original" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_what_a_library_does_not_have_is_refused(tmp_path, capsys):
    save_run(tmp_path / "run", "recognition.c3d:tiny")
    assert export(tmp_path / "run", tmp_path / "out", "transformers") == 2
    assert "transformers has no network like this" in capsys.readouterr().err
    assert export(tmp_path / "run", tmp_path / "out", "diffusers") == 2
    assert "diffusers has no network like MLPClassification" in capsys.readouterr().err
    assert export(tmp_path / "run", tmp_path / "out", "run", "--part", "encoder") == 2
    assert "--part encoder goes with --format torch or onnx" in capsys.readouterr().err
    assert export(tmp_path / "run", tmp_path / "run", "run") == 2
    assert "exists: give another --out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["PyTorchVideo", "SlowFast"])
def test_released_weights_start_another_run(tmp_path, capsys, layout):
    objective, run = save_run(tmp_path / "run", "recognition.x3d:tiny")
    file = tmp_path / "x3d.safetensors"
    assert export(tmp_path / "run", file, "released", "--layout", layout) == 0
    fresh = run.objective.build()
    start(fresh, file)
    assert all(
        torch.equal(value, objective.encoder.state_dict()[n]) for n, value in fresh.encoder.state_dict().items()
    )
    assert any(name.startswith("blocks.") == (layout == "PyTorchVideo") for name in load_file(file))
    assert export(tmp_path / "run", file, "released", "--layout", "theirs") == 2
    assert "there are PyTorchVideo, SlowFast" in capsys.readouterr().err
    assert export(tmp_path / "run", tmp_path / "out", "transformers", "--layout", layout) == 2


def test_a_run_is_copied_without_states(tmp_path, capsys):
    objective, run = save_run(tmp_path / "run", "recognition.vit:tiny")
    (tmp_path / "run" / "state" / "000000001").mkdir(parents=True)
    assert export(tmp_path / "run", tmp_path / "out", "run") == 0
    shutil.rmtree(tmp_path / "run")
    again, found = load_objective(tmp_path / "out", "cpu")
    assert found == run and not (tmp_path / "out" / "state").exists()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in objective.state_dict().items())
    assert json.loads((tmp_path / "out" / "data.json").read_text())["classes"] == list(INFO.classes)
