"""One call of one operation: who calls, in which transaction, at what moment, and to what effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.protocol import pagination
from airflow_provider_lookoutvision.server.protocol.errors import ResourceType
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.encryption import Cipher


@dataclass
class Effect:
    """What a call does to which resource, as the operation reports it: stored with the client token.

    ``undoes`` names the operation whose tokens for the resource speak no longer, since what they did is over.
    ``replaces`` is an input: the ID of a resource that an earlier call with the same token began
    to make, and failed; this call may take its place.
    """

    resource_type: ResourceType | None = None
    resource_id: str = ""
    created: bool = False
    deleted: bool = False
    undoes: str | None = None
    replaces: str | None = None
    queued_work: bool = False
    changed_hosting: bool = False


@dataclass(frozen=True)
class Call:
    """What an operation gets besides its members.

    ``now`` is in milliseconds since the epoch; ``token_now`` too, by the clock of the client tokens.
    """

    operation: str
    token: str | None

    caller: Caller
    connection: sa.Connection
    settings: Settings
    cipher: Cipher
    now: int
    token_now: int = 0
    effect: Effect = field(default_factory=Effect)

    def created(self, resource_type: ResourceType, resource_id: str) -> None:
        """Report that this call created a resource."""
        self._affected(resource_type, resource_id)
        self.effect.created = True

    def deleted(self, resource_type: ResourceType, resource_id: str) -> None:
        """Report that this call deleted a resource."""
        self._affected(resource_type, resource_id)
        self.effect.deleted = True

    def changed(self, resource_type: ResourceType, resource_id: str, *, undoes: str | None = None) -> None:
        """Report that this call changed a resource that exists before and after it."""
        self._affected(resource_type, resource_id)
        self.effect.undoes = undoes

    def _affected(self, resource_type: ResourceType, resource_id: str) -> None:
        self.effect.resource_type, self.effect.resource_id = resource_type, resource_id

    @property
    def scope(self) -> dict[str, Any]:
        """The parameters of the function ``own``."""
        return {"own_account": self.caller.account_id, "own_region": self.caller.region}

    def page(self, query: Sequence[Any], next_token: str | None, max_results: int | None) -> pagination.Page:
        """The paging members of a list request, bound to the query and its caller."""
        scope = [self.caller.account_id, self.caller.region, self.caller.key.access_key_id]
        return pagination.page(self.cipher, [*scope, *query], next_token, max_results)


@dataclass(frozen=True)
class Inference:
    """An answer that a hosted model has yet to find; ``hosting`` says under which of its starts.

    :param threshold: of the probability that the image is anomalous.
    :param anomaly_map: whether the answer is to have the anomaly map.
    """

    model_id: int
    hosting: int
    resource_id: str
    image: bytes
    threshold: float
    anomaly_map: bool = False


class OperationHandler(Protocol):
    """An operation: its members as snake_case keywords in, the members of its output as a dict out."""

    def __call__(self, call: Call, /, **members: Any) -> Mapping[str, Any]:
        """Do it."""


def own(table: sa.Table) -> sa.ColumnElement[bool]:
    """The condition that a row is of the caller's account and region, which ``Call.scope`` has.

    For statements that are built once: building one takes longer than running it.
    """
    return sa.and_(
        table.c.account_id == sa.bindparam("own_account"), table.c.region == sa.bindparam("own_region")
    )
