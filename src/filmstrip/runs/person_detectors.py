"""Detectors of persons, or of anything else, in single frames: those of transformers and of ultralytics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.data.detection.types import Actor
from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.runs.loading import default_device
from filmstrip.weights.hub import HUB, config_of, folder_of, preprocessing_of, shards_of

ULTRALYTICS = "ultralytics:"
"""Beginning of the name of a detector that ultralytics loads; the path of its file follows."""
PERSON = "person"
_SOFTMAX = ("detr", "yolos", "table-transformer")
"""Kinds of transformers' detectors whose scores are a softmax over the classes and none of them."""
_SIGMOID = ("conditional_detr", "d_fine", "dab-detr", "deformable_detr", "rt_detr", "rt_detr_v2")
"""Kinds whose scores are of each class by itself."""
_SHORT, _LONG = 800, 1333
"""Short side and maximum long side that frames are scaled to where a folder does not say, as of DETR."""
_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PersonDetector(Protocol):
    """A detector of the persons in frames."""

    def __call__(self, frames: Tensor) -> list[tuple[Actor, ...]]:
        """The persons in each frame of ``T C H W`` uint8, by descending score."""
        ...


def load_person_detector(
    source: str, *, name: str = PERSON, min_score: float = 0.8, trusted: bool = False
) -> PersonDetector:
    """The detector in a local folder in the Hub's layout, at ``hf:OWNER/NAME``, or of ultralytics
    (``ultralytics:yolo.onnx``), of the class ``name`` with scores of at least ``min_score``.

    Raises:
        UserError: there is no such detector, it has no such class, a package is missing, or its file can run code and
            is not ``trusted``.
    """
    if source.startswith(ULTRALYTICS):
        return UltralyticsDetector(Path(source.removeprefix(ULTRALYTICS)), name, min_score, trusted=trusted)
    return TransformersDetector(source, name, min_score)


class TransformersDetector:
    """A detector of transformers (DETR, YOLOS and their relatives), which names boxes by queries."""

    def __init__(self, source: str, name: str, min_score: float) -> None:
        if not source.startswith(HUB) and not Path(source).is_dir():
            raise UserError(
                f"there is no detector {source}: give a folder in the Hub's layout, hf:OWNER/NAME, or "
                f"{ULTRALYTICS}FILE"
            )
        folder = folder_of(source)
        config = config_of(source, folder)
        self._kind = config.get("model_type", "model of unknown type")
        if self._kind not in (*_SOFTMAX, *_SIGMOID):
            raise UserError(
                f"{source} is a {self._kind}; the detectors of transformers that are known here are: "
                f"{', '.join(sorted((*_SOFTMAX, *_SIGMOID)))}"
            )
        shards_of(source, folder)
        self._model = _load(source, folder).to(default_device()).eval()
        names = {int(place): str(label) for place, label in self._model.config.id2label.items()}
        self._wanted = list(_places(names, name, source))
        self._min_score = min_score
        self._told = preprocessing_of(folder)

    def __call__(self, frames: Tensor) -> list[tuple[Actor, ...]]:
        """See :class:`PersonDetector`."""
        found = []
        for frame in frames:  # one by one: a batch of large frames takes gigabytes
            with inference(self._model):
                output = self._model(self._pixels(frame[None].to(self._model.device)))
            logits, boxes = output.logits[0].float().cpu(), output.pred_boxes[0].double().cpu()
            whole = logits.softmax(-1)[:, :-1] if self._kind in _SOFTMAX else logits.sigmoid()
            scores, best = whole.max(dim=-1)
            kept = (scores >= self._min_score) & torch.isin(best, torch.tensor(self._wanted))
            centre, size = boxes[kept].split(2, dim=-1)
            found.append(_actors(torch.cat([centre - size / 2, centre + size / 2], dim=-1), scores[kept]))
        return found

    def _pixels(self, frame: Tensor) -> Tensor:
        """A frame ``1 C H W`` uint8 as the network takes it: scaled, and normalised where its folder says so."""
        video = frame.float()
        size = _size(self._told.get("size"), self._told.get("max_size"), *frame.shape[-2:])
        if self._told.get("do_resize", True) and size != tuple(frame.shape[-2:]):
            video = F.interpolate(video, size, mode="bilinear", antialias=True).round().clamp(0, 255)
        if self._told.get("do_rescale", True):
            video = video * self._told.get("rescale_factor", 1 / 255)
        if self._told.get("do_normalize", True):
            mean, std = (
                torch.tensor(self._told.get(key) or default, device=video.device).view(1, 3, 1, 1)
                for key, default in zip(("image_mean", "image_std"), _STATISTICS)
            )
            video = (video - mean) / std
        return video


