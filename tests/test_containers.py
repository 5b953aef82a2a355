"""What runs the service in containers: its files are what their formats allow, and fit together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from compose_spec import PyCompose

from airflow_provider_lookoutvision.server import cli
from airflow_provider_lookoutvision.server.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "docs" / "operations" / "kubernetes.yaml"
SECRET = "lookoutvision"


def test_the_dockerfile_has_nothing_that_a_linter_finds() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_image_has_what_the_dockerfile_copies() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert copied
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []


def test_the_compose_file_is_valid_and_its_commands_are_too() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())  # its anchors are YAML's
    PyCompose.from_json(json.dumps(compose)).to_spec()
    services = compose["services"]
    assert services["s3"]["command"][0] == "serve"
    cli._parser().parse_args(services["s3"]["command"])
    (line,) = services["api"]["command"]
    _check_joined(line, "ray:6379")
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        _check_variables(service.get("environment", {}))


def test_the_manifests_for_kubernetes_fit_together() -> None:
    documents = list(yaml.safe_load_all(MANIFESTS.read_text()))
    found = {(each["apiVersion"], each["kind"]): each for each in documents}
    assert list(found) == [("ray.io/v1", "RayCluster"), ("apps/v1", "Deployment"), ("v1", "Service")]
    cluster, deployment, service = documents

    head = cluster["spec"]["headGroupSpec"]
    groups = cluster["spec"]["workerGroupSpecs"]
    pods = [head["template"], *(group["template"] for group in groups), deployment["spec"]["template"]]
    containers = [container for pod in pods for container in pod["spec"]["containers"]]
    assert len({container["image"] for container in containers}) == 1
    for pod in pods:
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert container["envFrom"] == [{"secretRef": {"name": SECRET}}]
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in groups:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]

    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    (api,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = api["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert port["containerPort"] == Settings().port
    # KubeRay names the head's Service after the cluster.
    _check_joined(api["args"][0], f"{cluster['metadata']['name']}-head-svc:6379")


def test_the_secret_of_the_manifests_has_what_the_service_reads() -> None:
    comment = "".join(line for line in MANIFESTS.read_text().splitlines(True) if line.startswith("#"))
    literals = [word.partition("=")[2] for word in comment.split() if word.startswith("--from-literal=")]
    variables = {literal.partition("=")[0]: "" for literal in literals}
    assert {"LOOKOUTVISION_SECRET_KEY", "LOOKOUTVISION_DATABASE_URL", "AWS_SECRET_ACCESS_KEY"} <= set(
        variables
    )
    _check_variables(variables)


def _check_joined(line: str, head: str) -> None:
    """A service beside a node of the cluster, which is given no work."""
    join, _, serve = line.partition(" && exec lookoutvision ")
    assert join == f"ray start --address {head} --num-cpus 0"
    flags = cli._parser().parse_args(serve.split())
    assert flags.cluster == "auto"


def _check_variables(variables: dict[str, Any]) -> None:
    """The service's own are settings, or the secret key."""
    own = {name.removeprefix(ENVIRONMENT_PREFIX) for name in variables if name.startswith(ENVIRONMENT_PREFIX)}
    assert own <= {name.upper() for name in Settings.__dataclass_fields__} | {"SECRET_KEY"}
