"""A Ray cluster of three nodes on this machine, two API processes on one PostgreSQL, and an S3.

=========== ======== =====================================================================================
``plant``   session  all of it (``Plant``), for the test modules that name this plugin in ``pytest_plugins``
=========== ======== =====================================================================================

(They import from it: PYTEST_DONT_REWRITE.)
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import ray.cluster_utils
from drawn_parts import drawn
from manifest_lines import line, manifest
from polling import until
from postgres_server import PostgresServer
from services import client_of, first_key_of

from airflow_provider_lookoutvision.testing.service import Service, running_service

BUCKET = "parts"


@dataclass
class Node:
    """One node: its processes, and how to lose it."""

    handle: Any
    cluster: Any

    @property
    def raylet(self) -> int:
        """The process ID of its raylet, the parent of all that runs on it."""
        return int(self.handle.all_processes["raylet"][0].process.pid)

    def runs(self, words: str) -> list[psutil.Process]:
        """The processes on it whose command line has these words."""
        found = []
        for process in psutil.Process(self.raylet).children(recursive=True):
            try:
                if words in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self) -> None:
        """End all its processes with SIGKILL."""
        self.cluster.remove_node(self.handle, allow_graceful=False)


@dataclass
class Plant:
    """The cluster, and the API processes that use it."""

    cluster: Any
    services: list[Service]
    s3: Any
    head: Node
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = first_key_of(self.services[0])

    def client(self, number: int = 0) -> Any:
        """A client of one API process."""
        return client_of(self.services[number].endpoint_url, self.key, attempts=3)

    def add_node(self) -> Node:
        """A node with two CPUs."""
        node = Node(self.cluster.add_node(num_cpus=2), self.cluster)
        self.nodes.append(node)
        return node

    def where(self, words: str) -> list[Node]:
        """The nodes that run such a process."""
        return [node for node in [self.head, *self.nodes] if node.runs(words)]

    def lose(self, node: Node) -> None:
        """Kill a node."""
        self.nodes.remove(node)
        node.kill()

    def project(self, name: str) -> None:
        """A project with datasets to train with."""
        client = self.client()
        client.create_project(ProjectName=name)
        for kind, normal, scratched, first in (("train", 10, 0, 0), ("test", 10, 10, 100)):
            lines = [
                *(self._line(f"{number}.jpg", number) for number in range(first, first + normal)),
                *(self._line(f"s{number}.jpg", number, True) for number in range(first, first + scratched)),
            ]
            key = f"{name}/{kind}.manifest"
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=manifest(*lines))
            source = {"GroundTruthManifest": {"S3Object": {"Bucket": BUCKET, "Key": key}}}
            client.create_dataset(ProjectName=name, DatasetType=kind, DatasetSource=source)
            until(
                lambda kind=kind: client.describe_dataset(ProjectName=name, DatasetType=kind)[
                    "DatasetDescription"
                ]["Status"],
                lambda status: status == "CREATE_COMPLETE",
            )

    def train(self, name: str) -> str:
        """Begin a training; the version."""
        output = {"S3Location": {"Bucket": BUCKET, "Prefix": f"{name}/out/"}}
        created = self.client().create_model(ProjectName=name, OutputConfig=output)
        return str(created["ModelMetadata"]["ModelVersion"])

    def until(self, name: str, status: str, busy: str, number: int = 0) -> dict[str, Any]:
        """The description of model 1 once it is in that status, by way of ``busy``."""
        client = self.client(number)
        found = until(
            lambda: client.describe_model(ProjectName=name, ModelVersion="1")["ModelDescription"],
            lambda description: description["Status"] != busy,
        )
        assert found["Status"] == status, found
        return dict(found)

    def detect(self, name: str, part: int, number: int = 0, *, scratched: bool = False) -> dict[str, Any]:
        """The verdict of an API process on a part."""
        image = drawn(part, scratched=scratched)[0]
        answer = self.client(number).detect_anomalies(
            ProjectName=name, ModelVersion="1", Body=image, ContentType="image/jpeg"
        )
        return dict(answer["DetectAnomalyResult"])

    def _line(self, key: str, number: int, scratched: bool = False) -> dict[str, Any]:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=drawn(number, scratched=scratched)[0])
        return line(key, "anomaly" if scratched else "normal", bucket=BUCKET)


@pytest.fixture(scope="session")
def plant(
    postgres_server: Callable[[], PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plant]:
    with ExitStack() as stack:
        storage = stack.enter_context(running_service(flags=["--no-worker"]))
        key = first_key_of(storage)
        variables = {
            "AWS_ACCESS_KEY_ID": key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():  # the nodes inherit it
            patch.setenv(name, value)
        s3 = boto3.Session().client("s3", endpoint_url=storage.endpoint_url)
        s3.create_bucket(Bucket=BUCKET)
        cluster = ray.cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        stack.callback(cluster.shutdown)
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        flags = [
            *("--database-url", postgres_server().new_database()),
            *("--cluster", cluster.address, "--training-cpus", "2"),
            *("--buckets", "s3", "--s3-endpoint-url", storage.endpoint_url),
        ]
        services = []
        for name in ("one", "two"):
            folder: Path = tmp_path_factory.mktemp(name)
            service = Service(folder, flags, {"LOOKOUTVISION_SECRET_KEY": secret})
            stack.callback(service.stop)
            services.append(service)
        head, *nodes = (Node(handle, cluster) for handle in cluster.list_all_nodes())
        yield Plant(cluster, services, s3, head, nodes)
