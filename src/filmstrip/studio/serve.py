"""Serving the studio until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib
import secrets
import socket
import sys
import threading
from pathlib import Path

from filmstrip.errors import UserError


def serve(runs: Path, *, videos: Path | None, host: str, port: int, max_upload: int) -> None:
    """Serve the pages of the runs below a folder, and of the videos to label; returns after Ctrl-C.

    Raises:
        UserError: a folder does not exist, the address cannot be used, or the packages of filmstrip[studio] are not
            installed.
    """
    try:
        import uvicorn

        from filmstrip.studio.app import application
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise UserError(f"the studio needs {error.name}: pip install 'filmstrip[studio]'") from None
    from filmstrip.studio.context import Context
    from filmstrip.studio.places import Places
    from filmstrip.studio.security import Tokens, is_local

    for folder, option in ((runs, "RUNS"), (videos, "--videos")):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{option} {folder} is not a folder: give one that exists (mkdir {folder})")
    access = None if is_local(host) else secrets.token_urlsafe(24)
    places = Places(runs.resolve(), None if videos is None else videos.resolve())
    app = application(Context(places, Tokens(access=access), max_upload))
    with _listening(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={access}" if access else "")
        print(f"Filmstrip studio: {address} (Ctrl-C ends it)", flush=True)
        if access:
            print(
                f"Warning: {host} can be reached from other machines. Whoever has the address above, with its token, "
                "sees these folders, uploads films and starts trainings here; it is sent unencrypted. On your own "
                "machine leave out --host; from another one, rather use ssh -L.",
                file=sys.stderr,
                flush=True,
            )
        threading.Thread(target=_import_early, daemon=True).start()
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        with contextlib.suppress(KeyboardInterrupt):  # of which uvicorn tells when it has ended
            uvicorn.Server(config).run(sockets=[listening])
    for training in app.state.context.trainings.all():
        if training.process.returncode:
            print(f"The training of {training.name} was stopped; it goes on with: {training.command}")


def _import_early() -> None:
    """Import what the first page of a run would wait for."""
    importlib.import_module("torchmetrics.functional.classification")


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        UserError: the address does not exist here, or is in use.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot serve at {host}, port {port} ({error.strerror or error}): choose another --port (0 takes a free "
            "one), or another --host"
        ) from None
