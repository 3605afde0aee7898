"""What is refused, or said, before the first step of training: and that nothing is left behind by it."""

import os
import shutil
from dataclasses import replace

import pytest
import torch

from colour_videos import CLIP, RGB, Colours, write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.errors import UserError
from filmstrip.evals.generation import Generation
from filmstrip.evals.knn import KNN
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.evals.multi_view import MultiView
from filmstrip.evals.reconstruction import Reconstruction
from filmstrip.evals.throughput import Throughput
from filmstrip.evals.video_features import FeatureNetwork
from filmstrip.protocols import Objective
from filmstrip.runs import experiment, preflight
from filmstrip.runs.evaluation import Subject
from filmstrip.runs.run_folder import RunFolder
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import SGD, AdamW


@pytest.fixture
def videos(tmp_path):
    """Two training videos and a test video of each colour."""
    for split, count in (("train", 2), ("test", 1)):
        for colour in RGB:
            for i in range(count):
                write_colours(tmp_path / "videos" / split / colour / f"{i}.mp4", colour)
    return tmp_path / "videos"


def tiny(videos, system="recognition.vit", **changes):
    run = systems.find(f"{system}:tiny")
    data = replace(run.data, path=videos, synthetic=None, batch_size=2, num_workers=0)
    return replace(run, data=data, train=Loop(length=Steps(1)), **changes)


def subject_of(videos, objective=None, **changes):
    data = Data(path=videos, clip=CLIP, num_workers=1, **changes)
    return Subject(objective=objective or Colours(), source=open_source(data), data=data, device=torch.device("cpu"))


def refused(run, folder, match, **given):
    """The run is refused, and its folder is as free as before."""
    with pytest.raises(UserError, match=match):
        experiment.train(run, folder, **given)
    assert not (folder / "config.json").exists()


def test_a_sound_run_trains_and_is_evaluated(videos, tmp_path):
    result = experiment.train(tiny(videos), tmp_path / "run", given=("objective.dropout",))
    assert result.metrics["count"] == 3.0


def test_the_evaluated_split_exists_before_the_first_step(videos, tmp_path):
    run = tiny(videos)
    refused(replace(run, data=replace(run.data, eval_split="val")), tmp_path / "run", "no split 'val'")


def test_a_split_of_bad_files_is_refused(videos, tmp_path):
    for file in (videos / "test").rglob("*.mp4"):
        file.write_text("no video")
    refused(tiny(videos), tmp_path / "run", r"none of 3 videos of the split 'test' .* data check")
    write_colours(videos / "test/red/0.mp4", "red")
    experiment.train(tiny(videos), tmp_path / "run")  # one will do


def test_a_file_that_crashes_the_decoder_does_not_end_the_trial(videos, monkeypatch):
    subject = subject_of(videos)
    monkeypatch.setattr("filmstrip.data.kinds.clips.open_video", lambda *_, **__: os._exit(1))
    with pytest.raises(UserError, match="the process that decoded it died"):
        preflight.check_readable(subject.source, subject.data, "test")


def test_a_classifier_of_one_class_is_refused(videos, tmp_path):
    for colour in ("red", "green"):
        shutil.rmtree(videos / "train" / colour)
        shutil.rmtree(videos / "test" / colour)
    refused(tiny(videos), tmp_path / "run", "has one, 'blue': give videos of two classes or more")


def test_a_classifier_needs_every_label(videos, tmp_path):
    rows = ["path,label,split", *(f"train/red/{i}.mp4,red,train" for i in range(2)), "train/blue/0.mp4,,train"]
    (videos / "list.csv").write_text("\n".join([*rows, "test/red/0.mp4,red,test", "test/blue/0.mp4,blue,test"]))
    match = r"learns from labels, and 1 of 3 videos of the split 'train' have none, such as train/blue/0.mp4"
    refused(tiny(videos / "list.csv"), tmp_path / "run", match)


def test_numbers_that_the_data_contradict_are_refused(videos, tmp_path):
    run = tiny(videos)
    run = replace(run, objective=replace(run.objective, num_classes=5))
    refused(run, tmp_path / "run", "objective.num_classes is 5, .* make it 3", given=("objective.num_classes",))
    experiment.train(run, tmp_path / "run")  # a preset's is not the person's


def test_sizes_that_do_not_fit_are_refused(videos, tmp_path):
    run = tiny(videos)
    odd = replace(run.data, clip=replace(run.data.clip, size=7))
    refused(replace(run, data=odd), tmp_path / "run", r"8 frames of 7 x 7 pixels: .* not a multiple of patches")
    heads = replace(run.objective, num_heads=7)
    refused(replace(run, objective=heads), tmp_path / "run", "not a multiple of 7 heads")


def test_data_of_another_kind_are_refused_before_anything_is_decoded(tmp_path):
    run = systems.find("recognition.vit:tiny")
    run = replace(run, data=Data(synthetic=Recipes(), reads=Procedures()))
    refused(run, tmp_path / "run", r"Classification needs 'video', 'label' .*Procedures.* provides")


def test_a_refused_run_leaves_its_folder_free(videos, tmp_path):
    run = tiny(videos)
    refused(replace(run, data=replace(run.data, clips_per_video=3)), tmp_path / "run", "make it a multiple of 3")
    unknown = replace(run, optim=AdamW(rates=(("encodr", 0.0),)))
    refused(unknown, tmp_path / "run", "'encodr' matches .* the nearest are encoder")
    experiment.train(run, tmp_path / "run")


