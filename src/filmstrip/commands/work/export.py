"""A trained network as one file that runs without its code: torch.export's format, or ONNX.

The file takes uint8 video, ``B T C H W`` with any ``B``, and includes its preprocessing. Optical flow, which no
format can estimate, is a second input, in pixels. A detector's boxes are ``B M 4`` float32 (left, top, right, bottom,
fractions of the frame) with any ``M``; its frames may have any height and width, or only those of training clips if
the network does not support others. The file is read again and must reproduce the network's outputs before it gets
its final name.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from filmstrip import __version__
from filmstrip.commands.export import Part
from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.files import replacing
from filmstrip.inference import encoder_of, inference
from filmstrip.progress import counted
from filmstrip.protocols import Classifier, Detector, Encoder, FlowClassifier, MaskedPredictor, Objective
from filmstrip.runs.classifiers import VideoClassifier
from filmstrip.runs.config import to_json
from filmstrip.runs.contents import is_run
from filmstrip.runs.encoders import load
from filmstrip.runs.loading import load_classes, load_objective

FileFormat = Literal["torch", "onnx"]
ENDINGS: dict[FileFormat, str] = {"torch": ".pt2", "onnx": ".onnx"}
NOTES = "filmstrip.json"
"""Metadata entry in a file: its classes, and how clips are sampled for it."""
TOLERANCE = 1e-3
"""Maximum difference of a file's outputs from the network's, relative to the network's largest output."""
_TRACED, _CHECKED = 2, (1, 3)  # clips in a batch


@dataclass(frozen=True)
class Graph:
    """The module to export, which maps named tensors to a tuple of named tensors."""

    module: nn.Module
    inputs: tuple[str, ...]
    """Names of the inputs in the module's order; their batch size is free."""
    outputs: tuple[str, ...]
    draw: Callable[[int], tuple[Tensor, ...]]
    """Function from a batch size to random inputs."""
    clip: Clip
    classes: tuple[str, ...] = ()
    any_length: tuple[str, ...] = ()
    """Names of the inputs whose second axis is free, too."""
    fixed: Graph | None = None
    """Graph to export instead if this one, with free height and width, cannot be traced."""


class _Classify(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor) -> tuple[Tensor]:
        return (self.model.classify(video).float(),)


class _ClassifyWithFlow(nn.Module):
    def __init__(self, model: FlowClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor, flow: Tensor) -> tuple[Tensor]:
        return (self.model.classify(video, flow).float(),)


class _Detect(nn.Module):
    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor, boxes: Tensor) -> tuple[Tensor]:
        return (self.model.detect(video, boxes),)


class _Encode(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(video)
        return features.tokens, features.pooled()


class _Predict(nn.Module):
    def __init__(self, model: MaskedPredictor) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor, visible: Tensor, hidden: Tensor) -> tuple[Tensor]:
        return (self.model.predict_masked(video, visible, hidden).float(),)


def export(source: str, out: Path, *, format: FileFormat = "torch", part: Part = "model") -> None:
    """Write a run's network, or an encoder of the Hub, and print how far the file's outputs are from the network's.

    Raises:
        UserError: the run has nothing to export, a package is missing, the network has an operation that the format
            does not support, or the file does not reproduce the network's outputs.
    """
    if out.suffix != ENDINGS[format]:
        raise UserError(f"cannot write {out}: --format {format} writes files that end with {ENDINGS[format]}")
    if format == "onnx":
        _need("onnx", "onnxscript")
    wanted = graph_of(source, part)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        path = Path(folder) / out.name
        with counted(f"tracing {source}"), _quiet():
            graph, program = trace_widest(wanted)
            try:
                _WRITE[format](program, graph, path)
            except Exception as error:
                raise UserError(f"{source} cannot be written as {format}: {_reason(error)}") from error
        with counted(f"checking {out}"):
            found = difference(path, graph) if format == "torch" or _has("onnxruntime") else None
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        for file in Path(folder).iterdir():  # ONNX keeps the weights of a network above 2 GB in a file beside it
            with replacing(out.parent / file.name) as unfinished:
                os.replace(file, unfinished)
    print(f"{out}: {', '.join(graph.inputs)} -> {', '.join(graph.outputs)}, {size / 1e6:.1f} MB")
    if wanted.fixed is not None:
        fixed = f"{graph.clip.size} x {graph.clip.size} pixels only: it cannot be traced for other sizes"
        print(f"frames of {'any size' if graph is wanted else fixed}")
    if found is None:
        print("not compared with the network itself: that needs onnxruntime (pip install 'filmstrip[export]')")
    else:
        print(f"largest difference from the network itself {found[0]:.1e}, of outputs up to {found[1]:.3g}")


