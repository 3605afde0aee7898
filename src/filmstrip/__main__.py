"""The command line, ``filmstrip COMMAND ...``: a table of commands, and the handling of their errors."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import os
import signal
import sys
from typing import TYPE_CHECKING

from filmstrip import __version__
from filmstrip.commands.stopping import is_unread, stoppable
from filmstrip.errors import UserError, in_words

if TYPE_CHECKING:
    from rich.console import Console

    from filmstrip.commands.command import Command

COMMANDS = {
    "demo": "filmstrip.commands.demo:Demo",
    "list": "filmstrip.commands.list:List",
    "show": "filmstrip.commands.show:Show",
    "train": "filmstrip.commands.train:Train",
    "eval": "filmstrip.commands.eval:Eval",
    "report": "filmstrip.commands.report:Report",
    "probe": "filmstrip.commands.probe:Probe",
    "predict": "filmstrip.commands.predict:Predict",
    "ask": "filmstrip.commands.ask:Ask",
    "forecast": "filmstrip.commands.forecast:Forecast",
    "plan": "filmstrip.commands.plan:Plan",
    "dagger": "filmstrip.commands.dagger:Dagger",
    "detect": "filmstrip.commands.detect:Detect",
    "localise": "filmstrip.commands.localise:Localise",
    "anticipate": "filmstrip.commands.anticipate:Anticipate",
    "track": "filmstrip.commands.track:Track",
    "caption": "filmstrip.commands.caption:Caption",
    "filter": "filmstrip.commands.filter:Filter",
    "rephrase": "filmstrip.commands.rephrase:Rephrase",
    "search": "filmstrip.commands.search:Search",
    "find": "filmstrip.commands.find:Find",
    "explain": "filmstrip.commands.explain:Explain",
    "encode": "filmstrip.commands.encode:Encode",
    "decode": "filmstrip.commands.decode:Decode",
    "generate": "filmstrip.commands.generate:Generate",
    "edit": "filmstrip.commands.edit:Edit",
    "visualize": "filmstrip.commands.visualize:Visualize",
    "export": "filmstrip.commands.export:Export",
    "push": "filmstrip.commands.push:Push",
    "rl": "filmstrip.commands.rl:RL",
    "reward": "filmstrip.commands.reward:Reward",
    "data": "filmstrip.commands.data:Data",
    "bench": "filmstrip.commands.bench:Bench",
    "compare": "filmstrip.commands.compare:Compare",
    "studio": "filmstrip.commands.studio:Studio",
    "rate": "filmstrip.commands.rate:Rate",
    "scale": "filmstrip.commands.scale:Scale",
    "claims": "filmstrip.commands.claims:Claims",
}


def command_class(name: str) -> type[Command]:
    """The class of a command.

    Raises:
        UserError: the command does not exist; the message suggests the nearest name.
    """
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see `filmstrip --help`"
        raise UserError(f"there is no command {name!r}; {hint}")
    module, _, cls = COMMANDS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 for success; 1 if some files were bad; 2 for wrong input and for files that cannot be written or read; 128 + the
    signal's number for Ctrl-C (130), SIGTERM (143) and SIGHUP (129), even if training was saved, so that a scheduler
    treats it as unfinished; and 141, silently, if the reader of the output has gone.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    with stoppable():
        try:
            code = _run(arguments)
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"filmstrip: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError as error:
            if not is_unread(sys.stdout) and not is_unread(sys.stderr):
                _say(in_words(error), error)  # of another pipe
                return 2
            return 128 + signal.SIGPIPE
        except KeyboardInterrupt as stop:
            if os.environ.get("RANK", "0") == "0":  # of several processes one speaks for all
                _say("interrupted", stop)
            return 128 + getattr(stop, "number", signal.SIGINT)
        except OSError as error:
            _say(in_words(error), error)
            return 2


def _run(arguments: list[str]) -> int:
    from rich.console import Console

    from filmstrip.commands.arguments import allowing

    # Rich's own ends the program with exit code 1.
    Console.on_broken_pipe = _raise_again  # type: ignore[method-assign,assignment]
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help()
        return 0
    if arguments[0] == "--version":
        print(f"filmstrip {__version__}")
        return 0
    kind, arguments = command_class(arguments[0]), [arguments[0], *allowing(arguments[1:])]
    command = kind.parse(arguments[1:], f"filmstrip {arguments[0]}")
    return command() or 0


def _say(what: str, error: BaseException) -> None:
    """Print an error, and the command's notes on what was kept."""
    with contextlib.suppress(OSError):  # the terminal may have gone
        print("; ".join((f"filmstrip: {what}", *getattr(error, "__notes__", ()))), file=sys.stderr)


def _raise_again(console: Console) -> None:
    """Called by rich while it handles the error."""
    raise


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2))
    for name in COMMANDS:
        table.add_row(f"[bold]{name}[/]", (inspect.getdoc(command_class(name)) or "").splitlines()[0])
    console = Console()
    console.print(f"[bold]filmstrip[/] {__version__}: learn from video\n\n  filmstrip COMMAND ...\n")
    console.print(table)
    console.print("\n`filmstrip COMMAND --help` shows the options; `filmstrip demo` runs a complete example.")
    console.print("Every command takes `--allow PACKAGE` for runs of systems that are in another package of yours.")


if __name__ == "__main__":
    sys.exit(main())
