"""A small complete example: pretrain, fine-tune, compare with three other systems, generate, report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from filmstrip.commands.stopping import keeping
from filmstrip.commands.work import demo_generation
from filmstrip.commands.work.side_by_side import MOTIONS, clips_per_second, entry_of
from filmstrip.data.config import Clip, Data
from filmstrip.data.sources import Source, open_source
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView, Predictions
from filmstrip.inference import inference
from filmstrip.report import Facts, Report, Section, Strip, Strips
from filmstrip.report.comparison import (
    Entry,
    best,
    chance,
    clips_of,
    comparison_table,
    confusion_of,
    telling,
    training_curves,
    videos_named,
)
from filmstrip.report.run import duration
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.contents import training_seconds
from filmstrip.systems.pretraining import videomae
from filmstrip.systems.recognition import r2plus1d, single_frame, vit
from filmstrip.train import lengths

PRETRAINED, FINE_TUNED, SCRATCH = "VideoMAE, no labels", "VideoMAE, fine-tuned", "ViT from scratch"
R2PLUS1D, SINGLE_FRAME = "R(2+1)D", "single frame"
FOLDERS = {
    PRETRAINED: "videomae",
    FINE_TUNED: "videomae-fine-tuned",
    SCRATCH: "vit-from-scratch",
    R2PLUS1D: "r2plus1d",
    SINGLE_FRAME: "single-frame",
}
NUM_RECONSTRUCTIONS = 4
RECONSTRUCTION_FPS = 6.0


@dataclass(frozen=True, kw_only=True)
class TrainingSteps:
    """Number of training steps of each network; fine-tuning and training from scratch use the same."""

    pretrain: int
    transformer: int
    r2plus1d: int
    single_frame: int


ON_MOTIONS = TrainingSteps(pretrain=500, transformer=400, r2plus1d=500, single_frame=100)
ON_OWN_DATA = TrainingSteps(pretrain=250, transformer=100, r2plus1d=500, single_frame=200)


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
    runs = plan_runs(out, data)
    console.print("Opening the data" if data else "Generating motions: videos whose class no single frame shows")
    source = open_source(runs[PRETRAINED].data)
    if len(source.classes) < 2:
        raise UserError(f"the demo needs videos of at least two classes, and {source.root} has fewer")
    results: dict[str, experiment.Result] = {}
    count = len(runs) + len(demo_generation.FOLDERS) * (data is None)
    for i, (name, run) in enumerate(runs.items(), 1):
        console.rule(f"{i} of {count}: {name}", align="left")
        results[name] = experiment.train(run, out / FOLDERS[name])
    made = None
    if data is None:
        made = demo_generation.train_and_sample(out, demo_generation.SHAPES, console, first=count - 1, last=count)
    console.rule("Evaluation", align="left")
    pretrained = results.pop(PRETRAINED)
    predictions = {name: _predictions(result) for name, result in results.items()}
    for name, predicted in predictions.items():
        console.print(f"{name:<22} {predicted.accuracy():.1%}")
    generated = demo_generation.sections(made) if made else []
    page = _report(source, pretrained, _entries(results, predictions), predictions, generated)
    return page.write(out / "report.html")


def plan_runs(out: Path, data: Path | None) -> dict[str, Run]:
    """The five runs, in order; those on the user's own videos use larger frames and networks."""
    if data is None:
        steps, pretrain, transformer = ON_MOTIONS, videomae.tiny(), vit.tiny()
        convolutional, frame = r2plus1d.tiny(), single_frame.tiny()
    else:
        steps, pretrain, transformer = ON_OWN_DATA, *_larger(videomae.tiny(), vit.tiny())
        convolutional, frame = r2plus1d.small(), single_frame.small()
    start = str(out / FOLDERS[PRETRAINED])
    return {
        PRETRAINED: _with(pretrain, data, steps.pretrain),
        FINE_TUNED: replace(_with(transformer, data, steps.transformer), init=start),
        SCRATCH: _with(transformer, data, steps.transformer),
        R2PLUS1D: _with(convolutional, data, steps.r2plus1d),
        SINGLE_FRAME: _with(frame, data, steps.single_frame),
    }