def graph_of(source: str, part: Part = "model") -> Graph:
    """A run's graph: a classifier (with optical flow as a second input if it uses that), a detector of actions in
    boxes, a masked predictor, or else its encoder.

    Raises:
        UserError: the run has none of them, or the source does not exist.
    """
    if not is_run(source):
        video_encoder = load(source, "cpu")
        if part == "model" and isinstance(video_encoder, VideoClassifier):
            return _classifier_graph(video_encoder.objective, video_encoder.clip, video_encoder.classes)
        return _encoder_graph(video_encoder.encoder, video_encoder.clip)
    objective, run = load_objective(source, "cpu")
    clip = run.data.clip
    if part == "model" and isinstance(objective, FlowClassifier):

        def draw_with_flow(size: int) -> tuple[Tensor, ...]:
            video = _video(clip, size)
            return video, objective.flow(video)

        with_flow = _ClassifyWithFlow(objective).eval()
        return Graph(with_flow, ("video", "flow"), ("logits",), draw_with_flow, clip, load_classes(source))
    if part == "model" and isinstance(objective, Classifier):
        return _classifier_graph(objective, clip, load_classes(source))
    if part == "model" and isinstance(objective, Detector):
        names = ("video", "boxes")
        fixed = Graph(
            _Detect(objective).eval(),
            names,
            ("probabilities",),
            lambda n: (_video(clip, n), _boxes(n)),
            clip,
            load_classes(source),
            any_length=names[1:],
        )
        return replace(fixed, draw=lambda n: (_video(clip, n, _other_sizes(clip, n)), _boxes(n)), fixed=fixed)
    if part == "model" and isinstance(objective, MaskedPredictor):

        def draw(size: int) -> tuple[Tensor, ...]:
            return _video(clip, size), *objective.masks(torch.arange(size))

        predictor, places = _Predict(objective).eval(), ("visible", "hidden")
        return Graph(predictor, ("video", *places), ("predicted",), draw, clip, any_length=places)
    try:
        encoder = encoder_of(objective)
    except UserError:
        raise UserError(
            f"{source} holds a {type(objective).__name__}, which is neither a classifier nor has an encoder: "
            "export takes runs of recognition.*, detection.* and pretraining.*"
        ) from None
    return _encoder_graph(encoder, clip)


def _classifier_graph(objective: Objective, clip: Clip, classes: tuple[str, ...]) -> Graph:
    assert isinstance(objective, Classifier), "checked by the caller"
    return Graph(_Classify(objective).eval(), ("video",), ("logits",), lambda n: (_video(clip, n),), clip, classes)


def _encoder_graph(encoder: Encoder, clip: Clip) -> Graph:
    return Graph(_Encode(encoder).eval(), ("video",), ("tokens", "pooled"), lambda n: (_video(clip, n),), clip)


def trace(graph: Graph) -> ExportedProgram:
    """The network as a graph of torch operations, with free batch size (and numbers of masked positions).

    Raises:
        UserError: the network cannot be traced.
    """
    dims = {name: {0: Dim("batch")} | ({1: Dim(name)} if name in graph.any_length else {}) for name in graph.inputs}
    if graph.fixed is not None:
        dims["video"] |= {3: Dim.AUTO, 4: Dim.AUTO}
    try:
        with torch.no_grad():
            return torch.export.export(graph.module, graph.draw(_TRACED), dynamic_shapes=dims)
    except Exception as error:
        raise UserError(f"this network cannot be exported: {_reason(error)}") from error


