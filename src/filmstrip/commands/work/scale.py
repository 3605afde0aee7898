"""A scaling law: a ladder of sizes, learning rates for each, runs with checkpoints, a fit, and a page.

Each run has a folder of its own, and resumes. Weights and states of runs that only try a learning rate are removed
when they end; their results stay.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from filmstrip.commands.scale import Ladder
from filmstrip.commands.stopping import keeping
from filmstrip.commands.work.scaling_page import Law, Measured, Sweep, scaling_report, scaling_table
from filmstrip.commands.work.side_by_side import printed
from filmstrip.data.features import FeatureSource
from filmstrip.data.kinds.encoded import EncodedSample, EncodedSource, is_encoded
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sample import Source
from filmstrip.data.sources import open_source
from filmstrip.distributed import process
from filmstrip.errors import Diverged, UserError
from filmstrip.evals.likelihood import Likelihood
from filmstrip.files import write_csv, write_json
from filmstrip.inference import inference
from filmstrip.measure.complexity import training_multiply_adds
from filmstrip.measure.power_law import LEAST, Point, envelope, exponent_interval, straight, with_offset
from filmstrip.objectives.latent import LatentConfig
from filmstrip.protocols import Batch, CodeModel, Objective, find_tokenizer
from filmstrip.runs import experiment
from filmstrip.runs.config import Run, differences, from_json, read_config, to_json
from filmstrip.runs.contents import CONFIG, STATE, WEIGHTS, history, is_run
from filmstrip.runs.tokenizers import start_tokenizer, with_tokenizer
from filmstrip.train.lengths import Steps

SIZED = ("width", "depth", "num_heads", "mlp_dim")
"""Settings of an objective that grow along the ladder."""
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Learning rates that are tried by default, as multiples of the preset's."""
COUNTED = 4096
"""Maximum number of training clips by which the frequency of each code is counted."""
MARGIN = 0.01
"""Nats a code below the unigram entropy from which on a network counts as having learnt something."""
RESULT = "result.json"
"""File with the result of a learning rate that was tried."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What the data give."""

    codes: int
    """Number of codes of a clip."""
    tokens: int
    """Number of codes in one pass over the training clips."""
    unigram: float
    """Cross-entropy of the held-out codes under the frequency of each in the training clips, nats a code."""
    batch: Batch
    """One clip, on the ``meta`` device, with ids in place of video."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of the ladder, or one width of it."""

    index: int
    run: Run
    multiply_adds: int
    """Multiply-adds of training on one clip, forward and backward."""
    parameters: int
    """Parameters without the tokenizer."""

    @property
    def name(self) -> str:
        """Its width and depth."""
        objective: Any = self.run.objective
        return f"{objective.width}x{objective.depth}"


def scale(run: Run, out: Path, ladder: Ladder, *, console: Console | None = None) -> int:
    """Train a ladder of sizes, or resume; fit, print and report.

    ``out`` receives ``sweep/`` and ``sizes/`` with a folder for each run, ``scaling.json``, ``points.csv`` and
    ``report.html``.

    Returns:
        the exit code: 1 if the training of a size diverged, else 0.

    Raises:
        UserError: the system has no exact likelihood of codes or no sizes to grow, there are too few tokens, or
            ``out`` holds other runs.
    """
    if process.world_size() > 1:
        raise UserError("a ladder is trained by one process: start it without torchrun")
    console = console or Console()
    run, source = prepared(run)
    corpus = survey(run, source, ladder)
    clips = corpus.codes * run.data.batch_size
    steps, tried = (round(tokens / clips) for tokens in (ladder.tokens, ladder.sweep_tokens or ladder.tokens / 4))
    _check_tokens(run, corpus, ladder, steps, tried)
    sizes = [size_of(run, i, corpus) for i in range(1, ladder.ladder + 1)]

    def kept() -> str:
        return f"{out} keeps all that was trained and measured so far: the same command resumes"

    with keeping(kept):
        sweeps = _sweeps(run, sizes, corpus, ladder, out, tried, console)
        rates = best_rates(sweeps, sizes, run.optim.lr)
        measured, failures = _train(sizes, rates, ladder, out, steps, console)
    found = Measured(
        ladder=ladder.ladder,
        tokens=steps * clips,
        points=measured,
        unigram=corpus.unigram,
        margin=MARGIN,
        sweeps=sweeps,
        law=fitted(measured, corpus.unigram, ladder.resamples),
        failures=failures,
        mup=getattr(run.objective, "base_width", None) is not None,
    )
    _write(found, ladder, out, console)
    return 1 if failures else 0


