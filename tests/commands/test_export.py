"""What is written runs without our code, on batches of any size, and says what the network says."""

import json
from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work import export as exporting
from filmstrip.commands.work.export import NOTES, Graph, difference, export, graph_of, trace
from filmstrip.errors import UserError
from run_folders import INFO, save_run

SMALL_VIT = {"width": 24, "depth": 1, "num_heads": 2}
SMALL = {
    "recognition.vit": SMALL_VIT,
    "recognition.timesformer": SMALL_VIT,
    "recognition.r2plus1d": {},
    "pretraining.videomae": {**SMALL_VIT, "decoder_width": 24, "decoder_depth": 1, "decoder_num_heads": 2},
}


@pytest.fixture
def saved(tmp_path):
    def save(name):
        return save_run(tmp_path / "run", f"{name}:tiny", **SMALL[name])

    return save


def clips(clip, size):
    generator = torch.Generator().manual_seed(7)
    shape = (size, clip.num_frames, 3, clip.size, clip.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def read(path, outputs):
    """The file as a function of tensors, by what anybody would read it with."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    names = [given.name for given in session.get_inputs()]
    return lambda *given: [
        torch.from_numpy(x) for x in session.run(outputs, {n: g.numpy() for n, g in zip(names, given)})
    ]


def needs(format):
    if format == "onnx":
        pytest.importorskip("onnxscript", reason="the extra `export`")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("recognition.vit", "torch"),
        ("recognition.timesformer", "torch"),
        ("recognition.r2plus1d", "torch"),
        ("recognition.vit", "onnx"),  # the others take seconds: see the slow test
    ],
)
def test_a_classifier_alone_in_a_file_gives_its_logits(saved, tmp_path, capsys, name, format):
    needs(format)
    objective, run = saved(name)
    path = tmp_path / f"new/model{exporting.ENDINGS[format]}"
    words = [] if format == "torch" else ["--format", "onnx"]
    assert main(["export", str(tmp_path / "run"), "--out", str(path), *words]) == 0
    assert "video -> logits" in (out := capsys.readouterr().out) and "largest difference" in out
    for size in (1, 4):
        video = clips(run.data.clip, size)
        (logits,) = read(path, ["logits"])(video)
        with torch.no_grad():
            expected = objective.classify(video)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_the_mask_of_a_pretraining_network_is_decided_outside(saved, tmp_path, format):
    needs(format)
    objective, run = saved("pretraining.videomae")
    path = tmp_path / f"model{exporting.ENDINGS[format]}"
    export(str(tmp_path / "run"), path, format=format)
    video, places = clips(run.data.clip, 3), torch.stack([torch.randperm(256) for _ in range(3)])
    visible, hidden = places[:, :100], places[:, 100:140]  # neither tubes, nor nine in ten, nor all
    (predicted,) = read(path, ["predicted"])(video, visible, hidden)
    with torch.no_grad():
        expected = objective.predict_masked(video, visible, hidden)
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_optical_flow_is_given_beside_the_video(tmp_path):
    pytest.importorskip("cv2", reason="the extra `flow`")
    objective, run = save_run(tmp_path / "run", "recognition.two_stream:tiny")
    export(str(tmp_path / "run"), tmp_path / "model.pt2")
    video = clips(run.data.clip, 3)
    flow = 5 * torch.randn(3, video.shape[1] - 1, 2, *video.shape[3:], generator=torch.Generator().manual_seed(0))
    (logits,) = read(tmp_path / "model.pt2", ["logits"])(video, flow)
    with torch.no_grad():
        expected = objective.classify(video, flow)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


BOXES = torch.tensor([[0.1, 0.0, 0.5, 0.7], [0.0, 0.0, 1.0, 1.0], [0.6, 0.55, 0.65, 0.6]])


@pytest.mark.parametrize("format", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def test_boxes_and_frames_of_any_number_and_size(tmp_path, capsys, format):
    needs(format)
    backbone = replace(systems.find("recognition.single_frame:tiny").objective, widths=(8,), depths=(1,))
    objective, _ = save_run(tmp_path / "run", "detection.actor_roi:tiny_one_frame", backbone=backbone)
    path = tmp_path / f"model{exporting.ENDINGS[format]}"
    export(str(tmp_path / "run"), path, format=format)
    said = capsys.readouterr().out
    assert "video, boxes -> probabilities" in said and "frames of any size" in said
    detect = read(path, ["probabilities"])
    for count, height, width in ((1, 64, 64), (3, 96, 72), (2, 64, 160)):
        generator = torch.Generator().manual_seed(height)
        video = torch.randint(0, 256, (2, 1, 3, height, width), dtype=torch.uint8, generator=generator)
        boxes = BOXES[:count].expand(2, count, 4).contiguous()
        (found,) = detect(video, boxes)
        with torch.no_grad():
            expected = objective.detect(video, boxes)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert found.shape == (2, count, len(INFO.classes))


def test_a_detector_that_takes_frames_of_one_size_says_so(tmp_path, capsys):
    backbone = replace(systems.find("recognition.vit:tiny").objective, **SMALL_VIT)
    objective, run = save_run(tmp_path / "run", "detection.actor_roi:tiny", backbone=backbone)
    export(str(tmp_path / "run"), tmp_path / "model.pt2")
    assert "frames of 64 x 64 pixels only: it cannot be traced for other sizes" in capsys.readouterr().out
    video = clips(run.data.clip, 1)
    (found,) = read(tmp_path / "model.pt2", ["probabilities"])(video, BOXES[None])
    with torch.no_grad():
        torch.testing.assert_close(found, objective.detect(video, BOXES[None]))


def test_the_encoder_alone(saved, tmp_path):
    objective, run = saved("pretraining.videomae")
    export(str(tmp_path / "run"), tmp_path / "encoder.pt2", part="encoder")
    video = clips(run.data.clip, 1)
    tokens, pooled = read(tmp_path / "encoder.pt2", ["tokens", "pooled"])(video)
    with torch.no_grad():
        expected = objective.encoder(video)
    torch.testing.assert_close(tokens, expected.tokens)
    torch.testing.assert_close(pooled, expected.pooled())


def test_a_file_says_what_its_classes_are_and_how_clips_are_cut(saved, tmp_path):
    _, run = saved("recognition.vit")
    export(str(tmp_path / "run"), tmp_path / "model.pt2")
    kept = {NOTES: ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=kept)
    notes = json.loads(kept[NOTES])
    assert notes["classes"] == list(INFO.classes)
    assert (notes["clip"]["num_frames"], notes["clip"]["stride"]) == (run.data.clip.num_frames, run.data.clip.stride)


def test_a_file_that_says_something_else_is_refused(saved, tmp_path, monkeypatch):
    saved("recognition.vit")
    graph = graph_of(str(tmp_path / "run"))
    torch.export.save(trace(graph), tmp_path / "model.pt2")
    assert difference(tmp_path / "model.pt2", graph)[0] <= 1e-6
    with torch.no_grad():
        graph.module.model.head.bias.add_(0.1)
    with pytest.raises(UserError, match=r"logits by 1\.0e-01"):
        difference(tmp_path / "model.pt2", graph)
    monkeypatch.setitem(exporting._WRITE, "torch", lambda program, graph, path: _spoilt(tmp_path, path))
    with pytest.raises(UserError, match="nothing was written"):
        export(str(tmp_path / "run"), tmp_path / "out/model.pt2")
    assert not list((tmp_path / "out").iterdir())


def _spoilt(folder, path):
    graph = graph_of(str(folder / "run"))
    with torch.no_grad():
        graph.module.model.head.bias.add_(0.1)
    torch.export.save(trace(graph), path)


def test_what_cannot_be_followed_is_said(tmp_path):
    class Counting(torch.nn.Module):
        def forward(self, video):
            return (video.float() * len(video),)  # a plain number: the batch's size is no longer open

    clip = systems.find("recognition.vit").data.clip
    graph = Graph(Counting(), ("video",), ("logits",), lambda n: (clips(clip, n),), clip)
    with pytest.raises(UserError, match=r"cannot be exported: .*batch"):
        trace(graph)


def test_wrong_requests(tmp_path, saved, monkeypatch):
    saved("recognition.vit")
    run = str(tmp_path / "run")
    with pytest.raises(UserError, match=r"onnx writes files that end with \.onnx"):
        export(run, tmp_path / "model.pt2", format="onnx")
    monkeypatch.setattr(exporting, "_has", lambda package: package != "onnxscript")
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'filmstrip\[export\]'"):
        export(run, tmp_path / "model.onnx", format="onnx")
    save_run(tmp_path / "tokenizer", "tokenizers.vqvae3d:tiny")
    with pytest.raises(UserError, match="neither a classifier nor has an encoder"):
        export(str(tmp_path / "tokenizer"), tmp_path / "model.pt2")
    with pytest.raises(UserError, match="no/such/run"):
        export("no/such/run", tmp_path / "model.pt2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in systems.names() if name.startswith(("recog", "pretrain", "detect"))]
)
def test_every_classifier_detector_and_pretraining_network(tmp_path, name):
    save_run(tmp_path / "run", f"{name}:tiny")
    export(str(tmp_path / "run"), tmp_path / "model.pt2")
    pytest.importorskip("onnxscript", reason="the extra `export`")
    export(str(tmp_path / "run"), tmp_path / "model.onnx", format="onnx")
