"""Features of a frozen encoder, at every layer, for probes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from filmstrip.data.features import FeatureSource, FeatureWriter
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.distributed import process
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import encoder_of, inference
from filmstrip.progress import tracked
from filmstrip.protocols import Batch, Features, Grid
from filmstrip.runs.config import to_json
from filmstrip.runs.evaluation import Subject
from filmstrip.runs.predictions import Predictions
from filmstrip.weights.fingerprint import fingerprint

MAX_BYTES = 16 * 2**30
"""Maximum memory for the features of one split, bytes."""


@dataclass(frozen=True)
class LayerFeatures:
    """Features of a frozen encoder for the readable, labelled videos of a split."""

    layers: tuple[Tensor, ...]
    """Features per layer, ``N D`` (pooled) or ``N M D`` (tokens), on the CPU."""
    labels: Tensor
    """Class labels, ``N`` int64."""
    names: tuple[str, ...] = ()
    """Names of the videos; none where nobody asks for them."""

    def pooled(self) -> LayerFeatures:
        """The mean of each video's tokens in place of the tokens."""
        return replace(self, layers=tuple(x.mean(dim=1) if x.ndim == 3 else x for x in self.layers))


def layer_tokens(features: Features) -> tuple[Tensor, ...]:
    """Tokens of every layer; of an encoder without layer outputs, its output alone."""
    return features.layers or (features.tokens,)


def train_and_test(
    subject: Subject, *, tokens: bool = False, num_clips: int = 1, batch_size: int = 16, cache: Path | None = None
) -> tuple[LayerFeatures, LayerFeatures]:
    """The features of the training and the evaluation split; see :func:`extract`.

    With a ``cache`` folder they are stored there, and reused while weights, data and clips are unchanged.
    """
    found = []
    for split in (subject.data.train_split, subject.data.eval_split):
        key = (fingerprint(encoder_of(subject.objective)), to_json(subject.data), split, tokens, num_clips, "names")
        folder = None if cache is None else cache / hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()
        if folder is not None and all(process.from_all(folder.exists())):
            found.append(_restore(folder, tokens))
            continue
        found.append(extract(subject, split, tokens=tokens, num_clips=num_clips, batch_size=batch_size))
        if folder is not None:
            if process.rank() == 0 and not folder.exists():
                _keep(found[-1], folder, {"encoder": key[0], "split": split})
            process.wait_for_all()
    return found[0], found[1]


def extract(
    subject: Subject, split: str, *, tokens: bool = False, num_clips: int = 1, batch_size: int = 16
) -> LayerFeatures:
    """Encode a split once: the mean over tokens and clips, or with ``tokens`` all tokens of one clip.

    Raises:
        UserError: the objective has no encoder, the features do not fit into memory, or no video of the split is
            both labelled and readable.
    """
    encoder = encoder_of(subject.objective)
    if tokens and num_clips != 1:
        raise ValueError(f"token features need num_clips=1, got {num_clips}")
    samples = subject.source.split(split)
    sums: list[Tensor] = []
    views = torch.zeros(len(samples))
    batches = EvalLoader(subject.source, subject.data, split, num_clips=num_clips, batch_size=batch_size)

    def encode(batch: Batch, before: int) -> tuple[Tensor, list[Tensor]]:
        with inference(subject.objective):
            layers = layer_tokens(encoder(batch["video"].to(subject.device, non_blocking=True), layers=True))
            return batch["index"], [(x.float() if tokens else x.float().mean(dim=1)).cpu() for x in layers]

    for index, found in map_batches(subject, batches, encode):
        if not sums:
            _check_memory(found, len(samples))
            sums = [torch.zeros(len(samples), *layer.shape[1:]) for layer in found]
        for total, layer in zip(sums, found):
            total.index_add_(0, index, layer)
        views.index_add_(0, index, torch.ones(len(index)))
    kept = [i for i, count in enumerate(views.tolist()) if count and samples[i].label is not None]
    if not kept:
        raise UserError(f"no video of the split {split!r} is both labelled and readable: the probe has no features")
    layers = tuple(total[kept] / views[kept].view(-1, *[1] * (total.ndim - 1)) for total in sums)
    if not all(layer.isfinite().all() for layer in layers):
        raise UserError("the encoder's features are not finite: its training diverged")
    names = tuple(samples[i].name for i in kept)
    return LayerFeatures(layers, torch.tensor([samples[i].label for i in kept]), names)


