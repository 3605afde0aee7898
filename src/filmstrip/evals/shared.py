"""Evaluation on several processes: each looks at its part of the data, and all of them get what was found, in order.

A part is every so-many-th batch, whole, and what was found is put together as one process would do it: figures are
exactly those of one process. Sharded networks (FSDP) are not shared out like that, since all processes must call them
alike: there each process looks at everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from filmstrip.data.reading.loader import EvalLoader
from filmstrip.distributed import process
from filmstrip.distributed.parallel import is_sharded
from filmstrip.evals import Subject
from filmstrip.progress import counted, tracked
from filmstrip.protocols import Batch

Item = TypeVar("Item")
Found = TypeVar("Found")


def looked_at(
    subject: Subject, batches: EvalLoader, look: Callable[[Batch, int], Found], *, most: int | None = None
) -> Iterator[Found]:
    """What ``look(batch, number of rows before it)`` returns for each batch of the first ``most`` rows.

    What is found crosses from process to process, so tensors in it lie on the CPU.
    """
    rank, world = _share(subject)
    videos = getattr(batches, "num_videos", None)
    total = videos if most is None or videos is None else min(most, videos)
    with counted("evaluating", total) as done:
        yield from _looked_at(batches, look, most, rank, world, done)


def _looked_at(
    batches: EvalLoader,
    look: Callable[[Batch, int], Found],
    most: int | None,
    rank: int,
    world: int,
    done: Callable[[int], None],
) -> Iterator[Found]:
    """What one process of ``world`` yields; ``done`` is told how many videos were looked at."""
    seen, videos = 0, 0
    # Alone, anything that yields batches will do.
    for mine in batches.groups(rank, world) if world > 1 else ([batch] for batch in batches):
        videos = max([videos, *(1 + max(batch["index"].tolist()) for batch in mine if "index" in batch)])
        done(videos)
        counts = _exchanged(sum(_rows(batch) for batch in mine), world)
        before = seen + sum(counts[:rank])
        found = []
        for batch in mine:
            rows = _rows(batch) if most is None else min(_rows(batch), most - before)
            if rows > 0:
                found.append(look({key: value[:rows] for key, value in batch.items()}, before))
            before += _rows(batch)
        for part in _exchanged(found, world):
            yield from part
        seen += sum(counts)
        if most is not None and seen >= most:
            return


def made_of(subject: Subject, items: Sequence[Item], make: Callable[[Item], Found]) -> Iterator[Found]:
    """What ``make`` returns for each of ``items``; tensors in it lie on the CPU."""
    rank, world = _share(subject)
    for start in tracked(range(0, len(items), world), "sampling"):
        found = [make(item) for item in islice(items, start + rank, min(start + rank + 1, len(items)))]
        for part in _exchanged(found, world):
            yield from part


def _share(subject: Subject) -> tuple[int, int]:
    """This process's number, and how many share the work."""
    if not process.is_several() or is_sharded(subject.objective):
        return 0, 1
    return process.rank(), process.world_size()


def _exchanged(value: Found, world: int) -> list[Found]:
    return process.from_all(value) if world > 1 else [value]


def _rows(batch: Batch) -> int:
    return len(next(iter(batch.values())))
