"""Evaluation on several processes: each evaluates its share of the batches, and all receive the results, in order.

Batches are distributed whole and round-robin, so that results are exactly those of one process. With sharded networks
(FSDP), or where several processes share a clip's tokens, all processes must call the network in step: each evaluates
all batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from filmstrip.data.reading.loader import EvalLoader
from filmstrip.distributed import process
from filmstrip.distributed.parallel import is_sharded
from filmstrip.progress import counted, tracked
from filmstrip.protocols import Batch
from filmstrip.runs.evaluation import Subject

Item = TypeVar("Item")
Found = TypeVar("Found")


def map_batches(
    subject: Subject, batches: EvalLoader, function: Callable[[Batch, int], Found], *, max_rows: int | None = None
) -> Iterator[Found]:
    """Results of ``function(batch, number of rows before it)`` for the batches of the first ``max_rows`` rows.

    Results are exchanged between processes: tensors in them must be on the CPU.
    """
    rank, world = _share(subject)
    videos = getattr(batches, "num_videos", None)
    total = videos if max_rows is None or videos is None else min(max_rows, videos)
    with counted("evaluating", total) as done:
        yield from _mapped_batches(batches, function, max_rows, rank, world, done)


def _mapped_batches(
    batches: EvalLoader,
    function: Callable[[Batch, int], Found],
    max_rows: int | None,
    rank: int,
    world: int,
    done: Callable[[int], None],
) -> Iterator[Found]:
    """Results in one process of ``world``; ``done`` is called with the number of videos evaluated."""
    seen, videos = 0, 0
    # With one process, any iterable of batches is accepted.
    for mine in batches.groups(rank, world) if world > 1 else ([batch] for batch in batches):
        videos = max([videos, *(1 + max(batch["index"].tolist()) for batch in mine if "index" in batch)])
        done(videos)
        counts = _exchanged(sum(_rows(batch) for batch in mine), world)
        before = seen + sum(counts[:rank])
        found = []
        for batch in mine:
            rows = _rows(batch) if max_rows is None else min(_rows(batch), max_rows - before)
            if rows > 0:
                found.append(function({key: value[:rows] for key, value in batch.items()}, before))
            before += _rows(batch)
        for part in _exchanged(found, world):
            yield from part
        seen += sum(counts)
        if max_rows is not None and seen >= max_rows:
            return


def map_items(
    subject: Subject, items: Sequence[Item], function: Callable[[Item], Found], title: str = "sampling"
) -> Iterator[Found]:
    """Results of ``function`` for each of ``items``; tensors in them must be on the CPU."""
    rank, world = _share(subject)
    for start in tracked(range(0, len(items), world), title):
        found = [function(item) for item in islice(items, start + rank, min(start + rank + 1, len(items)))]
        for part in _exchanged(found, world):
            yield from part


def _share(subject: Subject) -> tuple[int, int]:
    """This process's rank, and the number of processes that share the batches."""
    if not process.is_several() or is_sharded(subject.objective) or subject.mesh.context.size > 1:
        return 0, 1
    return subject.mesh.data


def _exchanged(value: Found, world: int) -> list[Found]:
    return process.from_all(value) if world > 1 else [value]


def _rows(batch: Batch) -> int:
    return len(next(iter(batch.values())))
