"""Comparison of generators and tokenizers: their evaluations, and per-frame curves of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from filmstrip.evals.frame_curves import point_of
from filmstrip.report.curves import Curves, Series
from filmstrip.report.page import Group
from filmstrip.report.sections import Column, Table

_HEADINGS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "lpips_vgg": "LPIPS (VGG-16)",
    "lpips_alex": "LPIPS (AlexNet)",
    "random_features": "Distance of random features, instead of LPIPS",
}
_HIGHEST = ("psnr", "ssim", "inception_score", "code_perplexity", "codes_used")
_LOWEST = ("lpips_vgg", "lpips_alex", "random_features", "fvd", "rfvd", "bits_per_dim", "nats")


def is_curve_point(name: str) -> bool:
    """Whether a metric is a point of a per-frame curve."""
    return point_of(name) is not None


def frame_curves(recorded: Mapping[str, Mapping[str, Series]], title: str = "Prediction by frame") -> Group | None:
    """One chart for each metric of predicted frames, one curve for each run, as last measured; none without any.

    ``recorded``: the :func:`~filmstrip.runs.contents.history` of each run, by the name of its curve.
    """
    charts: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for run, history in recorded.items():
        for name, (_, values) in history.items():
            point = point_of(name)
            if point is None:
                continue
            kind, _, label = point.curve.removeprefix("eval/").partition("/")
            stem = kind.removesuffix("_best")
            curve = run if kind == stem else f"{run}, best"
            heading = f"{_HEADINGS.get(stem, stem)}: {label}"
            xs, ys = charts.setdefault(heading, {}).setdefault(curve, ([], []))
            xs.append(float(point.frame))
            ys.append(values[-1])
    if not charts:
        return None
    return Group(title, [Curves(heading, curves, x_label="predicted frame") for heading, curves in charts.items()])


def generation_table(recorded: Mapping[str, Mapping[str, Series]], title: str = "Generation") -> Table:
    """Every evaluation of several runs, as last measured: a row for each run.

    Numbered notes below the table state how each column was measured (network, preprocessing, frames, number of
    clips): values are comparable within a column, not between columns.
    """
    names = list(
        dict.fromkeys(
            name
            for history in recorded.values()
            for name in history
            if name.startswith("eval/") and not is_curve_point(name)
        )
    )
    columns, labels = [Column("run")], []
    for name in names:
        kind, _, label = name.removeprefix("eval/").partition("/")
        if label not in labels:
            labels.append(label)
        columns.append(Column(f"{kind} ({labels.index(label) + 1})", ",.4g", _best(kind)))
    notes = [f"({i}) {label.replace('/', ', ') or 'protocol defaults'}" for i, label in enumerate(labels, 1)]
    rows = [
        (run, *(history[name][1][-1] if name in history else None for name in names))
        for run, history in recorded.items()
    ]
    return Table(title, columns, rows, notes)


def _best(kind: str) -> Literal["highest", "lowest"] | None:
    stem = kind.removesuffix("_best").removesuffix("_unbiased").partition("_after_")[0]
    return "highest" if stem in _HIGHEST else "lowest" if stem in _LOWEST else None
