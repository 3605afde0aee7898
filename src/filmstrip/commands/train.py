"""``filmstrip train``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filmstrip.commands.arguments import option, options_given, run_from
from filmstrip.commands.command import Command
from filmstrip.commands.stopping import keeping

if TYPE_CHECKING:
    from filmstrip.runs.config import Run


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a preset, on its own data or on yours.

    A ladder (language.lwm_text:ladder) is several presets, each of which starts from the one before it and has a
    folder of its own in that of the ladder. Options are those of all stages; the same command resumes it.

    --lora adapts the encoder of a recogniser or a detector, or the transformer of generation.vdt, by products of low
    rank, in place of training its weights; so does one of its settings: --lora.rank 8, --lora.alpha 16,
    --lora.dropout 0, --lora.layers NAME... (all).
    --config RUN/config.json in place of the system begins a new run with the configuration of another one, which the
    options change. A system may also be one of a package of yours, installed or in the current folder:
    my_package.my_system:preset.
    """

    usage = "SYSTEM[:PRESET] [--data PATH] [--out FOLDER] [options of the run]"
    run: Run
    out: Path
    given: tuple[str, ...] = ()
    """Settings of the objective given on the command line: the data must not contradict them."""
    command: str | None = None
    """The whole command, which the run folder keeps."""
    is_stage: bool = False
    """Whether the run is a stage of a ladder, which is left as it is where it is complete."""
    later: tuple[tuple[str, ...], ...] = ()
    """Arguments of the stages after it, which are read when their turn comes: each starts from the one before."""

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        from filmstrip.systems import stages

        command = shlex.join([*prog.split(), *arguments])
        later: list[tuple[str, ...]] = []
        named = bool(arguments) and not arguments[0].startswith("-")  # a system, and no --config or --help
        is_stage = named and bool(of_ladder := stages(arguments[0]))
        if is_stage:
            arguments, *later = _of_stages(arguments, of_ladder)
        run, out = run_from(cls, arguments, prog)
        given = (name for name in options_given(arguments) if name.startswith("objective."))
        return cls(run=run, out=out, given=tuple(given), command=command, is_stage=is_stage, later=tuple(later))

    def __call__(self) -> None:
        from filmstrip.distributed import process

        self._train()
        for arguments in self.later:
            process.wait_for_all()  # the first one writes what the next stage starts from
            stage = type(self).parse(arguments, "filmstrip train")
            replace(stage, command=self.command, is_stage=True)._train()

    def _train(self) -> None:
        from filmstrip.distributed import process
        from filmstrip.report.run import run_report
        from filmstrip.runs import experiment
        from filmstrip.runs.pictures import draw_run, makes_pictures
        from filmstrip.runs.run_folder import what_is_saved

        if self.is_stage and _is_complete(self.run, self.out):
            print(f"{self.out} is complete")
            return
        with keeping(lambda: what_is_saved(self.out)):
            result = experiment.train(self.run, self.out, given=list(self.given), command=self.command)
        if process.rank() > 0:
            return
        for name, value in result.metrics.items():
            print(f"{name:<24} {value:.4f}")
        if makes_pictures(result.objective):
            draw_run(self.out)  # as it was saved: what was trained may be shared out over processes
        print(run_report(self.out))


def _of_stages(arguments: Sequence[str], stages: Sequence[str]) -> list[tuple[str, ...]]:
    """The arguments of every stage of a ladder, from those of the ladder."""
    address, *rest = arguments
    out, rest = option(rest, "--out")
    init, rest = option(rest, "--init")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(out) if out else Path("runs") / f"{address.replace(':', '-')}-{stamp}"
    found = []
    for stage in stages:
        own = folder / stage.partition(":")[2]
        found.append((stage, "--out", str(own), *(("--init", init) if init else ()), *rest))
        init = str(own)
    return found


def _is_complete(run: Run, folder: Path) -> bool:
    """Whether a folder holds a run with all of its steps; of a length in epochs nothing is known beforehand."""
    from filmstrip.runs.contents import WEIGHTS
    from filmstrip.runs.run_folder import RunFolder
    from filmstrip.train.lengths import Steps

    length = run.train.length
    done = (folder / WEIGHTS).exists() and isinstance(length, Steps)
    return done and RunFolder(folder).last_step() >= length.total(1)
