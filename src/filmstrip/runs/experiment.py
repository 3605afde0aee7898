"""From a ``Run`` to trained weights and measured figures: open the data, build, train, evaluate."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from filmstrip.data.augment.pipeline import apply_augment, check_augment, effective_augment
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.sources import Source, open_source
from filmstrip.distributed import process
from filmstrip.distributed.mesh import Mesh
from filmstrip.distributed.reduce import buffers_from_first_process
from filmstrip.errors import UserError
from filmstrip.files import append_line, write_rows
from filmstrip.inference import device_of
from filmstrip.objectives.adaptation import adapt_part
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Objective
from filmstrip.runs import preflight
from filmstrip.runs.config import Run, differences, read_config, to_json, write_config
from filmstrip.runs.contents import COMMANDS, CONFIG, PROBES, PROTOCOL, evaluations_folder, flat, is_run
from filmstrip.runs.encoders import load_for_evaluation
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.runs.frozen import References, kept_elsewhere, read_references, refer, write_references
from filmstrip.runs.initial_weights import build_begun, start
from filmstrip.runs.loading import save_data_info
from filmstrip.runs.predictions import NO_TABLE, Predictions, PredictionTable, keep_predictions
from filmstrip.runs.run_folder import RunFolder
from filmstrip.runs.saved_states import load_saved_weights
from filmstrip.runs.teachers import start_teachers, with_teachers
from filmstrip.runs.tokenizers import check_tokenizer, start_tokenizer, with_tokenizer
from filmstrip.train.config import Loop
from filmstrip.train.loop import fit, total_steps
from filmstrip.train.random_state import random_state_kept

if TYPE_CHECKING:
    from filmstrip.runs.evaluation import AnyPredictions

log = logging.getLogger(__name__)

EVALUATIONS = 10
"""Evaluations of a run that learns from labels and does not say after how many steps."""
FEWEST_STEPS = 50
"""Minimum number of steps between these."""
SHOWN = 5
"""Settings that a message names."""


@dataclass(kw_only=True)
class Result:
    """What training leaves in memory beside the run folder."""

    run: Run
    """The run as it was trained: bound to its data."""
    objective: Objective
    """The trained network and its loss."""
    source: Source
    """The data that it was trained and evaluated on."""
    folder: Path
    """The run folder."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The final value of every evaluation."""

    @property
    def subject(self) -> Subject:
        """What an evaluation needs to look at this result again."""
        return _subject(self.objective, self.source, self.run)


def train(run: Run, folder: Path, *, given: Collection[str] = (), command: str | None = None) -> Result:
    """Train a run in ``folder``; one that was interrupted there goes on where it stopped.

    Before the first step everything is looked at that could make it fail later (:mod:`filmstrip.runs.preflight`);
    ``given`` are the settings that a person gave, such as ``objective.num_classes``. A run also goes on with other
    values of settings that decide nothing of what is learnt, and for more steps (:mod:`filmstrip.settings`). What
    fails before the first step is done leaves the folder as it was. The folder keeps the ``command``.

    Raises:
        UserError: the folder holds another run, or another training is at work in it; or the data, their
            augmentation, ``run.init`` or a tokenizer's run cannot be used, or an evaluation cannot be made.
    """
    if run.objective.has_language:
        from filmstrip.runs.language import with_parts, with_visual_tokens  # other methods do without its rooms
        from filmstrip.runs.text_models import with_frame_tokens, with_text_alone

        run = with_text_alone(with_visual_tokens(with_parts(run, folder)))
        run = with_frame_tokens(with_tokenizer(run, folder))
    if run.objective.has_text_run:
        from filmstrip.runs.text_towers import with_text_tower

        run = with_text_tower(run, folder)
    source = open_source(run.data)
    info = source.info(run.data.train_split)
    run = with_teachers(with_tokenizer(run, folder), folder)
    preflight.check_run(run, bound := run.bound(info), source, given)
    files = RunFolder(folder)
    with files.alone():
        return _train(bound, source, info, files, command)


