"""Airflow 3.3's durable execution beside client tokens: workers die when what they submit is answered.

``ResumableJobMixin`` submits, and then stores the job's ID; a deferrable operator stores nothing. A task that
dies in between submits again. A client token is stored by the service, with the work.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_and_service import Deployment
from airflow_instance import Run
from airflow_rest import REST
from moto.server import ThreadedMotoServer
from trained_models import Account

from airflow_provider_lookoutvision.testing.lossy_proxy import LossyProxy

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not REST.has_task_state_store, reason="Airflow has it from 3.3 on"),
]

TASKS = ("statement", "statement_deferrable", "statement_persisted", "model", "model_deferrable")


@pytest.fixture(scope="module")
def redshift() -> Iterator[LossyProxy]:
    """Redshift's Data API, and what it is sent."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with LossyProxy("http://{}:{}".format(*server.get_host_and_port()), drop=lambda _: False) as proxy:
        yield proxy
    server.stop()


@pytest.fixture(scope="module")
def account(deployment: Deployment) -> Account:
    account = Account.of(deployment.service)
    for name in ("model", "model_deferrable"):
        account.project(name)
    return account


@pytest.fixture(scope="module")
def killed(deployment: Deployment, account: Account, redshift: LossyProxy) -> Run:
    """A run of which each task's first try was killed, and the second succeeded."""
    urls = {"lookoutvision": deployment.service.endpoint_url, "redshift-data": redshift.endpoint_url}
    services = {name: {"endpoint_url": url} for name, url in urls.items()}
    run = deployment.airflow.run(
        "durable", conn_id=deployment.airflow.connection("", account.key, service_config=services)
    )
    run.wait_for_success()
    assert {run.task(task_id).try_number for task_id in TASKS} == {2}
    return run


def submitted(redshift: LossyProxy) -> dict[str, int]:
    bodies: list[dict[str, Any]] = [
        json.loads(exchange.body)
        for exchange in redshift.exchanges
        if exchange.headers["x-amz-target"].endswith(".ExecuteStatement")
    ]
    return dict(Counter(body["Sql"].split("'")[1] for body in bodies))


def test_durable_execution_submits_again_what_died_before_its_id_was_stored(
    killed: Run, redshift: LossyProxy
) -> None:
    assert submitted(redshift) == {"statement": 2, "statement_deferrable": 2, "statement_persisted": 1}


@pytest.mark.parametrize("name", ["model", "model_deferrable"])
def test_a_client_token_finds_what_was_begun(killed: Run, account: Account, name: str) -> None:
    assert list(account.statuses(name)) == ["1"]
    assert "An earlier try created it at 20" in killed.log(name, 2)
