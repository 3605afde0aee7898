"""Bars: one at a time, on a terminal alone, and never in what a command prints."""

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from filmstrip import progress
from filmstrip.progress import bars, counted, shown, tracked


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def said(console):
    return console.file.getvalue()


def test_a_bar_counts_what_is_done():
    console = terminal()
    with shown(bars(console, transient=False)) as shown_bars, counted("drawing", 4) as done:
        done(3)
        shown_bars.refresh()
        assert shown_bars.tasks[0].completed == 3
    assert "drawing" in said(console) and "3/4" in said(console)


def test_what_work_says_of_itself_stays_on_its_line():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with shown(bars(console)) as shown_bars:
        shown_bars.add_task("training", total=12, completed=12, said="loss 1.603  21.9 clips/s  12:00:00 left")
        shown_bars.refresh()
    assert "loss 1.603  21.9 clips/s  12:00:00 left" in said(console)


def test_work_within_work_shares_the_place():
    console = terminal()
    with shown(bars(console)) as outer:
        assert list(tracked([1, 2, 3], "outer")) == [1, 2, 3]
        for _ in tracked(range(2), "outer"):
            for _ in tracked(iter(range(5)), "inner", total=5):
                assert [task.description for task in outer.tasks] == ["outer", "inner"]
        assert not outer.tasks
    assert not progress._shown


def test_nothing_is_shown_without_a_terminal(capsys):
    assert [i for i in tracked(range(3), "reading")] == [0, 1, 2]
    with counted("waiting"):
        print("a result")
    out, err = capsys.readouterr()
    assert out == "a result\n" and err == ""


def test_a_failure_takes_its_bar_along():
    with pytest.raises(RuntimeError), counted("failing", 3):
        raise RuntimeError
    assert not progress._shown
    stopped = tracked(range(3), "stopped")
    next(stopped)
    stopped.close()
    assert not progress._shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_results_are_piped_whole_while_a_bar_is_on_the_terminal():
    """Standard output is a pipe and standard error a terminal, as in ``filmstrip eval RUN > figures``."""
    code = (
        "import time\nfrom filmstrip.progress import tracked\n"
        "for i in tracked(range(3), 'counting'):\n    print(f'value {i}', flush=True)\n    time.sleep(0.15)\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    shown_there = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout == b"value 0\nvalue 1\nvalue 2\n"
    assert "counting" in shown_there and "value" not in shown_there
