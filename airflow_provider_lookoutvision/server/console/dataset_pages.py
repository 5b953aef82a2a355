"""The pages of datasets: the gallery, one image, making and deleting."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from airflow_provider_lookoutvision.server.console.evaluations import verdicts
from airflow_provider_lookoutvision.server.console.objects import location_of
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.datasets import gallery
from airflow_provider_lookoutvision.server.datasets.gallery import Entry, Filter
from airflow_provider_lookoutvision.server.protocol.errors import (
    ResourceNotFoundException,
    ResourceType,
)

PAGE = 96
VERDICTS = ("wrong", "anomaly", "normal")
_FILTERS = ("label", "class", "name", "model", "verdict")


def show_gallery(visit: Visit) -> Response:
    """A dataset as pictures."""
    name, kind = visit.path["project"], visit.path["kind"]
    described = visit.call("DescribeDataset", ProjectName=name, DatasetType=kind)["DatasetDescription"]
    page = visit.number("page", 1, 1, 10**6)
    shown = _page(visit, page)
    models = _trained(visit, name)
    return visit.render(
        "gallery.html",
        project=name,
        kind=kind,
        dataset=described,
        entries=shown.entries,
        count=shown.count,
        page=page,
        pages=max(1, -(-shown.count // PAGE)),
        filters={key: visit.query.get(key, "") for key in _FILTERS},
        classes=visit.look("ListDatasetEntries", name, lambda call: gallery.classes(call, name, kind)),
        models=models,
    )


def show_state(visit: Visit) -> Response:
    """The dataset's state, and the labels of the page's images: for pages that stay open."""
    name, kind = visit.path["project"], visit.path["kind"]
    described = visit.call("DescribeDataset", ProjectName=name, DatasetType=kind)["DatasetDescription"]
    state: dict[str, Any] = {
        "status": described["Status"],
        "message": described["StatusMessage"],
        "updated": described["LastUpdatedTimestamp"],
        "stats": described["ImageStats"],
    }
    if visit.query.get("since") != str(described["LastUpdatedTimestamp"]):
        references = visit.query.get("ref")
        if references:
            found = visit.look(
                "ListDatasetEntries", name, lambda call: gallery.find(call, name, kind, [references])
            )
            state["entries"] = [_as_json(entry) for entry in found.values()]
        else:
            shown = _page(visit, visit.number("page", 1, 1, 10**6))
            state["entries"] = [_as_json(entry) for entry in shown.entries]
    return JSONResponse(state)


def show_image(visit: Visit) -> Response:
    """One image, with its label and its mask."""
    name, kind = visit.path["project"], visit.path["kind"]
    reference = visit.query.get("ref", "")
    only = _filter(visit, name)

    def find(call: Any) -> tuple[Entry, tuple[str | None, str | None], dict[str, str]]:
        found = gallery.find(call, name, kind, [reference])
        if reference not in found:
            raise ResourceNotFoundException(
                f"The {kind} dataset of {name!r} has no image {reference[:200]!r}",
                resource_id=f"{name}/{kind}",
                resource_type=ResourceType.DATASET,
            )
        entry = found[reference]
        beside = gallery.neighbours(call, name, kind, only, entry)
        return entry, beside, gallery.classes(call, name, kind)

    entry, (before, after), classes = visit.look("ListDatasetEntries", name, find)
    filters = {key: visit.query.get(key, "") for key in _FILTERS}

    def address(reference: str | None) -> str | None:
        path = f"/projects/{name}/datasets/{kind}/image"
        return visit.url(path, ref=reference, **filters) if reference else None

    return visit.render(
        "image.html",
        project=name,
        kind=kind,
        entry=entry,
        before=address(before),
        after=address(after),
        classes=classes,
        may_save=visit.may("UpdateDatasetEntries", name),
        gallery=visit.url(f"/projects/{name}/datasets/{kind}", **filters),
        location=location_of(entry.source_ref),
    )


def create_dataset(visit: Visit) -> Response:
    """Make an empty dataset, or one from a manifest."""
    name, form = visit.path["project"], visit.form
    kind = form.get("type", "train")
    source = None
    if manifest := form.get("manifest"):
        location = location_of(manifest)
        source = {"GroundTruthManifest": {"S3Object": {"Bucket": location.bucket, "Key": location.key}}}
    visit.call(
        "CreateDataset",
        ProjectName=name,
        DatasetType=kind,
        DatasetSource=source,
        ClientToken=visit.token,
    )
    if form.get("then") == "add":
        return visit.done(f"/projects/{name}/datasets/{kind}/add")
    return visit.done(f"/projects/{name}/datasets/{kind}")


def delete_dataset(visit: Visit) -> Response:
    """Delete a dataset; its images stay in their bucket."""
    name, kind = visit.path["project"], visit.path["kind"]
    visit.call("DeleteDataset", ProjectName=name, DatasetType=kind, ClientToken=visit.token)
    return visit.done(f"/projects/{name}")


def _page(visit: Visit, page: int) -> gallery.Page:
    name, kind = visit.path["project"], visit.path["kind"]
    only = _filter(visit, name)
    return visit.look(
        "ListDatasetEntries",
        name,
        lambda call: gallery.page(call, name, kind, only, (page - 1) * PAGE, PAGE),
    )


def _filter(visit: Visit, project: str) -> Filter:
    query = visit.query
    references = None
    if query.get("model") and query.get("verdict") in VERDICTS:
        references = frozenset(
            each.source_ref
            for each in verdicts(visit, project, query["model"])
            if (each.wrong if query["verdict"] == "wrong" else each.predicted == query["verdict"])
        )
    label = query.get("label", "")
    known = label if label in {"normal", "anomaly", gallery.UNLABELLED} else ""
    return Filter(known, query.get("class", ""), query.get("name", "").strip(), references)


def _trained(visit: Visit, project: str) -> list[str]:
    if not visit.may("ListModels", project):
        return []
    found = visit.all_of("ListModels", "Models", ProjectName=project)
    return [model["ModelVersion"] for model in found if model.get("Performance")]


def _as_json(entry: Entry) -> dict[str, Any]:
    return {"ref": entry.source_ref, "label": entry.label, "version": entry.version, "mask": bool(entry.mask)}


_DATASET = "/projects/{project}/datasets/{kind}"
PAGES = {
    ("POST", "/projects/{project}/datasets"): create_dataset,
    ("GET", _DATASET): show_gallery,
    ("GET", f"{_DATASET}/state"): show_state,
    ("GET", f"{_DATASET}/image"): show_image,
    ("POST", f"{_DATASET}/delete"): delete_dataset,
}
