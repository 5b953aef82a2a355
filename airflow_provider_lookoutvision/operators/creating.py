"""Creating a named resource exactly once for a task instance: the rule, for every operator that creates one.

The service keeps the client token that made a resource for as long as that lives, and answers it, and no
other, with that resource. So "is this mine?" is asked by creating again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.idempotency import tokens_of_other_epochs
from airflow_provider_lookoutvision.operators.tokens import TokenMixin

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

IF_EXISTS = ("fail", "use")


class LookoutVisionCreateBaseOperator(TokenMixin):
    """The base of the operators that create something under a name that only one can have.

    :param client_token: a token of your own, used as it is; by default the task instance's. With your own,
        finding the resource after a clear is up to the token.
    :param if_exists: what to do about a resource that somebody else has made: ``fail``, without retries, or
        ``use`` it.
    """

    template_fields: Sequence[str] = (*TokenMixin.template_fields, "if_exists")

    noun: ClassVar[str]
    purpose: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, if_exists: Literal["fail", "use"] = "fail", **kwargs: Any) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.if_exists = if_exists
        if isinstance(if_exists, str) and "{" not in if_exists:  # nothing to render
            self.check_if_exists()

    @property
    @abstractmethod
    def resource_id(self) -> str:
        """What the service's errors call the resource."""

    @abstractmethod
    def create(self, token: str) -> dict[str, Any]:
        """Create it with a client token, and return its metadata."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the metadata of the resource that is there."""

    def check_if_exists(self) -> None:
        """Refuse what isn't a value of ``if_exists``."""
        if self.if_exists not in IF_EXISTS:
            raise AirflowFailException(
                f"if_exists is {self.if_exists!r}; it must be one of {', '.join(IF_EXISTS)}"
            )

    def create_or_find(self, context: Context) -> dict[str, Any]:
        """Create the resource, or find the one that this task instance made before.

        :raises AirflowFailException: when it is somebody else's, and ``if_exists`` says ``fail``; or when an
            earlier try made another one.
        """
        self.check_if_exists()
        token = self.token(context, *self.purpose)
        self.log.info("Creating %s %s with client token %s", self.noun, self.resource_id, token)
        try:
            return self.create(token)
        except self.hook.conn.exceptions.ConflictException as conflict:
            refusal = conflict.response
            self._refuse_another(refusal.get("ResourceId"))
            self.log.info("The service refuses: %s", refusal["Error"]["Message"])
        try:
            existing = self.describe()
        except self.hook.conn.exceptions.ResourceNotFoundException:
            # Either it went this moment, and its name is free; or it was this token's, and deleted since:
            # then the service says so once more. Not a reason to replay another token, which would resurrect
            # it.
            return self.create(token)
        if self.client_token is None and (own := self._replay(context)):
            self.log.info("This task instance made %s %s before it was cleared", self.noun, self.resource_id)
            return own
        if self.if_exists == "use":
            self.log.info("Using %s %s, which this task instance did not make", self.noun, self.resource_id)
            return existing
        raise AirflowFailException(
            f"The {self.noun} {self.resource_id!r} exists, and this task instance did not make it. Set "
            "if_exists='use' to take it, choose another name, or delete it first. "
            f"(The service: {refusal['Error']['Message']})"
        )

    def _replay(self, context: Context) -> dict[str, Any] | None:
        """Return the resource if a token of another epoch of this task instance made it.

        Should the name become free in this moment, a replay creates the resource: then it is this task
        instance's, under a token that is its own too.
        """
        namespace = self.hook.client_token_namespace
        for token in tokens_of_other_epochs(context, *self.purpose, namespace=namespace):
            try:
                return self.create(token)
            except self.hook.conn.exceptions.ConflictException:
                continue
        return None

    def _refuse_another(self, made: str | None) -> None:
        if made in (None, self.resource_id):
            return
        if self.client_token is not None:
            raise AirflowFailException(
                f"Client token {self.client_token!r} has made {self.noun} {made!r}, and makes no other. "
                f"For {self.resource_id!r} pass another client_token."
            )
        raise AirflowFailException(
            f"An earlier try of this task instance made {self.noun} {made!r}, and now it is to be "
            f"{self.resource_id!r}. A retry must ask for the same: let the parameters depend on nothing that "
            "differs between tries, such as the try number or the time. To make another one, clear this task "
            "when it has ended, or start another run."
        )
