"""The bodies of requests, as they come: decoded, and checked against what their request says of them.

A decoder takes blocks and gives the object's bytes. What is signed of a body, as a whole or chunk by chunk,
is verified before ``finish`` returns; until then nobody must believe in what was given.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import anyio
from starlette.requests import Request

from airflow_provider_lookoutvision.server.protocol import sigv4
from airflow_provider_lookoutvision.server.s3.errors import S3Error

BLOCK = 1 << 20
LARGEST = 5 << 30
_SILENCE_SECONDS = 20.0
_BYTES_A_SECOND = 16 << 10
_LONGEST_LINE = 4096
_NOTHING = hashlib.sha256(b"").hexdigest()


class Decoder(Protocol):
    """Makes an object's bytes of a body's."""

    trailers: Mapping[str, str]

    def feed(self, block: bytes) -> bytes:
        """The object's bytes in a block of the body."""

    def finish(self) -> None:
        """Check that this was all of it."""


@dataclass(frozen=True)
class ChunkSigner:
    """What signs the chunks of a body: the key of the claim's scope, and the claim's signature, the seed."""

    key: bytes
    timestamp: str
    scope: str
    seed: str

    def signature(self, previous: str, digest: str) -> str:
        """The signature of a chunk."""
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", previous, _NOTHING, digest)

    def trailer_signature(self, previous: str, trailers: bytes) -> str:
        """The signature of the trailers."""
        return self._sign("AWS4-HMAC-SHA256-TRAILER", previous, hashlib.sha256(trailers).hexdigest())

    def _sign(self, algorithm: str, *parts: str) -> str:
        text = "\n".join([algorithm, self.timestamp, self.scope, *parts])
        return hmac.digest(self.key, text.encode(), "sha256").hex()


class PlainBody:
    """A body that is the object's bytes.

    :param sha256: the hash that is signed; None for a body that isn't.
    """

    def __init__(self, sha256: str | None, length: int) -> None:
        self.trailers: Mapping[str, str] = {}
        self._sha256, self._length, self._seen = sha256, length, 0
        self._digest = hashlib.sha256()

    def feed(self, block: bytes) -> bytes:
        """The block itself."""
        self._seen += len(block)
        if self._sha256 is not None:
            self._digest.update(block)
        return block

    def finish(self) -> None:
        """Check length and hash."""
        _check_length(self._seen, self._length)
        if self._sha256 is not None and self._digest.hexdigest() != self._sha256:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                ClientComputedContentSHA256=self._sha256,
                S3ComputedContentSHA256=self._digest.hexdigest(),
            )


class ChunkedBody:
    """A body in AWS's chunks, and with trailers.

    :param signer: of the chunks; None where they aren't signed.
    :param length: of the object.
    :param expected: the trailers that are announced, in lower case.
    """

    def __init__(self, signer: ChunkSigner | None, length: int, expected: frozenset[str]) -> None:
        self.trailers: Mapping[str, str] = {}
        self._signer, self._length, self._expected = signer, length, expected
        self._previous = signer.seed if signer else ""
        self._signature = ""
        self._waiting = bytearray()
        self._state = "header"
        self._left = self._seen = self._announced = 0
        self._digest = hashlib.sha256()
        self._signed_trailers = b""

    def feed(self, block: bytes) -> bytes:
        """The object's bytes in it."""
        self._waiting += block
        given = bytearray()
        while self._state != "end":
            if self._state == "data":
                data = self._waiting[: self._left]
                del self._waiting[: len(data)]
                self._left -= len(data)
                given += data
                if self._signer:
                    self._digest.update(data)
                if self._left:
                    break
                self._state = "after data"
            line = self._line()
            if line is None:
                break
            self._take(line)
        self._seen += len(given)
        return bytes(given)

    def finish(self) -> None:
        """Check that the last chunk has come, and the trailers."""
        if self._state == "trailer" and not self._expected and not self._waiting:
            self._end()  # some leave the last empty line out
        if self._state != "end":
            raise S3Error("IncompleteBody", "The request body terminated unexpectedly")
        _check_length(self._seen, self._length)
        if missing := self._expected - set(self.trailers):
            raise S3Error("InvalidRequest", f"The trailer {', '.join(sorted(missing))} is missing")

    def _line(self) -> bytes | None:
        end = self._waiting.find(b"\r\n")
        if end > _LONGEST_LINE or (end < 0 and len(self._waiting) > _LONGEST_LINE):
            raise _malformed("a line is too long")
        if end < 0:
            return None
        line = bytes(self._waiting[:end])
        del self._waiting[: end + 2]
        return line

    def _take(self, line: bytes) -> None:
        if self._state == "header":
            self._begin_chunk(line)
        elif self._state == "after data":
            if line:
                raise _malformed("a chunk is longer than it says")
            self._check_chunk()
            self._state = "header"
        elif line:
            name, _, text = line.decode("latin-1").partition(":")
            name = name.strip().lower()
            if name != "x-amz-trailer-signature":
                self._signed_trailers += f"{name}:{text.strip()}\n".encode("latin-1")
            self.trailers = {**self.trailers, name: text.strip()}
            if len(self._signed_trailers) > _LONGEST_LINE:
                raise _malformed("the trailers are too long")
        elif self.trailers or not self._expected:
            self._end()
        # An empty line between the last chunk and its trailers is the end of that chunk.

    def _begin_chunk(self, line: bytes) -> None:
        size, _, extension = line.partition(b";")
        try:
            self._left = int(size, 16) if len(size) <= 16 else -1
        except ValueError:
            self._left = -1
        if self._left < 0:
            raise _malformed("a chunk has no size")
        self._announced += self._left
        if self._announced > self._length:
            _check_length(self._announced, self._length)
        if self._signer:
            name, _, signature = extension.decode("latin-1").partition("=")
            if name.strip() != "chunk-signature":
                raise _malformed("a chunk is not signed")
            self._signature = signature.strip()
            self._digest = hashlib.sha256()
        if self._left:
            self._state = "data"
        else:
            self._check_chunk()
            self._state = "trailer"

    def _check_chunk(self) -> None:
        if self._signer:
            expected = self._signer.signature(self._previous, self._digest.hexdigest())
            _check_signature(expected, self._signature)
            self._previous = expected

    def _end(self) -> None:
        if self._signer and self._expected:
            expected = self._signer.trailer_signature(self._previous, self._signed_trailers)
            _check_signature(expected, self.trailers.get("x-amz-trailer-signature", ""))
        self._state = "end"


