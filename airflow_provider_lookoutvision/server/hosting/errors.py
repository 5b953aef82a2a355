"""What a request for a verdict ends with when there is none, wherever the model's units are."""

from __future__ import annotations

import logging

from airflow_provider_lookoutvision.server.hosting.frames import Answer
from airflow_provider_lookoutvision.server.protocol.errors import (
    ConflictException,
    InternalServerException,
    ResourceType,
    ThrottlingException,
    ValidationException,
)

# A little under what botocore waits for an answer.
ANSWER_SECONDS = 50.0

log = logging.getLogger("lookoutvision")


def checked(name: str, answer: Answer) -> Answer:
    """The answer, if it has a result.

    :raises ValidationException: when the image can't be used.
    :raises InternalServerException: when the model failed on it.
    """
    if "invalid" in answer.members:
        raise ValidationException(f"Body can't be used: {answer.members['invalid']}")
    if "error" in answer.members:
        log.error("error in a replica", extra={"model": name, **answer.members})
        raise InternalServerException(f"The model {name} failed on this image; see the service's log")
    return answer


def queue_is_full(name: str, seconds: int) -> ThrottlingException:
    """The error of a request for which there is no room.

    :param seconds: until there is some, as far as is known.
    """
    return ThrottlingException(
        f"The model {name} has as many requests waiting as its inference units allow",
        quota_code="queue_per_unit",
        retry_after=max(1, min(seconds, 60)),
    )


def model_stopped(name: str) -> ConflictException:
    """The error of a request whose model has been stopped."""
    return ConflictException(
        f"The model {name} has been stopped", resource_id=name, resource_type=ResourceType.MODEL
    )


def not_ready(name: str) -> InternalServerException:
    """The error of a request whose model is hosted, but not by this process yet."""
    return InternalServerException(f"The model {name} is not ready here yet", RetryAfterSeconds=1)


def not_answered(name: str) -> InternalServerException:
    """The error of a request that took longer than ``ANSWER_SECONDS``."""
    return InternalServerException(
        f"The model {name} has not answered within {ANSWER_SECONDS:g} seconds", RetryAfterSeconds=1
    )
