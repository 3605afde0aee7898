"""Commands of ``filmstrip`` in processes of their own, one after another, which can be stopped."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filmstrip.errors import UserError, in_words

log = logging.getLogger(__name__)

Progress = Literal["waiting", "running", "done", "failed", "stopped"]
PATIENCE = 20.0
"""Time that a stopped process has to save, seconds, before it is killed."""
LOG = "log.txt"
"""File with what a command says."""


class Failed(UserError):
    """A command failed; the message is what it said last."""


def command_line(arguments: Sequence[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(["filmstrip", *arguments])


def start(arguments: Sequence[str], log: Path, out: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command in its own session, so that Ctrl-C in the studio's terminal is not for it.

    Args:
        arguments: the arguments after ``filmstrip``.
        log: file that receives what it says, at its end.
        out: file that receives its output; by default the log.
    """
    with log.open("ab") as said, (out or log).open("ab" if out is None else "wb") as output:
        said.write(f"$ {command_line(arguments)}\n".encode("utf-8", "surrogateescape"))
        said.flush()
        return subprocess.Popen(
            [sys.executable, "-m", "filmstrip", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=said,
            # Warnings of libraries are not for who reads the pages.
            env={**os.environ, "COLUMNS": "100", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """Ask a process to save and end, and kill it if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_words(log: Path, lines: int = 1) -> str:
    """The last lines of a log; empty if it has none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


@dataclass
class Job:
    """Commands that one request started."""

    key: str
    folder: Path
    state: Progress = "waiting"
    result: Any = None
    why: str = ""
    """Reason of a failure."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    is_stopped: bool = False

    def run(self, arguments: Sequence[str], out: Path | None = None) -> None:
        """Run a command and wait for it.

        Raises:
            Failed: it failed, or was stopped.
        """
        if self.is_stopped:
            raise Failed("stopped")
        log = self.folder / LOG
        self.process = start(arguments, log, out)
        code = self.process.wait()
        if code:
            said = last_words(log)
            raise Failed(said.removeprefix("filmstrip: ") or f"{command_line(arguments)} ended with exit code {code}")


class Jobs:
    """All jobs of a server, by key: one works at a time, the others wait."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="studio-job")

    def get(self, key: str) -> Job | None:
        """A job; None if this server did not start it."""
        return self._jobs.get(key)

    def submit(self, key: str, folder: Path, work: Callable[[Job], Any]) -> Job:
        """Start a job, unless it waits or works already.

        Args:
            key: its name.
            folder: its folder, which exists.
            work: what it does in a thread; returns its result. Its commands run by :meth:`Job.run`.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.state not in ("waiting", "running"):
                job = self._jobs[key] = Job(key, folder)
                self._workers.submit(self._work, job, work)
            return job

    def stop(self, key: str) -> None:
        """Stop a job, whether it waits or works."""
        if (job := self._jobs.get(key)) is not None and job.state in ("waiting", "running"):
            job.is_stopped = True
            if job.process is not None:
                stop(job.process)

    def close(self) -> None:
        """Stop all jobs."""
        for key in list(self._jobs):
            self.stop(key)
        self._workers.shutdown(cancel_futures=True)

    def _work(self, job: Job, work: Callable[[Job], Any]) -> None:
        job.state = "running"
        try:
            job.result = work(job)
            job.state = "done"
        except Exception as error:  # a job without an end would be waited for
            if not isinstance(error, UserError | OSError):
                log.error("a request failed", exc_info=error)
            job.why = in_words(error) if isinstance(error, OSError) else str(error) or type(error).__name__
            job.state = "stopped" if job.is_stopped else "failed"