def decoder(claim: sigv4.Claim | None, secret: str, headers: Mapping[str, str]) -> Decoder:
    """The decoder of a request's body.

    :param claim: None for a request that is signed by Signature Version 2, which signs no body.
    :raises S3Error: MissingContentLength, EntityTooLarge.
    """
    kind = claim.body_sha256 if claim else sigv4.UNSIGNED_PAYLOAD
    is_chunked = kind in sigv4.S3_PAYLOADS and kind != sigv4.UNSIGNED_PAYLOAD
    length = _length(headers, "x-amz-decoded-content-length" if is_chunked else "content-length")
    if length > LARGEST:
        raise too_large(length)
    if not is_chunked or claim is None:
        return PlainBody(None if kind == sigv4.UNSIGNED_PAYLOAD else kind, length)
    signer = None
    if kind in {sigv4.SIGNED_CHUNKS, sigv4.SIGNED_TRAILER}:
        signer = ChunkSigner(claim.signing_key(secret), claim.timestamp, claim.scope, claim.signature)
    named = headers.get("x-amz-trailer", "").lower().split(",") if kind != sigv4.SIGNED_CHUNKS else []
    return ChunkedBody(signer, length, frozenset(name.strip() for name in named if name.strip()))


async def blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about ``BLOCK`` bytes.

    :raises S3Error: RequestTimeout, when it doesn't come.
    """
    waiting, received, begin = bytearray(), 0, time.monotonic()
    stream = request.stream().__aiter__()
    while True:
        late = time.monotonic() - begin > _SILENCE_SECONDS + received / _BYTES_A_SECOND
        try:
            if late:
                raise TimeoutError
            with anyio.fail_after(_SILENCE_SECONDS):
                piece = await anext(stream, None)
        except TimeoutError:
            raise S3Error(
                "RequestTimeout",
                "Your socket connection to the server was not read from or written to within the timeout "
                "period.",
            ) from None
        if piece is None:
            break
        received += len(piece)
        waiting += piece
        if len(waiting) >= BLOCK:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def too_large(length: int) -> S3Error:
    """More than one request may bring."""
    return S3Error(
        "EntityTooLarge",
        "Your proposed upload exceeds the maximum allowed object size: upload it in parts",
        ProposedSize=length,
        MaxSizeAllowed=LARGEST,
    )


def _length(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not text.isdecimal() or len(text) > 18:
        raise S3Error("MissingContentLength", f"You must provide the {name} HTTP header.")
    return int(text)


def _check_length(seen: int, length: int) -> None:
    if seen != length:
        raise S3Error(
            "IncompleteBody",
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
            NumberBytesExpected=length,
            NumberBytesProvided=seen,
        )


def _check_signature(expected: str, signature: str) -> None:
    if not hmac.compare_digest(expected.encode(), signature.encode("latin-1", "replace")):
        raise S3Error("SignatureDoesNotMatch", "The signature of a chunk of the body does not match it.")


def _malformed(reason: str) -> S3Error:
    return S3Error("InvalidRequest", f"The body is not in aws-chunked encoding: {reason}")