def trace_widest(graph: Graph) -> tuple[Graph, ExportedProgram]:
    """The graph that can be traced, and its trace: with frames of any size if possible, else with fixed ones.

    Raises:
        UserError: the network cannot be traced at all.
    """
    if graph.fixed is None:
        return graph, trace(graph)
    try:
        program = trace(graph)
        module = program.module()
        for size in _CHECKED:
            module(*graph.draw(size))
    except (UserError, AssertionError):  # such frames are not supported, or an assumption about sizes is violated
        return graph.fixed, trace(graph.fixed)
    return graph, program


def difference(path: Path, graph: Graph) -> tuple[float, float]:
    """The maximum difference of a file's outputs from the network's, for batch sizes other than the traced one, and
    the maximum output.

    Raises:
        UserError: they differ by more than rounding.
    """
    run = _read_torch(path) if path.suffix == ENDINGS["torch"] else _read_onnx(path, graph)
    worst = largest = 0.0
    for size in _CHECKED:
        inputs = graph.draw(size)
        with inference(graph.module):
            expected = graph.module(*inputs)
            for name, found, wanted in zip(graph.outputs, run(inputs), expected, strict=True):
                apart, scale = (found - wanted).abs().max().item(), wanted.abs().max().item()
                if not apart <= TOLERANCE * scale:
                    raise UserError(
                        f"the exported network differs from the original: {name} by {apart:.1e}, of values up to "
                        f"{scale:.3g}, on a batch of {size}; nothing was written"
                    )
                worst, largest = max(worst, apart), max(largest, scale)
    return worst, largest


def _write_torch(program: ExportedProgram, graph: Graph, path: Path) -> None:
    torch.export.save(program, path, extra_files={NOTES: _notes(graph)})


def _write_onnx(program: ExportedProgram, graph: Graph, path: Path) -> None:
    with torch.no_grad():
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=list(graph.inputs), output_names=list(graph.outputs)
        )
    assert written is not None, "the exporter through torch.export returns its program"
    written.model.metadata_props[NOTES] = _notes(graph)
    written.save(path)


_WRITE: dict[FileFormat, Callable[[ExportedProgram, Graph, Path], None]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
}


def _read_torch(path: Path) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    module = torch.export.load(path).module()
    return lambda inputs: module(*inputs)


def _read_onnx(path: Path, graph: Graph) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs)}
        return tuple(torch.from_numpy(array) for array in session.run(list(graph.outputs), given))

    return run


def _notes(graph: Graph) -> str:
    notes = {"filmstrip": __version__, "clip": to_json(graph.clip), "classes": graph.classes}
    return json.dumps(notes, ensure_ascii=False)


def _video(clip: Clip, size: int, frames: tuple[int, int] | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    shape = (size, clip.num_frames, 3, *(frames or (clip.size, clip.size)))
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _other_sizes(clip: Clip, size: int) -> tuple[int, int]:
    """Height and width of a batch's frames: different for each batch size, some landscape and some portrait."""
    other = clip.size + 32 * size
    return (clip.size, other) if size % 2 else (other, clip.size)


def _boxes(size: int) -> Tensor:
    """Boxes for a batch, with a different number per clip for each batch size."""
    corners = torch.rand(size, 2 * size - 1, 2, 2, generator=torch.Generator().manual_seed(size))
    return corners.sort(dim=2).values.flatten(2)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _need(*packages: str) -> None:
    if missing := [package for package in packages if not _has(package)]:
        raise UserError(f"--format onnx needs {' and '.join(missing)}: pip install 'filmstrip[export]'")


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporters' own messages about their internals are suppressed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