def _larger(pretrain: Run, transformer: Run) -> tuple[Run, Run]:
    """The same two runs with clips of 16 frames of 80 x 80 pixels, for real videos."""
    clip = Clip(num_frames=16, stride=2, size=80, short_side=(80, 96))
    network = {"patch_size": (2, 16, 16), "width": 192, "depth": 6, "num_heads": 3}
    decoder = {"decoder_width": 96, "decoder_depth": 2, "decoder_num_heads": 3}
    views = (MultiView(num_clips=4, num_crops=1),)
    pretrain, transformer = pretrain.on_clip(clip), transformer.on_clip(clip)
    pretrain = replace(pretrain, objective=replace(pretrain.objective, **network, **decoder))
    return pretrain, replace(transformer, objective=replace(transformer.objective, **network), evals=views)


def _with(run: Run, path: Path | None, steps: int) -> Run:
    """A preset on the videos at ``path`` or on the motions, for a number of steps."""
    # Directional datasets are never mirrored, whatever this setting.
    augment = replace(run.data.augment, mirror=0.5)
    data = replace(run.data, path=path, synthetic=MOTIONS if path is None else None, augment=augment)
    return replace(run, data=data, train=replace(run.train, length=lengths.Steps(steps)))


def _entries(results: dict[str, experiment.Result], predictions: dict[str, Predictions]) -> list[Entry]:
    """The report's entry of each trained network: its test accuracy, cost and speed."""
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
    views = next(evaluation for evaluation in result.run.evals if isinstance(evaluation, MultiView))
    return views.predictions(result.subject)


def _report(
    source: Source,
    pretrained: experiment.Result,
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
    pretrain_seconds = training_seconds(pretrained.folder)
    note = (
        f"{FINE_TUNED} was first pretrained on the training videos without labels, which took another "
        f"{duration(pretrain_seconds)}; it and {SCRATCH} are the same network, trained with labels for as many steps."
    )
    sections: list[Section] = [
        _facts(source, data, winner, pretrain_seconds + sum(entry.train_seconds for entry in entries)),
        comparison_table(entries, naming_commonest, (note,)),
        training_curves(folders, {"loss": "Loss", "top1": "Accuracy on training clips"}),
        training_curves(
            {PRETRAINED: pretrained.folder},
            {"loss": "Mean squared error of the masked pixels, normalised"},
            "Pretraining without labels",
        ),
        confusion_of(winner.name, predicted),
        clips_of(winner.name, predicted, source, data),
        _reconstructions(pretrained, predicted),
        *generated,
    ]
    return Report("Filmstrip demo", _lead(entries, winner, naming_commonest), sections)


def _lead(entries: list[Entry], winner: Entry, naming_commonest: float) -> str:
    """The finding as a paragraph."""
    accuracy = {entry.name: f"{entry.accuracy:.1%}" for entry in entries}
    return (
        f"{winner.name} classifies {accuracy[winner.name]} of {winner.videos} test videos correctly; always "
        f"predicting the most frequent class gives {naming_commonest:.1%}. A transformer reaches "
        f"{accuracy[FINE_TUNED]} after pretraining without labels and {accuracy[SCRATCH]} from scratch, R(2+1)D "
        f"{accuracy[R2PLUS1D]}, and a network on single frames {accuracy[SINGLE_FRAME]}."
    )


def _facts(source: Source, data: Data, winner: Entry, seconds: float) -> Facts:
    facts = [
        ("best top-1", f"{winner.accuracy:.1%}"),
        ("classes", str(len(source.classes))),
        ("training videos", f"{len(source.split(data.train_split)):,}"),
        ("test videos", f"{winner.videos:,}"),
        ("training, the five recognisers", duration(seconds)),
    ]
    return Facts("At a glance", facts)


def _reconstructions(pretrained: experiment.Result, readable: Predictions) -> Strips:
    """The first test video of some classes, masked and reconstructed."""
    data, device = pretrained.run.data, pretrained.subject.device
    names = [readable.names[i] for i in telling(readable)[:NUM_RECONSTRUCTIONS]]
    videos = videos_named(pretrained.source, data, set(names))
    video = torch.stack([videos[name] for name in names])
    objective = pretrained.objective
    assert isinstance(objective, videomae.VideoMAE), "the run without labels is of VideoMAE"
    with inference(objective):
        shown = objective.reconstruct(video.to(device), torch.arange(len(names), device=device))
    masked, rebuilt = (part.mul(255).round().byte().cpu() for part in shown)
    strips = [Strip(clips, name) for *clips, name in zip(video, masked, rebuilt, names)]
    note = (
        "Test videos, not used in training. The network predicts the normalised pixels of each masked tubelet; the "
        "tubelet's own mean and standard deviation are restored for display. Visible tubelets are shown unchanged."
    )
    heads = ("original", "masked input", "reconstruction")
    return Strips("Masked reconstructions", strips, heads, fps=RECONSTRUCTION_FPS, note=note)
