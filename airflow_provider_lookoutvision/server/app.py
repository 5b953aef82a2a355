"""The service as an ASGI application: read from top to bottom, it is the table of contents.

A request goes through these steps, and may end at each with an error of its own:

1. ``sigv4``: what it says of its signer, before a byte of its body is read;
2. ``protocol``: which operation it is for, and so how large its body may be;
3. ``access``: whether the key exists and signed exactly this;
4. ``dispatch``: whether there have been too many;
5. ``protocol``: what the members are, and whether they keep the model's constraints;
6. ``dispatch``: what the key may do; the client token and the room of the operation, in one transaction;
7. ``protocol``: the answer.

Steps 3 to 7 run in a thread, since databases and disks make them wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import anyio
import anyio.to_thread
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_lookoutvision.model import anomaly_maps
from airflow_provider_lookoutvision.server import logs, metrics
from airflow_provider_lookoutvision.server.calls import access, idempotency
from airflow_provider_lookoutvision.server.calls.call import Inference
from airflow_provider_lookoutvision.server.console.site import Console, is_browser_at_root, is_for_console
from airflow_provider_lookoutvision.server.console.visit import PATH
from airflow_provider_lookoutvision.server.dispatch import Dispatcher
from airflow_provider_lookoutvision.server.health import Health
from airflow_provider_lookoutvision.server.protocol import rest_json, sigv4
from airflow_provider_lookoutvision.server.protocol.errors import (
    AccessDeniedException,
    InternalServerException,
    RequestEntityTooLargeException,
    ServiceError,
    ServiceUnavailableException,
    SignatureException,
    ValidationException,
)
from airflow_provider_lookoutvision.server.protocol.request_bodies import SMALL, RequestBodies
from airflow_provider_lookoutvision.server.protocol.request_ids import RequestIds, new_request_id
from airflow_provider_lookoutvision.server.s3.service import S3, is_for_s3
from airflow_provider_lookoutvision.server.scraping import Metrics
from airflow_provider_lookoutvision.server.settings import Settings, is_loopback
from airflow_provider_lookoutvision.server.storage import scratch
from airflow_provider_lookoutvision.server.storage.database import Database, unavailability
from airflow_provider_lookoutvision.server.storage.encryption import Cipher

HOUSEKEEPING_SECONDS = 600
LARGE_BODIES = 256 << 20
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
# What the SDKs read of an answer, the API's and S3's.
_EXPOSED_HEADERS = (
    *("x-amzn-requestid", "x-amzn-errortype", "retry-after", "x-amz-request-id", "x-amz-version-id"),
    *("etag", "content-range", "last-modified", "x-amz-checksum-crc32", "x-amz-checksum-sha256"),
)

log = logging.getLogger("lookoutvision")


def create_app(
    settings: Settings, database: Database, cipher: Cipher, wake_worker: Callable[[], None] = lambda: None
) -> ASGIApp:
    """The application, on a database whose schema is the newest.

    :param wake_worker: called when work has been queued.
    """
    service = Service(settings, database, cipher, wake_worker)
    app: ASGIApp = Router(
        [*Health(settings, cipher).routes, Route("/metrics", service.metrics.answer)],
        default=service,
        redirect_slashes=False,
        lifespan=service.lifespan,
    )
    if settings.allowed_origins:
        # No cookies: who calls is in the signature.
        app = CORSMiddleware(
            app,
            allow_origins=settings.allowed_origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )
    return RequestIds(app)


@dataclass
class RequestLog:
    """The log line of a request, filled in step by step, since a request may end anywhere."""

    request_id: str
    operation: str | None = None
    project: str | None = None
    access_key_id: str | None = None
    account_id: str | None = None
    region: str | None = None
    error: str | None = None
    started: float = field(default_factory=time.perf_counter)


class Service:
    """What all requests share."""

    def __init__(
        self, settings: Settings, database: Database, cipher: Cipher, wake_worker: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._database = database
        self._dispatcher = Dispatcher(settings, database, cipher, wake_worker)
        self._protocol = self._dispatcher.protocol
        self._request_bodies = RequestBodies(LARGE_BODIES)
        self._s3 = S3(settings, database, cipher)
        self.metrics = Metrics(settings, database, cipher)
        self._console = Console(settings, database, cipher, self._dispatcher) if settings.console else None

    @asynccontextmanager
    async def lifespan(self, _app: Router) -> AsyncIterator[None]:
        """Run the housekeeping, and host models, while the application runs."""
        console = self._console.running() if self._console else nullcontext()
        async with console, anyio.create_task_group() as tasks:
            tasks.start_soon(self._dispatcher.fleet.run)
            tasks.start_soon(self._keep_house)
            yield
            tasks.cancel_scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of the API, and log it; S3's and the console's are answered in their rooms."""
        if is_for_s3(scope):
            await self._s3(scope, receive, send)
            return
        if self._console and is_browser_at_root(scope):
            await RedirectResponse(f"{PATH}/")(scope, receive, send)
            return
        if self._console and is_for_console(scope):
            await self._console(scope, receive, send)
            return
        entry = RequestLog(request_id=logs.request_id.get() or new_request_id())
        try:
            response = await self._answer(Request(scope, receive), entry)
        except ServiceError as error:
            response = self._refuse(error, entry)
        except ClientDisconnect:
            entry.error = "ClientDisconnect"
            response = Response(status_code=400)
        except Exception as error:
            response = self._refuse(_fault(error, entry.request_id), entry)
        response.headers["x-amzn-requestid"] = entry.request_id
        seconds = time.perf_counter() - entry.started
        metrics.count_request(entry.operation, response.status_code, entry.error, seconds)
        log.info(
            "request",
            extra={
                "request_id": entry.request_id,
                "operation": entry.operation,
                "project": entry.project,
                "access_key_id": entry.access_key_id,
                "account_id": entry.account_id,
                "region": entry.region,
                "status": response.status_code,
                "error": entry.error,
                "duration_ms": round(seconds * 1000, 2),
            },
        )
        await response(scope, receive, send)

    async def _answer(self, request: Request, entry: RequestLog) -> Response:
        path = request.scope.get("raw_path", b"").decode("latin-1")
        query = request.scope["query_string"].decode("latin-1")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]
        ]
        try:
            claim = sigv4.parse(
                request.method,
                path,
                query,
                headers,
                now=datetime.now(UTC),
                service=access.SERVICE,
                regions=self._settings.regions or None,
            )
        except sigv4.SignatureError as error:
            raise SignatureException(error.code, error.message, error.status) from None
        entry.access_key_id = claim.access_key_id
        route = self._protocol.route(request.method, path)
        entry.operation = route.operation.name
        operation = route.operation
        if operation.takes_image and _is_private(request.scope):
            claim = replace(claim, allows_unsigned_body=True)
        length = _length(request, operation)
        if length > SMALL:
            # No large body is read for a stranger.
            await anyio.to_thread.run_sync(self._find_key, claim, limiter=self._dispatcher.readers)
        async with self._request_bodies.read(request, length) as body:
            if len(body) > operation.body_limit:
                raise _too_large(operation)
            answer = await self._dispatcher.perform_in_thread(
                operation, partial(self._perform, claim, route, query, dict(headers), body, entry)
            )
        return Response(answer, operation.status, media_type="application/json")

    def _perform(
        self,
        claim: sigv4.Claim,
        route: rest_json.Route,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        entry: RequestLog,
    ) -> bytes | Inference:
        try:
            return self._perform_once(claim, route, query, headers, body, entry)
        except access.StaleKey:
            pass
        except (SignatureException, AccessDeniedException):
            if not self._dispatcher.keys.refresh(claim.access_key_id):
                raise
        return self._perform(claim, route, query, headers, body, entry)

    def _perform_once(
        self,
        claim: sigv4.Claim,
        route: rest_json.Route,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        entry: RequestLog,
    ) -> bytes | Inference:
        operation = route.operation
        caller = self._authenticate(claim, body)
        entry.account_id, entry.region = caller.account_id, caller.region
        self._dispatcher.admit(caller, operation)
        members = operation.read(route.labels, query, headers, body)
        entry.project = members.get("project_name")
        answer = self._dispatcher.perform(caller, operation, members)
        if isinstance(answer, Inference) and headers.get(anomaly_maps.HEADER, "false") != "false":
            answer = replace(answer, anomaly_map=True)
        return answer

    def _authenticate(self, claim: sigv4.Claim, body: bytes) -> access.Caller:
        stored = self._find_key(claim)
        return access.Caller(stored.key, _verify(claim, sigv4.Credential(stored.secret), body).region)

    def _find_key(self, claim: sigv4.Claim) -> access.StoredKey:
        stored = self._dispatcher.keys.find(claim.access_key_id)
        if stored is None:
            _verify(claim, None, b"")  # takes as long as for a key that is there, and refuses
            raise AssertionError("an unknown key was verified")
        return stored

    def _refuse(self, error: ServiceError, entry: RequestLog) -> Response:
        entry.error = error.code
        status, headers, body = self._protocol.write_error(error)
        return Response(body, status, headers, media_type="application/json")

    async def _keep_house(self) -> None:
        while True:
            try:
                await anyio.to_thread.run_sync(self._purge)
                await anyio.to_thread.run_sync(self._database.compact)
                await anyio.to_thread.run_sync(self._s3.sweep)
                if self._console:
                    await anyio.to_thread.run_sync(self._console.purge)
                await anyio.to_thread.run_sync(scratch.sweep, self._settings.data_dir / scratch.HOSTING)
            except Exception:
                log.exception("housekeeping failed")
            await anyio.sleep(HOUSEKEEPING_SECONDS)

    def _purge(self) -> None:
        now = self._dispatcher.token_clock.advance()
        with self._database.write() as connection:
            idempotency.purge(connection, now)


