"""Detectors of persons: networks of transformers in a local folder, and the interface of ultralytics."""

import json
import sys
import types
from typing import ClassVar

import numpy as np
import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.runs.person_detectors import _size, load_person_detector

transformers = pytest.importorskip("transformers")


def folder_of(path, kind="yolos", names=("cat", "person"), **preprocessing):
    """A small detector with random weights, in the Hub's layout."""
    torch.manual_seed(0)
    names = dict(enumerate(names))
    if kind == "yolos":
        config = transformers.YolosConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=[32, 48],
            patch_size=8,
            num_detection_tokens=5,
            id2label=names,
            use_mid_position_embeddings=False,
        )
        model = transformers.YolosForObjectDetection(config)
    else:
        backbone = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", out_features=["stage2"]
        )
        config = transformers.DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=backbone,
            num_queries=5,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            id2label=names,
        )
        model = transformers.DetrForObjectDetection(config)
    model.eval().save_pretrained(path)
    told = {"do_resize": False, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(told | preprocessing))
    return path, model


@pytest.fixture
def frames():
    return torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["yolos", "detr"])
def test_boxes_are_those_of_transformers(tmp_path, frames, kind):
    path, model = folder_of(tmp_path, kind)
    found = load_person_detector(str(path), min_score=0.0)(frames)
    cat = load_person_detector(str(path), name="CAT", min_score=0.0)(frames)
    pixels = (frames.float() / 255 - 0.5) / 0.25
    assert len(found) == 2
    for frame, own, others in zip(pixels, found, cat):
        with torch.inference_mode():
            output = model(frame[None])
        scores, labels = output.logits[0].softmax(-1)[:, :-1].max(-1)
        assert len(own) == int((labels == 1).sum()) and len(others) == int((labels == 0).sum())
        for place, actors in ((1, own), (0, others)):
            expected = scores[labels == place].sort(descending=True)
            assert np.allclose([actor.score for actor in actors], expected.values, atol=1e-5)
            for actor, (x, y, w, h) in zip(actors, output.pred_boxes[0][labels == place][expected.indices].tolist()):
                sides = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1)
                assert np.allclose(actor.box, sides, atol=1e-5)
    assert any(len(actors) for actors in (*found, *cat))
    sure = load_person_detector(str(path), min_score=0.999)(frames)
    assert sure == [(), ()]


def test_frames_are_scaled_as_the_folder_says(tmp_path, frames):
    path, _ = folder_of(tmp_path, do_resize=True, size={"shortest_edge": 16, "longest_edge": 100})
    detector = load_person_detector(str(path), min_score=0.0)
    assert detector._pixels(frames[:1]).shape == (1, 3, 16, 24)
    assert _size({"shortest_edge": 800, "longest_edge": 1333}, None, 480, 640) == (800, 1067)
    assert _size({"shortest_edge": 800, "longest_edge": 1333}, None, 480, 1920) == (333, 1333)
    assert _size({"height": 640, "width": 640}, None, 480, 1920) == (640, 640)
    assert _size(800, 1333, 1080, 1920) == (750, 1333) and _size(None, None, 800, 800) == (800, 800)


def test_what_is_no_detector_is_refused_in_words(tmp_path):
    with pytest.raises(UserError, match=r"there is no detector .*: give a folder in the Hub's layout"):
        load_person_detector(str(tmp_path / "absent"))
    path, _ = folder_of(tmp_path, names=("cat", "dog"))
    with pytest.raises(UserError, match=r"has no class 'person'; it has cat, dog \(--detector-class NAME\)"):
        load_person_detector(str(path))
    (path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is a bert; the detectors of transformers that are known here"):
        load_person_detector(str(path))


class Results:
    """What ultralytics returns for an image: boxes with corners as fractions, scores and classes."""

    def __init__(self, boxes, conf, cls):
        self.boxes = types.SimpleNamespace(
            xyxyn=torch.tensor(boxes).view(-1, 4), conf=torch.tensor(conf), cls=torch.tensor(cls)
        )


class YOLO:
    """A stand-in with the documented interface of ultralytics' model: names, predict(image, conf, classes)."""

    asked: ClassVar[list] = []

    def __init__(self, path, task=None):
        self.path, self.names = path, {0: "person", 1: "bicycle"}

    def predict(self, image, *, conf, classes, verbose):
        YOLO.asked.append((image.shape, image[0, 0].tolist(), conf, classes))
        return [
            Results([0.1, 0.2, 0.5, 0.9, 0.0, 0.0, 1.2, 0.5, 0.3, 0.3, 0.4, 0.4], [0.85, 0.95, 0.9], [0.0, 0.0, 1.0])
        ]


def test_the_interface_of_ultralytics(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no file"):
        load_person_detector(f"ultralytics:{tmp_path}/yolo.onnx")
    (tmp_path / "yolo.onnx").write_bytes(b"weights")
    (tmp_path / "yolo.pt").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"unpickles yolo.pt, which can run any code: export it to ONNX"):
        load_person_detector(f"ultralytics:{tmp_path}/yolo.pt")
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(UserError, match="needs the package ultralytics, which is not installed"):
        load_person_detector(f"ultralytics:{tmp_path}/yolo.onnx")
    monkeypatch.setitem(sys.modules, "ultralytics", types.SimpleNamespace(YOLO=YOLO))
    assert load_person_detector(f"ultralytics:{tmp_path}/yolo.pt", trusted=True)
    detector = load_person_detector(f"ultralytics:{tmp_path}/yolo.onnx", min_score=0.8)
    frame = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    frame[:, 0] = 200
    (actors,) = detector(frame)
    assert [actor.score for actor in actors] == pytest.approx([0.95, 0.85])
    assert np.allclose([actor.box for actor in actors], [[0, 0, 1, 0.5], [0.1, 0.2, 0.5, 0.9]])
    assert YOLO.asked == [((8, 16, 3), [0, 0, 200], 0.8, [0])]  # blue, green, red
