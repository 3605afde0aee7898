"""A plan as tables, in plain words and the units that numbers need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from filmstrip.measure.attention_costs import kernels, mixings
from filmstrip.measure.serving import BYTES

if TYPE_CHECKING:
    from filmstrip.commands.work.step_plan import Found


def tables(found: Found) -> Iterator[Any]:
    """What there is to print, one after another."""
    plan, machine, layout = found.plan, found.machine, found.plan.layout
    yield _heading(found)
    table = _table("Memory of each rank", "", "")
    table.show_header = False
    for part in plan.memory:
        if part.bytes:
            name, size = part.name, _bytes(part.bytes)
            table.add_row(*((name, size) if part.counts else (f"  [dim]{name}[/]", f"[dim]{size}[/]")))
    table.add_row("[bold]total[/]", f"[bold]{_bytes(plan.total)}[/]")
    verdict = "fits" if plan.total <= machine.memory else "[bold red]does not fit[/]"
    table.add_row(f"memory of {machine.name}: {verdict}", _bytes(machine.memory))
    yield table
    if plan.total > machine.memory and (hints := _hints(found)):
        yield "It needs less with " + ", or ".join(hints) + "."
    yield _steps(found)
    yield _remarks(found)
    if found.server is not None and layout.tokens is not None:
        yield _kernels(found)
        yield _serving(found)
        yield _mixing(found)


def _heading(found: Found) -> str:
    layout, run = found.plan.layout, found.run
    weights = "sharded (FSDP2)" if layout.sharded else "replicated (DDP)" if layout.ranks > 1 else "whole"
    rows = f"{run.data.batch_size} rows a step"
    if layout.tokens:
        rows += f" of {layout.tokens:,} tokens, {layout.tokens // layout.context:,} of each on a rank"
    lines = [
        f"[bold]{layout.ranks} x {found.machine.name}[/]: {layout.data} x {layout.context} (data x context), weights "
        f"{weights}, {run.train.precision}, activations {'recomputed' if run.train.checkpoint else 'kept'}",
        f"{rows}; {layout.rows} rows a micro-batch of each {'group of ranks' if layout.context > 1 else 'rank'}",
    ]
    return "\n".join(lines)


def _hints(found: Found) -> list[str]:
    run, layout = found.run, found.plan.layout
    hints = []
    if not layout.sharded and layout.ranks > 1:
        hints.append("--train.shard fsdp")
    if not run.train.checkpoint:
        hints.append("--train.checkpoint")
    if run.train.precision == "float32":
        hints.append("--train.precision bfloat16")
    if layout.rows > 1:
        hints.append(f"--train.accumulate {layout.accumulate * layout.rows}")
    return hints


def _steps(found: Found) -> Table:
    plan, seconds = found.plan, found.times
    table = _table("A step of each rank", "", "amount", "time, at least")
    table.add_row("matrix products", _amount(plan.products, "FLOP"), _seconds(plan.products / found.rate))
    table.add_row("attention", _amount(plan.attention, "FLOP"), _seconds(plan.attention / found.rate))
    table.add_row("compute: both", f"at {_amount(found.rate, 'FLOP/s')}", _seconds(seconds.compute))
    table.add_row("own memory, read and written", _bytes(plan.traffic), _seconds(seconds.memory))
    if plan.layout.context > 1:
        table.add_row("sent along the ring", _bytes(plan.ring), _seconds(seconds.ring))
    if plan.layout.ranks > 1:
        what = "weights and gradients exchanged" if plan.layout.sharded else "gradients exchanged"
        table.add_row(what, _bytes(plan.exchange), _seconds(seconds.exchange))
    limit = f"limited by {_LIMITS[seconds.limit]}"
    table.add_row("[bold]a step, if all of it overlaps[/]", limit, f"[bold]{_seconds(seconds.step)}[/]")
    return table


_LIMITS = {"compute": "compute", "memory": "memory", "ring": "the ring", "exchange": "the exchange"}


def _remarks(found: Found) -> str:
    plan, machine = found.plan, found.machine
    layout = plan.layout
    lines = []
    if layout.tokens:
        tokens = layout.rows * layout.data * layout.accumulate * layout.tokens
        lines.append(f"{tokens:,} tokens a step: {tokens / found.times.step:,.0f} a second at most, of all ranks.")
    if found.overlap is not None and layout.tokens:
        own = layout.tokens // layout.context
        verdict = "is hidden" if own >= found.overlap else "is not hidden"
        link = machine.link_of(layout.context)
        assert link is not None, "the overlap follows from it"
        lines.append(
            f"The ring is hidden behind attention from {found.overlap:,.0f} tokens a rank (here {own:,}: {verdict}), "
            f"at {link / 1e9:,.0f} GB/s."
        )
    if found.times.ring is None or found.times.exchange is None:
        lines.append("What links ranks is not known: give --link GB/s.")
    lines.append(
        f"Rates: {machine.source}. What kernels reach is less: --efficiency 0.5 halves the rate of products."
    )
    return "[dim]" + "\n".join(lines) + "[/]"


def _kernels(found: Found) -> Table:
    """The same attention by other kernels, one row and layer at the context of a rank."""
    server, machine, layout = found.server, found.machine, found.plan.layout
    assert server is not None and layout.tokens is not None
    of = replace(found.sequence(layout.tokens // layout.context), bytes_each=BYTES)
    rate = max(machine.rates.values())
    units = machine.multiprocessors
    table = _table(
        f"Causal attention of a layer to {of.length:,} tokens, one row, forward, in 16 bits",
        "kernel",
        "extra memory",
        "time",
        "thread blocks",
    )
    for kernel in kernels(of, server.heads, rate=rate, bandwidth=machine.bandwidth):
        least, most = kernel.seconds
        span = _seconds(least) if least == most else f"{_seconds(least)} to {_seconds(most)}"
        busy = "" if units is None else f" for {units} units"
        table.add_row(kernel.name, _bytes(kernel.memory), span, f"{kernel.blocks:,}{busy}")
    return table


def _serving(found: Found) -> Table:
    layout = found.plan.layout
    columns = ["cache", "users", "reading it", "a token", "switch"]
    if layout.ranks > 1:
        columns.insert(2, f"on {layout.ranks}")
    table = _table("Serving on one rank, in 16 bits, by the tokens of a user", "context", *columns)
    assert layout.tokens is not None
    for length in found.lengths():
        values = found.served(length)
        cells = [
            _bytes(values["cache"]),
            f"{values['users']:,}",
            _seconds(values["prefill"]),
            _seconds(values["token"]),
            _seconds(values["switch"]),
        ]
        if layout.ranks > 1:
            cells.insert(2, f"{values['users_of_all']:,}")
        table.add_row(f"{length:,}", *cells)
    return table


def _mixing(found: Found) -> Table:
    server, layout = found.server, found.plan.layout
    assert server is not None and layout.tokens is not None
    table = _table(
        f"Ways to mix {layout.tokens:,} tokens in {server.layers} layers, forward, in 16 bits",
        "kind",
        "a token sees",
        "FLOP/token",
        "kept",
        "saved",
    )
    table.columns[1].justify = "left"
    for each in mixings(found.sequence(layout.tokens)):
        table.add_row(
            each.name,
            each.rule,
            _amount(server.layers * each.operations / layout.tokens, ""),
            _amount(server.layers * each.kept, "B"),
            _amount(server.layers * each.saved, "B"),
        )
    table.add_row("[dim]all else[/]", "[dim]itself[/]", f"[dim]{_amount(server.products, '')}[/]")
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title=f"[bold]{title}[/]", title_justify="left", title_style="")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def _amount(value: float, unit: str) -> str:
    """With three digits, and the prefix that it needs."""
    if unit == "s":
        for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
            if value >= scale:
                return f"{_digits(value / scale)} {name}"
        return "0 s"
    scale, prefix = next((each for each in _PREFIXES if abs(value) >= each[0]), (1.0, ""))
    return f"{_digits(value / scale)} {prefix}{unit}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bytes(value: float) -> str:
    return _amount(value, "B")


def _seconds(value: float | None) -> str:
    return "?" if value is None else _amount(value, "s")
