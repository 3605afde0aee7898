"""Accuracy of probes over the depth of one or several encoders, as tables and a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as TextTable

from filmstrip.commands.probe import Probe, ProbeName
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.evals.attentive_probe import AttentiveProbe
from filmstrip.evals.features import LayerAccuracy, chosen_layer, predictions_of, probed, train_and_test
from filmstrip.evals.knn import KNN
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.files import write_csv, write_json
from filmstrip.inference import device_of
from filmstrip.report.comparison import chance, wilson_interval
from filmstrip.report.curves import Curves
from filmstrip.report.page import Group, Report
from filmstrip.report.sections import Column, Table
from filmstrip.runs.encoders import load_for_evaluation
from filmstrip.runs.evaluation import Subject
from filmstrip.runs.predictions import Predictions, keep_predictions

PREDICTED = "predictions"
"""Folder with a folder for each probe of an encoder: what it predicts from the chosen layer."""
TITLES: dict[ProbeName, str] = {
    "linear": "Linear probe of the mean token",
    "knn": "k-nearest neighbours of the mean token",
    "attentive": "Attentive probe of all tokens",
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One probe of all layers of one encoder."""

    encoder: str
    probe: ProbeName
    layers: tuple[LayerAccuracy, ...]
    videos: int
    """Number of test videos."""
    chance: float
    """Accuracy of always naming the most frequent class of the test videos."""

    @property
    def chosen(self) -> LayerAccuracy:
        """The layer that held-out training videos choose."""
        return chosen_layer(self.layers)


def probe(command: Probe) -> None:
    """Probe all layers of all encoders, print the chosen ones, and write ``probes.html``, ``.csv`` and ``.json``.

    Raises:
        UserError: an encoder or the data do not exist, or the data lack labels or enough videos of a class.
    """
    if not command.encoders:
        raise UserError("nothing to probe: filmstrip probe ENCODER... --data PATH")
    names = _short_names(command.encoders)
    subjects = [_subject(source, command) for source in command.encoders]
    command.out.mkdir(parents=True, exist_ok=True)
    curves: list[Curve] = []
    for name, subject in zip(names, subjects):
        for curve, predictions in _curves(name, subject, command):
            curves.append(curve)
            # After each, so that an interrupted comparison keeps what it has measured.
            write(curves, command.out)
            keep_predictions(predictions, command.out / PREDICTED / f"{name.replace('/', '-')}-{curve.probe}")
    Console().print(_text_table(curves))
    print(command.out / "probes.html")


def write(curves: list[Curve], out: Path) -> None:
    """Write the accuracies as CSV and JSON, and the page."""
    rows = [
        {
            "encoder": curve.encoder,
            "probe": curve.probe,
            "layer": each.layer,
            "top1": each.top1,
            "held_out_top1": each.held_out,
            "chosen": each == curve.chosen,
        }
        for curve in curves
        for each in curve.layers
    ]
    write_csv(rows, out / "probes.csv")
    described = [
        {**asdict(curve), "layers": [each._asdict() for each in curve.layers], "chosen": curve.chosen._asdict()}
        for curve in curves
    ]
    write_json(described, out / "probes.json")
    _page(curves).write(out / "probes.html")


def _subject(source: str, command: Probe) -> Subject:
    """What is probed; everything that may be refused is refused here."""
    objective, data, *_ = load_for_evaluation(source, command.data)
    protocols = [_protocol(name, command) for name in command.probes]
    opened = open_source(data)
    subject = Subject(objective=objective, source=opened, data=data, device=device_of(objective))
    for protocol in protocols:
        if why := protocol.lacking(opened, data):
            raise UserError(f"{why}: give other data (--data PATH)")
        protocol.check(subject)
    return subject


def _protocol(name: ProbeName, command: Probe) -> LinearProbe | KNN | AttentiveProbe:
    if name == "linear":
        return LinearProbe(batch_size=command.batch_size)
    if name == "knn":
        return KNN(k=command.k, batch_size=command.batch_size)
    return AttentiveProbe(pooling=command.pooling, epochs=command.epochs, batch_size=command.batch_size)


