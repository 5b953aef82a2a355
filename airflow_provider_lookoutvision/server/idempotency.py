"""ClientToken: one effect, one answer, one transaction.

A token belongs to an account, a region and an operation. Its row holds a digest of the request and the
answer's bytes, and is committed with the effect or not at all, so that the question "did it happen?" always
has the answer that the same request gives. How long a token speaks, by what its call did:

=========  ==========================================  =====================================================
state      what the call did                           until
=========  ==========================================  =====================================================
DONE       neither created nor deleted                 8 hours have passed
CREATED    created a resource                          the resource is deleted; then it is GONE
GONE       created a resource, deleted since           8 hours after the deletion; until then it refuses
DELETED    deleted a resource                          the name is created again; then it is SUPERSEDED
SUPERSEDED deleted a resource, created again since     8 hours after the creation; until then it refuses
=========  ==========================================  =====================================================

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

from airflow_provider_lookoutvision.server.call import Call, Handler
from airflow_provider_lookoutvision.server.errors import ConflictException, ResourceType
from airflow_provider_lookoutvision.server.protocol import Operation
from airflow_provider_lookoutvision.server.schema import client_tokens, insert_new

ACTIVE_MILLISECONDS = 8 * 60 * 60 * 1000


class TokenState(StrEnum):
    """What a token's call did, and what became of it."""

    DONE = "DONE"
    CREATED = "CREATED"
    GONE = "GONE"
    DELETED = "DELETED"
    SUPERSEDED = "SUPERSEDED"


def perform(call: Call, operation: Operation, members: Mapping[str, Any], handler: Handler) -> bytes:
    """Run an operation that takes a client token: once for each token, with one answer.

    :return: the body of the answer, the same bytes at each repetition.
    :raises ConflictException: when the token was used with other members, or refuses (see above).
    """
    members = dict(members)
    token = members.pop(operation.token_keyword, None) if operation.token_keyword else None
    if token is None:
        answer = operation.write(handler(call, **members))
        _remember_resource(call)
        return answer
    digest = _digest(members)
    while not _claim(call, operation, token, digest):
        # Where another transaction is doing the same, the claim has waited for its end.
        if (known := _find(call, operation, token)) is None:
            continue
        if known.expires_at is None or known.expires_at > call.now:
            return _repeat(known, digest)
        call.connection.execute(client_tokens.delete().where(_is(call, operation, token)))
    answer = operation.write(handler(call, **members))
    _remember_resource(call)
    _remember_answer(call, operation, token, answer)
    return answer


def purge(connection: sa.Connection, now: int) -> int:
    """Forget the tokens whose time is over; how many they were."""
    return connection.execute(client_tokens.delete().where(client_tokens.c.expires_at <= now)).rowcount


def _digest(members: Mapping[str, Any]) -> str:
    def encode(value: Any) -> str:
        return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)

    return hashlib.sha256(json.dumps(members, sort_keys=True, default=encode).encode()).hexdigest()


def _is(call: Call, operation: Operation, token: str) -> sa.ColumnElement[bool]:
    columns = client_tokens.c
    return sa.and_(call.own(client_tokens), columns.operation == operation.name, columns.token == token)


def _claim(call: Call, operation: Operation, token: str, digest: str) -> bool:
    return insert_new(
        call.connection,
        client_tokens,
        account_id=call.caller.account_id,
        region=call.caller.region,
        operation=operation.name,
        token=token,
        request_digest=digest,
        answer=b"",
        state=TokenState.DONE,
        resource_type="",
        resource_id="",
        created_at=call.now,
        expires_at=call.now + ACTIVE_MILLISECONDS,
    )


def _find(call: Call, operation: Operation, token: str) -> sa.Row[Any] | None:
    query = client_tokens.select().where(_is(call, operation, token)).with_for_update()
    return call.connection.execute(query).one_or_none()


def _repeat(known: sa.Row[Any], digest: str) -> bytes:
    thing = f"{known.resource_type.lower()} {known.resource_id!r}"
    about = {"resource_id": known.resource_id, "resource_type": ResourceType(known.resource_type)}
    if known.request_digest != digest:
        raise ConflictException(
            f"The client token was already used for {known.operation} with other parameters, on the "
            f"{thing}: repeat that request, or use another token",
            **about,
        )
    if known.state == TokenState.GONE:
        raise ConflictException(
            f"The {thing} that this client token created has been deleted since, and a repeated request does "
            "not bring it back: to create it again, use another token",
            **about,
        )
    if known.state == TokenState.SUPERSEDED:
        raise ConflictException(
            f"The {thing} that this client token deleted has been created again since, and a repeated request "
            "does not delete the new one: to delete that, use another token",
            **about,
        )
    return bytes(known.answer)


def _remember_resource(call: Call) -> None:
    effect = call.effect
    if effect.created:
        _turn(call, TokenState.DELETED, TokenState.SUPERSEDED)
    elif effect.deleted:
        _turn(call, TokenState.CREATED, TokenState.GONE)


def _turn(call: Call, old: TokenState, new: TokenState) -> None:
    columns = client_tokens.c
    call.connection.execute(
        client_tokens.update()
        .where(
            call.own(client_tokens),
            columns.resource_type == call.effect.resource_type,
            columns.resource_id == call.effect.resource_id,
            columns.state == old,
        )
        .values(state=new, expires_at=call.now + ACTIVE_MILLISECONDS)
    )


def _remember_answer(call: Call, operation: Operation, token: str, answer: bytes) -> None:
    effect = call.effect
    if effect.resource_type is None:
        raise TypeError(
            f"{operation.name} takes a client token, but did not tell what it did to which resource"
        )
    state = (
        TokenState.CREATED if effect.created else TokenState.DELETED if effect.deleted else TokenState.DONE
    )
    lasts = effect.created or effect.deleted
    call.connection.execute(
        client_tokens.update()
        .where(_is(call, operation, token))
        .values(
            answer=answer,
            state=state,
            resource_type=effect.resource_type,
            resource_id=effect.resource_id,
            expires_at=None if lasts else call.now + ACTIVE_MILLISECONDS,
        )
    )