def _load(source: str, folder: Path) -> Any:
    try:
        from transformers import AutoModelForObjectDetection
    except ImportError:
        raise UserError(
            f"{source} is a detector of transformers, which is not installed: pip install 'filmstrip[language]'"
        ) from None
    try:
        return AutoModelForObjectDetection.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, dtype="float32"
        )
    except ImportError as error:  # timm, of older DETRs
        said = next(filter(None, (line.strip() for line in str(error).splitlines())), "a package is missing")
        raise UserError(f"{source} needs another package: {said}") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{source} cannot be loaded as a detector: {str(error).splitlines()[0]}") from None


def _size(told: Any, longest: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width to scale to: fixed ones, or a short side and the maximum of the long one."""
    if isinstance(told, dict) and "height" in told:
        return int(told["height"]), int(told["width"])
    if isinstance(told, dict):
        short, longest = told.get("shortest_edge", _SHORT), told.get("longest_edge", longest)
    else:
        short = told or _SHORT
    scale = min(float(short) / min(height, width), float(longest or _LONG) / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class UltralyticsDetector:
    """A detector that the package ultralytics runs, from a file on this disk."""

    def __init__(self, path: Path, name: str, min_score: float, *, trusted: bool) -> None:
        if not path.exists():
            raise UserError(f"there is no file {path}: give {ULTRALYTICS}FILE, which is not downloaded")
        if path.suffix.lower() in (".pt", ".pth") and not trusted:
            raise UserError(
                f"ultralytics unpickles {path.name}, which can run any code: export it to ONNX where you trust it "
                f"(yolo export model={path.name} format=onnx), or give --trust-detector"
            )
        try:
            from ultralytics import YOLO
        except ImportError:
            raise UserError(
                f"{path} needs the package ultralytics, which is not installed: pip install ultralytics"
            ) from None
        try:
            self._model = YOLO(str(path), task="detect")
            names = {int(place): str(label) for place, label in dict(self._model.names).items()}
        except Exception as error:  # whatever its many backends raise
            raise UserError(f"ultralytics cannot load {path}: {error}") from None
        self._wanted = set(_places(names, name, str(path)))
        self._min_score = min_score

    def __call__(self, frames: Tensor) -> list[tuple[Actor, ...]]:
        """See :class:`PersonDetector`."""
        found = []
        for frame in frames:
            image = frame.permute(1, 2, 0).flip(-1).contiguous().cpu().numpy()  # as OpenCV has it: H W BGR
            (result,) = self._model.predict(image, conf=self._min_score, classes=sorted(self._wanted), verbose=False)
            own = result.boxes
            classes = torch.as_tensor(own.cls).flatten().long().tolist()
            kept = [place in self._wanted for place in classes]
            boxes = torch.as_tensor(own.xyxyn).double().cpu().view(-1, 4)[kept]
            scores = torch.as_tensor(own.conf).float().cpu().flatten()[kept]
            sure = scores >= self._min_score
            found.append(_actors(boxes[sure], scores[sure]))
        return found


def _places(names: dict[int, str], wanted: str, source: str) -> Iterator[int]:
    """The numbers of the classes of a name, whatever its case.

    Raises:
        UserError: there is none.
    """
    found = [place for place, name in names.items() if name.strip().lower() == wanted.strip().lower()]
    if not found:
        known = [name for name in names.values() if not re.fullmatch(r"LABEL_\d+|N/A", name)]
        raise UserError(
            f"{source} has no class {wanted!r}; it has {', '.join(known[:5]) or 'no names'}"
            f"{f' and {len(known) - 5} more' if len(known) > 5 else ''} (--detector-class NAME)"
        )
    yield from found


def _actors(boxes: Tensor, scores: Tensor) -> tuple[Actor, ...]:
    """Boxes ``N 4`` (left, top, right, bottom, as fractions) within the frame, by descending score."""
    order = scores.argsort(descending=True, stable=True)
    found = []
    for box, score in zip(boxes[order].clamp(0, 1).tolist(), scores[order].tolist()):
        left, top, right, bottom = box
        if left < right and top < bottom:
            found.append(Actor((left, top, right, bottom), score=score))
    return tuple(found)
