"""The plan of a run: what a step asks of each process, as tables or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from filmstrip.commands.work.plan_tables import tables
from filmstrip.data.kinds.conversations import OF_SHARED_ROWS
from filmstrip.errors import UserError
from filmstrip.measure.accelerators import ACCELERATORS, Accelerator
from filmstrip.measure.attention_costs import Sequence, mixings
from filmstrip.measure.complexity import blank_batch, refusing
from filmstrip.measure.plan import Layout, Plan, Times, Weight, plan_of, times, tokens_to_overlap
from filmstrip.measure.ring_cost import with_ring
from filmstrip.measure.serving import Server, server_of
from filmstrip.measure.traced_step import CountingRing, StepOptions, trace_step
from filmstrip.nn.blockwise import BLOCK
from filmstrip.nn.ring_attention import ring_attention
from filmstrip.protocols import Batch, Objective, SharesContext
from filmstrip.runs.config import Run
from filmstrip.runs.teachers import with_teachers
from filmstrip.runs.tokenizers import with_tokenizer
from filmstrip.train.blocks import changed_blocks, find_blocks
from filmstrip.train.part_rates import frozen_parts

if TYPE_CHECKING:
    from filmstrip.commands.show import Planning

THIS = "this-machine"
"""Name of the machine that the command runs on, whose rates are measured."""
_SHORT = 4096
"""Context that serving is compared with (Fu 2024)."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that is known of a planned run."""

    run: Run
    machine: Accelerator
    rate: float
    """FLOP/s that products are assumed to reach."""
    plan: Plan
    times: Times
    overlap: float | None
    """Tokens a process above which the ring hides behind attention."""
    server: Server | None

    def lengths(self) -> list[int]:
        """The contexts that serving is shown for."""
        context = self.plan.layout.tokens or _SHORT
        return sorted({min(_SHORT, context), *(length for length in (2**15, 2**17) if length < context), context})

    def sequence(self, context: int) -> Sequence:
        """A layer's sizes, for so many tokens."""
        assert self.server is not None
        return replace(self.server.sequence, length=context, ranks=max(2, self.plan.layout.context))

    def served(self, context: int) -> dict[str, Any]:
        """What serving users of so many tokens takes: bytes, users, seconds."""
        server, machine, ranks = self.server, self.machine, self.plan.layout.ranks
        assert server is not None
        reached = self.rate / machine.rates[self.run.train.precision]
        cache = server.cache(context)
        return {
            "cache": cache,
            "users": server.users(context, machine.memory),
            # Every process has the weights; keys and values are shared among them.
            "users_of_all": max(0, int(ranks * (machine.memory - server.weights) // max(1, cache))),
            "prefill": server.prefill(context, reached * max(machine.rates.values())),
            "token": server.decode(context, machine.bandwidth),
            "switch": server.switch(context, machine),
        }


def show_plan(run: Run, planning: Planning, console: Console) -> None:
    """Print what a step of a run asks of each process.

    Raises:
        UserError: processes, rows and tokens do not divide, or the run cannot share its rows; or a rate of the
            machine is not known.
    """
    found = find_plan(run, planning)
    if planning.json:
        console.print_json(json.dumps(_values(found)))
        return
    for table in tables(found):
        console.print(table)
        console.print()


def find_plan(run: Run, planning: Planning) -> Found:
    """The plan of a run; see :func:`show_plan`."""
    run = _with_context(with_teachers(with_tokenizer(run)), planning.context)
    machine = _machine(planning, run.train.precision)
    rate = machine.rates[run.train.precision] * planning.efficiency
    layout = _layout(run, planning)
    plan = _plan(run, layout)
    server = server_of(run.objective.build)
    link, overlap = machine.link_of(layout.context), None
    if layout.context > 1 and link is not None and server is not None:
        own = server.sequence
        shared = own.width / own.kv_width
        each = 4 if run.train.precision == "float32" else 2
        overlap = 2 * tokens_to_overlap(rate, link, bytes_each=each, queries_a_key=shared)
    return Found(
        run=run,
        machine=machine,
        rate=rate,
        plan=plan,
        times=times(plan, machine, rate),
        overlap=overlap,
        server=server,
    )


def _with_context(run: Run, context: int | None) -> Run:
    if context is None:
        return run
    return replace(run, data=replace(run.data, reads=run.data.reads.with_row_tokens(context)))


def _layout(run: Run, planning: Planning) -> Layout:
    """How the processes share the run's batches and rows.

    Raises:
        UserError: they cannot.
    """
    loop, tokens = run.train, run.data.reads.row_tokens
    with torch.device("meta"):
        shares = isinstance(run.objective.build(), SharesContext)
    context = loop.context
    if context == 1 and planning.context is not None and shares:
        context = planning.ranks
    if planning.ranks % context:
        raise UserError(
            f"--ranks {planning.ranks} is not a multiple of train.context {context}, the processes that share a row: "
            f"give a multiple of {context}"
        )
    if context > 1 and not (shares and tokens):
        raise UserError(
            f"train.context {context} shares the tokens of a row among processes, and the attention of "
            f"{type(run.objective).__name__} stays within one: leave train.context at 1"
        )
    if tokens and tokens % context:
        raise UserError(
            f"{tokens} tokens a row do not divide among {context} processes: give --context a multiple of {context}, "
            "or --train.context a divisor of it"
        )
    slices = planning.ranks // context * loop.accumulate
    if run.data.batch_size % slices:
        raise UserError(
            f"data.batch_size {run.data.batch_size} does not divide into {planning.ranks // context} processes x "
            f"{loop.accumulate} accumulated micro-batches: make it a multiple of {slices} (--data.batch-size), or "
            "let more processes share each row (--train.context)"
        )
    return Layout(
        ranks=planning.ranks,
        context=context,
        sharded=loop.shard == "fsdp",
        accumulate=loop.accumulate,
        rows=run.data.batch_size // slices,
        tokens=tokens,
        average=loop.ema is not None,
    )


def _plan(run: Run, layout: Layout) -> Plan:
    with refusing(run):
        sizes = run.data.reads.sizes(run.data, run.objective)
        if sizes is None:
            raise UserError("what was encoded comes in shapes of its own: give a run on videos")
        packed = getattr(run.data.reads, "pack", None) is not None
        with torch.device("meta"):
            weights = _weights(run, build := partial(_built, run))
        sharded = layout.sharded and layout.ranks > 1
        by_name = {weight.name: weight for weight in weights}

        def summed_in(name: str) -> tuple[int | None, float]:
            return by_name[name].block, by_name[name].share(layout.ranks)

        options = StepOptions(
            build=partial(run.optim.build, sharded=sharded),
            changed=partial(_changed, run),
            precision=run.train.precision,
            summed_in=summed_in if sharded else None,
            gradients_stay=layout.accumulate > 1 or (layout.ranks > 1 and not sharded),
            first_block=lambda name: by_name[name].block == 0,
            ring=layout.context,
            striped=run.train.context_striped,
            in_blocks=packed,
            processes=layout.data,
        )
        step = trace_step(build, partial(_batch, run, {"B": layout.rows, **sizes}), options)
    step = with_ring(step, _along, ring=layout.context, block=BLOCK, striped=run.train.context_striped)
    return plan_of(step, weights, layout)


def _built(run: Run) -> Objective:
    objective = run.objective.build()
    if run.lora is not None:
        from filmstrip.objectives.adaptation import adapt_part

        adapt_part(objective, run.lora)
    return objective


def _batch(run: Run, sizes: dict[str, int], objective: Objective) -> Batch:
    """A blank batch; rows that several samples share are one sample's, which attends to most."""
    batch = blank_batch(run, objective, sizes)
    return {name: value for name, value in batch.items() if name not in OF_SHARED_ROWS}


@contextmanager
def _changed(run: Run, objective: Objective) -> Iterator[None]:
    with (
        frozen_parts(objective, run.optim.rates, run.optim.freeze),
        changed_blocks(objective, checkpoint=run.train.checkpoint, compile=False),
    ):
        yield


def _weights(run: Run, build: Any) -> list[Weight]:
    objective = build()
    blocks = {
        id(param): number for number, block in enumerate(find_blocks(objective)) for param in block.parameters()
    }
    with frozen_parts(objective, run.optim.rates, run.optim.freeze):
        return [
            Weight(
                name,
                param.numel() * param.element_size(),
                param.shape[0] if param.ndim else 1,
                param.requires_grad,
                blocks.get(id(param)),
                whole=objective.is_kept_elsewhere(name),
            )
            for name, param in objective.named_parameters()
        ]


def _along(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ring: CountingRing) -> torch.Tensor:
    """Attention along a ring as rows are attended to in training: with their documents."""
    documents = torch.ones(q.shape[0], q.shape[2], dtype=torch.long)
    return ring_attention(q, k, v, ring, document=documents)


def _machine(planning: Planning, precision: str) -> Accelerator:
    """The accelerator that is asked for, with the figures that are given in place of its own.

    Raises:
        UserError: its rate in the precision is not known.
    """
    machine = _this_machine(precision) if planning.accelerator == THIS else ACCELERATORS[planning.accelerator]
    if planning.matrix_rate is not None:
        machine = replace(machine, rates={precision: planning.matrix_rate * 1e12})
    if precision not in machine.rates:
        raise UserError(
            f"the data sheet of {machine.name} has no rate for {precision}: give --matrix-rate TFLOP/s, or "
            "--train.precision bfloat16"
        )
    given: dict[str, Any] = {
        "memory": planning.memory,
        "bandwidth": planning.bandwidth,
        "link": planning.link,
        "network": planning.link,
        "host": planning.host,
    }
    return replace(machine, **{name: value * 1e9 for name, value in given.items() if value is not None})


def _this_machine(precision: str) -> Accelerator:
    import os

    from filmstrip.evals.throughput import matrix_rate, memory_bandwidth

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Accelerator(
        name=THIS,
        rates={precision: matrix_rate(getattr(torch, precision), device)},
        memory=float(memory),
        bandwidth=memory_bandwidth(device),
        source=f"measured now, on {device}",
    )


def _values(found: Found) -> dict[str, Any]:
    """The plan as JSON values: bytes, seconds, operations."""
    plan, machine = found.plan, found.machine
    context = plan.layout.tokens
    values: dict[str, Any] = {
        "layout": {**asdict(plan.layout), "data": plan.layout.data},
        "machine": {**asdict(machine), "rate": found.rate},
        "memory": {part.name: part.bytes for part in plan.memory} | {"total": plan.total},
        "fits": plan.total <= machine.memory,
        "operations": {"products": plan.products, "attention": plan.attention},
        "traffic": plan.traffic,
        "ring": plan.ring,
        "exchange": plan.exchange,
        "seconds": {**vars(found.times), "step": found.times.step, "limit": found.times.limit},
        "tokens_to_overlap": found.overlap,
    }
    if found.server is not None and context is not None:
        values["serving"] = {str(length): found.served(length) for length in found.lengths()}
        values["mixing"] = [each._asdict() for each in mixings(found.sequence(context))]
    return values
