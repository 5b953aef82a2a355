"""How a service and a worker stop: what is under way is finished or given back, whatever signals come."""

from __future__ import annotations

import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from itertools import cycle
from typing import Any

import pytest
from held_worker import worker_of
from import_jobs import (
    LARGE,
    SMALL,
    assert_job_was_given_back,
    assert_small_import_is_complete,
    held_import,
    project_of,
    separate_worker,
)
from locked_projects import projects_locked
from polling import until
from project_calls import PROJECTS, ProjectClient, body_of
from service_processes import is_alive, signal_another_thread, workers
from services import NewService, first_key_of, storage_of
from signed_http import SignedHttpClient, connect, read_response, signed_head

from airflow_provider_lookoutvision.testing.service import Service


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_signals_let_it_finish_what_is_under_way(first: signal.Signals, new_service: NewService) -> None:
    service = new_service()
    projects_client = ProjectClient(SignedHttpClient(service.endpoint_url, first_key_of(service)))
    with storage_of(service) as storage, ExitStack() as requests:
        with projects_locked(storage):
            answers = [
                requests.enter_context(
                    projects_client.signed_http.under_way(
                        "POST", PROJECTS, body_of(f"p{i}"), {"X-Amzn-Client-Token": f"t{i}"}
                    )
                )
                for i in range(4)
            ]
            service.process.send_signal(first)
            until(lambda: is_listening(service), lambda listening: not listening)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
                service.process.send_signal(number)
            assert service.process.poll() is None
        answered = [answer() for answer in answers]
    assert [answer.status for answer in answered] == [200] * 4
    assert exit_status_under_signals(service.process) == 0
    log = service.log_file.read_text()
    assert "Traceback" not in log
    assert log.count('"operation": "CreateProject"') == 4

    service.start()
    assert [projects_client.create(f"p{i}", f"t{i}").body for i in range(4)] == [
        answer.body for answer in answered
    ]


@pytest.mark.one_database
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_signals_let_the_worker_give_back_its_job(first: signal.Signals, new_service: NewService) -> None:
    service = new_service()
    with project_of(service) as (project, storage):
        worker = worker_of(service)
        project.create(LARGE)
        with held_import(storage):
            service.process.send_signal(first)
            until(lambda: is_listening(service), lambda listening: not listening)
        assert exit_status_under_signals(service.process) == 0
        assert not is_alive(worker)
        assert_job_was_given_back(storage)


@pytest.mark.one_database
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_signals_let_a_worker_on_its_own_give_back_its_job(
    first: signal.Signals, new_service: NewService
) -> None:
    service = new_service("--no-worker")
    with project_of(service) as (project, storage):
        project.create(LARGE)
        assert workers(service) == []
        with separate_worker(service) as worker:
            with held_import(storage):
                worker.send_signal(first)
            assert exit_status_under_signals(worker) == 0
        assert project.describe()["Status"] == "CREATE_IN_PROGRESS"
        assert_job_was_given_back(storage)
        project.source(SMALL)
        with separate_worker(service) as worker:
            assert_small_import_is_complete(project)
            assert exit_status_under_signals(worker) == 0


@pytest.mark.one_database
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_another_thread_gets_ends_a_worker_too(
    number: signal.Signals, new_service: NewService
) -> None:
    service = new_service("--no-worker")
    with project_of(service) as (project, _), separate_worker(service) as worker:
        project.create(SMALL)
        assert_small_import_is_complete(project)
        signal_another_thread(worker.pid, number)
        assert worker.wait(60) == 0


def exit_status_under_signals(process: subprocess.Popen[Any]) -> int:
    """Send SIGTERM and SIGINT in turn until the process has ended."""
    for number in cycle([signal.SIGTERM, signal.SIGINT]):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(0.002)
    raise AssertionError


@pytest.mark.one_database
def test_it_waits_neither_for_the_idle_nor_longer_than_set(new_service: NewService) -> None:
    service = new_service("--no-worker", "--shutdown-seconds", "1")
    with connect(service.endpoint_url) as idle, connect(service.endpoint_url) as dawdling:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(idle).startswith("HTTP/1.1 200 ")
        signed_http = SignedHttpClient(service.endpoint_url, first_key_of(service))
        announced = {"Content-Length": "1"}
        dawdling.sendall(signed_head(signed_http, "POST", PROJECTS, b"x", **announced, Expect="100-continue"))
        assert read_response(dawdling).startswith("HTTP/1.1 100 ")  # and now it waits for a body
        service.stop()
        assert service.process.returncode == 0
        assert read_response(dawdling).startswith("HTTP/1.1 500 ")
        while idle.recv(65536):
            pass


def is_listening(service: Service) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True