def test_evaluations_without_labels_are_left_out_of_training_and_said(videos, tmp_path, caplog):
    loose = tmp_path / "loose"
    loose.mkdir()
    for i in range(4):
        write_colours(loose / f"{i}.mp4", "red")
    run = tiny(loose, "pretraining.videomae", evals=(LinearProbe(), Throughput(batch_size=1, rounds=1)))
    result = experiment.train(run, tmp_path / "run")
    assert "LinearProbe needs labels" in caplog.text and "is left out" in caplog.text
    assert "forward/seconds" in result.metrics and "linear/best_top1" not in result.metrics
    assert "nothing is evaluated" not in caplog.text
    result = experiment.train(replace(run, evals=run.evals[:1]), tmp_path / "blind")
    assert "nothing is evaluated" in caplog.text and not result.metrics


def test_one_class_cannot_be_probed(videos):
    for colour in ("red", "green"):
        shutil.rmtree(videos / "train" / colour)
        shutil.rmtree(videos / "test" / colour)
    subject = subject_of(videos)
    assert "has one: blue" in LinearProbe().lacking(subject.source, subject.data)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (KNN(k=7), "k is 7, and the training split has 6 labelled videos"),
        (Generation(), "is not a generator"),
        (Reconstruction(), "is not a tokenizer"),
    ],
)
def test_protocols_say_what_they_need(videos, protocol, expected):
    with pytest.raises(UserError, match=expected):
        preflight.check_subject(subject_of(videos), (protocol,))
    assert preflight.check_subject(subject_of(videos), (KNN(k=6), MultiView())) == (KNN(k=6), MultiView())


@pytest.mark.parametrize(
    ("features", "num_videos", "num_frames", "expected"),
    [
        (FeatureNetwork(), 1, 16, "at least two videos"),
        (FeatureNetwork(kind="i3d"), 8, 16, "set --features.source"),
        (FeatureNetwork(kind="i3d", source="no/such/file.pt"), 8, 16, "file.pt is not there"),
        (FeatureNetwork(num_frames=16), 8, 8, "needs at least 16 frames, and these clips have 8"),
    ],
)
def test_feature_networks_are_looked_for(features, num_videos, num_frames, expected):
    with pytest.raises(UserError, match=expected):
        features.check(num_videos, num_frames)
    FeatureNetwork().check(None, 16)


class Draws(Throughput):
    """Looks before training at what it will need, and draws random numbers meanwhile."""

    def check(self, subject):
        torch.rand(3)


def test_what_is_tried_changes_no_training(videos, tmp_path):
    run = tiny(videos, evals=(Throughput(batch_size=1, rounds=1),))
    run = replace(run, objective=replace(run.objective, dropout=0.5))
    plain = experiment.train(run, tmp_path / "plain").objective.state_dict()
    drawn = experiment.train(replace(run, evals=(Draws(batch_size=1, rounds=1),)), tmp_path / "drawn").objective
    assert all(torch.equal(value, plain[name]) for name, value in drawn.state_dict().items())


def test_room_on_the_disk(videos, tmp_path, monkeypatch):
    objective = Objective()
    objective.network = torch.nn.Linear(256, 1024, bias=False)  # 1 MiB
    free = 0

    def usage(path):
        assert path.is_dir()
        return shutil._ntuple_diskusage(2**40, 0, free)

    monkeypatch.setattr(preflight.shutil, "disk_usage", usage)
    # Weights twice, and three states of weights and two moments: two are kept while a new one is written.
    for optim, loop, needed in (
        (AdamW(), Loop(length=Steps(1)), 11 * 2**20),
        (SGD(), Loop(length=Steps(1)), 8 * 2**20),
        (AdamW(), Loop(length=Steps(1), ema=0.9), 14 * 2**20),
    ):
        free = needed
        preflight.check_space(objective, optim, loop, tmp_path / "new/run")
        free = needed - 1
        with pytest.raises(UserError, match="make room"):
            preflight.check_space(objective, optim, loop, tmp_path / "new/run")
    refused(tiny(videos), tmp_path / "run", "GiB for weights and states")
    # What is there already will be replaced.
    RunFolder(tmp_path / "begun")
    (tmp_path / "begun/weights.safetensors").write_bytes(bytes(2**20))
    free = 10 * 2**20
    preflight.check_space(objective, AdamW(), Loop(length=Steps(1)), tmp_path / "begun")


def test_no_more_clips_than_frames(videos):
    samples = open_source(Data(path=videos)).samples
    preflight.check_clips(samples, 16)
    with pytest.raises(UserError, match=r"17 clips are asked for .* at most 16 frames"):
        preflight.check_clips(samples, 17)
    part = [replace(sample, start=0.5, end=1.0) for sample in samples]
    with pytest.raises(UserError, match="at most 4 frames"):
        preflight.check_clips(part, 16)


def test_the_command_line_knows_what_was_typed(videos, tmp_path, capsys):
    words = ["train", "recognition.vit", "--data", str(videos), "--data.num-workers", "0", "--data.batch-size", "2"]
    out = tmp_path / "run"
    assert main([*words, "--objective.num-classes", "7", "--out", str(out)]) == 2
    assert "objective.num_classes is 7, and the data" in capsys.readouterr().err
    assert main([*words, "--train.epochs", "1", "--out", str(out)]) == 0
    assert RunFolder(out).last_step() == 3
    assert main(["eval", str(out), "--protocol", "multi_view", "--num-clips", "500"]) == 2
    assert "at most 16 frames" in capsys.readouterr().err
    assert main(["eval", str(out), "--protocol", "knn", "--k", "99"]) == 2
    assert "k is 99" in capsys.readouterr().err
