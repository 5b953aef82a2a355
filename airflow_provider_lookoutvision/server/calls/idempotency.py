"""ClientToken: one effect, one answer, one transaction.

A token belongs to an account, a region and an operation; that of a start or a stop also to the model, as the
call names it, since clients use one constant token for the starts and stops of all their models. Its row
holds a digest of the request and the answer's bytes, and is committed with the effect or not at all, so that
the question "did it happen?" always has the answer that the same request gives. How long a token speaks, by
what its call did:

=========== ========================================= ====================================================
state       what the call did                         until
=========== ========================================= ====================================================
DONE        neither created nor deleted               8 hours have passed, or the resource is deleted
CREATED     created a resource                        the resource is deleted; then it is GONE
GONE        worked on a resource, deleted since       8 hours after the deletion; until then it refuses
DELETED     deleted a resource                        30 days have passed, or the name is created again;
                                                      then it is SUPERSEDED
SUPERSEDED  deleted a resource, created again since   8 hours after the creation; until then it refuses
FAILED      began work that failed later              it is used again: then it begins the work anew; as
                                                      long as the resource lives, if it was to create one
=========== ========================================= ====================================================

The token of a start is forgotten when the model is stopped, and that of a stop when it is started again:
the same token serves day after day. So it does with ``latest``, for one model after another: a start with a
token and ``latest`` begins anew what that token does with ``latest``, whichever model that was.

The hours are those of ``token_clock``, so that a clock that is set wrong for a while costs no token.

GONE and SUPERSEDED refuse, so that a delayed duplicate neither brings a deleted resource back nor deletes
its successor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.calls.call import Call, OperationHandler, own
from airflow_provider_lookoutvision.server.protocol.errors import ConflictException, ResourceType
from airflow_provider_lookoutvision.server.protocol.rest_json import Operation
from airflow_provider_lookoutvision.server.storage.schema import client_tokens, lock

ACTIVE_MILLISECONDS = 8 * 60 * 60 * 1000
DELETED_MILLISECONDS = 30 * 24 * 60 * 60 * 1000


class TokenState(StrEnum):
    """What a token's call did, and what became of it."""

    DONE = "DONE"
    CREATED = "CREATED"
    GONE = "GONE"
    DELETED = "DELETED"
    SUPERSEDED = "SUPERSEDED"
    FAILED = "FAILED"


# Their tokens belong to one model.
_OF_ONE_MODEL = frozenset({"StartModel", "StopModel"})

_columns = client_tokens.c


# Built once, since that takes longer than running them.
_TOKEN = sa.and_(
    own(client_tokens),
    _columns.operation == sa.bindparam("of_operation"),
    _columns.token == sa.bindparam("of_token"),
    _columns.scope == sa.bindparam("of_scope"),
)
_RESOURCE = sa.and_(
    own(client_tokens),
    _columns.resource_type == sa.bindparam("of_type"),
    _columns.resource_id == sa.bindparam("of_resource"),
)
_FIND = client_tokens.select().where(_TOKEN).with_for_update()
_DELETE = client_tokens.delete().where(_TOKEN)
_INSERT = client_tokens.insert()
_SUPERSEDE = (
    client_tokens.update()
    .where(_RESOURCE, _columns.state == TokenState.DELETED)
    .values(state=TokenState.SUPERSEDED, expires_at=sa.bindparam("until"))
)
_END = (
    client_tokens.update()
    .where(_RESOURCE, _columns.state.in_([TokenState.CREATED, TokenState.DONE]))
    .values(state=TokenState.GONE, expires_at=sa.bindparam("until"))
)
_DELETE_FAILED = client_tokens.delete().where(_RESOURCE, _columns.state == TokenState.FAILED)


def perform(call: Call, operation: Operation, members: Mapping[str, Any], handler: OperationHandler) -> bytes:
    """Run an operation: where the call has a client token, once for each token, with one answer.

    :return: the body of the answer, the same bytes at each repetition.
    :raises ConflictException: when the token was used with other members, or refuses (see above).
    """
    if operation.token_keyword:
        # Writes in one project take turns here, so that they never deadlock on its rows. The token's lock is
        # taken first: a request that waits for it holds no other.
        account = call.caller.account_id, call.caller.region
        token_lock = [(*account, call.operation, call.token)] if call.token is not None else []
        lock(call.connection, *token_lock, (*account, members["project_name"]))
    if call.token is None:
        answer = operation.write(handler(call, **members))
        _update_other_tokens(call, "")
        return answer
    digest = _digest(members)
    scope = f"{members['project_name']}/{members['model_version']}" if call.operation in _OF_ONE_MODEL else ""
    token = {**call.scope, "of_operation": call.operation, "of_token": call.token, "of_scope": scope}
    if known := call.connection.execute(_FIND, token).one_or_none():
        expired = known.expires_at is not None and known.expires_at <= call.token_now
        call.effect.replaces = known.resource_id if known.state == TokenState.FAILED else None
        if not (expired or call.effect.replaces):
            return _repeat(call, members, known, digest)
        call.connection.execute(_DELETE, token)
    answer = operation.write(handler(call, **members))
    _update_other_tokens(call, scope)
    _store(call, scope, digest, answer)
    return answer


