"""The console as an ASGI application: who is signed in, which page, and errors that say what to do.

A request goes through these steps: its session and its key; the token that changes have to bring along
(CSRF); its body; the function of its page, in a thread unless it is asynchronous. Whatever a page shows or
does goes through ``Visit``, with the rights of the key.
"""

from __future__ import annotations

import hmac
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from airflow_provider_lookoutvision.server import logs
from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.console import entrance, pictures, rendering
from airflow_provider_lookoutvision.server.console.pages import PAGES
from airflow_provider_lookoutvision.server.console.sessions import SECONDS, Session, Sessions
from airflow_provider_lookoutvision.server.console.thumbnails import Thumbnails
from airflow_provider_lookoutvision.server.console.visit import PATH, Visit, base_of, wants_json
from airflow_provider_lookoutvision.server.dispatch import Dispatcher
from airflow_provider_lookoutvision.server.protocol.errors import (
    InternalServerException,
    ProtocolError,
    ServiceError,
)
from airflow_provider_lookoutvision.server.protocol.request_bodies import RequestBodies
from airflow_provider_lookoutvision.server.protocol.request_ids import new_request_id
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher

BODY_LIMIT = 9 << 20  # an image, and more than any form
_BODIES = 64 << 20
_THREADS = 4
_COOKIE = "lookoutvision-console"

log = logging.getLogger("lookoutvision")


class _Refused(ProtocolError):
    status = 403


class _TooLarge(ProtocolError):
    status = 413


