"""What holds after a schedule: all that was asked for exists once, XComs name it, no result is another's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from chaotic_run import ChaoticRun
from plant import Plant
from services import client_of
from trained_models import BUCKET, QUICKLY, SOON

from airflow_provider_lookoutvision.idempotency import client_token, previous_tokens
from airflow_provider_lookoutvision.server.models.training_entries import TRAIN_JOB
from airflow_provider_lookoutvision.server.storage.schema import (
    client_tokens,
    datasets,
    jobs,
    model_artifacts,
    models,
    projects,
)


def check(run: ChaoticRun) -> None:
    """Check a run that has succeeded.

    :raises AssertionError: when something does not hold.
    """
    assert not run.errors, run.errors
    _check_repetitions(run)
    _check_project_and_datasets(run)
    trained = _check_models(run)
    _check_trainings(run.plant, trained)
    _check_results(run)
    assert not run.plant.rows(jobs.select().where(jobs.c.account_id == run.account.key.account))


def _check_repetitions(run: ChaoticRun) -> None:
    """A request that is sent again has the same answer, byte for byte, unless it reads."""
    for first, second in run.repetitions:
        if first.status == 200 and first.client_token and second.status and second.status not in {429, 503}:
            assert (second.status, second.answer) == (200, first.answer), first.path


def _check_project_and_datasets(run: ChaoticRun) -> None:
    (project,) = run.plant.rows(projects.select().where(projects.c.account_id == run.account.key.account))
    assert project.name == run.project_name == run.run.xcom("project", "ProjectName")
    assert _milliseconds(run.run.xcom("project", "CreationTimestamp")) == project.created_at
    _check_author(run, "project", "CreateProject", project.name)
    found = run.plant.rows(datasets.select().where(datasets.c.project_id == project.id))
    assert sorted(dataset.type for dataset in found) == sorted(QUICKLY)
    for dataset in found:
        assert dataset.status == "CREATE_COMPLETE"
        assert dataset.total == len(QUICKLY[dataset.type])
        described = run.run.xcom(dataset.type)
        assert _milliseconds(described["CreationTimestamp"]) == dataset.created_at
        assert described["ImageStats"]["Total"] == dataset.total
        _check_author(run, dataset.type, "CreateDataset", f"{project.name}/{dataset.type}")


def _check_models(run: ChaoticRun) -> list[int]:
    """There is one model for each time that one was asked for; the run has its own. Their IDs."""
    account = run.account.key.account
    found = run.plant.rows(
        sa.select(models)
        .join(projects, projects.c.id == models.c.project_id)
        .where(projects.c.account_id == account)
    )
    asked = _tokens(run, "CreateModel")
    by_version = {f"{run.project_name}/{model.version}": model for model in found}
    assert sorted(by_version) == sorted(token.resource_id for token in asked), "a model that nobody asked for"
    # A deleted run asked for a model too, and so does a clear: that is what it is for.
    assert 1 <= len(found) <= run.incarnations + run.cleared["model"]
    described = run.run.xcom("model")
    own = by_version[f"{run.project_name}/{described['ModelVersion']}"]
    assert (_milliseconds(described["CreationTimestamp"]), own.status) == (own.created_at, "HOSTED")
    assert own.created_at >= run.made_at, "a deleted run's model"
    assert run.run.xcom("start")["ModelVersion"] == described["ModelVersion"]
    _check_author(run, "model", "CreateModel", f"{run.project_name}/{own.version}", must_be_own=True)
    return [model.id for model in found]


def _check_author(
    run: ChaoticRun, task_id: str, operation: str, resource_id: str, *, must_be_own: bool = False
) -> None:
    """What a task names was made with a token of its own; or, where it may use others', of a deleted run."""
    (token,) = [each for each in _tokens(run, operation) if each.resource_id == resource_id]
    context = run.run.context(task_id)
    own = [client_token(context), *previous_tokens(context)]
    assert token.state == "CREATED"
    if must_be_own or run.incarnations == 1:
        assert token.token in (own[:1] if must_be_own else own), f"{resource_id} isn't this run's"


def _tokens(run: ChaoticRun, operation: str) -> list[Any]:
    columns = client_tokens.c
    return run.plant.rows(
        client_tokens.select().where(
            columns.account_id == run.account.key.account, columns.operation == operation
        )
    )


def _check_trainings(plant: Plant, model_ids: list[int]) -> None:
    """Each model was trained once, however often the training was interrupted."""
    started, finished = Counter[int](), Counter[int]()
    for entry in _log(plant):
        if entry.get("kind") == TRAIN_JOB:
            started[entry["subject"]] += entry["message"] == "job started"
            finished[entry["subject"]] += entry["message"] == "job finished"
    artifacts = Counter(row.model_id for row in plant.rows(sa.select(model_artifacts.c.model_id)))
    for model_id in model_ids:
        assert finished[model_id] <= 1, f"model {model_id} was trained {finished[model_id]} times"
        assert 1 <= started[model_id] <= 1 + plant.training_interruptions, started
        assert artifacts[model_id] <= 1


def _check_results(run: ChaoticRun) -> None:
    """The results are of the run's own images, in their order, and what its own model says of them."""
    account, version = run.account.key.account, run.run.xcom("model")["ModelVersion"]
    text = (run.account.bucket / account / f"{run.run.run_id}.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["source-ref"] for line in lines] == [
        f"s3://{BUCKET}/{account}/arrived/{name}" for name in sorted(run.images)
    ]
    summary = run.run.xcom("detect")
    assert (summary["total"], summary["failed"]) == (len(lines), 0)
    assert summary["anomalous"] == sum(line["IsAnomalous"] for line in lines)
    assert summary["ModelVersion"] == version
    client = client_of(run.plant.service.endpoint_url, run.account.key, attempts=10)
    names = {"ProjectName": run.project_name, "ModelVersion": version}
    client.get_waiter("model_hosted").wait(**names, WaiterConfig=SOON)
    for line, name in zip(lines, sorted(run.images), strict=True):
        result = client.detect_anomalies(**names, Body=run.images[name], ContentType="image/png")
        verdict = result["DetectAnomalyResult"]
        assert (line["IsAnomalous"], line["Confidence"]) == (verdict["IsAnomalous"], verdict["Confidence"])
    client.stop_model(**names)


def _log(plant: Plant) -> Iterator[dict[str, Any]]:
    for line in plant.service.log_file.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # a process was killed while it wrote


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