def _curves(name: str, subject: Subject, command: Probe) -> Iterator[tuple[Curve, Predictions]]:
    """The curve of each probe, from one pass of the encoder over the videos, and what it predicts from the chosen
    layer."""
    train, test = train_and_test(
        subject, tokens="attentive" in command.probes, batch_size=command.batch_size, cache=command.cache
    )
    for kind in command.probes:
        features = (train, test) if kind == "attentive" else (train.pooled(), test.pooled())
        found = list(probed(*features, _protocol(kind, command).on(subject), choose=True))
        curve = Curve(
            encoder=name,
            probe=kind,
            layers=tuple(each for each, _ in found),
            videos=len(test.labels),
            chance=chance(test.labels.tolist()),
        )
        yield curve, predictions_of(kind, test, found[curve.chosen.layer][1], subject.source.classes)


def _short_names(sources: tuple[str, ...]) -> list[str]:
    """The last part of each path or address; all of it where two would be the same."""
    short = [source.rstrip("/").rpartition("/")[2].removeprefix("hf:") for source in sources]
    return [name if short.count(name) == 1 else source for name, source in zip(short, sources)]


def _page(curves: list[Curve]) -> Report:
    """The chart of each probe, with a line for each encoder, and the table of chosen layers."""
    depths = {len(curve.layers) for curve in curves}
    charts = []
    for kind in dict.fromkeys(curve.probe for curve in curves):
        lines = {}
        for curve in (curve for curve in curves if curve.probe == kind):
            count = len(curve.layers)
            xs = [each.layer if len(depths) == 1 else (each.layer + 1) / count for each in curve.layers]
            lines[curve.encoder] = (xs, [100 * each.top1 for each in curve.layers])
        level = min(curve.chance for curve in curves)
        label = "layer" if len(depths) == 1 else "depth, as a share of the layers"
        charts.append(Curves(TITLES[kind], lines, x_label=label, y_label="top-1, %", shown=(100 * level,)))
    columns = (
        Column("encoder"),
        Column("probe"),
        Column("top-1", ".1%", "highest"),
        Column("95% interval"),
        Column("chosen layer"),
        Column("best layer"),
        Column("its top-1", ".1%"),
        Column("last layer's top-1", ".1%"),
    )
    rows = []
    for curve in curves:
        best = max(curve.layers, key=lambda each: each.top1)
        low, high = wilson_interval(curve.chosen.top1, curve.videos)
        chosen = f"{curve.chosen.layer} of 0 to {len(curve.layers) - 1}"
        figures = (str(best.layer), best.top1, curve.layers[-1].top1)
        rows.append((curve.encoder, curve.probe, curve.chosen.top1, f"{low:.0%} to {high:.0%}", chosen, *figures))
    note = (
        f"Of {curves[0].videos} test videos; always naming the commonest of their classes would give "
        f"{curves[0].chance:.1%}. The layer is chosen on a held-out fifth of the training videos. The best layer is "
        "that of the test videos, which flatters: it is here because the literature reports it. The interval is "
        "Wilson's, for this many videos."
    )
    lead = f"Frozen features of {len({curve.encoder for curve in curves})} encoder(s), probed at every layer."
    return Report("Probes", lead, [Group("Accuracy over depth", charts), Table("Layers", columns, rows, (note,))])


def _text_table(curves: list[Curve]) -> TextTable:
    table = TextTable(box=None, padding=(0, 2, 0, 0))
    for head in ("encoder", "probe", "chosen layer", "top-1", "last layer"):
        table.add_column(head)
    for curve in curves:
        chosen = f"{curve.chosen.layer} of {len(curve.layers)}"
        table.add_row(curve.encoder, curve.probe, chosen, f"{curve.chosen.top1:.1%}", f"{curve.layers[-1].top1:.1%}")
    return table
