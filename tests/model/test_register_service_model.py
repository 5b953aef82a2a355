"""A session that the model is registered with knows the service, and all that it knew before."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import boto3
import botocore.session
import pytest
from aiobotocore.session import AioSession
from aiobotocore.session import get_session as get_async_session
from botocore.loaders import Loader

from airflow_provider_lookoutvision.model import (
    API_VERSION,
    MODEL_PATH,
    SERVICE_NAME,
    register_service_model,
    teach,
)


class AsyncWrapper:
    """Around an aiobotocore session as ``aioboto3.Session`` is: it keeps the loader and appends to it."""

    def __init__(self) -> None:
        self._session = get_async_session()
        self._loader = self._session.get_component("data_loader")
        self._loader.search_paths.append(str(Path(boto3.__file__).parent / "data"))


SESSIONS: dict[str, Callable[[], Any]] = {
    "boto3": boto3.Session,
    "botocore": botocore.session.get_session,
    "aiobotocore": get_async_session,
    "around aiobotocore": AsyncWrapper,
}


@pytest.fixture(params=SESSIONS)
def new_session(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return SESSIONS[request.param]


@pytest.fixture
def any_session(new_session: Callable[[], Any]) -> Any:
    return new_session()


def core(session: Any) -> Any:
    return getattr(session, "_session", session)


def services(session: Any) -> list[str]:
    return core(session).get_available_services()


def operations_of(session: Any, service: str = SERVICE_NAME) -> set[str]:
    """The operations of a client that the session makes, synchronous or not."""
    inner = core(session)
    if isinstance(inner, AioSession):

        async def names() -> set[str]:
            async with inner.create_client(service) as client:
                return set(client.meta.method_to_api_mapping)

        return asyncio.run(names())
    client = inner.create_client(service)
    try:
        return set(client.meta.method_to_api_mapping)
    finally:
        client.close()


def write_model(folder: Path, name: str, operations: list[str], version: str = API_VERSION) -> str:
    """A service of our own making, in botocore's layout below ``folder``."""
    model = json.loads(Path(MODEL_PATH, SERVICE_NAME, API_VERSION, "service-2.json").read_text())
    model["operations"] = {operation: model["operations"][operation] for operation in operations}
    path = folder / name / version
    path.mkdir(parents=True)
    (path / "service-2.json").write_text(json.dumps(model))
    shutil.copy(Path(MODEL_PATH, SERVICE_NAME, API_VERSION, "endpoint-rule-set-1.json"), path)
    return str(folder)


def test_a_session_knows_the_service_and_all_others(any_session: Any) -> None:
    before = services(any_session)
    assert register_service_model(any_session) is any_session
    assert services(any_session) == sorted({*before, SERVICE_NAME})
    assert len(operations_of(any_session)) == 22


def test_registering_twice_is_registering_once(any_session: Any) -> None:
    loader = core(register_service_model(any_session)).get_component("data_loader")
    paths = list(loader.search_paths)
    assert core(register_service_model(any_session)).get_component("data_loader") is loader
    assert loader.search_paths == paths
    assert len(operations_of(any_session)) == 22


@pytest.mark.parametrize("used", [False, True], ids=["new", "used before"])
def test_the_regions_that_the_service_had(any_session: Any, used: bool) -> None:

    def regions(service: str, partition: str = "aws") -> list[str]:
        found = core(any_session).get_available_regions(service, partition)
        return sorted(asyncio.run(found) if asyncio.iscoroutine(found) else found)

    before = regions("s3")
    if used:
        regions(SERVICE_NAME)
    register_service_model(any_session)
    assert regions(SERVICE_NAME) == [
        *("ap-northeast-1", "ap-northeast-2", "eu-central-1", "eu-west-1"),
        *("us-east-1", "us-east-2", "us-west-2"),
    ]
    assert regions("s3") == before
    assert regions(SERVICE_NAME, "aws-cn") == []
    # Others of the process see what they saw.
    assert boto3.Session().get_available_regions("lookoutvision") == []


def test_teach_is_the_short_name() -> None:
    assert teach is register_service_model


@pytest.mark.parametrize("other", ["s3", "sts"])
def test_other_services_are_as_they_were(any_session: Any, other: str) -> None:
    before = core(any_session).get_component("data_loader").load_service_model(other, "service-2")
    register_service_model(any_session)
    loader = core(any_session).get_component("data_loader")
    assert loader.load_service_model(other, "service-2") == before
    assert loader.list_api_versions(other, "service-2") == [
        loader.determine_latest_version(other, "service-2")
    ]
    assert operations_of(any_session, other) == operations_of(SESSIONS["botocore"](), other)


def test_resources_of_boto3_still_work() -> None:
    session = boto3.Session()
    before = session.get_available_resources()
    register_service_model(session)
    assert session.get_available_resources() == before
    assert session.resource("s3").Bucket("b").name == "b"


def test_a_boto3_session_around_a_taught_one_has_both() -> None:
    inner = register_service_model(botocore.session.get_session())
    inner.get_component("data_loader").list_available_services("resources-1")
    session = boto3.Session(botocore_session=inner)
    assert session.resource("s3").Bucket("b").name == "b"
    assert len(operations_of(session)) == 22


def test_the_session_inside_may_be_taught_before_or_after_the_one_around_it() -> None:
    session = boto3.Session()
    register_service_model(session._session)
    assert session.resource("s3").Bucket("b").name == "b"
    assert register_service_model(session)._loader is session._session.get_component("data_loader")
    assert session.resource("s3").Bucket("b").name == "b"


