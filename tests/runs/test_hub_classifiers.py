"""Models that classify video, from folders that transformers writes, with their heads."""

import json
from dataclasses import replace

import pytest
import torch
from einops import rearrange

import filmstrip
from colour_videos import write_colours
from filmstrip.__main__ import main
from filmstrip.commands.work.export import Graph, graph_of
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.runs import experiment
from filmstrip.runs.classifiers import VideoClassifier, load_classifier
from filmstrip.runs.hub import hub_classes
from filmstrip.runs.hub_classifiers import start_head
from filmstrip.runs.initial_weights import start
from filmstrip.systems.recognition.vit import ViTConfig
from filmstrip.video.write import write_video

transformers = pytest.importorskip("transformers")

CLASSES = ("red", "green", "blue", "walking the dog", "a", "b", "c")
SIZES = dict(
    image_size=32,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    id2label=dict(enumerate(CLASSES)),
    label2id={name: i for i, name in enumerate(CLASSES)},
)
STATISTICS = dict(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.25])
KINDS = {
    "VideoMAE": lambda: transformers.VideoMAEConfig(**SIZES, patch_size=8, num_frames=4),
    "Timesformer": lambda: transformers.TimesformerConfig(**SIZES, patch_size=8, num_frames=4),
    "Vivit": lambda: transformers.VivitConfig(**SIZES, tubelet_size=[2, 8, 8], num_frames=4),
    "VJEPA2": lambda: transformers.VJEPA2Config(
        **SIZES,
        crop_size=32,
        patch_size=8,
        frames_per_clip=4,
        mlp_ratio=2,
        num_pooler_layers=1,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    ),
}
PROCESSORS = {
    "VideoMAE": ("VideoMAEImageProcessor", dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})),
    "Timesformer": (
        "VideoMAEImageProcessor",
        dict(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    ),
    "Vivit": ("VivitImageProcessor", dict(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})),
    "VJEPA2": ("VJEPA2VideoProcessor", dict(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})),
}


