"""A Ray cluster of three nodes on this machine, two API processes on one PostgreSQL, and an S3.

=========== ======== =====================================================================================
``plant``   session  all of it (``Plant``), for the test modules that name this plugin in ``pytest_plugins``
=========== ======== =====================================================================================

(They import from it: PYTEST_DONT_REWRITE.)
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from ray._private import ray_constants
from ray._private import services as ray_services
from services import client_of, first_key_of

from airflow_provider_lookoutvision.testing.service import Service, running_service

BUCKET = "parts"
# A node has 30 seconds to start, which is too little on a busy machine.
_NODE_SECONDS = 300.0
# Of a node's agents. For those that they choose by themselves Ray waits 15 seconds, and then ends.
_AGENT_PORTS = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)


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
    dashboard: str
    head: Node
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = first_key_of(self.services[0])

    def client(self, number: int = 0) -> Any:
        """A client of one API process."""
        return client_of(self.services[number].endpoint_url, self.key, attempts=3)

    def add_node(self) -> Node:
        """A node with two CPUs."""
        node = Node(self.cluster.add_node(num_cpus=2, **_ports(*_AGENT_PORTS)), self.cluster)
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


def _adapted(start: Callable[..., Any]) -> Callable[..., Any]:
    """Starts Ray's processes: of the dashboard's ten the two for jobs, a raylet with its agent's port."""

    def start_adapted(command: list[str], *arguments: Any, **options: Any) -> Any:
        if "dashboard" in arguments:
            command.append("--modules-to-load=JobHead,NodeHead")
        if "raylet" in arguments and (port := re.search(r"--listen-port=([0-9]+)", " ".join(command))):
            command.append(f"--dashboard_agent_listen_port={port[1]}")
        return start(command, *arguments, **options)

    return start_adapted


def _ports(*names: str) -> dict[str, int]:
    """Ports by these names that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


def _patiently(get_node: Callable[..., Any]) -> Callable[..., Any]:
    def find(*arguments: Any) -> Any:
        deadline = time.monotonic() + _NODE_SECONDS
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    return find


@contextmanager
def running_plant(database_url: str, new_folder: Callable[[str], Path]) -> Iterator[Plant]:
    """The plant, until the end of the ``with`` block.

    :param new_folder: makes an empty folder.
    """
    with ExitStack() as stack:
        storage = stack.enter_context(running_service(flags=["--no-worker"]))
        key = first_key_of(storage)
        variables = {
            "AWS_ACCESS_KEY_ID": key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "LOOKOUTVISION_DATA_DIR": str(new_folder("node")),
            "RAY_AUTH_MODE": "disabled",  # whatever token there is in the home
            # Where a job's ``python`` is.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():  # the nodes inherit it
            patch.setenv(name, value)
        s3 = boto3.Session().client("s3", endpoint_url=storage.endpoint_url)
        s3.create_bucket(Bucket=BUCKET)
        patch.setattr(ray_services, "start_ray_process", _adapted(ray_services.start_ray_process))
        patch.setattr(ray_constants, "RAY_DASHBOARD_STARTUP_TIMEOUT_S", _NODE_SECONDS)
        patch.setattr(ray_services, "get_node", _patiently(ray_services.get_node))
        head_node = {"num_cpus": 0, "include_dashboard": True, **_ports(*_AGENT_PORTS, "dashboard_port")}
        cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=head_node)
        stack.callback(cluster.shutdown)
        for _ in range(2):
            cluster.add_node(num_cpus=2, **_ports(*_AGENT_PORTS))
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        flags = [
            *("--database-url", database_url),
            *("--cluster", cluster.address, "--training-cpus", "2"),
            *("--buckets", "s3", "--s3-endpoint-url", storage.endpoint_url),
        ]
        services = []
        for name in ("one", "two"):
            folder: Path = new_folder(name)
            service = Service(folder, flags, {"LOOKOUTVISION_SECRET_KEY": secret})
            stack.callback(service.stop)
            services.append(service)
        head, *nodes = (Node(handle, cluster) for handle in cluster.list_all_nodes())
        dashboard = f"http://127.0.0.1:{head_node['dashboard_port']}"
        yield Plant(cluster, services, s3, dashboard, head, nodes)


@pytest.fixture(scope="session")
def plant(
    postgres_server: Callable[[], PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plant]:
    with running_plant(postgres_server().new_database(), tmp_path_factory.mktemp) as plant:
        yield plant