def test_a_session_that_has_been_used_learns_too() -> None:
    session = boto3.Session()
    sts, s3 = session.client("sts"), session.resource("s3")
    services(session)
    register_service_model(session)
    assert len(operations_of(session)) == 22
    assert sts.generate_presigned_url("get_caller_identity").startswith("https://sts.")
    assert s3.Bucket("b").Object("k").key == "k"


def test_a_loader_that_others_share_stays_as_it_is() -> None:
    shared = Loader()
    before = list(shared.list_available_services("service-2")), list(shared.search_paths)
    session = get_async_session()
    session.register_component("data_loader", shared)
    register_service_model(session)
    assert len(operations_of(session)) == 22
    assert (shared.list_available_services("service-2"), shared.search_paths) == before


def test_the_models_of_the_environment_are_kept(
    new_session: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DATA_PATH", write_model(tmp_path, "toy", ["ListProjects"]))
    session = register_service_model(new_session())
    assert operations_of(session, "toy") == {"list_projects"}
    assert len(operations_of(session)) == 22


def test_our_model_wins_over_another_one_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DATA_PATH", write_model(tmp_path, SERVICE_NAME, ["ListProjects"]))
    session = boto3.Session()
    assert operations_of(session) == {"list_projects"}
    assert len(operations_of(register_service_model(session))) == 22


def test_what_is_added_to_one_session_later_is_found_there_only(tmp_path: Path) -> None:
    one, other = register_service_model(boto3.Session()), register_service_model(boto3.Session())
    assert services(one) == services(other)
    one._loader.search_paths.append(write_model(tmp_path, "toy", ["ListProjects"]))
    assert operations_of(one, "toy") == {"list_projects"}
    assert "toy" not in services(other)


def test_sessions_share_what_they_read() -> None:
    one, other = (register_service_model(boto3.Session())._loader for _ in range(2))
    assert one is not other
    assert one.load_data("endpoints") is other.load_data("endpoints")
    one.search_paths.append(one.search_paths[-1])
    assert one.load_data("endpoints") is other.load_data("endpoints")


def test_threads_may_teach_one_session_at_once() -> None:
    made: list[Loader] = []

    def slow_loader() -> Loader:
        time.sleep(0.02)
        made.append(Loader())
        return made[-1]

    session = botocore.session.get_session()
    session.lazy_register_component("data_loader", slow_loader)
    together = Barrier(8)

    def learn(_: int) -> Any:
        together.wait()
        return register_service_model(session).get_component("data_loader")

    with ThreadPoolExecutor(8) as pool:
        loaders = list(pool.map(learn, range(8)))
    assert set(map(id, loaders)) == {id(session.get_component("data_loader"))}
    assert len(made) == 1
    assert len(operations_of(session)) == 22


def test_threads_may_teach_their_sessions_at_once() -> None:
    together = Barrier(8)

    def learn(_: int) -> int:
        session = boto3.Session()
        together.wait()
        return len(operations_of(register_service_model(session)))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(learn, range(8))) == [22] * 8


def test_an_asynchronous_client_calls_pages_and_waits(service: Any) -> None:
    async def use() -> tuple[Any, Any]:
        async with register_service_model(get_async_session()).create_client(
            SERVICE_NAME, endpoint_url=service.url
        ) as client:
            service.answer({"Projects": [{"ProjectName": "a"}], "NextToken": "t"})
            service.answer({"Projects": [{"ProjectName": "b"}]})
            pages = await client.get_paginator("list_projects").paginate().build_full_result()
            service.reset()
            service.answer({"ModelDescription": {"Status": "TRAINING"}})
            service.answer({"ModelDescription": {"Status": "TRAINED"}})
            await client.get_waiter("model_trained").wait(
                ProjectName="a", ModelVersion="1", WaiterConfig={"Delay": 0}
            )
            return pages, [request.target for request in service.requests]

    pages, polls = asyncio.run(use())
    assert [project["ProjectName"] for project in pages["Projects"]] == ["a", "b"]
    assert polls == ["/2020-11-20/projects/a/models/1"] * 2


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_data_path_alone_revives_plain_boto3() -> None:
    code = """
import json, sys, boto3
client = boto3.client("lookoutvision", endpoint_url="http://127.0.0.1:8320")
print(json.dumps([
    sorted(client.meta.method_to_api_mapping), client.waiter_names, client.can_paginate("list_models"),
    boto3.resource("s3").Bucket("b").name, [name for name in sys.modules if name.startswith("airflow")],
]))
"""
    operations, waiters, pages, bucket, ours = json.loads(run_python(code, AWS_DATA_PATH=MODEL_PATH))
    assert len(operations) == 22
    assert len(waiters) == 8
    assert pages is True
    assert bucket == "b"
    assert ours == []


def test_importing_the_model_imports_no_botocore() -> None:
    code = """
import sys
from airflow_provider_lookoutvision.model import MODEL_PATH
print([name for name in sys.modules if name.partition(".")[0] in ("botocore", "boto3", "airflow")])
"""
    assert run_python(code).strip() == "[]"


def test_the_model_path_is_absolute_and_holds_the_service() -> None:
    assert Path(MODEL_PATH).is_absolute()
    assert sorted(path.name for path in Path(MODEL_PATH, SERVICE_NAME, API_VERSION).iterdir()) == [
        "endpoint-rule-set-1.json",
        "paginators-1.json",
        "service-2.json",
        "waiters-2.json",
    ]