class Console:
    """The pages, for all who are signed in."""

    def __init__(
        self, settings: Settings, database: Database, cipher: Cipher, dispatcher: Dispatcher
    ) -> None:
        self._settings, self._dispatcher = settings, dispatcher
        self._sessions = Sessions(database, cipher, dispatcher.keys)
        self._bodies = RequestBodies(_BODIES)
        self._threads = anyio.CapacityLimiter(_THREADS)
        self.thumbnails = Thumbnails(settings.data_dir / "console" / "thumbnails")
        self._static = StaticFiles(directory=rendering.FOLDER / "static")
        pages = {**PAGES, **pictures.pages(self.thumbnails)}
        self._routes = [
            Route(path, function, methods=[method], name=function.__name__)
            for (method, path), function in pages.items()
        ]
        # The security headers of every page: nothing from elsewhere, and no script but ours.
        ancestors = " ".join(["'self'", *settings.console_frame_ancestors])
        self._headers = {
            "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
            "img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
            f"frame-ancestors {ancestors}",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What runs beside the pages: the process that makes thumbnails."""
        async with self.thumbnails.running():
            yield

    def purge(self) -> None:
        """Forget sessions that have expired, and thumbnails that are too many."""
        self._sessions.purge()
        self.thumbnails.purge()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and log it."""
        request = Request(scope, receive)
        if scope["path"].startswith(f"{PATH}/static/"):
            await self._send_static(request, send)
            return
        started, request_id = time.perf_counter(), logs.request_id.get() or new_request_id()
        made: list[str] = []
        error = None
        try:
            response = await self._respond(request, made)
        except ServiceError as fault:
            error, response = fault.code, self._refuse(request, fault)
        except ClientDisconnect:
            error, response = "ClientDisconnect", Response(status_code=400)
        except Exception:
            log.exception("internal error", extra={"request_id": request_id})
            error = "InternalServerException"
            message = f"The service failed on this page; see its log under {request_id}"
            response = self._refuse(request, InternalServerException(message))
        for name, value in self._headers.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        session: Session | None = scope.get("console_session")
        log.info(
            "request",
            extra={
                "request_id": request_id,
                "operation": f"console:{request.method} {scope['path']}",
                "calls": made,
                "access_key_id": session.access_key_id if session else None,
                "region": session.region if session else None,
                "status": response.status_code,
                "error": error,
                "duration_ms": round((time.perf_counter() - started) * 1000, 2),
            },
        )
        await response(scope, receive, send)

    async def _send_static(self, request: Request, send: Send) -> None:
        name = request.scope["path"].removeprefix(f"{PATH}/static/")
        try:
            response = await self._static.get_response(name, {**request.scope, "path": name})
        except HTTPException as error:
            response = Response(status_code=error.status_code)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        await response(request.scope, request.receive, send)

    async def _respond(self, request: Request, made: list[str]) -> Response:
        path = request.scope["path"].removeprefix(PATH)
        if not path:
            return RedirectResponse(f"{base_of(request)}/", 307)
        session = await self._in_thread(self._session, request)
        request.scope["console_session"] = session
        if path == "/sign-in":
            return await self._sign_in(request, session)
        if session is None:
            return self._to_sign_in(request)
        if request.method not in {"GET", "HEAD"}:
            body = await self._changing_body(request, session)
        else:
            body = b""
        if path == "/sign-out" and request.method == "POST":
            await self._in_thread(self._sessions.end, session)
            return self._signed_out(request)
        stored = await self._in_thread(self._dispatcher.keys.find, session.access_key_id)
        if stored is None:
            return self._to_sign_in(request)
        region = request.query_params.get("region", session.region)
        if path == "/region" and request.method == "POST":
            region = _field(body, "region")
        if region != session.region:
            return await self._move(request, session, region)
        caller = access.Caller(stored.key, session.region)
        visit = Visit(request, session, caller, self._settings, self._dispatcher, body, made)
        try:
            return await self._show(visit, path)
        except access.StaleKey:
            return self._to_sign_in(request)

    async def _show(self, visit: Visit, path: str) -> Response:
        scope = {**visit.request.scope, "path": path, "root_path": ""}
        allowed: set[str] = set()
        for route in self._routes:
            match, found = route.matches(scope)
            if match == Match.FULL:
                visit.request.scope["path_params"] = found["path_params"]
                if inspect.iscoroutinefunction(route.endpoint):
                    return await route.endpoint(visit)  # type: ignore[no-any-return]
                return await self._in_thread(route.endpoint, visit)  # type: ignore[no-any-return]
            if match == Match.PARTIAL:
                allowed |= route.methods or set()
        if allowed:
            return Response(status_code=405, headers={"Allow": ", ".join(sorted(allowed))})
        return visit.render("error.html", 404, title="There is no such page", message="")

    # -- signing in and out --------------------------------------------------------------------------------

    def _session(self, request: Request) -> Session | None:
        secret = request.cookies.get(_COOKIE)
        return self._sessions.find(secret) if secret else None

    async def _sign_in(self, request: Request, session: Session | None) -> Response:
        target = entrance.target(request)
        if request.method != "POST":
            if wants_json(request):
                return JSONResponse({"signed_in": session is not None})
            if session is not None:
                return RedirectResponse(base_of(request) + target, 303)
            return entrance.form(request, self._settings, target)
        _check_origin(request)
        async with self._bodies.read(request, 8 << 10) as body:
            fields = {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}
        attempt = entrance.attempt(fields, self._settings)
        begun = None
        if attempt.problem is None:
            begun = await self._in_thread(
                self._sessions.begin, attempt.access_key_id, attempt.secret_access_key, attempt.region
            )
        if begun is None:
            problem = attempt.problem or "There is no such access key, or its secret is another one."
            return entrance.form(request, self._settings, target, attempt, problem)
        request.scope["console_session"] = begun
        # By way of this page again, which sees whether the browser has kept the cookie.
        response = RedirectResponse(f"{base_of(request)}/sign-in?entered&to={quote(target, safe='')}", 303)
        response.set_cookie(
            _COOKIE,
            begun.secret,
            max_age=SECONDS,
            path=base_of(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def _to_sign_in(self, request: Request) -> Response:
        if wants_json(request):
            message = "You are no longer signed in: open the page again, and sign in"
            return JSONResponse({"code": "SignedOut", "message": message}, 401)
        if request.method not in {"GET", "HEAD"}:
            return RedirectResponse(f"{base_of(request)}/sign-in", 303)
        here = request.scope["path"].removeprefix(PATH)
        if query := request.scope["query_string"].decode("latin-1"):
            here += f"?{query}"
        return RedirectResponse(f"{base_of(request)}/sign-in?to={quote(here, safe='')}", 303)

    def _signed_out(self, request: Request) -> Response:
        response = RedirectResponse(f"{base_of(request)}/sign-in", 303)
        response.delete_cookie(_COOKIE, path=base_of(request), httponly=True, samesite="strict")
        return response

    async def _move(self, request: Request, session: Session, region: str) -> Response:
        problem = entrance.region_problem(region, self._settings)
        if problem:
            raise _Refused(problem)
        await self._in_thread(self._sessions.move, session, region)
        if request.method != "GET":
            return RedirectResponse(f"{base_of(request)}/", 303)
        return RedirectResponse(
            base_of(request) + request.scope["path"].removeprefix(PATH) + _without_region(request), 303
        )

    # -- what a request brings -----------------------------------------------------------------------------

    async def _changing_body(self, request: Request, session: Session) -> bytes:
        """The body of a request that changes something, if it comes from a page of the session."""
        _check_origin(request)
        announced = request.headers.get("content-length", "")
        length = int(announced) if announced.isdecimal() else BODY_LIMIT
        if length > BODY_LIMIT:
            raise _TooLarge(f"The body is larger than the {BODY_LIMIT} bytes that a page takes")
        token = request.headers.get("x-csrf-token")
        async with self._bodies.read(request, length) as body:
            if token is None:
                token = _field(body, "csrf")
            if not hmac.compare_digest(token.encode(), session.csrf.encode()):
                raise _Refused("This form is of another session: open the page again, and send it from there")
            return body

    def _refuse(self, request: Request, error: ServiceError) -> Response:
        if wants_json(request):
            content = {"code": error.code, "message": error.message, **error.members}
            return JSONResponse(content, error.status)
        title = HTTPStatus(error.status).phrase if error.status != 402 else "Limit reached"
        session = request.scope.get("console_session")
        return rendering.page(
            "fault.html",
            error.status,
            base=base_of(request),
            session=session,
            status=error.status,
            title=title,
            message=error.message,
            code=error.code,
        )

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)


def is_for_console(scope: Scope) -> bool:
    """Whether a request that isn't signed is for a page."""
    path: str = scope["path"]
    return path == PATH or path.startswith(f"{PATH}/")


def is_browser_at_root(scope: Scope) -> bool:
    """Whether a browser opens ``/``: it is led to the console."""
    if scope["path"] != "/" or scope["method"] != "GET":
        return False
    headers = dict(scope["headers"])
    return b"text/html" in headers.get(b"accept", b"") and b"authorization" not in headers


def _check_origin(request: Request) -> None:
    """Refuse what another site sends: browsers name it."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        forwarded = request.headers.get("x-forwarded-host")
        if forwarded is None or urlsplit(origin).netloc != forwarded:
            raise _Refused("Another site has sent this: open the console itself, and try there")


def _field(body: bytes, name: str) -> str:
    return parse_qs(body.decode(errors="replace")).get(name, [""])[-1]


def _without_region(request: Request) -> str:
    left = "&".join(
        f"{quote(name)}={quote(value, safe='')}"
        for name, value in request.query_params.multi_items()
        if name != "region"
    )
    return f"?{left}" if left else ""
