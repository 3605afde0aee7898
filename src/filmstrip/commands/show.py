"""``filmstrip show``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import tyro
from rich.console import Console

from filmstrip.bounds import Count, PositiveShare, Rate, check_numbers, check_options
from filmstrip.commands.arguments import HELP, PresetCommand, leading, run_from
from filmstrip.commands.command import read


@dataclass(frozen=True, kw_only=True)
class Planning:
    """Processes and machines that a step is planned for; any of these asks for a plan."""

    ranks: Count = 1
    """Number of processes, each on an accelerator of its own. ``--train.context`` of them share the tokens of each
    row, the others the rows; ``--train.shard fsdp`` shards the weights."""
    context: Count | None = None
    """Number of tokens of a row; without ``--train.context`` all processes share it, where the method can."""
    accelerator: Literal["h100", "h200", "a100", "tpu-v4", "tpu-v5p", "this-machine"] = "h100"
    """Machine of each process: an accelerator, by its data sheet, or this machine, measured now."""
    matrix_rate: Rate | None = None
    """Maximum rate of matrix products, TFLOP/s, in place of the machine's."""
    memory: Rate | None = None
    """Size of its memory, GB, in place of the machine's."""
    bandwidth: Rate | None = None
    """Rate of reading and writing its memory, GB/s, in place of the machine's."""
    link: Rate | None = None
    """Rate of sending to the next process, GB/s in one direction, in place of the machine's."""
    host: Rate | None = None
    """Rate of moving data to the machine's own memory, GB/s in one direction, in place of the machine's."""
    efficiency: PositiveShare = 1.0
    """Share of the rate that products reach; 1 for the least possible time."""
    json: bool = False
    """Whether to print the plan as JSON: bytes, seconds, operations."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Show(PresetCommand):
    """Show a preset as it would run: configuration, parameters, GMACs, tokens, memory.

    With ``--ranks``, ``--context`` or an ``--accelerator`` it shows what a step asks of each process: memory,
    operations, transfer and time; and, of a language model, what serving it takes and what other attention would.
    """

    usage = "SYSTEM[:PRESET] [--ranks N] [--context N] [--accelerator NAME] [options of the run]"
    planning: Planning | None = None

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        """See :meth:`~filmstrip.commands.command.Command.parse`."""
        if any(word.partition("=")[0] == "--config" for word in arguments):
            address, rest = [], list(arguments)
        else:
            first, rest = leading(cls, arguments, prog, "SYSTEM[:PRESET]")
            address = [first]
        planning = None
        if any(word in HELP for word in rest):
            try:
                read(Planning, ["--help"], f"{prog} {' '.join(address)}", cls.usage.partition(" ")[2])
            except SystemExit:
                print()
        else:
            given = len(rest)
            planning, rest = tyro.cli(Planning, prog=prog, args=rest, return_unknown_args=True)
            check_options(planning)
            if len(rest) == given:
                planning = None
        run, _ = run_from(cls, [*address, *rest], prog)
        return cls(run=run, planning=planning)

    def __call__(self) -> None:
        """Print it."""
        if self.planning is not None:
            from filmstrip.commands.work.step_plan import show_plan

            show_plan(self.run, self.planning, Console())
            return
        from filmstrip.commands.work.show import show

        show(self.run, Console())