Probe = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Class probabilities ``M K`` of features, which come last, by a classifier fitted to others and their labels."""


class LayerAccuracy(NamedTuple):
    """Accuracy of a probe of one layer."""

    layer: int
    """Index of the layer, 0 for the first one."""
    top1: float
    """Accuracy on the evaluated split."""
    held_out: float | None
    """Accuracy on the held-out fifth of the training videos, of a probe fitted to the others; None if not asked."""


def probed(
    train: LayerFeatures, test: LayerFeatures, probe: Probe, *, choose: bool = False
) -> Iterator[tuple[LayerAccuracy, Tensor]]:
    """A probe's accuracy at each layer, and its class probabilities ``N K`` of the evaluated videos.

    With ``choose`` also its accuracy on held-out training videos, which fits it twice.

    Raises:
        UserError: a layer is to be chosen, and no class has enough training videos.
    """
    held_out = hold_out(train.labels)
    if choose and not held_out.any():
        raise UserError("choosing a layer holds out every fifth training video of a class, and no class has five")
    layers = zip(train.layers, test.layers, strict=True)
    for layer, (x, y) in enumerate(tracked(layers, "probing layers", total=len(train.layers))):
        probabilities, chosen = probe(x, train.labels, y).cpu(), None
        if choose:
            fitted, fitted_labels = x[~held_out], train.labels[~held_out]
            chosen = top1_of(probe(fitted, fitted_labels, x[held_out]), train.labels[held_out])
        yield LayerAccuracy(layer, top1_of(probabilities, test.labels), chosen), probabilities


def top1_of(probabilities: Tensor, labels: Tensor) -> float:
    """Share of rows ``M K`` whose label (``M``) is the most probable class."""
    return (probabilities.argmax(dim=1).cpu() == labels.cpu()).float().mean().item()


def chosen_layer(found: Sequence[LayerAccuracy]) -> LayerAccuracy:
    """The layer of maximum accuracy on held-out training videos; the first one of equals."""
    return max(found, key=lambda each: each.held_out or 0.0)


def by_layer(
    protocol: str, subject: Subject, train: LayerFeatures, test: LayerFeatures, probe: Probe, *, choose: bool = False
) -> Iterator[tuple[str, float]]:
    """Yield a probe's accuracy at each layer, then the maximum and its layer.

    The best layer is that of the evaluated split, as the literature reports it, which flatters. To ``choose``
    a layer without that, each is also fitted to four fifths of the training videos and scored on the rest; the best
    one follows, with its accuracy on the evaluated split. The predictions of the chosen layer, or else of the best
    one, are handed on.
    """
    found = []
    reported: tuple[LayerAccuracy, Tensor] | None = None
    for each, probabilities in probed(train, test, probe, choose=choose):
        found.append(each)
        yield f"{protocol}/layer_{each.layer}/top1", each.top1
        best = chosen_layer(found) if choose else best_layer(found)
        if best is each:  # so that no other layer's probabilities are kept
            reported = each, probabilities
    best = best_layer(found)
    yield f"{protocol}/best_top1", best.top1
    yield f"{protocol}/best_layer", float(best.layer)
    if choose:
        chosen = chosen_layer(found)
        yield f"{protocol}/chosen_top1", chosen.top1
        yield f"{protocol}/chosen_layer", float(chosen.layer)
    assert reported is not None, "encoders have a layer"
    subject.keep(predictions_of(protocol, test, reported[1], subject.source.classes))


def predictions_of(
    protocol: str, test: LayerFeatures, probabilities: Tensor, classes: tuple[str, ...]
) -> Predictions:
    """A probe's predictions for the evaluated videos."""
    return Predictions(test.names, test.labels, probabilities, classes, 0, probe=protocol)


def best_layer(found: Sequence[LayerAccuracy]) -> LayerAccuracy:
    """The layer of maximum accuracy on the evaluated split; the first one of equals."""
    return max(found, key=lambda each: each.top1)


def hold_out(labels: Tensor, every: int = 5) -> Tensor:
    """Mask of every fifth video of each class, ``N`` bool; none of a class with fewer than five."""
    marked = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        marked[(labels == label).nonzero()[every - 1 :: every, 0]] = True
    return marked


def _check_memory(layers: list[Tensor], num_samples: int) -> None:
    needed = num_samples * sum(layer[0].numel() for layer in layers) * 4
    if needed > MAX_BYTES:
        raise UserError(
            f"the features of {num_samples} videos take {needed / 2**30:.0f} GiB, the maximum is "
            f"{MAX_BYTES / 2**30:.0f}: use a probe on pooled features (linear_probe, knn), or fewer videos"
        )


def _keep(features: LayerFeatures, folder: Path, about: dict[str, str]) -> None:
    """Write features to a folder that is renamed into place when complete."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number, layer in enumerate(features.layers):
        clips = layer if layer.ndim == 3 else layer[:, None]
        with FeatureWriter(partial / f"layer_{number:03d}", about=about) as writer:
            for name, clip, label in zip(features.names, clips, features.labels.tolist()):
                writer.add(name, clip[None], grid=Grid(len(clip), 1, 1), label=label)
    partial.rename(folder)


def _restore(folder: Path, tokens: bool) -> LayerFeatures:
    sources = [FeatureSource(layer) for layer in sorted(folder.iterdir())]
    layers = [source.read(range(len(source))) for source in sources]
    rows = sources[0].rows
    return LayerFeatures(
        tuple(x if tokens else x[:, 0] for x in layers),
        torch.tensor([row.label for row in rows]),
        tuple(row.name for row in rows),
    )
