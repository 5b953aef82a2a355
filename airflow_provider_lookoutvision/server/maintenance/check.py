"""Whether what the service keeps fits together: tables, models, jobs, tokens, secrets, files.

``check`` reads, at one moment, and names what is wrong. What a rule can put right has a ``Mend``: a
transaction that does it only where that is still so. A service may run meanwhile: what it is about to do is
no finding.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from airflow_provider_lookoutvision.server.datasets.operations import IMPORT_JOB, IN_PROGRESS, UPDATE_JOB
from airflow_provider_lookoutvision.server.maintenance import mending
from airflow_provider_lookoutvision.server.maintenance.backup import snapshot
from airflow_provider_lookoutvision.server.maintenance.mending import Mend
from airflow_provider_lookoutvision.server.models.status import IN_SERVICE, ModelStatus
from airflow_provider_lookoutvision.server.models.training_entries import TRAIN_JOB, WAITING_JOB
from airflow_provider_lookoutvision.server.packaging.operations import PACKAGE_JOB, PackagingStatus
from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage import data_directory
from airflow_provider_lookoutvision.server.storage.buckets import BucketError
from airflow_provider_lookoutvision.server.storage.database import Database
from airflow_provider_lookoutvision.server.storage.encryption import Cipher
from airflow_provider_lookoutvision.server.storage.s3_store import S3Store
from airflow_provider_lookoutvision.server.storage.schema import (
    access_keys,
    client_tokens,
    dataset_entries,
    datasets,
    jobs,
    model_artifacts,
    models,
    packaging_jobs,
    projects,
)

_TRAINED = (ModelStatus.TRAINED, ModelStatus.HOSTING_FAILED, *sorted(IN_SERVICE))
_PACKAGING = (PackagingStatus.CREATED, PackagingStatus.RUNNING)
_LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: where, what, and what to do about it; ``mend`` does it, where a rule can."""

    where: str
    what: str
    remedy: str
    mend: Mend | None = None


def check(settings: Settings, database: Database, cipher: Cipher) -> list[Finding]:
    """Everything that is wrong."""
    found: list[Finding] = []
    with snapshot(database) as connection:
        for examine in _EXAMINATIONS:
            found += examine(connection)
        found += _check_secrets(connection, cipher)
        found += _check_database(database, connection)
    return [*found, *_check_files(settings), *_check_buckets(settings)]


def mend(settings: Settings, database: Database, findings: Sequence[Finding]) -> int:
    """Put right what can be; how many findings that were."""
    count = 0
    for finding in findings:
        if finding.mend is not None:
            finding.mend(settings, database)
            count += 1
    return count


def _check_database(database: Database, connection: sa.Connection) -> Iterator[Finding]:
    if not database.is_sqlite:
        return
    for pragma in ("integrity_check", "foreign_key_check"):
        for row in connection.execute(sa.text(f"PRAGMA {pragma}")).all():
            if row[0] != "ok":
                text = " ".join(str(value) for value in row)
                yield Finding("the database", f"{pragma}: {text}", "restore a backup; docs: damaged database")


def _check_secrets(connection: sa.Connection, cipher: Cipher) -> Iterator[Finding]:
    for row in connection.execute(sa.select(access_keys.c.access_key_id, access_keys.c.sealed_secret)):
        try:
            cipher.decrypt(row.sealed_secret)
        except SettingsError:
            yield Finding(
                f"the access key {row.access_key_id}",
                "its secret was encrypted with another secret key",
                "restore that secret.key, or delete the access key and create a new one",
            )


def _check_models(connection: sa.Connection) -> Iterator[Finding]:
    query = (
        sa.select(
            models, projects.c.name, projects.c.account_id, projects.c.region, model_artifacts.c.content
        )
        .join(projects, projects.c.id == models.c.project_id)
        .outerjoin(model_artifacts, model_artifacts.c.model_id == models.c.id)
        .where(models.c.status.in_(_TRAINED))
        .order_by(models.c.id)
        .execution_options(yield_per=8)
    )
    for row in connection.execute(query):
        if (problem := _problem_of_artifact(row.content)) is not None:
            yield Finding(
                _model(row),
                f"it is {row.status}, but its trained network {problem}",
                "it becomes TRAINING_FAILED: delete it, and train again",
                mending.fail_model(row.id, f"its trained network {problem}"),
            )
    training = _without_job(models, (TRAIN_JOB, WAITING_JOB)).where(models.c.status == ModelStatus.TRAINING)
    for row in connection.execute(_with_project(training, models)):
        yield Finding(
            _model(row),
            "it is TRAINING, but nothing is queued that trains it",
            "it becomes TRAINING_FAILED, and its client token trains anew",
            mending.fail_model(row.id, "its job was lost"),
        )


def _problem_of_artifact(content: bytes | None) -> str | None:
    if content is None:
        return "is missing"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        return "is damaged"
    return f"is damaged at {damaged}" if damaged else None


