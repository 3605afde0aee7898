"""The application: addresses and their pages, and what is answered to wrong requests."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from filmstrip.errors import UserError, in_words
from filmstrip.report.markup import tag
from filmstrip.studio import (
    ask_forms,
    compare_page,
    film_pages,
    label_page,
    rate_page,
    run_list,
    run_page,
    upload_page,
)
from filmstrip.studio.context import Context, context_of, of_script
from filmstrip.studio.frame import PAGES, STATIC, page, static
from filmstrip.studio.places import Missing
from filmstrip.studio.security import READING, Guard
from filmstrip.studio.segments import Changed

log = logging.getLogger(__name__)


def application(context: Context) -> Starlette:
    """The studio as an ASGI application."""
    routes = [
        Route("/", run_list.index),
        Route("/runs/live", run_list.index_live),
        Route("/run", run_page.run_page),
        Route("/run/live", run_page.run_live),
        Route("/run/details", run_page.run_details),
        Route("/films", film_pages.films),
        Route("/film", film_pages.film_page),
        Route("/film/ready", film_pages.film_ready),
        Route("/film/data", film_pages.film_data),
        Route("/film/still", film_pages.film_still),
        Route("/compare", compare_page.compare),
        Route("/label", label_page.label),
        Route("/label/save", of_script(label_page.save), methods=["POST"]),
        Route("/train", of_script(label_page.train), methods=["POST"]),
        Route("/train/stop", of_script(label_page.stop_training), methods=["POST"]),
        Route("/trainings", run_list.trainings),
        Route("/upload", upload_page.upload_page, methods=["GET"]),
        Route("/upload", upload_page.upload, methods=["POST"]),
        Route("/upload/remove", of_script(upload_page.remove), methods=["POST"]),
        Route("/ask/form", ask_forms.ask_form),
        Route("/ask", of_script(ask_forms.ask), methods=["POST"]),
        Route("/ask/stop", of_script(ask_forms.stop_answer), methods=["POST"]),
        Route("/answer", ask_forms.answer),
        Route("/answer/file", ask_forms.answer_file),
        Route("/static/{name}", _static),
    ]

    return _app(context, routes)


def rate_application(context: Context) -> Starlette:
    """The pages on which people judge the films of the context's rating, and no others, as an ASGI application."""
    routes = [
        Route("/", rate_page.start),
        Route("/pair", rate_page.pair_page),
        Route("/film", rate_page.film),
        Route("/vote", of_script(rate_page.vote), methods=["POST"]),
        Route("/static/{name}", _static),
    ]
    return _app(context, routes)


def _app(context: Context, routes: list[Route]) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(context.jobs.close)
        await run_in_threadpool(context.trainings.close)

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Guard, tokens=context.tokens)],
        exception_handlers={
            Changed: label_page.conflict,
            UserError: _wrong_input,
            OSError: _system_error,
            HTTPException: _no_such_page,
            Exception: _failed,
        },
    )
    app.state.context = context
    return app


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise Missing(f"there is no file {name!r}")
    return Response(static(name), media_type=STATIC[name])


def _wrong_input(request: Request, error: Exception) -> Response:
    return _told(request, str(error), 404 if isinstance(error, Missing) else 400)


def _system_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    return _told(request, in_words(error), 500)


def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _told(request, "there is no such page" if error.status_code == 404 else error.detail, error.status_code)


def _failed(request: Request, error: Exception) -> Response:
    log.error("the page %s failed", request.url.path, exc_info=error)
    return _told(request, f"the studio failed here ({type(error).__name__}: {error}); its terminal shows more", 500)


def _told(request: Request, why: str, status: int) -> Response:
    """A message as a page, or as JSON to what a script asked."""
    if request.method not in READING or "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"error": why}, status_code=status)
    said = tag("p", why[:1].upper() + why[1:] + ("" if why.endswith(".") else "."), class_="problem")
    title = "Not found" if status == 404 else "That did not work"
    context = context_of(request)
    return page(title, said, token=context.tokens.page, status=status, pages=PAGES if context.rating is None else ())