def prepared(run: Run) -> tuple[Run, Source]:
    """The run with the tokenizer of its data, bound to them, and the data.

    Of a folder of ids, the tokenizer's run is the one that wrote it, unless one is named, and the clips are its.

    Raises:
        UserError: the system models no codes, or the data cannot be used.
    """
    objective = run.objective
    if not isinstance(objective, LatentConfig) or not {"width", "depth"} <= {
        field.name for field in fields(objective)
    }:
        raise UserError(
            f"a ladder needs a model of codes with a width and a depth, and {type(objective).__name__} is none: give "
            "pretraining.toto or generation.videogpt"
        )
    path = run.data.path
    if path is not None and is_encoded(path) and objective.tokenizer_run is None:
        encoder = FeatureSource(path).about.get("encoder", "")
        if encoder and is_run(encoder):
            run = replace(run, objective=replace(objective, tokenizer_run=encoder))
    source = open_source(run.data)
    run = with_tokenizer(run)
    if isinstance(source, EncodedSource) and source.codebook_size:
        run = replace(run, objective=_on_grid(run.objective, source))
    return run.bound(source.info(run.data.train_split)), source


def _on_grid(objective: Any, source: EncodedSource) -> LatentConfig:
    """The objective for clips of so many codes."""
    with torch.device("meta"):
        t, h, w = objective.build_tokenizer().patch_size
    frames, height, width = (n * p for n, p in zip(source.grid, (t, h, w)))
    if height != width:
        raise UserError(f"the clips in {source.root} are {height} x {width} pixels: a ladder needs square ones")
    return replace(objective, num_frames=frames, size=height)


def survey(run: Run, source: Source, ladder: Ladder) -> Corpus:
    """Count the data's codes.

    Raises:
        UserError: the system has no exact likelihood of codes, or its tokenizer is untrained.
    """
    objective = run.objective.build()
    if not isinstance(objective, CodeModel):
        raise UserError(
            f"a scaling law needs an exact likelihood of codes (log_prob), and {type(objective).__name__} has none: "
            "give pretraining.toto or generation.videogpt"
        )
    start_tokenizer(objective, run)
    with inference(objective):
        first = next(iter(EvalLoader(source, run.data, run.data.eval_split, batch_size=1)))
        codes = objective.dims_of(first)
        ids = objective.codes(first).ids
        size = _codebook_size(objective)
        counts = torch.ones(size, dtype=torch.float64)
        for some in _ids(objective, source, run, run.data.train_split, COUNTED):
            counts += torch.bincount(some.flatten(), minlength=size)
        share = (counts / counts.sum()).log()
        nats = [share[some].flatten() for some in _ids(objective, source, run, run.data.eval_split, ladder.held_out)]
    samples = source.split(run.data.train_split)
    clips = sum(len(sample.rows) if isinstance(sample, EncodedSample) else 1 for sample in samples)
    batch = {key: value for key, value in first.items() if key != "video"} | {"tokens": ids}
    return Corpus(
        codes=codes,
        tokens=clips * codes,
        unigram=-float(torch.cat(nats).mean()),
        batch={key: value.to("meta") if isinstance(value, Tensor) else value for key, value in batch.items()},
    )


def _codebook_size(objective: Objective) -> int:
    """The number of different codes."""
    tokenizer = find_tokenizer(objective)
    assert tokenizer is not None and tokenizer.codebook_size is not None, "a model of codes has a tokenizer of codes"
    return tokenizer.codebook_size


def _ids(objective: CodeModel, source: Source, run: Run, split: str, most: int) -> Iterator[Tensor]:
    """The codes of the first clips of a split."""
    seen = 0
    for batch in EvalLoader(source, run.data, split):
        ids = objective.codes(batch).ids
        assert ids is not None, "a code model has codes"
        yield ids[: most - seen]
        seen += len(ids)
        if seen >= most:
            return


