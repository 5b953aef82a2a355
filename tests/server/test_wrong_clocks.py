"""A clock that is hours wrong for a while costs no token and holds up no job; a dead worker's job is free."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from import_jobs import KINDS
from project_calls import ProjectClient
from services import NewService, Storage, first_key_of, storage_of
from signed_http import SignedHttpClient

from airflow_provider_lookoutvision.server.calls import token_clock
from airflow_provider_lookoutvision.server.calls.token_clock import TokenClock
from airflow_provider_lookoutvision.server.jobs import process_identity, queue
from airflow_provider_lookoutvision.server.storage.schema import (
    client_tokens,
    jobs,
    now,
    projects,
    service_state,
)

HOUR = 3_600_000


def test_a_start_with_the_clock_ahead_forgets_no_token(new_service: NewService) -> None:
    service = new_service("--no-worker")
    client = ProjectClient(SignedHttpClient(service.endpoint_url, first_key_of(service)))
    client.create("p", "t")
    client.delete("p", "u")
    service.stop()
    with storage_of(service) as storage, storage.database.write() as connection:
        # All that was ever seen was nine hours earlier than the clock says now.
        earlier = {name: client_tokens.c[name] - 9 * HOUR for name in ("created_at", "expires_at")}
        connection.execute(client_tokens.update().values(earlier))
        connection.execute(projects.update().values(created_at=projects.c.created_at - 9 * HOUR))
        row = connection.execute(service_state.select().where(service_state.c.name == "token_clock")).one()
        values = {"value": str(int(row.value) - 9 * HOUR), "seen_at": row.seen_at - 9 * HOUR}
        connection.execute(service_state.update().where(service_state.c.name == row.name).values(values))
    service.start()
    again = client.create("p", "t")
    assert (again.status, again.code) == (409, "ConflictException")
    assert "has been deleted since" in again.message


def test_the_clock_of_tokens_goes_on_by_what_passes(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = {"monotonic": 1000.0, "machine": 5_000_000_000_000}
    monkeypatch.setattr(token_clock.time, "monotonic", lambda: moment["monotonic"])
    monkeypatch.setattr(token_clock.time, "time_ns", lambda: int(moment["machine"]) * 1_000_000)

    def passes(clock: TokenClock, seconds: float, machine_seconds: float) -> int:
        moment["monotonic"] += seconds
        moment["machine"] += machine_seconds * 1000
        before = clock.now
        return clock.advance() - before

    service = new_service("--no-worker")
    service.stop()  # its own clock would go on too
    with storage_of(service) as storage:
        clock, other = TokenClock(storage.database), TokenClock(storage.database)
        passes(clock, 0, 0)
        assert passes(clock, 600, 600) == 600_000
        assert passes(clock, 600, 9 * 3600) == 600_000  # the machine's clock jumps ahead,
        assert passes(clock, 600, -9 * 3600) == 0  # and back
        assert passes(clock, 600, 600) == 600_000
        assert passes(other, 300, 300) == 600_000 * 3 + 300_000  # what both have seen is counted once
        assert passes(clock, 300, 300) == 600_000


def put_job(storage: Storage, **values: Any) -> int:
    """A job that somebody has."""
    row = {
        "kind": KINDS[0],
        "subject_id": 0,
        "details": {},
        "account_id": "000000000000",
        "region": "r",
        "allowed_buckets": ["*"],
        "operation": "o",
        "attempts": 1,
    }
    with storage.database.write() as connection:
        inserted = connection.execute(jobs.insert().values(row | values).returning(jobs.c.id))
        return int(inserted.scalar_one())


def test_a_lease_of_a_clock_that_was_ahead_is_free(new_service: NewService) -> None:
    with storage_of(new_service("--no-worker")) as storage:
        number = put_job(storage, owner="another", leased_until=now() + HOUR)
        held = put_job(storage, owner="another", leased_until=now() + queue.LEASE_MILLISECONDS)
        claimed = queue.claim(storage.database, "me", KINDS)
        assert claimed
        assert claimed.id == number
        assert queue.claim(storage.database, "me", KINDS) is None
        assert held


def test_the_jobs_of_the_dead_are_free_at_once(new_service: NewService) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with storage_of(new_service("--no-worker")) as storage:
        host, boot, space, pid, start = process_identity.own().rsplit(".", 4)
        of_child = f"{host}.{boot}.{space}.{child.pid}.{process_identity._start(child.pid)}-aaa"
        owners = {
            "this process": f"{process_identity.own()}-aaa",
            "a living one": of_child,
            "elsewhere": f"other.{boot}.{space}.{pid}.{start}-aaa",
            "another container": f"{host}.{boot}.1.{pid}.1-aaa",
            "an earlier version": f"host-{os.getpid()}-{secrets.token_hex(4)}",
            "another boot": f"{host}.00000000.{space}.{pid}.{start}-aaa",
            "its ID is another's now": f"{host}.{boot}.{space}.{pid}.1-aaa",
        }
        until = {"leased_until": now() + queue.LEASE_MILLISECONDS}
        numbers = {put_job(storage, owner=owner, **until): who for who, owner in owners.items()}

        def free() -> set[str]:
            queue.requeue_of_the_gone(storage.database)
            with storage.database.read() as connection:
                waiting = connection.execute(sa.select(jobs.c.id).where(jobs.c.leased_until == 0))
                return {numbers[number] for number in waiting.scalars()}

        assert free() == {"another boot", "its ID is another's now"}
        child.communicate(b"\n")
        assert free() == {"another boot", "its ID is another's now", "a living one"}


def test_an_identity_fits_where_it_is_kept() -> None:
    longest = f"{'h' * 16}.{'f' * 8}.{2**32}.{2**22}.{10**11}-aaaaaa"
    assert len(longest) <= 64
    assert not process_identity.is_gone(process_identity.own())
    assert Path(f"/proc/{os.getpid()}").exists()
