"""The command line: ``filmstrip COMMAND ...``. Thin: each command reads its options and calls one function."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import tyro
from rich.console import Console
from rich.table import Table

from filmstrip import __version__
from filmstrip.bounds import (
    AnyNumber,
    Count,
    CountOrZero,
    Rate,
    Seed,
    Share,
    Weight,
    checked_arguments,
)
from filmstrip.commands.stopping import NOTHING_KEPT, keeping, stoppable
from filmstrip.errors import UserError, in_words

if TYPE_CHECKING:
    from filmstrip.runs.config import Run

Words = list[str]
File = Annotated[Path, tyro.conf.Positional]
Files = Annotated[tuple[Path, ...], tyro.conf.Positional]


def command_list() -> None:
    """List the systems with their presets."""
    from filmstrip.commands import index

    Console().print(index.table())


def command_show(words: Words) -> None:
    """Show a preset as it would run: configuration, parameters, GMACs, tokens, memory.

    Usage: filmstrip show SYSTEM[:PRESET] [options of the run]
    """
    from filmstrip.commands import index

    run, _ = _run_from(words, "show")
    index.show(run, Console())


def command_train(words: Words) -> None:
    """Train a preset, on its own data or on yours.

    Usage: filmstrip train SYSTEM[:PRESET] [--data PATH] [--out FOLDER] [options of the run]
    """
    from filmstrip.distributed import process
    from filmstrip.report.run import run_report
    from filmstrip.runs import experiment
    from filmstrip.train.run_folder import what_is_saved

    run, out = _run_from(words, "train")
    given = [name for name in _given(words) if name.startswith("objective.")]
    with keeping(lambda: what_is_saved(out)):
        result = experiment.train(run, out, given=given)
    if process.rank() > 0:
        return
    for name, value in result.metrics.items():
        print(f"{name:<24} {value:.4f}")
    print(run_report(out))


def command_eval(words: Words) -> None:
    """Evaluate a run by one of its protocols, or by all that it was configured with.

    What is measured on the run's own data goes into its report, curves by frame too.

    Usage: filmstrip eval RUN [--protocol NAME [options of the protocol]] [--data PATH]
    """
    from filmstrip import evals
    from filmstrip.report.generation import is_curve_point
    from filmstrip.report.run import run_report
    from filmstrip.runs import experiment

    folder, words = _leading(words, "eval", "RUN")
    data, words = _option(words, "--data")
    name, words = _option(words, "--protocol")
    protocols = (
        (tyro.cli(evals.protocol(name), args=words, prog=f"filmstrip eval --protocol {name}"),) if name else ()
    )
    if words and not name:
        raise UserError(f"{words[0]} belongs to a protocol: name it with --protocol; {evals.named_protocols()}")
    for key, value in experiment.evaluate(Path(folder), protocols, Path(data) if data else None):
        if not is_curve_point(key):
            print(f"{key:<24} {value:.4f}", flush=True)
    if data is None:
        print(run_report(Path(folder)))


def command_predict(
    run: File,
    files: Files,
    top_k: Count = 5,
    clips: Count = 4,
    json: bool = False,
) -> int:
    """Name what happens in videos: the best classes of each file, and a timeline of its clips.

    Args:
        run: A run folder of a classifier.
        files: Videos to look at.
        top_k: How many classes to name.
        clips: Clips along the timeline.
        json: Print one JSON object instead of text.
    """
    from filmstrip.commands.predict import predict_files

    return predict_files(run, files, top_k=top_k, num_clips=clips, as_json=json)


def command_forecast(
    run: File,
    video: Annotated[Path, tyro.conf.Positional],
    top_k: Count = 3,
    samples: Count = 1,
    clip_seconds: Rate | None = None,
    encoder: str | None = None,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Say which steps come next, with their probabilities, along a video's timeline.

    Args:
        run: A run folder of procedures, trained for forecast or anticipation.
        video: The video to look at.
        top_k: How many steps to name for each place.
        samples: Draws whose probabilities are averaged.
        clip_seconds: How long a clip is; by default as in training.
        encoder: What encodes clips; by default what encoded the run's features.
        json: Print one JSON object instead of text.
        out: Also draw it: a png, svg or pdf.
    """
    from filmstrip.commands.forecast import forecast

    forecast(
        run,
        video,
        top_k=top_k,
        samples=samples,
        clip_seconds=clip_seconds,
        encoder=encoder,
        as_json=json,
        out=out,
    )


