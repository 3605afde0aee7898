import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import filmstrip
from colour_videos import write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.runs import encoders
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.runs.initial_weights import start, start_encoder, with_sizes_of_init
from filmstrip.runs.loading import load_classes, load_objective
from run_folders import INFO, save_run


@pytest.fixture
def files(tmp_path):
    return [write_colours(tmp_path / f"{colour}.mp4", colour, frames=24) for colour in ("red", "blue")]


def test_a_run_folder_alone_gives_the_encoder(tmp_path, files):
    objective, run = save_run(tmp_path / "run", "recognition.vit:tiny")
    encoder = filmstrip.load(tmp_path / "run", device="cpu")
    clip = run.data.clip
    assert (encoder.clip, encoder.width, encoder.training) == (clip, objective.encoder.width, False)
    video = encoder.read(files[0])
    assert video.shape == (1, clip.num_frames, 3, clip.size, clip.size) and video.dtype == torch.uint8
    assert (video[:, :, 0] > 200).all() and (video[:, :, 2] < 60).all(), "the first video is red"
    assert encoder.read(files[0], num_clips=3).shape[0] == 3
    both = encoder.encode(files)
    with torch.no_grad():
        expected = [objective.encoder(encoder.read(path)).tokens for path in files]
    torch.testing.assert_close(both.tokens, torch.cat(expected))
    torch.testing.assert_close(encoder.encode(files[1]).pooled()[0], expected[1].mean(dim=1)[0])
    assert len(encoder(video, layers=True).layers) == run.objective.depth


def test_the_hubs_layout_gives_the_encoder(tmp_path, files):
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=48, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=96, decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=3,
    )  # fmt: skip
    model = transformers.VideoMAEModel(config).eval()
    model.save_pretrained(tmp_path / "hub")
    encoder = filmstrip.load(str(tmp_path / "hub"), "cpu")
    assert isinstance(encoder, VideoEncoder) and (encoder.clip.num_frames, encoder.clip.size) == (4, 32)
    video = encoder.read(files[0])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = model((video / 255 - mean) / std).last_hidden_state
    torch.testing.assert_close(encoder.encode(files[0]).tokens, expected, rtol=1e-3, atol=1e-4)


