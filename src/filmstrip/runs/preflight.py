"""What is looked at before the first step of training: nothing that could be told then should fail after hours."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filmstrip.data.config import Data
from filmstrip.data.kinds.kind import check_requires
from filmstrip.data.labels import check_labels
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.reading.views import frames_in
from filmstrip.data.sources import Sample, Source
from filmstrip.errors import UserError
from filmstrip.measure import complexity
from filmstrip.protocols import Classifier, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.runs.saved_states import KEPT
from filmstrip.train.best import check_metric
from filmstrip.train.config import Loop
from filmstrip.train.optim import Optim
from filmstrip.train.part_rates import frozen_parts
from filmstrip.video.decode import open_video

log = logging.getLogger(__name__)

TRIED = 4
"""Videos of a split that are decoded on trial."""


def check_run(run: Run, bound: Run, source: Source, given: Collection[str] = ()) -> None:
    """Before anything is built: nothing contradicts the data, and the network takes the clips that they cut.

    ``bound`` is the run as the data have completed it; ``given`` are the settings that a person gave, by their names
    from the run on, such as ``objective.num_classes``.

    Raises:
        UserError: a setting was given that the data say otherwise, or the network does not fit.
    """
    for name in given:
        said, found = _setting(run, name), _setting(bound, name)
        if said != found:
            raise UserError(
                f"{name} is {said}, and the data in {source.root} make it {found}: leave it out, or give other data"
            )
    if isinstance(run.data.reads, source.kind):  # clips that were encoded come in shapes of their own
        complexity.try_out(bound)


def check_subject(subject: Subject, protocols: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Before the first step: those of ``protocols`` that the data have all for, each of which can be asked.

    The others are named in a warning: training on encoded or unlabelled videos must not fail at its end. A few videos
    of each split that is evaluated are decoded; those of the training split are read by the first step.

    Raises:
        UserError: batches lack what the objective requires, a split does not exist or cannot be read, the objective
            is not what a protocol looks at, or it learns from labels that are missing or all the same.
    """
    objective, source, data = subject.objective, subject.source, subject.data
    check_requires(type(objective).__name__, objective.requires, source.gives, str(source.root))
    if data.clip.native is not None and not objective.takes_native:
        raise UserError(
            f"{type(objective).__name__} takes frames of one size, and data.clip.native gives each clip its own: "
            "leave it out, or train a method for frames of any size (language.siglip2, language.qwen2_vl)"
        )
    if getattr(data.reads, "pack", None) is not None and not objective.takes_packed:
        raise UserError(
            f"{type(objective).__name__} takes a row for each conversation, and data.reads.pack puts several in one: "
            "leave it out"
        )
    learnt_from = source.split(data.train_split)
    unlabelled = [sample.name for sample in learnt_from if not sample.is_labelled]
    if "label" in objective.requires:
        check_labels(type(objective).__name__, objective.takes_labels, source.labels)
    if "label" in objective.requires and unlabelled:
        none = " ([] stands for none of the classes)" if source.labels == "several" else ""
        counts = f"{len(unlabelled)} of {len(learnt_from)} videos of the split {data.train_split!r}"
        raise UserError(
            f"{type(objective).__name__} learns from labels, and {counts} have none, such as {unlabelled[0]}{none}"
        )
    one = len(source.classes) == 1 and source.labels == "class"
    if isinstance(objective, Classifier) and "label" in objective.requires and one:
        raise UserError(
            f"a classifier tells classes apart, and {source.root} has one, {source.classes[0]!r}: give videos of two "
            "classes or more"
        )
    lacking = {protocol: why for protocol in protocols if (why := protocol.lacking(source, data))}
    for why in lacking.values():
        log.warning("%s, and is left out", why)
    possible = tuple(protocol for protocol in protocols if protocol not in lacking)
    if protocols and not possible:
        log.warning("nothing is evaluated on %s: `filmstrip eval RUN --data PATH` can, on other data", source.root)
    for protocol in possible:
        protocol.check(subject)
    for split in dict.fromkeys(split for protocol in possible for split in protocol.splits_of(data)):
        if split != data.train_split:
            check_readable(source, data, split)
    return possible