def _check_tokens(run: Run, corpus: Corpus, ladder: Ladder, steps: int, tried: int) -> None:
    """See that the data and the budget suffice.

    Raises:
        UserError: they do not; says what there is.
    """
    if ladder.tokens > ladder.passes * corpus.tokens:
        raise UserError(
            f"--tokens {ladder.tokens:g} are {ladder.tokens / corpus.tokens:.1f} passes over the {corpus.tokens:,} "
            f"tokens of the training clips, more than --passes {ladder.passes:g}: give more data or fewer tokens"
        )
    need = run.data.batch_size * corpus.codes
    if steps < ladder.checkpoints:
        raise UserError(
            f"--tokens {ladder.tokens:g} are {steps} steps of {need:,} tokens, fewer than --checkpoints "
            f"{ladder.checkpoints}: give more tokens, or a smaller --data.batch-size"
        )
    if ladder.sweep != "none" and tried < 1:
        raise UserError(f"--sweep-tokens are less than one step of {need:,} tokens: give more")


def size_of(run: Run, index: int, corpus: Corpus, *, depth: int | None = None) -> Size:
    """The preset with every size times ``index``, or with a ``depth`` of its own.

    Raises:
        UserError: such a network cannot be built.
    """
    own = {field.name for field in fields(run.objective)}
    sizes = {name: index * getattr(run.objective, name) for name in SIZED if name in own}
    objective: Any = replace(run.objective, **sizes | ({"depth": depth} if depth else {}))
    with torch.device("meta"):
        built = objective.build()
    built.train()
    tokenizer = sum(p.numel() for p in built.tokenizer.parameters())
    return Size(
        index=index,
        run=replace(run, objective=objective),
        multiply_adds=training_multiply_adds(built, corpus.batch),
        parameters=sum(p.numel() for p in built.parameters()) - tokenizer,
    )


def _sweeps(
    run: Run,
    sizes: Sequence[Size],
    corpus: Corpus,
    ladder: Ladder,
    out: Path,
    steps: int,
    console: Console,
) -> list[Sweep]:
    """Try learning rates for each width at the smallest depth, and for each size, as asked for."""
    chosen = sizes[: ladder.sweep_widths]
    depth: int = getattr(sizes[0].run.objective, "depth")  # noqa: B009 (of a model that has one)
    plans: list[tuple[str, Size]] = []
    if ladder.sweep in ("width", "both"):
        plans += [("width", size_of(run, size.index, corpus, depth=depth)) for size in chosen]
    if ladder.sweep in ("ladder", "both"):
        plans += [("ladder", size) for size in chosen]
    rates = sorted(set(ladder.rates or [factor * run.optim.lr for factor in FACTORS]))
    found = []
    for kind, size in plans:
        losses: dict[float, float | None] = {}
        took = steps
        for rate in rates:
            folder = out / "sweep" / size.name / f"lr-{rate:.4g}"
            console.rule(f"learning rate {rate:.4g}, {size.name}", align="left")
            tried = _budgeted(size.run, rate, steps, steps, ladder)
            losses[rate], took = _try(tried, folder, console, exactly=ladder.sweep_tokens is not None)
        objective: Any = size.run.objective
        found.append(
            Sweep(kind=kind, size=size.index, width=objective.width, depth=objective.depth, losses=losses, steps=took)
        )
    return found


def _budgeted(run: Run, rate: float, steps: int, every: int, ladder: Ladder) -> Run:
    """A run with a learning rate, for so many steps, measured after each ``every``."""
    return replace(
        run,
        optim=replace(run.optim, lr=rate),
        train=replace(run.train, length=Steps(steps), eval_every=every, save_every=every),
        evals=(Likelihood(num_videos=ladder.held_out),),
    )


def _try(run: Run, folder: Path, console: Console, *, exactly: bool) -> tuple[float | None, int]:
    """The held-out loss that a learning rate leads to, none if training diverges, and the number of steps.

    Only the result is kept.

    One that was tried for another number of steps is tried again only if that number was given (``exactly``).
    """
    result = folder / RESULT
    if result.exists():
        kept = _read_result(result)
        changed = [each for each in differences(run, kept["run"]) if each.change != "free"]
        if other := [each for each in changed if each.change == "never"]:
            raise UserError(
                f"{folder} was tried with other settings ({'; '.join(map(str, other[:5]))}): give another --out"
            )
        if not (changed and exactly):
            console.print(f"tried already: {kept['loss']}")
            return kept["loss"], kept["run"].train.length.steps
        shutil.rmtree(folder)  # for another number of steps
    loss, why = None, ""
    try:
        experiment.train(run, folder)
        loss = _losses(folder)[-1][1]
    except Diverged as error:
        why = str(error)
        console.print(f"diverged: {why}", style="red", markup=False)
    write_json({"loss": loss, "why": why, "run": to_json(run)}, result)
    shutil.rmtree(folder / STATE, ignore_errors=True)
    (folder / WEIGHTS).unlink(missing_ok=True)
    return loss, run.train.length.total(1.0)