def command_plan(
    run: File,
    start: Path,
    goal: Path,
    horizon: Count | None = None,
    top_k: Count = 3,
    samples: Count = 1,
    encoder: str | None = None,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Plan the steps that lead from a start to a goal, each shown by a video.

    Args:
        run: A run folder of procedures, trained for planning.
        start: A video of how things are.
        goal: A video of how they should be.
        horizon: How many steps; as many as the run was trained to plan.
        top_k: How many steps to name for each place.
        samples: Draws whose probabilities are averaged.
        encoder: What encodes clips; by default what encoded the run's features.
        json: Print one JSON object instead of text.
        out: Also draw it: a png, svg or pdf.
    """
    from filmstrip.commands.plan import plan

    plan(
        run,
        start,
        goal,
        horizon=horizon,
        top_k=top_k,
        samples=samples,
        encoder=encoder,
        as_json=json,
        out=out,
    )


def command_detect(
    run: File,
    video: Annotated[Path, tyro.conf.Positional],
    boxes: Path,
    out: Path | None = None,
    csv: Path | None = None,
    top_k: Count = 3,
    threshold: Share = 0.5,
    min_score: AnyNumber = 0.8,
    offset: AnyNumber = 0.0,
    min_iou: Share = 0.3,
    max_gap: Rate = 2.0,
    json: bool = False,
) -> None:
    """Say what everybody in a video does, within given boxes that are followed from key frame to key frame.

    Args:
        run: A run folder of detection.
        video: The video to look at.
        boxes: A table, as AVA's: video, second, left, top, right, bottom (shares of the frame), then maybe a class,
            which is not read, and a detector's score or a person. The video is called as its file.
        out: Also draw it: an mp4, gif or webp.
        csv: Also write the score of every class in every box, as AVA's evaluation reads it: video, second, left, top,
            right, bottom, number of the class, score.
        top_k: How many classes to name for each actor.
        threshold: Least probability of classes that are drawn; the likeliest always is.
        min_score: Boxes with lower scores are left out.
        offset: The table's second at which the file begins.
        min_iou: Least overlap of an actor's box with the one in the next key frame.
        max_gap: Most seconds from an actor's box to the next.
        json: Print one JSON object instead of text.
    """
    from filmstrip.commands.detect import detect

    detect(
        run,
        video,
        boxes,
        out=out,
        csv=csv,
        top_k=top_k,
        threshold=threshold,
        min_score=min_score,
        offset=offset,
        min_iou=min_iou,
        max_gap=max_gap,
        as_json=json,
    )


def command_explain(run: File, file: File, out: Path = Path("overlay.mp4"), class_name: str | None = None) -> None:
    """Show where a classifier looks: a clip beside itself with heat over it, as a video.

    A transformer's heat is its attention, rolled out through all layers (and the same for every class); a
    convolutional network's is Grad-CAM of the class.

    Args:
        run: A run folder of a classifier.
        file: The video to look at; its middle clip is shown.
        out: Where to write (mp4, gif or webp).
        class_name: The class to look for, by name or number; by default the one that is seen.
    """
    from filmstrip.commands.explain import explain_file

    found = explain_file(run, file, out, class_name=class_name)
    print(f"{found.label} ({found.probability:.0%}), {found.method}: {out}")


def command_encode(
    encoder: Annotated[str, tyro.conf.Positional],
    files: Files,
    out: Path,
    level: Literal["clip", "frame", "patch", "ids", "latents"] = "clip",
    error: Rate | None = None,
    clips: Count = 1,
    frames: Count | None = None,
    sampling: Literal["dense", "uniform"] | None = None,
    batch_size: Count = 8,
    processes: Count = 1,
) -> int:
    """Write the features or tokens of videos as safetensors shards with a Parquet index; resumes where it stopped.

    What it writes can be trained on: --data FOLDER.

    Args:
        encoder: A run folder; hf:OWNER/NAME, or a short name (siglip, siglip2, clip, dinov2, videomae, timesformer,
            vjepa2; with -base and the like); a local folder in the Hub's layout; for ids and latents, a tokenizer's
            run folder.
        files: Videos, or folders of them.
        out: Where the features go.
        level: One vector a clip, one for each of its frames (or groups of frames), or every token of an encoder;
            token ids or continuous latents of a tokenizer.
        error: Of a tokenizer of variable length (ElasticTok): the squared error, a mean over pixels in 0..1, that
            each block meets in as few tokens as that takes; by default the most tokens. OUT/token_use.html then
            shows the use of tokens along the first clips, and token_use.json has every count.
        clips: Clips cut from each video, evenly spaced.
        frames: Frames of a clip; by default those that the encoder was trained with, 16 for one that sees images.
        sampling: Frames spread over the whole video, or consecutive ones; by default the encoder's own way.
        batch_size: Clips encoded at once.
        processes: How many processes share the videos.
    """
    from filmstrip.commands.encode import encode_files

    return encode_files(
        encoder,
        files,
        out,
        level=level,
        error=error,
        num_clips=clips,
        num_frames=frames,
        sampling=sampling,
        batch_size=batch_size,
        processes=processes,
    )


def command_decode(
    tokenizer: File, tokens: Annotated[Path, tyro.conf.Positional], out: Path, batch_size: Count = 8
) -> None:
    """Write tokens as videos again; clips that are there already are left alone.

    Args:
        tokenizer: The run folder of the tokenizer that made the tokens.
        tokens: What `filmstrip encode --level ids` (or latents) wrote.
        out: Where the videos go.
        batch_size: Clips decoded at once.
    """
    from filmstrip.commands.decode import decode_files

    print(f"{out}: {decode_files(tokenizer, tokens, out, batch_size=batch_size)} clips")


def command_generate(words: Words) -> int:
    """Sample video from a trained generator, into an mp4, gif, webp or a png with a row of frames for each sample.

    Usage: filmstrip generate RUN [--frames N] [--condition FILE|CLASS|ACTIONS ...] [--out sample.mp4] [options]
    """
    from filmstrip.commands.generate import Request, default_request, generate

    folder, words = _leading(words, "generate", "RUN")
    default = default_request(Path(folder))
    request = tyro.cli(
        Request,
        default=default,
        args=words,
        prog=f"filmstrip generate {folder}",
        config=(tyro.conf.AvoidSubcommands,),
        description=inspect.getdoc(command_generate),
    )
    return generate(Path(folder), request)


def command_visualize(
    run: File,
    label: Annotated[str, tyro.conf.arg(name="class")],
    out: Path = Path("class.mp4"),
    steps: Count = 256,
    space: Weight = 0.2,
    slow: Weight = 20.0,
    fast: Weight = 0.2,
    seed: Seed = 0,
    fps: Rate = 8.0,
) -> None:
    """Show what a classifier looks for: clips made to raise one class's score, a slow and a fast one side by side.

    Args:
        run: A run folder of a classifier.
        label: The class, by name or number.
        out: mp4, gif or webp; or a png with a row of frames for each.
        steps: Steps of gradient ascent.
        space: Weight of smoothness within frames.
        slow: Weight of smoothness along time in the slow clip: what is left is appearance and slow change.
        fast: The same in the fast clip.
        seed: Decides the noise that both clips begin as, and how they are shifted on the way.
        fps: Frames per second of the file.
    """
    from filmstrip.commands.visualize import Ascent, visualize

    visualize(run, label, out, Ascent(steps=steps, space=space, slow=slow, fast=fast, seed=seed), fps)


def command_export(
    run: Annotated[str, tyro.conf.Positional],
    out: Path,
    format: Literal["torch", "onnx"] = "torch",
    part: Literal["model", "encoder"] = "model",
) -> None:
    """Write a trained network as one file that runs without its code, checked against the network itself.

    It takes uint8 video, B T C H W with any B, and normalises for itself. A classifier gives logits, a two-stream one
    from video and its optical flow, B T-1 2 H W in pixels; VideoMAE gives the pixels of hidden cubes, from video and
    the indices of visible and hidden cubes; a detector gives the probabilities of what is done within boxes, B M K,
    from video of any height and width (it is said if the network does not take that) and boxes, B M 4 float32 with
    any M: left, top, right, bottom, shares of the frame; others give their tokens and the clip's vector.

    Args:
        run: A run folder; or an encoder of the Hub, hf:OWNER/NAME.
        out: The file: .pt2 for torch, .onnx for onnx.
        format: torch.export's, which torch.export.load reads; or ONNX (the extra `export`).
        part: The whole network, or its encoder alone.
    """
    from filmstrip.commands.export import export

    export(run, out, format=format, part=part)


def command_data(words: Words) -> int:
    """Check, prepare, convert or make a collection of videos, or list the steps of annotated ones.

    Usage: filmstrip data check PATH | data prepare PATH --out FOLDER | data convert LAYOUT PATH --out FOLDER
           | data make NAME [--out FOLDER] | data steps SET ANNOTATIONS VIDEOS --out FILE
    """
    from filmstrip.commands import data

    action, words = _leading(words, "data", "check | prepare | convert | make | steps")
    actions: dict[str, Callable[..., Any]] = {
        "check": data.check,
        "prepare": data.prepare,
        "convert": data.convert,
        "steps": data.steps,
    }
    if action == "make":
        return _data_make(words)
    if action not in actions:
        raise UserError(f"filmstrip data {action} does not exist: use check, prepare, convert, make or steps")
    return tyro.cli(checked_arguments(actions[action]), args=words, prog=f"filmstrip data {action}") or 0


def command_bench(words: Words) -> None:
    """Measure a preset on this machine: loading, step time, memory, achieved over the machine's limit.

    Usage: filmstrip bench SYSTEM[:PRESET] [--data PATH] [options of the run]
    """
    from filmstrip.commands.bench import bench_system

    run, _ = _run_from(words, "bench")
    bench_system(run)


def command_demo(data: Path | None = None, out: Path = Path("runs/demo")) -> None:
    """Pretrain, fine-tune and compare four small systems, learn to generate, and write one report.

    Generation is part of it on the synthetic set only.

    Args:
        data: A folder class_name/*.mp4, or a manifest; by default a synthetic set that is made first.
        out: Where the runs and report.html go.
    """
    from filmstrip.commands.demo import run_demo

    print(run_demo(out, data))


def command_compare(
    systems: str | None = None,
    data: Path | None = None,
    out: Path = Path("runs/compare"),
    steps: Count = 300,
    batch_size: Count = 16,
    frames: Count = 8,
    stride: Count = 2,
    size: Count = 64,
    views: Count = 4,
    seed: Seed = 0,
    num_workers: CountOrZero = 2,
    measure: bool = True,
) -> int:
    """Train classifiers on the same clips within the same budget; one table, and accuracy against compute.

    Each keeps its own learning rate. An interrupted comparison goes on; a system that fails stops no other.

    Args:
        systems: SYSTEM[:PRESET], separated by commas; by default the tiny preset of every recognition system.
        data: A folder class_name/*.mp4, or a manifest; by default a synthetic set that is made first.
        out: Where the runs, table.json, table.csv and report.html go.
        steps: The budget: optimiser steps of each system, of BATCH_SIZE clips.
        batch_size: Clips in a step.
        frames: Frames of a clip, which every network is made for.
        stride: Frames of the video from one frame of a clip to the next.
        size: Height and width of a clip, pixels.
        views: Clips of each test video, whose probabilities are averaged.
        seed: Decides weights, order, clips and augmentation.
        num_workers: Processes that read videos.
        measure: Measure clips/s when everything is trained, of networks that were not measured yet; without it, a
            later call does, on a quiet machine.
    """
    from filmstrip.commands.compare import Budget, compare

    addresses = list(dict.fromkeys(filter(None, (word.strip() for word in (systems or "").split(",")))))
    budget = Budget(
        steps=steps,
        batch_size=batch_size,
        frames=frames,
        stride=stride,
        size=size,
        views=views,
        seed=seed,
        num_workers=num_workers,
    )
    return compare(addresses, out, data=data, budget=budget, measure=measure)


def _data_make(words: Words) -> int:
    """Generate a synthetic set: ``data make motions [--out FOLDER] [options of the set]``."""
    from filmstrip.data.synthetic import sets as synthetic

    name, words = _leading(words, "data make", "NAME")
    out, words = _option(words, "--out")
    wanted = tyro.cli(synthetic.named(name), args=words, prog=f"filmstrip data make {name}")
    with keeping(lambda: NOTHING_KEPT):
        print(wanted.generate(Path(out) if out else None))
    return 0


def _run_from(words: Words, command: str) -> tuple[Run, Path]:
    """The run that the words after ``train``, ``show`` or ``bench`` describe, and where it goes."""
    from filmstrip import systems
    from filmstrip.data import kinds
    from filmstrip.runs.config import Run

    address, words = _leading(words, command, "SYSTEM[:PRESET]")
    preset = systems.find(address)
    out, words = _option(words, "--out")
    given = _given(words)
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"train.{one}" in given and f"train.{other}" not in given:  # a run lasts for one of them
            preset = replace(preset, train=replace(preset.train, **{other: None}))
    kind, words = _option(words, "--data.reads")
    if kind:
        preset = replace(preset, data=replace(preset.data, reads=kinds.named(kind)()))
    words = ["--data.path" if w == "--data" else w.replace("--data=", "--data.path=", 1) for w in words]
    run = tyro.cli(
        Run,
        default=preset,
        args=words,
        prog=f"filmstrip {command} {address}",
        config=(tyro.conf.AvoidSubcommands,),
        description=f"{inspect.getdoc(COMMANDS[command])}\n\nThe options of the run, as {address} sets them:",
    )
    if run.init:
        from filmstrip.runs.loading import with_sizes_of_init

        typed = {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
        run = with_sizes_of_init(run, typed)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return run, Path(out) if out else Path("runs") / f"{address.replace(':', '-')}-{stamp}"


def _given(words: Words) -> set[str]:
    """The names of the options among words, as fields are called."""
    return {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def _leading(words: Words, command: str, wanted: str) -> tuple[str, Words]:
    """The first word, which is not an option, and the rest."""
    if not words or words[0].startswith("-"):
        raise UserError(f"filmstrip {command} needs {wanted} first; see `filmstrip {command.split()[0]} --help`")
    return words[0], words[1:]


def _option(words: Words, flag: str) -> tuple[str | None, Words]:
    """The value of one option, and the words without it."""
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1], words[:i] + words[i + 2 :]
        if word.startswith(flag + "="):
            return word.partition("=")[2], words[:i] + words[i + 1 :]
        if word == flag:
            raise UserError(f"{flag} needs a value")
    return None, words


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": command_demo,
    "list": command_list,
    "show": command_show,
    "train": command_train,
    "eval": command_eval,
    "predict": command_predict,
    "forecast": command_forecast,
    "plan": command_plan,
    "detect": command_detect,
    "explain": command_explain,
    "encode": command_encode,
    "decode": command_decode,
    "generate": command_generate,
    "visualize": command_visualize,
    "export": command_export,
    "data": command_data,
    "bench": command_bench,
    "compare": command_compare,
}
TAKES_WORDS = (command_show, command_train, command_eval, command_generate, command_data, command_bench)
"""Commands whose options depend on their first word; the others are read off their signature."""


def main(arguments: Words | None = None) -> int:
    """Run one command; returns the exit code.

    0; 1 when some files were bad; 2 for wrong input and for files that cannot be written or read; 128 + the signal's
    number for Ctrl-C (130), SIGTERM (143) and SIGHUP (129), also where a training was saved in order, so that a
    scheduler takes it for unfinished; and 141, silently, where nobody reads the output any more.
    """
    words = sys.argv[1:] if arguments is None else arguments
    Console.on_broken_pipe = _raise_again  # rich's own ends the program with exit code 1
    with stoppable():
        try:
            code = _run(words)
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"filmstrip: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError as error:
            if not _is_unread(sys.stdout) and not _is_unread(sys.stderr):
                _say(in_words(error), error)  # of another pipe
                return 2
            return 128 + signal.SIGPIPE
        except KeyboardInterrupt as stop:
            if os.environ.get("RANK", "0") == "0":  # of several processes one speaks for all
                _say("interrupted", stop)
            return 128 + getattr(stop, "number", signal.SIGINT)
        except OSError as error:
            _say(in_words(error), error)
            return 2


def _run(words: Words) -> int:
    if not words or words[0] in ("-h", "--help"):
        _print_help()
        return 0
    if words[0] == "--version":
        print(f"filmstrip {__version__}")
        return 0
    return _dispatch(words[0], words[1:])


def _say(what: str, error: BaseException) -> None:
    """What happened, and what the command noted of what is kept."""
    with contextlib.suppress(OSError):  # of a terminal that is gone
        print("; ".join((f"filmstrip: {what}", *getattr(error, "__notes__", ()))), file=sys.stderr)


def _raise_again(console: Console) -> None:
    """Called by rich while it handles the error."""
    raise


def _is_unread(stream: TextIO) -> bool:
    """Whether nobody reads a stream any more; what it still holds then vanishes, as Python would write it at exit."""
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True


def _dispatch(name: str, words: Words) -> int:
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see `filmstrip --help`"
        raise UserError(f"there is no command {name!r}; {hint}")
    command = COMMANDS[name]
    if command not in TAKES_WORDS:
        return tyro.cli(checked_arguments(command), args=words, prog=f"filmstrip {name}") or 0
    if words[:1] in (["-h"], ["--help"]):
        print(inspect.getdoc(command))
        return 0
    return command(words) or 0


def _print_help() -> None:
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(f"[bold]{name}[/]", (inspect.getdoc(command) or "").splitlines()[0])
    console = Console()
    console.print(f"[bold]filmstrip[/] {__version__}: learn from video\n\n  filmstrip COMMAND ...\n")
    console.print(table)
    console.print("\n`filmstrip COMMAND --help` tells more; `filmstrip demo` shows everything at work.")


if __name__ == "__main__":
    sys.exit(main())