def check_best(subject: Subject, protocols: Sequence[Evaluation], metric: str) -> None:
    """See that the evaluations measure a metric, by evaluating a view of a few videos of each split.

    Raises:
        UserError: there is no evaluation, or none measures it; lists what they measure.
    """
    if not protocols:
        raise UserError(f"train.best is {metric!r}, and the run has no evaluation that could measure it")
    source, data = subject.source, subject.data
    splits = {split for protocol in protocols for split in protocol.splits_of(data)}
    few = tuple(sample for split in sorted(splits) for sample in _few(source.split(split)))
    subject = replace(subject, source=replace(source, samples=few))
    names = []
    for protocol in protocols:
        one = {name: 1 for name in ("num_clips", "num_crops") if hasattr(protocol, name)}
        try:
            names += [name for name, _ in replace(protocol, **one)(subject)]
        except UserError:  # so few do not suffice: the first evaluation tells
            return
    check_metric(metric, names)


def check_readable(source: Source, data: Data, split: str) -> None:
    """Decode a few videos of a split, from its first to its last; one that can be read will do.

    Raises:
        UserError: there is no such split, or none of them can be read.
    """
    few = _few(source.split(split))
    # In a worker, where there are any: a file that crashes the decoder ends that, and not the training.
    careful = replace(data, num_workers=min(1, data.num_workers))
    batches = EvalLoader(replace(source, samples=few), careful, split, batch_size=1)
    if not any(True for _ in batches):
        bad = batches.unreadable[0]
        raise UserError(
            f"none of {len(few)} videos of the split {split!r} that were tried can be read ({bad.name}: "
            f"{bad.reason}): `filmstrip data check` examines all"
        )


def check_clips(samples: Sequence[Sample], num_clips: int) -> None:
    """See that so many clips can be cut of videos: no more than the longest of a few has frames.

    Raises:
        UserError: none of them has as many.
    """
    if num_clips == 1:
        return
    held = []
    for sample in _few(samples):
        if type(sample) is Sample:  # all else comes in samples, not in frames
            with suppress(UserError, OSError), open_video(sample.file()) as decoder:
                held.append(frames_in(decoder.info, sample.start, sample.end))
    if held and num_clips > max(held):
        raise UserError(
            f"{num_clips} clips are asked for of each video, and those that were tried have at most {max(held)} "
            "frames: give fewer clips"
        )


def _few(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Some samples from the first to the last."""
    places = {round(i * (len(samples) - 1) / (TRIED - 1)) for i in range(TRIED)}
    return tuple(samples[place] for place in sorted(places))


def check_space(objective: Objective, optim: Optim, loop: Loop, folder: Path) -> None:
    """See that the disk has room for a run's weights, for its last two states, and for what replaces any of these.

    Raises:
        UserError: it has not; says how much is needed and free. Or ``optim.rates`` names no part of the objective.
    """
    whole = sum(tensor.nbytes for tensor in objective.own_state().values())
    kept = 2 if loop.best is None else 3  # weights, what replaces them, and those of the last step
    with frozen_parts(objective, optim.rates, optim.freeze):
        trained = sum(p.nbytes for p in objective.parameters() if p.requires_grad)
    state = whole + optim.moments * trained + (trained if loop.ema is not None else 0)
    there = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    disk = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    needed, free = kept * whole + (KEPT + 1) * state - there, shutil.disk_usage(disk).free
    if needed > free:
        wanted, left = (f"{size / 2**30:.3g} GiB" for size in (needed, free))
        raise UserError(
            f"{folder} needs {wanted} for weights and states, and its disk has {left} free: make room, or give "
            "another --out"
        )


def _setting(run: Run, name: str) -> object:
    """A setting by its name; none for an option of the command line that only stands for one, such as ``no_mask``."""
    value: object = run
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
