"""The errors a caller can meet, as exceptions that know how they look on the wire.

The tree, which is also the table of what may be raised where::

    ServiceError
    ├── AccessDeniedException            403   the model's seven: each may leave an operation
    ├── ConflictException                409
    ├── InternalServerException          500
    ├── ResourceNotFoundException        404
    ├── ServiceQuotaExceededException    402
    ├── ThrottlingException              429
    ├── ValidationException              400
    └── ProtocolError                          not in the model: about the request, not the resource
        ├── SerializationException       400
        ├── UnknownOperationException    404
        ├── RequestTimeoutException      408
        ├── RequestEntityTooLargeException 413
        ├── NotImplementedException      501
        ├── ServiceUnavailableException  503
        └── SignatureException                 code and status by the signature's fault (see sigv4)

``members`` are the members of the error's shape besides ``Message``, spelled as in the model.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class ResourceType(StrEnum):
    """What a conflict or a missing resource is about (the model's ``ResourceType``)."""

    PROJECT = "PROJECT"
    DATASET = "DATASET"
    MODEL = "MODEL"
    TRIAL = "TRIAL"
    MODEL_PACKAGE_JOB = "MODEL_PACKAGE_JOB"


class ServiceError(Exception):
    """An answer other than success. The class's name is the error code that the client sees."""

    status: ClassVar[int] = 500

    def __init__(self, message: str, **members: str | int | None) -> None:
        super().__init__(message)
        self.message = message
        self.members = {name: value for name, value in members.items() if value is not None}
        self.headers: dict[str, str] = {}

    @property
    def code(self) -> str:
        """The error code, as the ``x-amzn-errortype`` header carries it."""
        return type(self).__name__


class AccessDeniedException(ServiceError):
    """The key may not do this."""

    status = 403


class _AboutResource(ServiceError):
    def __init__(self, message: str, *, resource_id: str, resource_type: ResourceType) -> None:
        super().__init__(message, ResourceId=resource_id, ResourceType=resource_type.value)


class ConflictException(_AboutResource):
    """The resource's state, or an earlier use of the client token, forbids this."""

    status = 409


class ResourceNotFoundException(_AboutResource):
    """There is no such resource in the caller's account and region."""

    status = 404


class InternalServerException(ServiceError):
    """A fault of the service; a retry may help."""

    status = 500


class ServiceQuotaExceededException(ServiceError):
    """A limit that the service's settings set has been reached."""

    status = 402

    def __init__(
        self,
        message: str,
        *,
        quota_code: str,
        resource_id: str | None = None,
        resource_type: ResourceType | None = None,
    ) -> None:
        super().__init__(
            message,
            QuotaCode=quota_code,
            ServiceCode="lookoutvision",
            ResourceId=resource_id,
            ResourceType=resource_type.value if resource_type else None,
        )


class ThrottlingException(ServiceError):
    """Too many requests at once; ``retry_after`` says in how many seconds to come back."""

    status = 429

    def __init__(self, message: str, *, quota_code: str, retry_after: int) -> None:
        super().__init__(
            message, QuotaCode=quota_code, ServiceCode="lookoutvision", RetryAfterSeconds=retry_after
        )


class ValidationException(ServiceError):
    """The input breaks a rule; the message says which member and which rule."""

    status = 400


class ProtocolError(ServiceError):
    """A request that reached no operation."""


class SerializationException(ProtocolError):
    """The request can't be read: not JSON, or a member of another type."""

    status = 400


class UnknownOperationException(ProtocolError):
    """No operation has this method and path."""

    status = 404


class RequestTimeoutException(ProtocolError):
    """The body didn't come."""

    status = 408


class RequestEntityTooLargeException(ProtocolError):
    """The body is larger than any input of the operation can be."""

    status = 413


class NotImplementedException(ProtocolError):
    """The operation is part of the API, but this version of the service doesn't have it yet."""

    status = 501


class ServiceUnavailableException(ProtocolError):
    """What the service needs is not there now; ``retry_after`` says in how many seconds to come back."""

    status = 503

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after)}


class SignatureException(ProtocolError):
    """The request isn't signed as it must be; code and status come from the signature's check."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message)
        self._code = code
        self.status = status  # type: ignore[misc]

    @property
    def code(self) -> str:
        """The signature error's own code."""
        return self._code