@pytest.fixture
def write(tmp_path):
    """Writes a model with weights large enough that every part matters, and its processor; returns both."""

    def written(kind, **changes):
        torch.manual_seed(0)
        config = KINDS[kind]()
        config.update(changes)
        model = getattr(transformers, f"{kind}ForVideoClassification")(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(tmp_path / "hub")
        name, sizes = PROCESSORS[kind]
        if kind == "VJEPA2":  # whose processor needs torchvision
            told = {"video_processor_type": name, **sizes, **STATISTICS, "do_center_crop": True}
            (tmp_path / "hub/video_preprocessor_config.json").write_text(json.dumps(told))
            return model, None
        processor = getattr(transformers, name)(**sizes, **STATISTICS)
        processor.save_pretrained(tmp_path / "hub")
        return model, processor

    return written


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_theirs(write, tmp_path, kind):
    theirs, _ = write(kind)
    ours = filmstrip.load(tmp_path / "hub", "cpu")
    assert ours.classes == CLASSES
    video = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    scale = 127.5 if kind == "Vivit" else 255.0
    offset = 1.0 if kind == "Vivit" else 0.0
    mean, std = (torch.tensor(STATISTICS[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    pixels = (video / scale - offset - mean) / std
    with torch.no_grad():
        expected = theirs(pixels).logits
        torch.testing.assert_close(ours.classify(video), expected, rtol=1e-4, atol=1e-4)
        assert expected.std() > 0.1
        assert ours(video).tokens.shape[-1] == ours.width == 48
    _, sizes = PROCESSORS[kind]
    side = sizes["size"]["shortest_edge"]
    assert (ours.clip.num_frames, ours.clip.size) == (4, 32)
    assert ours.clip.eval_short_side == (None if side == 32 else side)


def test_frames_are_cut_as_their_processor_cuts_them(write, tmp_path):
    """Up to the filter of scaling and the codec, on a film that is smooth and not square."""
    _, processor = write("Timesformer")
    ramp = torch.linspace(0, 1, 96)[:, None] * torch.linspace(0.2, 1, 144)[None]
    frame = torch.stack([ramp, ramp.flip(1), ramp.flip(0)])
    write_video(tmp_path / "ramp.mp4", frame.expand(8, -1, -1, -1), 8.0)
    cut = filmstrip.load(tmp_path / "hub", "cpu").read(tmp_path / "ramp.mp4")[0, 0] / 255
    pixels = (rearrange(frame, "c h w -> h w c") * 255).byte().numpy()
    expected = processor([pixels] * 4, return_tensors="pt").pixel_values[0, 0]
    mean, std = (torch.tensor(STATISTICS[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    apart = (cut - (expected * std + mean)).abs()
    assert apart.mean() < 0.01 and apart.max() < 0.04
    narrower = filmstrip.load(tmp_path / "hub", "cpu")
    narrower.clip = replace(narrower.clip, eval_short_side=None)  # what would be seen without that setting
    assert (narrower.read(tmp_path / "ramp.mp4")[0, 0] / 255 - (expected * std + mean)).abs().mean() > 0.02


def test_a_file_is_named_by_one_command(write, tmp_path, capsys):
    write("VideoMAE")
    file = write_colours(tmp_path / "flag.mp4", "red", "blue")
    assert main(["predict", str(tmp_path / "hub"), str(file), "--json", "--top-k", "2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    assert [name for name, _ in found["top"]] == [
        name for name, _ in filmstrip.load(tmp_path / "hub").predict(file, top_k=2).top
    ]
    assert main(["explain", str(tmp_path / "hub"), str(file), "--out", str(tmp_path / "where.mp4")]) == 0
    assert "attention rollout" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["VideoMAE", "VJEPA2"])
def test_what_is_exported_is_the_whole_network(write, tmp_path, kind):
    write(kind)
    graph = graph_of(str(tmp_path / "hub"))
    assert isinstance(graph, Graph) and graph.outputs == ("logits",) and graph.classes == CLASSES
    assert graph_of(str(tmp_path / "hub"), "encoder").outputs == ("tokens", "pooled")


def started(folder, classes):
    torch.manual_seed(1)
    sizes = dict(width=48, depth=2, num_heads=4, mlp_ratio=2.0, num_frames=4, size=32, patch_size=(2, 8, 8))
    objective = ViTConfig(**sizes, num_classes=len(classes)).build().eval()
    fresh = objective.head.weight.clone()
    start(objective, str(folder))
    start_head(objective, str(folder), classes)
    return objective, fresh


def test_fine_tuning_goes_on_with_the_head_of_the_same_classes(write, tmp_path, caplog):
    write("VideoMAE")
    ours, _ = started(tmp_path / "hub", tuple(sorted(CLASSES)))
    video = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        found = dict(zip(sorted(CLASSES), ours.classify(video)[0].tolist()))
        expected = dict(zip(CLASSES, filmstrip.load(tmp_path / "hub", "cpu").classify(video)[0].tolist()))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert "which has the same 7 classes" in caplog.text


def test_other_classes_begin_with_a_fresh_head(write, tmp_path, caplog):
    write("VideoMAE")
    ours, fresh = started(tmp_path / "hub", ("up", "down"))
    assert torch.equal(ours.head.weight, fresh)
    assert "the head is fresh" in caplog.text and "and the data 2 classes (up, down)" in caplog.text


def test_evaluation_goes_by_names_of_classes(write, tmp_path):
    write("VideoMAE")
    for name in ("blue", "red"):
        for split in ("train", "test"):
            write_colours(tmp_path / "set" / split / name / "1.mp4", name)
    out = tmp_path / "said.csv"
    words = ["eval", str(tmp_path / "hub"), "--protocol", "multi_view", "--num-clips", "1", "--num-crops", "1"]
    assert main([*words, "--data", str(tmp_path / "set"), "--predictions", str(out), "--top-k", "7"]) == 0
    header, *rows = out.read_text().splitlines()
    assert header.startswith("file,label,class_1,score_1") and len(rows) == 2
    assert set(CLASSES) <= set(rows[0].split(","))
    assert [row.split(",")[1] for row in rows] == ["blue", "red"]
    (tmp_path / "set/test/red").rename(tmp_path / "set/test/jumping")
    with pytest.raises(UserError, match="the model has no class 'jumping'"):
        list(experiment.evaluate(str(tmp_path / "hub"), (MultiView(num_clips=1, num_crops=1),), tmp_path / "set"))


def test_models_without_such_a_head_are_refused_with_words(write, tmp_path):
    write("VideoMAE", use_mean_pooling=False)
    with pytest.raises(UserError, match="classifies by its first token"):
        load_classifier(tmp_path / "hub")
    assert not isinstance(filmstrip.load(tmp_path / "hub"), VideoClassifier)
    config = json.loads((tmp_path / "hub/config.json").read_text())
    (tmp_path / "hub/config.json").write_text(json.dumps({**config, "architectures": ["VideoMAEModel"]}))
    assert hub_classes(str(tmp_path / "hub")) == ()
    with pytest.raises(UserError, match="is an encoder without classes"):
        load_classifier(tmp_path / "hub")
    (tmp_path / "hub/config.json").write_text(
        json.dumps({"model_type": "x_clip", "architectures": ["XForVideoClassification"]})
    )
    with pytest.raises(UserError, match="is a x_clip"):
        load_classifier(tmp_path / "hub")


def test_two_classes_have_no_names_in_a_config(write, tmp_path):
    write("VideoMAE", id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert hub_classes(str(tmp_path / "hub")) == ("LABEL_0", "LABEL_1")
