"""The whole of Filmstrip at work, small: pretrain, fine-tune, compare with three others, generate, report."""

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
class Steps:
    """How long each network is trained; fine-tuning and training from scratch get the same."""

    pretrain: int
    transformer: int
    r2plus1d: int
    single_frame: int


ON_MOTIONS = Steps(pretrain=500, transformer=400, r2plus1d=500, single_frame=100)
ON_OWN_DATA = Steps(pretrain=250, transformer=100, r2plus1d=500, single_frame=200)


def run_demo(out: Path, data: Path | None = None) -> Path:
    """Train and compare on the motions, or on the videos at ``data``; returns the path of the report.

    On the motions it also generates: a person's own videos would take longer than minutes to learn to draw. An
    interrupted demo goes on where it stopped.

    Raises:
        UserError: the data cannot be used, or have fewer than two classes.
        OSError: ``out`` cannot be written; what was trained before stays.
    """
    with keeping(lambda: f"{out} keeps what was trained and saved: the same command goes on"):
        return _run(out, data)


def _run(out: Path, data: Path | None) -> Path:
    console = Console()
    runs = plan_runs(out, data)
    console.print("Opening the data" if data else "Making the motions: videos whose class no single frame tells")
    source = open_source(runs[PRETRAINED].data)
    if len(source.classes) < 2:
        raise UserError(f"the demo compares recognisers, so {source.root} needs videos of at least two classes")
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
    for name, said in predictions.items():
        console.print(f"{name:<22} {said.accuracy():.1%}")
    generated = demo_generation.sections(made) if made else []
    page = _report(source, pretrained, _entries(results, predictions), predictions, generated)
    return page.write(out / "report.html")


def plan_runs(out: Path, data: Path | None) -> dict[str, Run]:
    """The five runs, in order; those on a person's own videos use larger frames and networks."""
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
    """The same two runs on 16 frames of 80 x 80 pixels, for videos of the real world."""
    clip = Clip(num_frames=16, stride=2, size=80, short_side=(80, 96))
    network = {"patch_size": (2, 16, 16), "width": 192, "depth": 6, "num_heads": 3}
    decoder = {"decoder_width": 96, "decoder_depth": 2, "decoder_num_heads": 3}
    views = (MultiView(num_clips=4, num_crops=1),)
    pretrain, transformer = pretrain.on_clip(clip), transformer.on_clip(clip)
    pretrain = replace(pretrain, objective=replace(pretrain.objective, **network, **decoder))
    return pretrain, replace(transformer, objective=replace(transformer.objective, **network), evals=views)


def _with(run: Run, path: Path | None, steps: int) -> Run:
    """A preset on the videos at ``path`` or on the motions, for a number of steps."""
    # A data set that says it is directional is not mirrored, whatever stands here.
    augment = replace(run.data.augment, mirror=0.5)
    data = replace(run.data, path=path, synthetic=MOTIONS if path is None else None, augment=augment)
    return replace(run, data=data, train=replace(run.train, length=lengths.Steps(steps)))


def _entries(results: dict[str, experiment.Result], predictions: dict[str, Predictions]) -> list[Entry]:
    """What each trained network said of the test split, what it costs, and how fast it is."""
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
    """What a trained network says of the test split."""
    views = next(evaluation for evaluation in result.run.evals if isinstance(evaluation, MultiView))
    return views.predictions(result.subject)


def _report(
    source: Source,
    pretrained: experiment.Result,
    entries: list[Entry],
    predictions: dict[str, Predictions],
    generated: list[Section],
) -> Report:
    """The page: what was found in one paragraph, then everything it rests on."""
    winner = best(entries)
    said = predictions[winner.name]
    naming_commonest = chance(said.labels.tolist())
    data = pretrained.run.data
    folders = {entry.name: entry.folder for entry in entries}
    pretrain_seconds = training_seconds(pretrained.folder)
    note = (
        f"{FINE_TUNED} was first pretrained on the training videos without their labels, which took another "
        f"{duration(pretrain_seconds)}; it and {SCRATCH} are the same network, trained on labels for as many steps."
    )
    sections: list[Section] = [
        _facts(source, data, winner, pretrain_seconds + sum(entry.train_seconds for entry in entries)),
        comparison_table(entries, naming_commonest, (note,)),
        training_curves(folders, {"loss": "Loss", "top1": "Accuracy on training clips"}),
        training_curves(
            {PRETRAINED: pretrained.folder},
            {"loss": "Mean squared error of the hidden pixels, normalised"},
            "Pretraining without labels",
        ),
        confusion_of(winner.name, said),
        clips_of(winner.name, said, source, data),
        _reconstructions(pretrained, said),
        *generated,
    ]
    return Report("Filmstrip at work", _lead(entries, winner, naming_commonest), sections)


def _lead(entries: list[Entry], winner: Entry, naming_commonest: float) -> str:
    """What was found, whatever it is."""
    accuracy = {entry.name: f"{entry.accuracy:.1%}" for entry in entries}
    return (
        f"{winner.name} names {accuracy[winner.name]} of {winner.videos} unseen videos correctly, where naming the "
        f"commonest class would give {naming_commonest:.1%}. A transformer reaches {accuracy[FINE_TUNED]} after "
        f"pretraining without labels and {accuracy[SCRATCH]} from scratch, R(2+1)D {accuracy[R2PLUS1D]}, and a "
        f"network that looks at single frames {accuracy[SINGLE_FRAME]}."
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
    """The first test video of some classes, masked and filled in."""
    data, device = pretrained.run.data, pretrained.subject.device
    names = [readable.names[i] for i in telling(readable)[:NUM_RECONSTRUCTIONS]]
    videos = videos_named(pretrained.source, data, set(names))
    video = torch.stack([videos[name] for name in names])
    with inference(pretrained.objective):
        shown = pretrained.objective.reconstruct(video.to(device), torch.arange(len(names), device=device))
    masked, rebuilt = (part.mul(255).round().byte().cpu() for part in shown)
    strips = [Strip(clips, name) for *clips, name in zip(video, masked, rebuilt, names)]
    note = (
        "Test videos that the network never saw. It predicts how each hidden cube varies; the cube's own mean and "
        "contrast are put back to make it visible, and visible cubes are shown as they are."
    )
    heads = ("original", "masked input", "reconstruction")
    return Strips("Masked reconstructions", strips, heads, fps=RECONSTRUCTION_FPS, note=note)