def _read_result(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_bytes())
    return kept | {"run": from_json(kept["run"])}


def _losses(folder: Path) -> list[tuple[int, float]]:
    """Steps and held-out losses, nats a code, as a run recorded them."""
    for name, (steps, bits) in history(folder).items():
        if name.startswith("eval/bits_per_dim/"):
            return [(step, value * math.log(2)) for step, value in zip(steps, bits)]
    return []


def best_rates(sweeps: Sequence[Sweep], sizes: Sequence[Size], preset: float) -> dict[int, float]:
    """The rate of each size: its own sweep's best, else its width's, else that of the one before, or the preset's."""
    found, rate = {}, preset
    for size in sizes:
        for kind in ("width", "ladder"):
            for sweep in sweeps:
                if (sweep.kind, sweep.size) == (kind, size.index) and sweep.best is not None:
                    rate = sweep.best
        found[size.index] = rate
    return found


def _train(
    sizes: Sequence[Size],
    rates: Mapping[int, float],
    ladder: Ladder,
    out: Path,
    steps: int,
    console: Console,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Train every size; returns their measurements, and why some diverged."""
    rows, failures = [], {}
    every = -(-steps // ladder.checkpoints)
    for size in sizes:
        rate = rates[size.index]
        run, folder = _budgeted(size.run, rate, steps, every, ladder), out / "sizes" / f"{size.name}-lr-{rate:.4g}"
        console.rule(f"{size.index} of {len(sizes)}: {size.name}, learning rate {rate:.4g}", align="left")
        _check_same(folder, run)
        try:
            if max((step for step, _ in _losses(folder)), default=0) >= steps:
                console.print(f"trained already: {folder}")
            else:
                experiment.train(run, folder)
        except Diverged as error:
            failures[size.name] = str(error)
            console.print(f"diverged: {error}", style="red", markup=False)
        each = size.multiply_adds * run.data.batch_size
        objective: Any = size.run.objective
        rows += [
            {
                "size": size.index,
                "width": objective.width,
                "depth": objective.depth,
                "parameters": size.parameters,
                "lr": rate,
                "step": step,
                "clips": step * run.data.batch_size,
                "multiply_adds": step * each,
                "loss": loss,
            }
            for step, loss in _losses(folder)
            if step <= steps
        ]
    return rows, failures


def _check_same(folder: Path, run: Run) -> None:
    """See that a folder holds this run, whatever its length, or none.

    Raises:
        UserError: it holds another.
    """
    if (folder / CONFIG).exists():
        there = read_config(folder / CONFIG)
        experiment.check_goes_on(folder, replace(run, train=replace(run.train, length=there.train.length)))


def fitted(rows: Sequence[Mapping[str, Any]], unigram: float, resamples: int) -> Law | None:
    """The laws of all measurements that have learnt something; none if their envelope is too short."""
    points = [Point(row["size"], row["multiply_adds"], row["loss"]) for row in rows if row["loss"] < unigram - MARGIN]
    front = envelope(points)
    if len(front) < LEAST:
        return None
    return Law(
        power=straight(front),
        offset=with_offset(front),
        interval=exponent_interval(points, resamples=resamples),
        front=front,
    )


def _write(found: Measured, ladder: Ladder, out: Path, console: Console) -> None:
    """Write the results as JSON and CSV, print the table, and write the page."""
    law = found.law and {
        "power": asdict(found.law.power),
        "interval": found.law.interval,
        "offset": asdict(found.law.offset),
        "envelope": [point._asdict() for point in found.law.front],
    }
    sweeps = [asdict(sweep) | {"best": sweep.best} for sweep in found.sweeps]
    content = {
        "ladder": asdict(ladder),
        "unigram": found.unigram,
        "law": law,
        "sweeps": sweeps,
        "points": found.points,
        "failures": found.failures,
    }
    write_json(content, out / "scaling.json")
    if found.points:
        write_csv(found.points, out / "points.csv")
    page = scaling_report(found)
    console.rule("Scaling", align="left")
    console.print(printed(scaling_table(found)), crop=False)
    console.print(page.lead, markup=False)
    console.print(page.write(out / "report.html"), soft_wrap=True)