def _fault(error: Exception, request_id: str) -> ServiceError:
    """The answer to a request on which the service failed."""
    if reason := unavailability(error):
        log.warning("the database is not available", extra={"request_id": request_id, "reason": reason})
        return ServiceUnavailableException(
            "The service's database is not available at the moment: try again", retry_after=2
        )
    log.error("internal error", extra={"request_id": request_id}, exc_info=error)
    return InternalServerException(
        f"The service failed on this request; see its log under {request_id}", RetryAfterSeconds=1
    )


def _verify(claim: sigv4.Claim, credential: sigv4.Credential | None, body: bytes) -> sigv4.Signature:
    try:
        return claim.verify(credential, body)
    except sigv4.SignatureError as error:
        raise SignatureException(error.code, error.message, error.status) from None


def _is_private(scope: Scope) -> bool:
    """Whether nobody on the way can change a body that isn't signed: over TLS, or within the machine."""
    client = scope.get("client")
    return scope["scheme"] == "https" or (client is not None and is_loopback(client[0]))


def _length(request: Request, operation: rest_json.Operation) -> int:
    """How long the body can be: as it says, or as it may be."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return operation.body_limit if "transfer-encoding" in request.headers else 0
    if int(length) > operation.body_limit:
        raise _too_large(operation)
    return int(length)


def _too_large(operation: rest_json.Operation) -> ServiceError:
    if operation.takes_image:
        return ValidationException(f"The image is larger than the {operation.body_limit} bytes it may have")
    return RequestEntityTooLargeException(
        f"The body is larger than the {operation.body_limit} bytes that this operation takes"
    )
