"""Serving the studio until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from filmstrip.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from filmstrip.studio.context import Context
    from filmstrip.studio.security import Tokens


def serve(runs: Path, *, videos: Path | None, host: str, port: int, max_upload: int) -> None:
    """Serve the pages of the runs below a folder, and of the videos to label; returns after Ctrl-C.

    Raises:
        UserError: a folder does not exist, the address cannot be used, or the packages of filmstrip[studio] are not
            installed.
    """
    application, _ = _applications()
    from filmstrip.studio.context import Context
    from filmstrip.studio.places import Places

    for folder, option in ((runs, "RUNS"), (videos, "--videos")):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{option} {folder} is not a folder: give one that exists (mkdir {folder})")
    places = Places(runs.resolve(), None if videos is None else videos.resolve())
    context = Context(places, _tokens(host), max_upload)
    threading.Thread(target=_import_early, daemon=True).start()
    may = "sees these folders, uploads films and starts trainings here"
    _serve(application, context, host, port, called="Filmstrip studio", may=may)
    for training in context.trainings.all():
        if training.process.returncode:
            print(f"The training of {training.name} was stopped; it goes on with: {training.command}")


def serve_rating(folder: Path, *, against: str | None, host: str, port: int) -> None:
    """Serve the pages on which people judge the edited films of a folder; returns after Ctrl-C.

    Raises:
        UserError: there is nothing to judge, or as :func:`serve`.
    """
    _, application = _applications()
    from filmstrip.studio.context import Context
    from filmstrip.studio.places import Places
    from filmstrip.studio.rating import Rating

    context = Context(Places(folder.resolve()), _tokens(host), rating=Rating(folder, against))
    _serve(application, context, host, port, called="Which edit is better", may="sees these films and votes on them")


def _applications() -> tuple[Callable[[Context], Starlette], Callable[[Context], Starlette]]:
    """The studio's pages, and those for judging films.

    Raises:
        UserError: the packages of filmstrip[studio] are not installed.
    """
    try:
        import uvicorn  # noqa: F401

        from filmstrip.studio.app import application, rate_application
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise UserError(f"these pages need {error.name}: pip install 'filmstrip[studio]'") from None
    return application, rate_application


def _tokens(host: str) -> Tokens:
    from filmstrip.studio.security import Tokens, is_local

    return Tokens(access=None if is_local(host) else secrets.token_urlsafe(24))


def _serve(
    application: Callable[[Context], Starlette], context: Context, host: str, port: int, *, called: str, may: str
) -> None:
    """Serve pages until Ctrl-C; ``may`` says what people of elsewhere may do, if they are let in.

    Raises:
        UserError: the address cannot be used.
    """
    import uvicorn

    access = context.tokens.access
    with _listening(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={access}" if access else "")
        print(f"{called}: {address} (Ctrl-C ends it)", flush=True)
        if access:
            print(
                f"Warning: {host} can be reached from other machines. Whoever has the address above, with its token, "
                f"{may}; it is sent unencrypted. On your own machine leave out --host; from another one, rather use "
                "ssh -L.",
                file=sys.stderr,
                flush=True,
            )
        app = application(context)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        with contextlib.suppress(KeyboardInterrupt):  # of which uvicorn tells when it has ended
            uvicorn.Server(config).run(sockets=[listening])


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
