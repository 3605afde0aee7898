"""A small complete example: pretrain without labels, learn from few labels, compare, generate, report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from rich.console import Console

from filmstrip.commands.stopping import keeping
from filmstrip.commands.work import demo_generation, demo_labels
from filmstrip.commands.work.demo_labels import Arm, Gain
from filmstrip.commands.work.side_by_side import clips_per_second, entry_of
from filmstrip.data.config import Data
from filmstrip.data.sources import Source, open_source
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.report import Facts, Report, Section
from filmstrip.report.comparison import (
    Entry,
    best,
    chance,
    clips_of,
    comparison_table,
    confusion_of,
    training_curves,
)
from filmstrip.report.run import duration
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.contents import training_seconds
from filmstrip.runs.predictions import Predictions
from filmstrip.systems.pretraining import future_frames
from filmstrip.systems.recognition import r2plus1d, single_frame
from filmstrip.train import lengths

MOTIONS = Motions(train_per_class=100, test_per_class=25, size=32, difficulty=0.0, plain=True)
"""800 training and 200 test videos whose classes cannot be recognised from a single frame; plain, because textures
take longer to predict than a demo should."""
PRETRAINED = "future frames, no labels"
SINGLE_FRAME = "single frame"
FOLDERS = {PRETRAINED: "future-frames", SINGLE_FRAME: "single-frame"}
START = Arm(labels=None, seed=0, pretrained=True)
SCRATCH = replace(START, pretrained=False)
FULL = {START: "R(2+1)D, pretrained", SCRATCH: "R(2+1)D from scratch"}
"""The names of those that are trained on all labels, in the comparison with other networks."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs of a demo."""

    pretrain: Run
    classifier: Run
    """The classifier from scratch on few labels; each arm's is this one on its own videos."""
    steps_on_all: int
    """Number of the classifier's steps on all labels."""
    others: dict[str, Run]
    """Further classifiers on all labels."""
    seeds: int
    """Number of choices of few labelled videos, each with a classifier from scratch and a pretrained one."""


def run_demo(out: Path, data: Path | None = None) -> Path:
    """Train and compare on the synthetic motions, or on the videos at ``data``; returns the path of the report.

    The generator is trained for the synthetic data only: real videos would take much longer than minutes. The same
    call resumes an interrupted demo.

    Raises:
        UserError: the data cannot be used, or have fewer than two classes.
        OSError: ``out`` cannot be written; completed training is kept.
    """
    with keeping(lambda: f"{out} keeps what was trained and saved: the same command resumes"):
        return _run(out, data)


def _run(out: Path, data: Path | None) -> Path:
    console = Console()
    plan = plan_runs(data)
    console.print("Opening the data" if data else "Generating motions: videos whose class no single frame shows")
    source = open_source(plan.pretrain.data)
    if len(source.classes) < 2:
        raise UserError(f"the demo needs videos of at least two classes, and {source.root} has fewer")
    sizes = Counter(s.label for s in source.split(plan.pretrain.data.train_split) if s.label is not None)
    if not sizes:
        raise UserError(f"the demo needs labelled training videos, and those of {source.root} have no label")
    arms = demo_labels.arms(max(sizes.values()), plan.seeds)
    count = 1 + len(arms) + len(plan.others) + len(demo_generation.FOLDERS) * (data is None)
    done = 0

    def train(name: str, run: Run, folder: str) -> experiment.Result:
        nonlocal done
        done += 1
        console.rule(f"{done} of {count}: {name}", align="left")
        return experiment.train(run, out / folder)

    pretrained = train(PRETRAINED, plan.pretrain, FOLDERS[PRETRAINED])
    learnt = {
        arm: train(
            arm.said, demo_labels.planned(plan.classifier, arm, pretrained.folder, plan.steps_on_all), arm.folder
        )
        for arm in arms
    }
    results = {name: learnt[arm] for arm, name in FULL.items()}
    results |= {name: train(name, run, FOLDERS[name]) for name, run in plan.others.items()}
    made = None
    if data is None:
        made = demo_generation.train_and_sample(out, demo_generation.SHAPES, console, first=count - 1, last=count)
    console.rule("Evaluation", align="left")
    accuracy = {arm: result.metrics["top1"] for arm, result in learnt.items()}
    steps = {arm: int(result.run.train.length.total(1)) for arm, result in learnt.items()}
    gains = demo_labels.gains(accuracy, steps, sizes)
    for gain in gains:
        console.print(f"{gain.labels} labels a class: pretraining adds {demo_labels.said(gain)} points")
    predictions = {name: _predictions(result) for name, result in results.items()}
    for name, predicted in predictions.items():
        console.print(f"{name:<22} {predicted.accuracy():.1%}")
    folders = {arm: result.folder for arm, result in learnt.items()}
    generated = demo_generation.sections(made) if made else []
    page = _report(source, pretrained, gains, folders, _entries(results, predictions), predictions, generated)
    return page.write(out / "report.html")


def plan_runs(data: Path | None) -> Plan:
    """The runs on the motions, or on the user's own videos, with larger frames and networks."""
    if data is None:
        classifier = r2plus1d.tiny_32()
        clip = classifier.data.clip
        frames = replace(single_frame.tiny().data.clip, size=clip.size, short_side=clip.short_side)
        return Plan(
            pretrain=_with(future_frames.tiny(), data, 1000, clips_per_video=2),
            classifier=_with(classifier, data, 150, clips_per_video=2),
            steps_on_all=200,
            others={SINGLE_FRAME: _with(single_frame.tiny().on_clip(frames), data, 100)},
            seeds=3,
        )
    return Plan(
        pretrain=_with(future_frames.small(), data, 500),
        classifier=_with(r2plus1d.small(), data, 300),
        steps_on_all=500,
        others={SINGLE_FRAME: _with(single_frame.small(), data, 200)},
        seeds=1,
    )


