"""One Airflow and one service for all schedules; some run at a time, since one waits most of its time.

``--schedules`` says how many, and ``--seed`` which is the first: ``make chaos SCHEDULES=300 SEED=1``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from airflow_instance import running_airflow
from chaotic_run import ChaoticRun
from plant import Plant
from postgres_server import PostgresServer
from schedules import Schedule
from services import Storage, client_of
from silent_proxy import SilentProxy
from trained_models import Account

from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.testing.service import running_service

HERE = Path(__file__).parent
AT_A_TIME = 3
# What is dead is noticed soon, and what is slow isn't taken for dead.
QUICK = {
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
}


def pytest_configure() -> None:
    pytest.register_assert_rewrite("invariants")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("seed")
        metafunc.parametrize("seed", range(first, first + metafunc.config.getoption("schedules")))


@pytest.fixture(scope="session")
def plant(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Callable[[], PostgresServer]
) -> Iterator[Plant]:
    server = postgres_server()
    url, home, data_dir = (
        server.new_database(),
        tmp_path_factory.mktemp("airflow"),
        tmp_path_factory.mktemp("data"),
    )
    with (
        SilentProxy(url) as database,
        running_service(data_dir, ["--database-url", database.url]) as service,
        opened(Settings(data_dir=data_dir, database_url=url)) as (opened_database, cipher),
        running_airflow(
            home, server.new_database(), {"chaos": HERE / "dags"}, {"chaos", "chaos_deferred"}, **QUICK
        ) as airflow,
    ):
        yield Plant(airflow, service, Storage(opened_database, cipher), server, database)


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, plant: Plant) -> Iterator[dict[int, Future[ChaoticRun]]]:
    """The runs of all selected tests, by their seeds; they begin now, some at a time."""
    from invariants import check  # once pytest knows that its assertions are to be rewritten

    seeds = [
        item.callspec.params["seed"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "seed" in item.fixturenames
    ]

    def go(seed: int) -> ChaoticRun:
        key = plant.storage.new_key(f"{seed:012}")
        client = client_of(plant.service.endpoint_url, key, attempts=10)
        run = ChaoticRun(plant, Schedule.of(seed), Account(plant.service, key, client))
        try:
            run.go()
            check(run)
        except Exception as error:
            error.add_note(f"{run.schedule}\nhappened: {'; '.join(map(str, run.happened))}")
            traceback.print_exception(error)  # now: a long run is looked at while it goes on
            raise
        return run

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {seed: pool.submit(go, seed) for seed in seeds}
        pool.shutdown(cancel_futures=True)
