"""Tasks around an encoder start from runs of any size or method, models in the Hub's layout, and files."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from filmstrip.__main__ import main
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.errors import UserError
from filmstrip.inference import encoder_of
from filmstrip.runs.encoders import load
from filmstrip.runs.frozen import read_references
from filmstrip.runs.initial_weights import start
from filmstrip.runs.loading import load_objective
from filmstrip.systems import find
from filmstrip.systems.detection.next_contact.model import evenly_spaced
from filmstrip.weights.released import to_published
from run_folders import save_run

TASKS = ("recognition.finetuned:tiny", "detection.next_contact:tiny", "recognition.probe:tiny")


def asked(task, source, *words):
    """The run of a command."""
    return run_from(Train, [task, "--init", str(source), *words], "filmstrip train")[0]


def started(run):
    objective = run.objective.build()
    start(objective, run.init)
    return objective


def equal(encoder, source):
    theirs = load(source, "cpu").encoder.state_dict()
    own = encoder.state_dict()
    return all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.fixture
def hub(tmp_path):
    """Folders of a VideoMAE and of an image's ViT in the Hub's layout."""
    transformers = pytest.importorskip("transformers")
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 6, "num_attention_heads": 3}
    torch.manual_seed(0)
    video = transformers.VideoMAEConfig(**sizes, intermediate_size=96, num_frames=4)
    transformers.VideoMAEModel(video).save_pretrained(tmp_path / "videomae")
    transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=96)).save_pretrained(tmp_path / "vit")
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("source", "sizes"),
    [
        ("pretraining.videomae:tiny", {"width": 48, "depth": 2, "num_heads": 3}),
        ("pretraining.vjepa:tiny", {}),
        ("pretraining.toto:tiny", {"width": 48, "num_heads": 3}),
    ],
)
def test_a_run_of_other_sizes_brings_its_encoder(tmp_path, task, source, sizes):
    _, there = save_run(tmp_path / "there", source, **sizes)
    run = asked(task, tmp_path / "there")
    assert type(run.objective.learner) is type(there.objective) and run.data.clip == there.data.clip
    assert equal(encoder_of(started(run)), tmp_path / "there")


def test_a_detector_reads_layers_of_the_whole_depth_of_another_encoder(tmp_path):
    save_run(tmp_path / "there", "pretraining.videomae:tiny", depth=10, width=24, num_heads=3)
    task = "detection.next_contact:tiny"
    assert asked(task, tmp_path / "there").objective.layers == (2, 4, 6, 8, 10)
    own = asked(task, tmp_path / "there", "--objective.layers", "1", "1", "2", "2", "9")
    assert own.objective.layers == (1, 1, 2, 2, 9)
    save_run(tmp_path / "same", "recognition.vit:tiny", width=64, depth=5, num_heads=4)
    assert asked(task, tmp_path / "same").objective.layers == find(task).objective.layers
    assert [evenly_spaced(depth) for depth in (2, 12, 22)] == [(1, 1, 1, 2, 2), (2, 5, 7, 10, 12), (4, 9, 13, 18, 22)]


def test_frames_of_whole_videos_stay_as_many_as_the_task_says(tmp_path):
    _, there = save_run(tmp_path / "there", "pretraining.toto:tiny", width=48, num_heads=3)
    words = ("--data.clip.sampling", "uniform", "--data.clip.num-frames", "6", "--data.clip.size", "32")
    run = asked("recognition.finetuned:tiny_toto", tmp_path / "there", *words)
    assert (run.data.clip.sampling, run.data.clip.num_frames, there.data.clip.num_frames) == ("uniform", 6, 4)
    assert (run.objective.learner.width, run.objective.learner.num_frames) == (48, 6)
    assert equal(encoder_of(started(run)), tmp_path / "there")
    with pytest.raises(UserError, match=r"leave out data\.clip\.num_frames"):
        asked("recognition.finetuned:tiny_toto", tmp_path / "there", "--data.clip.num-frames", "6")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["videomae", "vit"])
def test_a_model_in_the_hubs_layout_brings_its_encoder(hub, task, kind):
    words = ("--objective.frozen",) if "probe" in task else ()
    run = asked(task, hub / kind, *words)
    frames = 4 if kind == "videomae" else find(task).data.clip.num_frames
    assert (run.data.clip.size, run.data.clip.num_frames, run.objective.learner.depth) == (32, frames, 6)
    assert getattr(run.objective, "layers", evenly_spaced(6)) == evenly_spaced(6) == (1, 2, 4, 5, 6)
    objective = started(run)
    assert equal(encoder_of(objective), hub / kind)
    video = torch.randint(0, 256, (1, frames, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = load(hub / kind, "cpu")(video).tokens
        torch.testing.assert_close(encoder_of(objective)(video).tokens, expected)


def test_what_an_encoder_alone_cannot_do_is_refused(hub, tmp_path):
    with pytest.raises(UserError, match=r"start from a run, or set objective\.learner_weight to 0"):
        asked("recognition.finetuned:tiny_toto", hub / "videomae")
    with pytest.raises(UserError, match=r"start from a run, or set objective\.frozen"):
        asked("recognition.probe:tiny", hub / "videomae")
    with pytest.raises(UserError, match=r"leave out objective\.learner\.width"):
        asked("recognition.finetuned:tiny", hub / "videomae", "--objective.learner.width", "48")
    with pytest.raises(UserError, match=r"leave out data\.clip\.size"):
        asked("recognition.finetuned:tiny", hub / "vit", "--data.clip.size", "64")
    run = asked("recognition.finetuned:tiny", hub / "videomae", "--data.clip.size", "64")  # positions follow
    assert run.objective.learner.size == 64 and equal(encoder_of(started(run)), hub / "videomae")


@pytest.mark.parametrize("task", TASKS[:2])
def test_a_file_of_released_weights_starts_the_encoder(tmp_path, task):
    """Of the preset's sizes: a file says none."""
    given = find("pretraining.videomae:tiny").objective
    source = given.build()
    save_file(
        {name: value.contiguous() for name, value in to_published(source).items()}, tmp_path / "there.safetensors"
    )
    config = find(task).objective
    layers = {"layers": (1, 2, 3, 3, 4)} if "contact" in task else {}
    objective = replace(config, learner=given, **layers).build()
    start(objective, tmp_path / "there.safetensors")
    own, theirs = encoder_of(objective).state_dict(), source.encoder.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.mark.parametrize("task", TASKS[:2])
def test_a_frozen_encoder_is_kept_where_it_came_from(hub, tmp_path, task, synthetic_cache):
    words = ["--train.steps", "1", "--data.batch-size", "2", "--data.num-workers", "0", "--objective.frozen"]
    words += ["--out", str(tmp_path / "run"), "--init", str(hub / "videomae")]
    small = ["--data.synthetic.num-train", "4", "--data.synthetic.num-test", "2"]
    if "finetuned" in task:
        small = ["--data.synthetic.train-per-class", "1", "--data.synthetic.test-per-class", "1"]
    assert main(["train", task, *words, *small]) == 0
    assert read_references(tmp_path / "run").keys() == {"init"}
    objective, _ = load_objective(tmp_path / "run", "cpu")
    assert equal(encoder_of(objective), hub / "videomae")
