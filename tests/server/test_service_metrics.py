"""``/metrics``: who may read it, what it says, and that the dashboard shows only what there is."""

from __future__ import annotations

import base64
import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import error_message, run_command, start_command, wait_for_end
from prometheus_client.parser import text_string_to_metric_families
from sdk_errors import error_response
from services import NewService, client_of, first_key_of, storage_of
from signed_http import HttpResponse, SignedHttpClient

from airflow_provider_lookoutvision.testing.service import Key, Service

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"


def scrape(service: Service, key: Key | None) -> HttpResponse:
    headers = {}
    if key is not None:
        pair = f"{key.access_key_id}:{key.secret_access_key}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    client = SignedHttpClient(service.endpoint_url, first_key_of(service))
    return client.send("GET", "/metrics", headers=headers, signed=False)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_counted(new_service: NewService) -> None:
    service = new_service("--no-worker", "--requests-per-second", "2")
    client = client_of(service.endpoint_url, first_key_of(service))
    for name in ("p", "q"):
        client.create_project(ProjectName=name)
    error_response(client.describe_project, ProjectName="none")
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "images", "Key": "k"}}}
    client.create_dataset(ProjectName="p", DatasetType="train", DatasetSource=source)
    for _ in range(3):
        error_response(client.list_models, ProjectName="none")
    found = samples(scrape(service, first_key_of(service)).body.decode())
    assert found["lookoutvision_requests_total", "CreateProject", "200"] == 2
    assert found["lookoutvision_requests_total", "DescribeProject", "404"] == 1
    assert found["lookoutvision_errors_total", "ResourceNotFoundException"] == 3
    assert found["lookoutvision_throttles_total", "requests_per_second"] == 1
    assert found["lookoutvision_request_seconds_count", "CreateProject"] == 2
    assert found["lookoutvision_projects",] == 2
    assert found["lookoutvision_datasets", "CREATE_IN_PROGRESS"] == 1
    assert found["lookoutvision_jobs", "import-manifest", "waiting"] == 1
    assert found["lookoutvision_jobs", "import-manifest", "running"] == 0
    assert found["lookoutvision_job_attempts", "import-manifest"] == 0
    assert 0 <= found["lookoutvision_job_age_seconds", "import-manifest"] < 600
    assert found["lookoutvision_client_tokens", "CREATED"] == 3
    assert (found["lookoutvision_workers",], found["lookoutvision_worker_heartbeat_seconds",]) == (
        0,
        float("inf"),
    )
    assert found["lookoutvision_database_up",] == 1
    assert found["lookoutvision_database_bytes",] > 10_000
    assert 0 < found["lookoutvision_disk_free_bytes",] <= found["lookoutvision_disk_bytes",]
    text = scrape(service, first_key_of(service)).body.decode()
    assert "123456789012" not in text, "it names no account"


@pytest.fixture(scope="module")
def plain_service() -> Iterator[Service]:
    from airflow_provider_lookoutvision.testing.service import running_service

    with running_service(flags=["--no-worker"]) as service:
        yield service


def test_who_may_read_it(plain_service: Service) -> None:
    service = plain_service
    with storage_of(service) as storage:
        reader = storage.new_key(allow=["lookoutvision:GetMetrics"])
        others = [
            storage.new_key(allow=["lookoutvision:List*"]),
            storage.new_key("000000000001"),
            Key(reader.access_key_id, "another secret", "123456789012"),
            Key("AKIANOBODY", "", "123456789012"),
            None,
        ]
    assert scrape(service, reader).status == 200
    for key in others:
        answer = scrape(service, key)
        assert (answer.status, answer.headers["www-authenticate"][:5]) == (401, "Basic")
    client = SignedHttpClient(service.endpoint_url, reader)
    for value in ("Basic ?", "Basic " + base64.b64encode(b"\xff:").decode(), "Bearer x", "Basic"):
        answer = client.send("GET", "/metrics", headers={"Authorization": value}, signed=False)
        assert answer.status == 401


def test_an_address_of_its_own(tmp_path: Path) -> None:
    from airflow_provider_lookoutvision.testing.service import running_service

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ("serve", "--data-dir", tmp_path, "--port", "0", "--no-worker", "--metrics-address", address)
        outcome = wait_for_end(start_command(*flags))
        assert outcome.status == 2
        assert "where nothing can listen" in outcome.err
    with running_service(flags=["--no-worker", "--metrics-address", address]):
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            text = answer.read().decode()
        assert ("lookoutvision_database_up",) in samples(text)
    assert "metrics_address is 'x'" in error_message(
        run_command("serve", "--data-dir", tmp_path, "--port", "0", "--metrics-address", "x")
    )


def test_the_dashboard_and_the_alerts_name_what_there_is(plain_service: Service) -> None:
    named = set()
    for file in ("grafana-dashboard.json", "alerts.yml"):
        text = (OPERATIONS / file).read_text()
        named |= set(re.findall(r"\b(?:lookoutvision|process)_[a-z_]+\b", text))
    families = text_string_to_metric_families(
        scrape(plain_service, first_key_of(plain_service)).body.decode()
    )
    there = set()
    for family in families:
        there |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
        there |= {sample.name for sample in family.samples}
    assert len(json.loads((OPERATIONS / "grafana-dashboard.json").read_text())["panels"]) >= 12
    assert named - there == set()
