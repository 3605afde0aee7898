"""Programs that tests start: processes of their own, forked from one that has imported torch and the package.

A new interpreter takes five seconds of a core until a training begins, all of them in imports; a fork takes none.
The program has a session, an environment, streams and signals of its own, as from a shell. What a start itself
imports, costs or depends on is to be tested with a new interpreter.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Mapping
from typing import Any

LONGEST = 1 << 17
"""Bytes of a request, which holds a program's arguments and environment."""


SMALL_FILES_ONLY = (
    "import os, resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    # Compiled modules would end there, too, and be read by every later program.
    "sys.dont_write_bytecode = True; os.environ['PYTHONDONTWRITEBYTECODE'] = '1';"
    "resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY));"
)
"""Beginning of a program in which any file ends at so many bytes, as on a full disk."""


class Started:
    """A program that runs: ``python ARGUMENTS``, with the methods of ``subprocess.Popen`` that tests use.

    What it prints is kept in files, not in pipes: nobody needs to read it meanwhile.
    """

    def __init__(self, *arguments: object, env: Mapping[str, str] | None = None, stdout: int | None = None) -> None:
        self.returncode: int | None = None
        self._printed = [_nameless_file(), _nameless_file()]
        nothing = os.open(os.devnull, os.O_RDONLY)
        streams = [nothing, self._printed[0] if stdout is None else stdout, self._printed[1]]
        request = {"arguments": list(map(str, arguments)), "cwd": os.getcwd(), "env": dict(env or os.environ)}
        self.pid = _server().start(request, streams)
        os.close(nothing)

    def poll(self) -> int | None:
        """The exit code, minus its number if a signal ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = _server().ended(self.pid)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """The exit code, when it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not ended after so many seconds; it is killed.
        """
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired("".join(self.printed()), timeout)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed and what it said on its error stream, when it has ended."""
        self.wait(timeout)
        return self.printed()

    def printed(self) -> tuple[str, str]:
        """What it has printed so far, and said on its error stream."""
        out, err = (os.pread(file, os.fstat(file).st_size, 0).decode() for file in self._printed)
        return out, err

    def __del__(self) -> None:
        for file in self._printed:
            os.close(file)


def run(*arguments: object, processes: int = 1) -> str:
    """What ``python ARGUMENTS`` prints, when it has ended well; of several connected processes the first one's.

    Raises:
        AssertionError: one ended with another code than 0; the message has what all of them said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = []
    for rank in range(processes):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        env = os.environ | {key: str(value) for key, value in names.items()} if processes > 1 else None
        programs.append(Started(*arguments, env=env))
    codes = [program.wait(timeout=200) for program in programs]
    assert codes == [0] * processes, "\n".join("".join(program.printed()) for program in programs)
    return programs[0].printed()[0]


class _Server:
    """The process that forks, and what it has told."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, str(theirs.fileno())]
        paths = os.pathsep.join(path for path in sys.path if path)
        env = os.environ | {"PYTHONPATH": paths}
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env)
        theirs.close()
        self._codes: dict[int, int] = {}
        atexit.register(self.socket.close)  # which ends it

    def start(self, request: dict[str, Any], streams: list[int]) -> int:
        """Start a program; returns its process."""
        socket.send_fds(self.socket, [json.dumps(request).encode()], streams)
        while True:
            told = self._told()
            if "pid" in told:
                return told["pid"]

    def ended(self, pid: int) -> int | None:
        """The exit code of a process, if it has ended."""
        while pid not in self._codes and select.select([self.socket], [], [], 0)[0]:
            self._told()
        return self._codes.get(pid)

    def _told(self) -> dict[str, int]:
        told = json.loads(self.socket.recv(LONGEST))
        if "code" in told:
            self._codes[told["ended"]] = told["code"]
        return told


def _nameless_file() -> int:
    file, path = tempfile.mkstemp()
    os.unlink(path)
    return file


@functools.cache
def _server() -> _Server:
    return _Server()


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for every request and tell of every end; returns the request in a fork, and None when nobody listens."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: set[int] = set()
    while True:
        ready, _, _ = select.select([connection, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                connection.send(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode())
        if connection in ready:
            data, streams, _, _ = socket.recv_fds(connection, LONGEST, 3)
            if not data:
                return None
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (woken, waker):
                    os.close(descriptor)
                connection.close()
                for place, stream in enumerate(streams):
                    os.dup2(stream, place)
                    os.close(stream)
                return json.loads(data)
            running.add(pid)
            for stream in streams:
                os.close(stream)
            connection.send(json.dumps({"pid": pid}).encode())


def become(request: dict[str, Any]) -> None:
    """Be the program of a request."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0)))
    what, *words = request["arguments"]
    if what == "-m":
        what, *words = words
        sys.argv[:] = [what, *words]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif what == "-c":
        code, *words = words
        sys.argv[:] = ["-c", *words]
        exec(compile(code, "<string>", "exec"), vars(types.ModuleType("__main__")))
    else:
        sys.argv[:] = [what, *words]
        sys.path.insert(0, os.path.dirname(what))
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    import torch
    import torch._dynamo  # which the first optimiser imports
    import torch.distributed.fsdp

    for needed in ("__main__", "commands.train", "data.config", "runs.experiment", "train.loop", "report.page"):
        importlib.import_module(f"filmstrip.{needed}")
    del sys.modules["filmstrip.__main__"]  # a program runs it anew
    gc.freeze()
    todo = serve(socket.socket(fileno=int(sys.argv[1])))
    if todo is not None:
        become(todo)
