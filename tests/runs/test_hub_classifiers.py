"""Models that classify video, from folders that transformers writes, with their heads."""

import json
from dataclasses import replace

import pytest
import torch
from einops import rearrange

import filmstrip
from colour_videos import write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work.export import Graph, graph_of
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.runs import experiment
from filmstrip.runs.classifiers import VideoClassifier, load_classifier
from filmstrip.runs.hub import hub_classes
from filmstrip.runs.hub_classifiers import start_head
from filmstrip.runs.initial_weights import start, with_sizes_of_init
from filmstrip.runs.loading import load_objective
from filmstrip.systems.recognition.vit import ViTConfig
from filmstrip.video import read_video
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


def test_an_attentive_head_is_explained_trained_on_and_exported(write, tmp_path, capsys, caplog):
    write("VJEPA2")
    hub, data, out = tmp_path / "hub", tmp_path / "set", tmp_path / "run"
    for split in ("train", "test"):
        for name in CLASSES:
            write_colours(data / split / name / "1.mp4", "red")
    file = data / "test" / "red" / "1.mp4"
    assert main(["explain", str(hub), str(file), "--out", str(tmp_path / "where.mp4")]) == 0
    assert "attention rollout" in capsys.readouterr().out
    assert read_video(tmp_path / "where.mp4").video.shape[2:] == (448, 2 * 448 + 2)
    words = ["train", "recognition.finetuned", "--init", str(hub), "--data", str(data), "--out", str(out)]
    assert main([*words, "--train.steps", "1", "--optim.lr", "1e-9", "--data.num-workers", "0"]) == 0
    assert "which has the same 7 classes" in caplog.text
    objective, run = load_objective(out, "cpu")
    assert (run.objective.pooling_depth, run.objective.pooling_heads) == (1, 4)
    video = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    before = dict(zip(CLASSES, filmstrip.load(hub, "cpu").classify(video).T))
    with torch.no_grad():
        after = dict(zip(sorted(CLASSES), objective.classify(video).T))
    for name in CLASSES:
        torch.testing.assert_close(after[name], before[name].detach(), rtol=1e-3, atol=1e-3)
    assert main(["export", str(out), "--out", str(tmp_path / "again"), "--format", "transformers"]) == 0
    theirs = transformers.VJEPA2ForVideoClassification.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        found = theirs(objective.encoder.embed.normalise(video)).logits
        torch.testing.assert_close(found, objective.classify(video), rtol=0, atol=1e-5)
    assert tuple(theirs.config.id2label.values()) == tuple(sorted(CLASSES))
    assert "from transformers import AutoVideoProcessor, VJEPA2For" in (tmp_path / "again/README.md").read_text()
    again = filmstrip.load(tmp_path / "again", "cpu")
    torch.testing.assert_close(again.encoder.embed.normalise.mean, torch.tensor(STATISTICS["image_mean"]))
    torch.testing.assert_close(again.classify(video), found, rtol=1e-5, atol=1e-5)
    assert (again.clip.num_frames, again.clip.size) == (4, 32)


def test_a_v_jepa_of_another_kind_is_refused(write, tmp_path):
    write("VJEPA2", hidden_act="relu", layer_norm_eps=1e-5)
    with pytest.raises(UserError, match="V-JEPA 2 with hidden_act relu, layer_norm_eps 1e-05: none such is known"):
        load_classifier(tmp_path / "hub")


def test_an_encoder_without_a_head_can_be_trained_too(write, tmp_path, caplog):
    theirs, _ = write("VJEPA2")
    theirs.vjepa2.save_pretrained(tmp_path / "bare")
    run = replace(systems.find("recognition.finetuned:tiny"), init=str(tmp_path / "bare"))
    sized = with_sizes_of_init(run)
    assert sized.objective.pooling == "plain" and sized.data.clip.size == 32
    objective = replace(sized.objective, num_classes=3).build().eval()
    start(objective, str(tmp_path / "bare"))
    video = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = theirs.vjepa2(objective.encoder.embed.normalise(video), skip_predictor=True).last_hidden_state
        torch.testing.assert_close(objective.encoder(video).tokens, expected, rtol=1e-3, atol=1e-3)


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