def _with(run: Run, path: Path | None, steps: int, clips_per_video: int = 1) -> Run:
    """A preset on the videos at ``path`` or on the motions, for a number of steps."""
    # Directional datasets are never mirrored, whatever this setting.
    augment = replace(run.data.augment, mirror=0.5)
    synthetic = MOTIONS if path is None else None
    data = replace(run.data, path=path, synthetic=synthetic, augment=augment, clips_per_video=clips_per_video)
    return replace(run, data=data, train=replace(run.train, length=lengths.Steps(steps)), evals=_views(run))


def _views(run: Run) -> tuple[MultiView, ...]:
    """The preset's test of a classifier; pretraining has none."""
    return tuple(evaluation for evaluation in run.evals if isinstance(evaluation, MultiView))


def _entries(results: dict[str, experiment.Result], predictions: dict[str, Predictions]) -> list[Entry]:
    """The report's entry of each network on all labels: its test accuracy, cost and speed."""
    speeds = clips_per_second({name: result.subject for name, result in results.items()}, batch_size=4)
    return [
        entry_of(
            name,
            result.folder,
            result.run,
            accuracy=predictions[name].accuracy(),
            videos=len(predictions[name].names),
            clips_per_second=speeds[name],
        )
        for name, result in results.items()
    ]


def _predictions(result: experiment.Result) -> Predictions:
    """The predictions of a trained network on the test split."""
    (views,) = _views(result.run)
    return views.predictions(result.subject)


def _report(
    source: Source,
    pretrained: experiment.Result,
    gains: list[Gain],
    arms: dict[Arm, Path],
    entries: list[Entry],
    predictions: dict[str, Predictions],
    generated: list[Section],
) -> Report:
    """The report: a paragraph with the finding, followed by all results."""
    winner = best(entries)
    predicted = predictions[winner.name]
    naming_commonest = chance(predicted.labels.tolist())
    data = pretrained.run.data
    folders = {entry.name: entry.folder for entry in entries}
    trained = {pretrained.folder, *arms.values(), *folders.values()}
    return Report(
        "Filmstrip demo",
        _lead(gains, entries, naming_commonest),
        [
            _facts(source, data, gains, winner, sum(map(training_seconds, trained))),
            *demo_labels.gain_sections(gains, arms, pretrained.folder, _note(gains, pretrained, winner.videos)),
            demo_labels.prediction_strips(pretrained),
            comparison_table(entries, naming_commonest, ("All networks of this table are trained on all labels.",)),
            training_curves(
                folders, {"loss": "Loss", "top1": "Accuracy on training clips"}, "Training on all labels"
            ),
            confusion_of(winner.name, predicted),
            clips_of(winner.name, predicted, source, data),
            *generated,
        ],
    )


def _lead(gains: list[Gain], entries: list[Entry], naming_commonest: float) -> str:
    """The finding as a paragraph."""
    first, *more = gains
    further = "; ".join(
        f"with {gain.labels}, {mean(gain.pretrained):.1%} against {mean(gain.scratch):.1%}" for gain in more
    )
    others = ", ".join(f"{entry.name} {entry.accuracy:.1%}" for entry in entries if entry.name not in FULL.values())
    return (
        "A network first learns, without labels, to predict what comes next. Fine-tuned on "
        f"{first.labels} labelled videos a class, it names {mean(first.pretrained):.1%} of unseen videos correctly; "
        f"from scratch the same network names {mean(first.scratch):.1%}"
        f"{f' ({further})' if further else ''}. Other networks on all labels: {others}. Always predicting the most "
        f"frequent class gives {naming_commonest:.1%}."
    )


def _note(gains: list[Gain], pretrained: experiment.Result, videos: int) -> str:
    """How the gains were measured."""
    count = len(pretrained.source.split(pretrained.run.data.train_split))
    seeds = len(gains[0].scratch)
    choices = (
        f" Few videos are chosen {seeds} times, each with weights and an order of its own; the gain is the mean over "
        "them, in percentage points, with its 95% interval by Student's distribution."
        if seeds > 1
        else " One choice of videos each: a gain of a few points may be chance."
    )
    return (
        f"Top-1 on {videos} test videos. Without labels all {count:,} training videos are seen, which takes "
        f"{duration(training_seconds(pretrained.folder))}, once. Both columns are the same R(2+1)D, trained on the "
        f"same labelled videos for as many steps by the same recipe; only the weights at the start differ.{choices}"
    )


def _facts(source: Source, data: Data, gains: list[Gain], winner: Entry, seconds: float) -> Facts:
    fewest = gains[0]
    facts = [
        (f"points gained, {fewest.labels} labels a class", demo_labels.said(fewest)),
        ("best top-1, all labels", f"{winner.accuracy:.1%}"),
        ("training videos", f"{len(source.split(data.train_split)):,}"),
        ("test videos", f"{winner.videos:,}"),
        ("training, all recognisers", duration(seconds)),
    ]
    return Facts("At a glance", facts)