def _train(run: Run, source: Source, info: DataInfo, files: RunFolder, command: str | None) -> Result:
    """Train a run that is bound to its data, in a folder that nobody else trains in."""
    mesh = Mesh.of_processes(run.train.context)
    loader = source.loader(
        run.data,
        seed=run.seed,
        rank=mesh.data.rank,
        world=mesh.data.size,
        accumulate=run.train.accumulate,
    )
    metrics: dict[str, float] = {}
    try:
        total_steps(run.train, loader.steps_per_epoch)
        check_goes_on(files.path, run, loader.steps_per_epoch)
        objective, references = _objective(run, source, files)
        with random_state_kept(device_of(objective)):  # what is tried builds networks of its own
            subject = _subject(objective, source, run)
            protocols = preflight.check_subject(subject, run.evals)
            if run.train.best is not None:
                preflight.check_best(subject, protocols, run.train.best)
        preflight.check_space(objective, run.optim, run.train, files.path)
        fit(
            objective,
            loader,
            optim=run.optim,
            loop=_loop(run.train, objective, loader.steps_per_epoch),
            folder=files,
            mesh=mesh,
            augment=partial(
                apply_augment,
                augment=effective_augment(run.data.augment, source.directional),
                num_classes=len(source.classes) or None,
                specification=source.kind.specification,
            ),
            evaluate=_evaluator(replace(run, evals=protocols), source, files.path, metrics) if protocols else None,
            settings=dict(flat(to_json(run))),
            begun=partial(_describe, run, source, info, references, files.path, command),
        )
    finally:
        loader.close()
    return Result(run=run, objective=objective, source=source, folder=files.path, metrics=metrics)


