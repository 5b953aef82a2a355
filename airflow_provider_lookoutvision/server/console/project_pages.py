"""The pages of projects: the list, one of them, and its deletion with what it takes along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from airflow_provider_lookoutvision.server import projects
from airflow_provider_lookoutvision.server.console.objects import location_of
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.datasets import gallery
from airflow_provider_lookoutvision.server.protocol.errors import ValidationException

_PAGE = 100
_HOSTED = {"HOSTED", "STARTING_HOSTING", "STOPPING_HOSTING"}


def show_projects(visit: Visit) -> Response:
    """All projects that the key may see."""
    contains = visit.query.get("name", "").strip()
    page = visit.number("page", 1, 1, 10**6)
    found, count = visit.look(
        "ListProjects",
        None,
        lambda call: projects.overview(call, contains, (page - 1) * _PAGE, _PAGE),
    )
    regions = visit.look("ListProjects", None, projects.regions) if not found else []
    return visit.render(
        "projects.html",
        projects=found,
        count=count,
        contains=contains,
        page=page,
        pages=max(1, -(-count // _PAGE)),
        elsewhere=[region for region in regions if region != visit.caller.region],
    )


def create_project(visit: Visit) -> Response:
    """Make a project."""
    name = visit.form.get("name", "")
    visit.call("CreateProject", ProjectName=name, ClientToken=visit.token)
    return visit.done(f"/projects/{name}")


def show_project(visit: Visit) -> Response:
    """One project: its datasets, models and packaging jobs."""
    name = visit.path["project"]
    described = visit.call("DescribeProject", ProjectName=name)["ProjectDescription"]
    datasets: dict[str, Any] = {each["DatasetType"].lower(): None for each in described["Datasets"]}
    for kind in datasets:
        found = visit.optional("DescribeDataset", ProjectName=name, DatasetType=kind)
        datasets[kind] = found["DatasetDescription"] if found else {"Status": "?", "ImageStats": None}
    models = _listed(visit, "ListModels", "Models", name)
    return visit.render(
        "project.html",
        project=name,
        created=described["CreationTimestamp"],
        datasets=datasets,
        models=list(reversed(models)),
        jobs=list(reversed(_listed(visit, "ListModelPackagingJobs", "ModelPackagingJobs", name))),
        output=_output(visit, name, "train" in datasets),
    )


def ask_to_delete(visit: Visit) -> Response:
    """What a deletion would take along."""
    name = visit.path["project"]
    return visit.render("project_delete.html", project=name, **_contents(visit, name))


def delete_project(visit: Visit) -> Response:
    """Delete a project with its models and datasets, one after another."""
    name = visit.path["project"]
    if visit.form.get("name") != name:
        raise ValidationException(f"Write the project's name, {name}, to delete it")
    contents = _contents(visit, name)
    if contents["hosted"]:
        raise ValidationException(f"Model {contents['hosted'][0]} is hosted: stop it first")
    token = visit.token
    for model in contents["models"]:
        version = model["ModelVersion"]
        members = {"ProjectName": name, "ModelVersion": version}
        visit.call("DeleteModel", **members, ClientToken=f"{token}-m{version}")
    for kind in contents["datasets"]:
        visit.call("DeleteDataset", ProjectName=name, DatasetType=kind, ClientToken=f"{token}-{kind}")
    visit.call("DeleteProject", ProjectName=name, ClientToken=token)
    return visit.done("/")


def _contents(visit: Visit, name: str) -> dict[str, Any]:
    described = visit.call("DescribeProject", ProjectName=name)["ProjectDescription"]
    kinds = [each["DatasetType"].lower() for each in described["Datasets"]]
    models = _listed(visit, "ListModels", "Models", name)
    return {
        "datasets": {
            kind: visit.call("DescribeDataset", ProjectName=name, DatasetType=kind)["DatasetDescription"]
            for kind in kinds
        },
        "models": models,
        "hosted": [model["ModelVersion"] for model in models if model["Status"] in _HOSTED],
        "jobs": _listed(visit, "ListModelPackagingJobs", "ModelPackagingJobs", name),
    }


def _output(visit: Visit, name: str, has_images: bool) -> str:
    """Where the form of a training proposes to write: beside the images."""
    found: Sequence[gallery.Entry] = []
    if has_images and visit.may("ListDatasetEntries", name):
        first = gallery.Filter()
        page = visit.look(
            "ListDatasetEntries", name, lambda call: gallery.page(call, name, "train", first, 0, 1)
        )
        found = page.entries
    return f"s3://{location_of(found[0].source_ref).bucket}/models/" if found else ""


def _listed(visit: Visit, operation: str, of: str, project: str) -> list[Any]:
    return visit.all_of(operation, of, ProjectName=project) if visit.may(operation, project) else []


PAGES = {
    ("GET", "/"): show_projects,
    ("POST", "/projects"): create_project,
    ("GET", "/projects/{project}"): show_project,
    ("GET", "/projects/{project}/delete"): ask_to_delete,
    ("POST", "/projects/{project}/delete"): delete_project,
}
