"""One call of S3: who calls, on what, and the kinds of answers and of bodies there are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.s3 import checksums
from airflow_provider_lookoutvision.server.s3.errors import S3Error
from airflow_provider_lookoutvision.server.s3.objects import Objects, Opened
from airflow_provider_lookoutvision.server.s3.temporary import Temporary
from airflow_provider_lookoutvision.server.s3.uploads import Uploads


@dataclass(frozen=True)
class Call:
    """What an operation gets besides its members."""

    operation: str
    caller: Caller
    objects: Objects
    uploads: Uploads


@dataclass
class Answer:
    """What an operation answers: members of its output, and the bytes ``begin`` to ``end`` of an object."""

    members: Mapping[str, Any] = field(default_factory=dict)
    opened: Opened | None = None
    begin: int = 0
    end: int = 0
    status: int | None = None


class Incoming:
    """An object or a part that is being received: written as it comes, and checked when it is whole.

    :param stated: the checksums that the request states, by algorithm.
    :param algorithms: further ones that are to be computed, since they come at the end or are to be kept.
    :param md5: what the request states, in base64.
    """

    def __init__(
        self, file: Temporary, stated: Mapping[str, str], algorithms: frozenset[str], md5: str | None
    ) -> None:
        self.file = file
        self._stated = dict(stated)
        self._md5 = md5
        for name, value in stated.items():
            if name in checksums.SIZES:
                checksums.check(f"x-amz-checksum-{name.lower()}", value, checksums.SIZES[name])
        if md5 is not None:
            checksums.check("Content-MD5", md5, checksums.SIZES["MD5"])
        self._digest = hashlib.md5(usedforsecurity=False)
        self._digests = {name: checksums.new(name) for name in algorithms | set(stated)}

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self._digest.update(data)
        for digest in self._digests.values():
            digest.update(data)
        self.file.write(data)

    def finish(self, trailers: Mapping[str, str]) -> None:
        """Check what has come.

        :param trailers: the checksums that came after it.
        :raises S3Error: BadDigest.
        """
        for name, value in trailers.items():
            algorithm = name.removeprefix("x-amz-checksum-").upper()
            if name.startswith("x-amz-checksum-") and algorithm in self._digests:
                self._stated[algorithm] = value
        for algorithm, value in self._stated.items():
            if self.checksums[algorithm] != value:
                raise S3Error("BadDigest", f"The {algorithm} you specified did not match what we received.")
        if self._md5 is not None and self._md5 != checksums.encoded(self._digest.digest()):
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")

    @property
    def etag(self) -> str:
        """The MD5 of the bytes."""
        return self._digest.hexdigest()

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksums of the bytes, by algorithm."""
        return {name: checksums.encoded(digest.digest()) for name, digest in self._digests.items()}

    def store(self) -> Answer:
        """Keep what has come, which is checked."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget what isn't stored."""
        self.file.close()


def check_document(document: bytes, headers: Mapping[str, str], *, of_object: bool) -> None:
    """Check a body that is a document against the checksums that its request states.

    :param of_object: whether the headers of checksums are of an object, and not of the document.
    :raises S3Error: BadDigest, InvalidDigest.
    """
    for name, value in headers.items():
        algorithm = "MD5" if name == "content-md5" else name.removeprefix("x-amz-checksum-").upper()
        is_checksum = name.startswith("x-amz-checksum-") and algorithm in checksums.SIZES
        if name == "content-md5" or (is_checksum and not of_object):
            digest = checksums.new(algorithm)
            digest.update(document)
            if checksums.encoded(digest.digest()) != value:
                raise S3Error("BadDigest", f"The {algorithm} you specified did not match what we received.")
