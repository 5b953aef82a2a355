"""What the health endpoints say, and of what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from locked_projects import projects_locked
from polling import until
from services import NewService, Storage, first_key_of, storage_of
from signed_http import HttpResponse, SignedHttpClient

from airflow_provider_lookoutvision.server import health
from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.jobs import heartbeat
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.schema import access_keys, workers
from airflow_provider_lookoutvision.testing.service import Service

OK = {"database": "ok", "tables": "ok", "secret_key": "ok", "worker": "ok"}


@pytest.fixture
def idle_service(new_service: NewService) -> Service:
    return new_service("--no-worker")


@pytest.fixture
def idle_storage(idle_service: Service) -> Iterator[Storage]:
    with storage_of(idle_service) as storage:
        yield storage


@pytest.fixture
def look(idle_service: Service) -> Callable[[str], HttpResponse]:
    """``look("/readyz")``, when the last outcome is no longer fresh."""
    client = SignedHttpClient(idle_service.endpoint_url, first_key_of(idle_service))

    def look(path: str) -> HttpResponse:
        import time

        time.sleep(health._FRESH_SECONDS + 0.1)
        return client.send("GET", path, signed=False)

    return look


def test_ready_with_a_worker_and_healthy_without(
    look: Callable[[str], HttpResponse], idle_storage: Storage
) -> None:
    without = OK | {"worker": "none has been heard of"}
    ready = look("/readyz")
    assert (ready.status, ready.json) == (503, {"status": "unavailable", "checks": without})
    assert ready.headers["retry-after"]
    healthy = look("/healthz")
    assert (healthy.status, healthy.json) == (200, {"status": "degraded", "checks": without})
    heartbeat.beat(idle_storage.database, "worker")
    assert (look("/readyz").status, look("/healthz").json) == (200, {"status": "ok", "checks": OK})
    # One that hangs isn't heard of any more.
    with idle_storage.database.write() as connection:
        earlier = workers.c.heard_at - int(heartbeat.MISSING_SECONDS * 1000) - 1000
        connection.execute(workers.update().values(heard_at=earlier))
    assert look("/readyz").json["checks"] == without


@contextmanager
def wrong(storage: Storage, statement: str, back: str) -> Iterator[None]:
    with storage.database.write() as connection:
        connection.execute(sa.text(statement))
    yield
    with storage.database.write() as connection:
        connection.execute(sa.text(back))


def test_what_is_wrong_is_named(look: Callable[[str], HttpResponse], idle_storage: Storage) -> None:
    def checks() -> Any:
        healthy, live = look("/healthz"), look("/livez")
        assert (live.status, live.json) == (200, {"status": "ok"})
        assert healthy.status == 503
        return {name: what for name, what in healthy.json["checks"].items() if OK.get(name) != what}

    heartbeat.beat(idle_storage.database, "worker")
    with wrong(
        idle_storage, "ALTER TABLE projects RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO projects"
    ):
        assert checks() == {"tables": "one can't be read"}
    with wrong(
        idle_storage,
        "UPDATE alembic_version SET version_num = 'x' || version_num",
        "UPDATE alembic_version SET version_num = substr(version_num, 2)",
    ):
        assert checks() == {"tables": "they are those of another version"}
    with idle_storage.database.write() as connection:
        sealed = connection.execute(sa.select(access_keys.c.sealed_secret)).scalars().first()
        other = Cipher(b"A" * 43 + b"=").encrypt("secret")
        connection.execute(access_keys.update().values(sealed_secret=other))
    assert checks() == {"secret_key": "it does not open the stored access keys"}
    with idle_storage.database.write() as connection:
        connection.execute(access_keys.update().values(sealed_secret=sealed))
        access.check_seals(connection, idle_storage.cipher)
    assert look("/readyz").status == 200


@pytest.mark.one_database
def test_a_write_that_does_not_end_and_a_database_that_is_torn(
    look: Callable[[str], HttpResponse], idle_service: Service, idle_storage: Storage
) -> None:
    with projects_locked(idle_storage):
        assert look("/healthz").json["checks"] == {"database": "a write has not ended within 5 seconds"}
        assert look("/livez").status == 200
    # The write of that check ends now, and must not come after the damage: it would mend it from the log.
    until(lambda: look("/healthz"), lambda answer: answer.status == 200)
    idle_storage.database.close()
    path = idle_service.data_dir / "lookoutvision.db"
    with path.open("r+b") as file:
        os.ftruncate(file.fileno(), 0)
        file.write(b"torn" * 4096)
    (path.parent / "lookoutvision.db-wal").unlink(missing_ok=True)
    # What was found within the last second is answered again.
    answer = until(lambda: look("/healthz"), lambda answer: answer.status == 503)
    assert answer.json["checks"]["database"] == "it can't be read or written"
