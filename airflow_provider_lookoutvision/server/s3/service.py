"""The S3 of the folder buckets, as an ASGI application beside the API's.

A request is signed for the service ``s3``, unlike one of the API. It goes through these steps:

1. ``signatures``: what it says of its signer, whether the key exists and signed it;
2. ``protocol``: which operation it is for, and what its members are;
3. ``signatures.authorize``: what the key may do, and with which bucket;
4. ``bodies``: its body, block by block, into a file that nobody sees yet;
5. the operation; 6. the answer, an object's bytes block by block.

Disks are waited for in threads of S3's own, so that slow ones don't hold up the API; no more requests are
worked on at a time than there is memory for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from airflow_provider_lookoutvision.server import logs, metrics
from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.protocol import sigv4
from airflow_provider_lookoutvision.server.protocol.errors import ServiceError
from airflow_provider_lookoutvision.server.protocol.request_bodies import RequestBodies
from airflow_provider_lookoutvision.server.protocol.request_ids import new_request_id
from airflow_provider_lookoutvision.server.s3 import (
    bodies,
    bucket_operations,
    calls,
    copy_operations,
    multipart_operations,
    object_operations,
    protocol,
    signatures,
    xml,
)
from airflow_provider_lookoutvision.server.s3.calls import Answer, Call, Incoming
from airflow_provider_lookoutvision.server.s3.errors import S3Error, not_implemented
from airflow_provider_lookoutvision.server.s3.objects import Objects
from airflow_provider_lookoutvision.server.s3.responses import (
    RequestLog,
    keep_alive,
    respond,
    send_object,
)
from airflow_provider_lookoutvision.server.s3.uploads import Uploads
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.database import Database, unavailability
from airflow_provider_lookoutvision.server.storage.encryption import Cipher

MOST_REQUESTS = 128
_DOCUMENT_LIMIT, _DOCUMENTS = 4 << 20, 64 << 20
# What copies may take longer than a client waits: it gets a byte now and then, as S3 itself does it.
_LONG = frozenset({"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
_ROOMS = (bucket_operations, object_operations, copy_operations, multipart_operations)

log = logging.getLogger("lookoutvision")


def is_for_s3(scope: Scope) -> bool:
    """Whether a request says that it is signed for S3."""
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    query = scope["query_string"].decode("latin-1")
    return signatures.service_of(authorization.decode("latin-1"), query) == signatures.SERVICE


class S3:
    """What all requests share."""

    def __init__(self, settings: Settings, database: Database, cipher: Cipher) -> None:
        self._settings = settings
        self._database = database
        self._cipher = cipher
        self._objects = Objects(settings.data_dir)
        self._uploads = Uploads(self._objects)
        functions = {
            name: function
            for room in _ROOMS
            for name, function in vars(room).items()
            if callable(function) and getattr(function, "__module__", "") == room.__name__
        }
        functions["head_object"] = functions["get_object"]
        self._protocol = protocol.Protocol(functions)
        self._threads = anyio.CapacityLimiter(settings.threads)
        self._documents = RequestBodies(_DOCUMENTS)
        self._under_way = 0

    @property
    def is_on(self) -> bool:
        """Whether the buckets are folders here."""
        return self._settings.buckets == "directory"

    def sweep(self) -> None:
        """Remove what killed writers have left."""
        if self.is_on:
            self._objects.sweep()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and log it."""
        entry = RequestLog(request_id=logs.request_id.get() or new_request_id())
        self._under_way += 1
        try:
            await self._respond(Request(scope, receive), entry, send)
        except ClientDisconnect:
            entry.status, entry.error = 400, "ClientDisconnect"
        finally:
            self._under_way -= 1
            seconds = time.perf_counter() - entry.started
            operation = f"s3:{entry.operation}" if entry.operation else "s3"
            metrics.count_request(operation, entry.status, entry.error, seconds)
            log.info(
                "request",
                extra={
                    "request_id": entry.request_id,
                    "operation": operation,
                    "bucket": entry.bucket,
                    "access_key_id": entry.access_key_id,
                    "account_id": entry.account_id,
                    "region": entry.region,
                    "status": entry.status,
                    "error": entry.error,
                    "duration_ms": round(seconds * 1000, 2),
                },
            )

    async def _respond(self, request: Request, entry: RequestLog, send: Send) -> None:
        try:
            operation, answer = await self._perform(request, entry, send)
            headers, body = operation.write(answer.members)
        except S3Error as error:
            await self._refuse(error, request, entry, send)
            return
        except ServiceError as error:  # of what is shared with the API
            code = {408: "RequestTimeout", 413: "EntityTooLarge"}.get(error.status, "SlowDown")
            await self._refuse(S3Error(code, error.message), request, entry, send)
            return
        except OSError as error:
            log.exception("internal error", extra={"request_id": entry.request_id})
            message = f"The disk of the service: {error.strerror}"
            await self._refuse(S3Error("InternalError", message), request, entry, send)
            return
        except ClientDisconnect:
            raise
        except Exception as error:
            if reason := unavailability(error):
                extra = {"request_id": entry.request_id, "reason": reason}
                log.warning("the database is not available", extra=extra)
                slow_down = S3Error("SlowDown", "The service's database is not available at the moment.")
                slow_down.headers["Retry-After"] = "2"
                await self._refuse(slow_down, request, entry, send)
                return
            log.exception("internal error", extra={"request_id": entry.request_id})
            message = f"The service failed on this request; see its log under {entry.request_id}"
            await self._refuse(S3Error("InternalError", message), request, entry, send)
            return
        entry.status = answer.status or operation.status
        if body:
            headers["Content-Type"] = "application/xml"
        if answer.opened is None or request.method == "HEAD":
            if answer.opened:
                answer.opened.close()
            elif operation.status != 204:
                headers["Content-Length"] = str(len(body))
            await respond(send, entry, headers, body)
        else:
            await send_object(send, entry, headers, answer.opened, answer.begin, answer.end, self._in_thread)

    async def _perform(
        self, request: Request, entry: RequestLog, send: Send
    ) -> tuple[protocol.Operation, Answer]:
        path = request.scope.get("raw_path", b"").decode("latin-1")
        query = request.scope["query_string"].decode("latin-1")
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]
        ]
        if not self.is_on:
            raise S3Error(
                "NotImplemented",
                "This service has its buckets in another S3 (setting buckets=s3), and serves none itself: "
                "send requests of S3 there",
            )
        regions = self._settings.regions or None
        claim = signatures.parse(request.method, path, query, headers, datetime.now(UTC), regions)
        entry.access_key_id = claim.access_key_id
        if isinstance(claim, signatures.PresignedV2):
            headers += claim.headers.items()
        parsed = protocol.parse(request.method, path, query, headers)
        caller, secret = await self._in_thread(self._authenticate, claim)
        entry.account_id, entry.region = caller.account_id, caller.region
        entry.bucket = parsed.bucket or None
        operation = self._protocol.route(parsed)
        entry.operation = operation.name
        if operation.function is None:
            not_implemented(f"{operation.name} is not served by this S3, which has objects and buckets alone")
        signatures.authorize(caller, operation.name, parsed.bucket)
        if self._under_way > MOST_REQUESTS:
            raise S3Error("SlowDown", "Please reduce your request rate.")
        call = Call(operation.name, caller, self._objects, self._uploads)
        decoder = None
        if operation.is_streamed or parsed.headers.get("content-length", "0") != "0":
            signed = claim if isinstance(claim, sigv4.Claim) else None
            decoder = bodies.decoder(signed, secret, parsed.headers)
        if operation.is_streamed and decoder:
            return operation, await self._receive(call, operation, parsed, decoder, request, entry)
        document = b""
        if decoder:
            document = await self._document(operation, parsed, decoder, request, entry)
        do = partial(self._do, call, operation, parsed, document)
        if operation.name in _LONG:
            return operation, await self._alive(do, entry, send)
        answer: Answer = await self._in_thread(do)
        return operation, answer

    async def _alive(self, do: Callable[[], Answer], entry: RequestLog, send: Send) -> Answer:
        """Do what may take long; an answer that has begun is a success, whose document may say otherwise."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_alive, send, entry)
            try:
                answer: Answer = await self._in_thread(do)
            except Exception as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return answer

    def _authenticate(self, claim: sigv4.Claim | signatures.PresignedV2) -> tuple[access.Caller, str]:
        with self._database.read() as connection:
            stored = access.find_key(connection, self._cipher, claim.access_key_id)
        default = next(iter(self._settings.regions), bucket_operations.DEFAULT_REGION)
        region = signatures.prove(claim, stored.secret if stored else None, default)
        if stored is None:
            raise AssertionError("an unknown key was verified")
        return access.Caller(stored.key, region), stored.secret

    def _do(
        self,
        call: Call,
        operation: protocol.Operation,
        parsed: protocol.Request,
        document: bytes,
        **more: Any,
    ) -> Any:
        members = operation.read(parsed, document)
        for name in ("expected_bucket_owner", "expected_source_bucket_owner"):
            if (owner := members.pop(name, None)) not in {None, call.caller.account_id}:
                raise S3Error("AccessDenied", f"The bucket {parsed.bucket} is not owned by account {owner}")
        if operation.function is None:
            raise AssertionError(f"{operation.name} was routed")
        return operation.function(call, **members, **more)

    async def _document(
        self,
        operation: protocol.Operation,
        parsed: protocol.Request,
        decoder: bodies.Decoder,
        request: Request,
        entry: RequestLog,
    ) -> bytes:
        """A body that is a document."""
        length = int(parsed.headers.get("content-length", "0"))
        if length > _DOCUMENT_LIMIT:
            raise S3Error("MalformedXML", f"The document is larger than {_DOCUMENT_LIMIT} bytes")
        entry.reads_body = True
        async with self._documents.read(request, length) as body:
            document = decoder.feed(body)
            decoder.finish()
        calls.check_document(document, parsed.headers, of_object="checksums" in operation.taken)
        return document

    async def _receive(
        self,
        call: Call,
        operation: protocol.Operation,
        parsed: protocol.Request,
        decoder: bodies.Decoder,
        request: Request,
        entry: RequestLog,
    ) -> Answer:
        """Receive an object or a part."""
        named = parsed.headers.get("x-amz-trailer", "").lower().split(",")
        prefix = "x-amz-checksum-"
        trailers = frozenset(
            name.strip().removeprefix(prefix).upper() for name in named if name.strip().startswith(prefix)
        )
        incoming: Incoming = await self._in_thread(
            partial(self._do, call, operation, parsed, b"", trailers=trailers)
        )
        try:
            entry.reads_body = True
            async for block in bodies.blocks(request):
                await self._in_thread(_take, incoming, decoder, block)
            answer: Answer = await self._in_thread(_store, incoming, decoder)
            return answer
        finally:
            with anyio.CancelScope(shield=True):
                await self._in_thread(incoming.close)

    async def _refuse(self, error: S3Error, request: Request, entry: RequestLog, send: Send) -> None:
        entry.status, entry.error = error.status, error.code
        headers = dict(error.headers)
        body = b""
        if error.status != 304:
            body = xml.error(
                error.code,
                error.message,
                {**error.details, "Resource": request.url.path, "RequestId": entry.request_id},
            )
            headers |= {"Content-Type": "application/xml", "Content-Length": str(len(body))}
        if "expect" in request.headers and not entry.reads_body:
            # The client waits for 100 Continue before it sends its body: after an error it sends none.
            headers["Connection"] = "close"
        await respond(send, entry, headers, b"" if request.method == "HEAD" else body)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)


def _take(incoming: Incoming, decoder: bodies.Decoder, block: bytes) -> None:
    incoming.write(decoder.feed(block))


def _store(incoming: Incoming, decoder: bodies.Decoder) -> Answer:
    decoder.finish()
    incoming.finish(decoder.trailers)
    return incoming.store()