def mark_failed(
    connection: sa.Connection, account_id: str, region: str, operation: str, token: str | None
) -> None:
    """Note that the work which a token began has failed, so that the same token may begin it anew."""
    connection.execute(
        client_tokens.update()
        .where(_columns.account_id == account_id, _columns.region == region)
        .where(_columns.operation == operation, _columns.token == token)
        .values(state=TokenState.FAILED)
    )


def forget(
    connection: sa.Connection,
    account_id: str,
    region: str,
    operation: str,
    resource_id: str,
    token: tuple[str | None, str] = (None, ""),
) -> None:
    """Forget the tokens of an operation on a resource: what they did is over.

    :param token: a token and its scope, to be forgotten whatever resource it was used for.
    """
    same = sa.and_(_columns.token == token[0], _columns.scope == token[1])
    connection.execute(
        client_tokens.delete()
        .where(_columns.account_id == account_id, _columns.region == region)
        .where(_columns.operation == operation)
        .where(sa.or_(_columns.resource_id == resource_id, same))
    )


def mark_gone(call: Call, resource_type: ResourceType, resource_ids: sa.Select[Any]) -> None:
    """Record that these resources went with another, so that a repeated request does not bring them back."""
    columns = client_tokens.c
    theirs = sa.and_(
        own(client_tokens), columns.resource_type == resource_type, columns.resource_id.in_(resource_ids)
    )
    failed = client_tokens.delete().where(theirs, columns.state == TokenState.FAILED)
    gone = client_tokens.update().where(theirs)
    gone = gone.values(state=TokenState.GONE, expires_at=call.token_now + ACTIVE_MILLISECONDS)
    call.connection.execute(failed, call.scope)
    call.connection.execute(gone, call.scope)


def purge(connection: sa.Connection, now: int) -> int:
    """Forget the tokens whose time is over; how many they were."""
    return connection.execute(client_tokens.delete().where(client_tokens.c.expires_at <= now)).rowcount


def _digest(members: Mapping[str, Any]) -> str:
    def encode(value: Any) -> str:
        return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)

    return hashlib.sha256(json.dumps(members, sort_keys=True, default=encode).encode()).hexdigest()


def _repeat(call: Call, members: Mapping[str, Any], known: sa.Row[Any], digest: str) -> bytes:
    thing = f"{known.resource_type.lower()} {known.resource_id!r}"
    if known.request_digest != digest:
        used = f"The client token was already used for {known.operation} with other parameters"
        remedy = "repeat that request, or use another token"
        if not call.caller.sees(known.resource_id.partition("/")[0]):
            # The key may not see of what project that was, and so must not learn it here.
            project = members["project_name"]
            raise ConflictException(
                f"{used}: {remedy}", resource_id=project, resource_type=ResourceType.PROJECT
            )
        refusal = f"{used}, on the {thing}: {remedy}"
    elif known.state == TokenState.GONE:
        refusal = (
            f"The {thing} for which this client token was used has been deleted since, and a repeated "
            "request does not bring it back: to make a new one, use another token"
        )
    elif known.state == TokenState.SUPERSEDED:
        refusal = (
            f"The {thing} that this client token deleted has been created again since, and a repeated "
            "request does not delete the new one: to delete that, use another token"
        )
    else:
        return bytes(known.answer)
    resource_type = ResourceType(known.resource_type)
    raise ConflictException(refusal, resource_id=known.resource_id, resource_type=resource_type)


def _update_other_tokens(call: Call, scope: str) -> None:
    """Give the other tokens of the call's resource the states that follow from its effect."""
    effect = call.effect
    if effect.undoes:
        who = call.caller.account_id, call.caller.region
        forget(call.connection, *who, effect.undoes, effect.resource_id, (call.token, scope))
    resource = {**call.scope, "of_type": effect.resource_type, "of_resource": effect.resource_id}
    until = {"until": call.token_now + ACTIVE_MILLISECONDS}
    if effect.created:
        call.connection.execute(_SUPERSEDE, resource | until)
    elif effect.deleted:
        call.connection.execute(_END, resource | until)
        call.connection.execute(_DELETE_FAILED, resource)


def _store(call: Call, scope: str, digest: str, answer: bytes) -> None:
    effect = call.effect
    if effect.resource_type is None:
        raise TypeError(f"{call.operation} takes a client token, but did not report its effect on a resource")
    state = (
        TokenState.CREATED if effect.created else TokenState.DELETED if effect.deleted else TokenState.DONE
    )
    lifetime = DELETED_MILLISECONDS if effect.deleted else ACTIVE_MILLISECONDS
    row = {
        "account_id": call.caller.account_id,
        "region": call.caller.region,
        "operation": call.operation,
        "token": call.token,
        "scope": scope,
        "request_digest": digest,
        "answer": answer,
        "state": state,
        "resource_type": effect.resource_type,
        "resource_id": effect.resource_id,
        "created_at": call.now,
        "expires_at": None if effect.created else call.token_now + lifetime,
    }
    call.connection.execute(_INSERT, row)