def _check_datasets(connection: sa.Connection) -> Iterator[Finding]:
    busy = _without_job(datasets, (IMPORT_JOB, UPDATE_JOB)).where(datasets.c.status.in_(IN_PROGRESS))
    for row in connection.execute(_with_project(busy, datasets)):
        yield Finding(
            _dataset(row),
            f"it is {row.status}, but nothing is queued that does it",
            "it fails, and can be tried again",
            mending.fail_dataset(row.id),
        )
    counts = (
        sa.select(
            dataset_entries.c.dataset_id,
            sa.func.count().label("total"),
            sa.func.count().filter(dataset_entries.c.label == "normal").label("normal"),
            sa.func.count().filter(dataset_entries.c.label == "anomaly").label("anomaly"),
        )
        .group_by(dataset_entries.c.dataset_id)
        .subquery()
    )
    differs = sa.or_(
        *(datasets.c[name] != sa.func.coalesce(counts.c[name], 0) for name in ("total", "normal", "anomaly"))
    )
    wrong = sa.select(datasets).outerjoin(counts, counts.c.dataset_id == datasets.c.id)
    wrong = wrong.where(differs, datasets.c.status.not_in(IN_PROGRESS))
    for row in connection.execute(_with_project(wrong, datasets)):
        yield Finding(
            _dataset(row),
            "its ImageStats aren't those of its entries",
            "the entries are counted again",
            mending.recount(row.id),
        )


def _check_packaging(connection: sa.Connection) -> Iterator[Finding]:
    busy = _without_job(packaging_jobs, (PACKAGE_JOB,)).where(packaging_jobs.c.status.in_(_PACKAGING))
    for row in connection.execute(_with_project(busy, packaging_jobs)):
        yield Finding(
            f"the packaging job {row.name} of {row.project_name} ({row.account_id}, {row.region})",
            f"it is {row.status}, but nothing is queued that does it",
            "it fails, and its component's name and version are free again",
            mending.fail_packaging(row.id),
        )


def _check_jobs(connection: sa.Connection) -> Iterator[Finding]:
    for kinds, table in mending.SUBJECTS:
        gone = sa.select(jobs.c.id, jobs.c.kind, jobs.c.subject_id).where(
            jobs.c.kind.in_(kinds), jobs.c.subject_id.not_in(sa.select(table.c.id))
        )
        for row in connection.execute(gone):
            yield Finding(
                f"the job {row.id} ({row.kind})",
                f"what it is for, {table.name} {row.subject_id}, isn't there",
                "it is deleted",
                mending.delete_job(row.id),
            )


def _check_tokens(connection: sa.Connection) -> Iterator[Finding]:
    for resource_type, existing in mending.RESOURCES.items():
        columns = client_tokens.c
        lost = sa.select(columns.account_id, columns.region, columns.operation, columns.resource_id).where(
            columns.state == "CREATED",
            columns.resource_type == resource_type,
            ~existing(columns.account_id, columns.region, columns.resource_id),
        )
        for row in connection.execute(lost):
            yield Finding(
                f"a client token of {row.operation} ({row.account_id}, {row.region})",
                f"what it created, {row.resource_id}, isn't there",
                "it refuses for 8 hours, as after a deletion, and is forgotten",
                mending.end_token(row.account_id, row.region, resource_type, row.resource_id),
            )


_EXAMINATIONS: tuple[Callable[[sa.Connection], Iterator[Finding]], ...] = (
    _check_models,
    _check_datasets,
    _check_packaging,
    _check_jobs,
    _check_tokens,
)


def _check_files(settings: Settings) -> Iterator[Finding]:
    for path in data_directory.private_paths(settings.data_dir):
        if mode := data_directory.open_mode(path):
            yield Finding(
                str(path),
                f"its mode is {mode:o}: other users of the machine may use it",
                "its owner alone may use it",
                mending.tighten(path),
            )
    if settings.data_dir.exists() and (free := shutil.disk_usage(settings.data_dir).free) < _LEAST_FREE_BYTES:
        yield Finding(
            str(settings.data_dir),
            f"{free / 1e6:.0f} MB of its disk are free",
            "delete what isn't needed, or move it to a larger disk",
        )


def _check_buckets(settings: Settings) -> Iterator[Finding]:
    """Whether a bucket can be used at all; which objects there are is for those who put them there."""
    if settings.buckets == "s3":
        try:
            S3Store(settings.s3_endpoint_url).check("lookoutvision-check")
        except BucketError as error:
            if not error.input:  # that there is no such bucket is what S3 should say
                yield Finding("the buckets", str(error), "correct the AWS configuration of the service")
    elif (root := settings.data_dir / "buckets").exists() and not root.is_dir():
        yield Finding(str(root), "it is no folder", "move it away")


def _without_job(table: sa.Table, kinds: Sequence[str]) -> sa.Select[tuple[object, ...]]:
    has_job = sa.exists().where(jobs.c.kind.in_(kinds), jobs.c.subject_id == table.c.id)
    return sa.select(table).where(~has_job).order_by(table.c.id)


def _with_project(query: sa.Select[tuple[object, ...]], table: sa.Table) -> sa.Select[tuple[object, ...]]:
    return query.join(projects, projects.c.id == table.c.project_id).add_columns(
        projects.c.name.label("project_name"), projects.c.account_id, projects.c.region
    )


def _model(row: sa.Row[tuple[object, ...]]) -> str:
    name = row._mapping.get("project_name") or row._mapping["name"]
    return f"the model {row.version} of the project {name} ({row.account_id}, {row.region})"


def _dataset(row: sa.Row[tuple[object, ...]]) -> str:
    return f"the {row.type} dataset of the project {row.project_name} ({row.account_id}, {row.region})"
