"""Two steps for many items on a Ray cluster: tasks that read, and actors that hold a model and compute.

Ray Data streams the items through both, with as many under way as its memory allows, and what an actor was given that
died is given to another one. Results come in the order of the items, whichever machine they are from.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from filmstrip.errors import UserError

Result = TypeVar("Result")
_MOST_BLOCKS = 10_000
"""Maximum number of blocks of items, each of which is sent to one process at a time."""


def check_ray() -> None:
    """Raise a UserError where Ray Data is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "--engine ray needs Ray: pip install 'filmstrip[scale]', here and on every machine of the cluster"
        )


def in_order(
    count: int,
    read: Callable[[int], Any],
    build: Callable[[], Callable[[Any], Result]],
    *,
    actors: int,
) -> Iterator[Result]:
    """What the actors compute of each of ``count`` items, in order.

    ``read`` turns the number of an item into what an actor's function, which ``build`` makes once in each, is given;
    both, and all that they hold, are sent to the machines of the cluster, where ``filmstrip`` is installed. The
    cluster is that of ``RAY_ADDRESS``, or one that runs on this machine, or a new one of this machine, which ends
    with the iteration. An actor has a GPU if the cluster has any, and else a processor core.

    Raises:
        UserError: Ray is not installed, the cluster has no room for the actors, or a step raised one.
    """
    check_ray()
    import ray

    own = not ray.is_initialized()
    if own:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield from _through(count, read, build, actors)
    finally:
        if own:
            ray.shutdown()


def _through(
    count: int, read: Callable[[int], Any], build: Callable[[], Callable[[Any], Result]], actors: int
) -> Iterator[Result]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    has = ray.cluster_resources()
    gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 0))
    room = gpus or cores - 1  # a core is left for reading
    if actors > room:
        raise UserError(
            f"--processes {actors} starts as many actors, and this Ray cluster has {gpus} GPUs and {cores} processor "
            f"cores, of which reading needs one: give at most {max(room, 0)}"
        )
    items = ray.data.range(count, override_num_blocks=min(count, _MOST_BLOCKS))
    found = items.map(_Reading(read), num_cpus=1).map(
        _Computing,  # type: ignore[arg-type]  # a class, of which each actor makes an instance
        fn_constructor_args=(build,),
        compute=ActorPoolStrategy(size=actors),
        num_gpus=int(gpus > 0),
        num_cpus=int(gpus == 0),
    )
    for row in found.iter_rows():
        if row["refused"] is not None:
            raise UserError(row["refused"])
        yield row["value"]


class _Reading:
    """The first step of one item. A UserError is handed on: Ray would wrap it, and try the item again."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        self.read = read

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"value": self.read(int(row["id"])), "refused": None}
        except UserError as error:
            return {"value": None, "refused": str(error)}


class _Computing:
    """The second step, in an actor."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]]) -> None:
        self.refused: str | None = None
        try:
            self.compute = build()
        except UserError as error:
            self.refused = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        refused = row["refused"] or self.refused
        if refused is not None:
            return {"value": None, "refused": refused}
        try:
            return {"value": self.compute(row["value"]), "refused": None}
        except UserError as error:
            return {"value": None, "refused": str(error)}