def _loop(loop: Loop, objective: Objective, steps_per_epoch: float) -> Loop:
    """The loop with the steps between evaluations, where none are given."""
    if loop.eval_every is not None or "label" not in objective.requires:
        return loop
    return replace(loop, eval_every=max(FEWEST_STEPS, -(-total_steps(loop, steps_per_epoch) // EVALUATIONS)))


def check_goes_on(folder: Path, run: Run, steps_per_epoch: float | None = None) -> None:
    """See that ``run`` can begin or go on in a folder: nothing was saved there yet, or it is the same run.

    Settings that decide nothing of what is learnt may differ. A run may be extended, if its steps in one pass over
    the data are given.

    Raises:
        UserError: the folder holds another run; names the settings in which it differs.
    """
    config = folder / CONFIG
    if not config.exists():
        return
    there = read_config(config)
    if not RunFolder.is_saved(folder):
        return
    found = list(differences(run, there))
    other = [difference for difference in found if difference.change == "never"]
    if lengths := [difference for difference in found if difference.change == "longer"]:
        steps = [total_steps(each.train, steps_per_epoch or 1.0) for each in (run, there)]
        if steps_per_epoch is None or steps[0] < steps[1]:
            other += lengths
        elif steps[0] > steps[1] and not other:
            log.warning("%s is extended from %d to %d steps, and its learning rate with it", folder, *steps[::-1])
    if other:
        more = f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        hint = " (it can be made longer, not shorter)" if lengths and steps_per_epoch is not None else ""
        raise UserError(
            f"{folder} holds another run ({'; '.join(map(str, other[:SHOWN]))}{more}): give its own settings{hint}, "
            "or another --out, or remove the folder first"
        )


def _objective(run: Run, source: Source, files: RunFolder) -> tuple[Objective, References]:
    """What is trained, with the weights that it begins with, and the places of frozen parts that are kept elsewhere.

    Of a run that goes on, its state will bring the weights.
    """
    torch.manual_seed(run.seed)
    begun = RunFolder.is_begun(files.path)
    # What it began with is part of it, and may be gone; but for frozen parts, which are kept elsewhere.
    objective = build_begun(run, files.path, training=True) if begun else run.objective.build()
    check_augment(run.data.augment, objective.requires, source.kind.specification)
    if begun:
        references = read_references(files.path)
    else:
        if run.objective.has_language:
            from filmstrip.runs.language import start_trained_parts

            start_trained_parts(objective, run)
        if run.objective.has_text_run:
            from filmstrip.runs.text_towers import start_text_tower

            start_text_tower(objective, run)
        if run.init:
            start(objective, run.init)
            if not is_run(run.init) and not Path(run.init).is_file():
                from filmstrip.runs.hub_classifiers import start_head  # other runs do without its rooms

                start_head(objective, run.init, source.classes)
        elif why := run.objective.needs_init():
            raise UserError(why)
        if run.objective.has_language:
            from filmstrip.runs.language import start_frozen_parts

            start_frozen_parts(objective, run)
        start_tokenizer(objective, run)
        start_teachers(objective, run)
        references = refer(run, files.path)
        objective.kept_elsewhere = kept_elsewhere(run, references)
        if run.lora is not None:
            adapt_part(objective, run.lora)
    if source.tokenizer is not None:
        if begun:
            load_saved_weights(objective, files.state)
        check_tokenizer(objective, source)
    return objective, references


def evaluate(
    evaluated: str | Path,
    protocols: tuple[Evaluation, ...] = (),
    data: Path | None = None,
    table: PredictionTable = NO_TABLE,
    *,
    last: bool = False,
    by: Mapping[str, ObjectiveConfig] | None = None,
) -> Iterator[tuple[str, float]]:
    """Evaluate a run folder by ``protocols`` (by default its own) on its own data, or on ``data``; or an encoder of
    the Hub on ``data``.

    A run folder keeps what is found, a line of metrics for each protocol with its settings, as of its last step, and
    the predictions of one that classifies: those of its own data beside its training's, others in ``evaluations/``.
    With ``last``, of a run that kept its best weights, those of its last step are evaluated, and nothing is kept.
    ``by`` are other methods of editing by their names: each is evaluated with the run's network too, as ``NAME/...``.

    Raises:
        UserError: there is no such run or encoder, or the data lack what a protocol looks at; or a table is asked for
            of protocols that do not classify, or of several that do.
    """
    objective, described, own, classes = load_for_evaluation(evaluated, data, last=last)
    shared = functools.cache(partial(open_source, described))
    _check_table(table, protocols or own)
    kept = None
    if is_run(evaluated) and not last:
        kept = Path(evaluated) if data is None else evaluations_folder(Path(evaluated), data)
    others = _by_others(by, objective, evaluated)
    subjects: list[list[Subject]] = []
    for protocol in protocols or own:
        source = protocol.own_source(described) or shared()
        if why := protocol.lacking(source, described):
            raise UserError(f"{why}: give other data (--data PATH)")
        # Processes share the batches, however the run was trained.
        own_subject = Subject(
            objective=objective,
            source=source,
            data=described,
            device=device_of(objective),
            classes=classes,
            keep=partial(_keep, table=table, folder=kept),
            per_clip=table.per_clip,
            name=Path(evaluated).resolve().name if is_run(evaluated) else "",
            run=str(evaluated) if is_run(evaluated) else "",
        )
        subjects.append([own_subject, *(replace(own_subject, objective=o, name=n) for n, o in others.items())])
        for subject in subjects[-1]:
            protocol.check(subject)
    for protocol, (subject, *_) in zip(protocols, subjects):  # a run's own ask for as many clips as its paper does
        for split in protocol.splits_of(described):
            preflight.check_clips(subject.source.split(split), getattr(protocol, "num_clips", 1))
    buffers_from_first_process(objective)
    for protocol, (subject, *rest) in zip(protocols or own, subjects):
        values = {}
        for prefix, each in [("", subject), *((f"{other.name}/", other) for other in rest)]:
            for name, value in protocol(each):
                values[f"eval/{prefix}{name}"] = value
                yield f"{prefix}{name}", value
        if kept is not None:
            about: dict[str, Any] = {
                "step": RunFolder(evaluated).last_step(),
                PROTOCOL: _settings(protocol, described),
            }
            if data is not None:
                about["data"] = str(data.expanduser().resolve())
            RunFolder(kept).append_metrics(about | values)


def _by_others(
    by: Mapping[str, ObjectiveConfig] | None, objective: Objective, evaluated: str | Path
) -> dict[str, Objective]:
    """Other methods of editing with the network of a run."""
    if not by:
        return {}
    from filmstrip.runs.editors import with_network  # other evaluations do without its rooms

    if (own := Path(evaluated).resolve().name) in by:
        raise UserError(f"the run folder is called {own} as a method of --by is: rename one, so that results differ")
    return {name: with_network(config, objective, evaluated) for name, config in by.items()}


def _check_table(table: PredictionTable, protocols: Sequence[Evaluation]) -> None:
    count = sum(protocol.classifies for protocol in protocols)
    if table.per_clip and (one := [p for p in protocols if p.classifies and not p.tells_clips]):
        raise UserError(f"{type(one[0]).__name__} does not predict single clips: leave out --per-clip")
    if (table.path is not None or table.per_clip) and count != 1:
        names = ", ".join(type(protocol).__name__ for protocol in protocols)
        reason = "none of these predicts" if count == 0 else "several of these predict"
        raise UserError(f"a table of predictions is of one protocol, and {reason} the classes of files: {names}")


def _keep(predictions: AnyPredictions, table: PredictionTable, folder: Path | None) -> None:
    """Write the predictions of an evaluation: where the run keeps them, and where else they were asked for."""
    if process.rank() != 0:
        return
    if folder is not None:
        if isinstance(predictions, Predictions):
            place = folder if predictions.probe is None else folder / PROBES / predictions.probe
            keep_predictions(predictions, place, table.top_k)
        else:
            predictions.write(folder, table.top_k)
    if table.path is not None:
        write_rows(list(predictions.rows(table.top_k)), table.path)


def _settings(protocol: Evaluation, data: Data) -> dict[str, Any]:
    """The name and the settings of a protocol, with the split that it takes by default."""
    kind = type(protocol)
    settings = {key: value for key, value in to_json(protocol).items() if key != "type"}
    if settings.get("split", "") is None:
        settings["split"] = data.eval_split
    return {"name": kind.__module__.rpartition(".")[2], **settings}


def _evaluator(
    run: Run, source: Source, folder: Path, metrics: dict[str, float]
) -> Callable[[Objective, int], Iterator[tuple[str, float]]]:
    """The loop's view of the run's evaluations; keeps the latest values in ``metrics``."""

    def evaluate_at(objective: Objective, step: int) -> Iterator[tuple[str, float]]:
        for name, value in _evaluate(objective, source, run, folder):
            metrics[name] = value
            yield name, value

    return evaluate_at


def _evaluate(objective: Objective, source: Source, run: Run, folder: Path) -> Iterator[tuple[str, float]]:
    buffers_from_first_process(objective)
    subject = replace(_subject(objective, source, run), keep=partial(_keep, table=NO_TABLE, folder=folder))
    for protocol in run.evals:
        yield from protocol(subject)


def _subject(objective: Objective, source: Source, run: Run) -> Subject:
    return Subject(
        objective=objective,
        source=source,
        data=run.data,
        device=device_of(objective),
        mesh=Mesh.of_processes(run.train.context),
    )


def _describe(
    run: Run, source: Source, info: DataInfo, references: References, folder: Path, command: str | None
) -> None:
    """Write what the run is, as it goes on now, what its data said, and the command that trains it."""
    if process.rank() != 0:
        return
    write_config(run, folder / CONFIG)
    write_references(references, folder)
    save_data_info(info, folder)
    source.record(folder)
    if command is not None:
        append_line(command, folder / COMMANDS)
