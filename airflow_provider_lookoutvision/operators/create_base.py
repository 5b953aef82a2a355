"""Creating a named resource exactly once for a task instance: the base of the operators that do so.

The service keeps the client token that created a resource for as long as the resource lives. A create call
with that token returns the resource; with any other token it is refused. So an operator finds out whether a
resource is its own by calling create again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.idempotency import previous_tokens
from airflow_provider_lookoutvision.operators.client_token import ClientTokenMixin
from airflow_provider_lookoutvision.operators.parameters import CHECKS

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

IfExists = Literal["fail", "skip", "use"]


class LookoutVisionCreateBaseOperator(ClientTokenMixin):
    """The base of the operators that create something under a name that only one can have.

    :param client_token: a token of your own, used as it is; by default the task instance's. With your own,
        the resource is found after a clear only if the token is still the same.
    :param if_exists: what to do about a resource that this task instance did not create: ``fail``, without
        retries, or ``skip`` the creation and use it. ``use`` is an alias of ``skip``.
    """

    template_fields: Sequence[str] = (*ClientTokenMixin.template_fields, "if_exists")

    noun: ClassVar[str]
    purpose: ClassVar[tuple[str, ...]] = ()

    # Whether this task instance created the resource, or uses another's; None until that is known.
    is_own: bool | None = None

    def __init__(self, *, if_exists: IfExists = "fail", **kwargs: Any) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.if_exists = if_exists
        if isinstance(if_exists, str) and "{" not in if_exists:  # nothing to render
            CHECKS["if_exists"]("if_exists", if_exists)

    @property
    @abstractmethod
    def resource_id(self) -> str:
        """What the service's errors call the resource."""

    @abstractmethod
    def create(self, token: str) -> dict[str, Any]:
        """Create it with a client token, and return its metadata."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the metadata of the existing resource."""

    def create_or_find(self, context: Context) -> dict[str, Any]:
        """Create the resource, or find the one that this task instance created before, and set ``is_own``.

        :raises AirflowFailException: when this task instance did not create it, and ``if_exists`` is
            ``fail``; or when an earlier try created another one.
        """
        self.is_own = None
        found = self._create_or_find(context)
        self.is_own = self.is_own is None
        return found

    def _create_or_find(self, context: Context) -> dict[str, Any]:
        token = self.token(context, *self.purpose)
        self.log.info("Creating %s %s with client token %s", self.noun, self.resource_id, token)
        try:
            created = self.create(token)
            self.log_age(context, created)
            return created
        except self.hook.conn.exceptions.ConflictException as conflict:
            response = conflict.response
            self._refuse_another(response.get("ResourceId"))
            self.log.info("The service refuses: %s", response["Error"]["Message"])
        try:
            existing = self.describe()
        except self.hook.conn.exceptions.ResourceNotFoundException:
            # Either it was deleted just now, and its name is free; or this token created it, and it was
            # deleted since: then the service refuses again. Previous tokens aren't tried, since one of them
            # would create it anew.
            return self.create(token)
        if self.client_token is None and (own := self._find_own(context)):
            self.log.info("This task instance created %s %s before its clear", self.noun, self.resource_id)
            return own
        if self.if_exists != "fail":
            self.log.info("Using %s %s, which this task instance did not create", self.noun, self.resource_id)
            self.is_own = False
            return existing
        raise AirflowFailException(
            f"The {self.noun} {self.resource_id!r} exists, and this task instance did not create it. Set "
            "if_exists='skip' to use it, choose another name, or delete it first. "
            f"(The service: {response['Error']['Message']})"
        )

    def _find_own(self, context: Context) -> dict[str, Any] | None:
        """Return the resource if a previous token of this task instance created it.

        If the name becomes free at this moment, a previous token creates the resource: then it belongs to
        this task instance too.
        """
        namespace = self.hook.client_token_namespace
        for token in previous_tokens(context, *self.purpose, namespace=namespace):
            try:
                return self.create(token)
            except self.hook.conn.exceptions.ConflictException:
                continue
        return None

    def _refuse_another(self, created: str | None) -> None:
        if created in (None, self.resource_id):
            return
        if self.client_token is not None:
            raise AirflowFailException(
                f"Client token {self.client_token!r} created {self.noun} {created!r}, and can't create "
                f"another. For {self.resource_id!r} pass another client_token."
            )
        raise AirflowFailException(
            f"An earlier try of this task instance created {self.noun} {created!r}, and this try asks for "
            f"{self.resource_id!r}. A retry must ask for the same: don't let parameters depend on anything "
            "that differs between tries, such as the try number or the time. To create another one, clear "
            "this task when it has ended, or start another run."
        )