def test_objective_and_classes_of_a_run(tmp_path):
    objective, run = save_run(tmp_path / "run", "recognition.vit:tiny")
    loaded, found = load_objective(tmp_path / "run", "cpu")
    assert found == run and not loaded.training
    assert all(torch.equal(value, objective.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert load_classes(tmp_path / "run") == INFO.classes


def test_fine_tuning_starts_from_the_pretrained_encoder(tmp_path):
    pretrained, _ = save_run(tmp_path / "pretraining", "pretraining.videomae:tiny")
    run = systems.find("recognition.vit:tiny").bound(INFO)
    objective = run.objective.build()
    head = {name: value.clone() for name, value in objective.state_dict().items() if not name.startswith("encoder.")}
    start_encoder(objective, tmp_path / "pretraining")
    theirs = pretrained.encoder.state_dict()
    for name, value in objective.encoder.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    assert all(torch.equal(value, objective.state_dict()[name]) for name, value in head.items())


def test_an_encoder_that_does_not_fit_is_refused(tmp_path):
    save_run(tmp_path / "other", "recognition.vit:tiny", width=48)
    save_run(tmp_path / "shallow", "recognition.vit:tiny", depth=1)
    objective = systems.find("recognition.vit:tiny").bound(INFO).objective.build()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    with pytest.raises(UserError, match=r"other shapes: .*\(.*48.* there, .*96.* here\)"):
        start_encoder(objective, tmp_path / "other")
    with pytest.raises(UserError, match=r"lacks blocks\.1"):
        start_encoder(objective, tmp_path / "shallow")
    with pytest.raises(UserError, match="no encoder"):
        start_encoder(Objective(), tmp_path / "other")
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_what_has_no_encoder_starts_whole_from_its_own_kind(tmp_path):
    first, _ = save_run(tmp_path / "first", "tokenizers.elastictok:tiny")
    save_run(tmp_path / "other", "tokenizers.dvae:tiny")
    save_run(tmp_path / "shallow", "tokenizers.elastictok:tiny", depth=1)
    second = systems.find("tokenizers.elastictok:tiny").objective.build()
    start(second, tmp_path / "first")
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in second.state_dict().items())
    with pytest.raises(UserError, match="holds a DVAE, and this run trains a ElasticTok"):
        start(second, tmp_path / "other")
    with pytest.raises(UserError, match=r"cannot start this network: it lacks .*blocks\.1"):
        start(second, tmp_path / "shallow")


def test_wrong_sources_are_answered_for_people(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        encoders.load(tmp_path / "absent")
    save_run(tmp_path / "run", "recognition.vit:tiny")
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="weights"):
        encoders.load(tmp_path / "run")
    with pytest.raises(UserError, match="does not say what its data were"):
        load_classes(tmp_path)
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        encoders.load(tmp_path / "run")


def test_damaged_files_of_a_run_are_named(tmp_path):
    save_run(tmp_path / "run", "recognition.vit")
    weights = tmp_path / "run/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"weights.safetensors is damaged"):
        load_objective(tmp_path / "run", "cpu")
    (tmp_path / "run/data.json").write_text("x")
    with pytest.raises(UserError, match=r"data.json is damaged"):
        load_classes(tmp_path / "run")


def test_importing_filmstrip_imports_no_torch_and_load_stays_a_function():
    script = (
        "import sys, filmstrip; assert not {'torch', 'numpy', 'av'} & sys.modules.keys();"
        "import filmstrip.runs.encoders as encoders;"
        "assert callable(filmstrip.load) and filmstrip.load is encoders.load;"
        "from filmstrip import read_video; assert callable(read_video)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}


def hub_folder(folder, **changes):
    """A VideoMAE encoder as ``transformers`` saves it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, **SIZES, **changes)
    transformers.VideoMAEModel(config).save_pretrained(folder)
    return str(folder)


def test_a_network_takes_the_sizes_of_what_starts_it(tmp_path, caplog):
    run = replace(systems.find("recognition.vit:tiny"), init=hub_folder(tmp_path / "hub"))
    fitted = with_sizes_of_init(run)
    objective = fitted.objective
    assert (objective.width, objective.depth, objective.num_heads, objective.mlp_ratio) == (48, 2, 3, 2.0)
    assert (objective.patch_size, objective.num_frames, objective.size) == ((2, 8, 8), 4, 32)
    clip = fitted.data.clip
    assert (clip.num_frames, clip.size, clip.short_side) == (4, 32, (32, 32))
    assert f"{run.init} says how large the network is: width 48, depth 2, mlp_ratio 2.0" in caplog.text
    built = fitted.bound(INFO).objective.build()
    start_encoder(built, run.init)
    theirs = encoders.load(run.init, "cpu").encoder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in built.encoder.state_dict().items())
    assert with_sizes_of_init(fitted) == fitted


def test_sizes_that_were_given_and_contradict_are_refused(tmp_path, capsys):
    folder = hub_folder(tmp_path / "hub")
    assert main(["show", "recognition.vit", "--init", folder, "--objective.width", "96"]) == 2
    said = f"filmstrip: objective.width is 96 and the encoder of {folder} has 48: leave it out\n"
    assert capsys.readouterr().err.endswith(said)
    assert main(["show", "recognition.vit", "--init", folder, "--objective.width=48"]) == 0
    assert '"width": 48' in capsys.readouterr().out
    longer = ["--objective.num-frames", "8", "--data.clip.num-frames", "8"]  # its positions are computed
    assert main(["show", "recognition.vit", "--init", folder, *longer]) == 0
    assert '"num_frames": 8' in capsys.readouterr().out


def test_an_images_transformer_leaves_clips_as_they_are(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **SIZES)).save_pretrained(tmp_path)
    run = replace(systems.find("recognition.vivit:tiny"), init=str(tmp_path))
    fitted = with_sizes_of_init(run)
    assert (fitted.objective.width, fitted.objective.depth, fitted.objective.patch_size[1:]) == (48, 2, (8, 8))
    assert fitted.objective.patch_size[0] == run.objective.patch_size[0] and fitted.data.clip == run.data.clip


def test_runs_and_other_methods_keep_their_sizes(tmp_path):
    save_run(tmp_path / "run", "recognition.vit:tiny", width=48)
    for address, init in (("recognition.vit:tiny", "run"), ("recognition.c3d:tiny", "hub")):
        (tmp_path / "hub").exists() or hub_folder(tmp_path / "hub")
        run = replace(systems.find(address), init=str(tmp_path / init))
        assert with_sizes_of_init(run) == run


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"type": "filmstrip.data.config:DataInfo"}'])
def test_damaged_classes_are_named(tmp_path, content):
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(UserError, match=r"data\.json"):
        load_classes(tmp_path)
