"""The pages of datasets: the gallery, one image, making and deleting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from airflow_provider_lookoutvision.server.calls.call import Call
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
    models = _trained(visit, name)
    filters = _filters(visit, models)
    start, shown = _page(visit, filters)
    page = 1 + -(-start // PAGE)
    following = None
    if any(filters.values()) and shown.entries:
        # Labels that are set on this page may take its images out of the filter: the next one follows the
        # last image, wherever that makes it begin.
        path = f"/projects/{name}/datasets/{kind}"
        following = visit.url(path, after=shown.entries[-1].source_ref, **filters)
    return visit.render(
        "gallery.html",
        project=name,
        kind=kind,
        dataset=described,
        entries=shown.entries,
        count=shown.count,
        page=page,
        pages=page - 1 + max(1, -(-(shown.count - start) // PAGE)),
        following=following,
        filters=filters,
        classes=visit.look("ListDatasetEntries", name, lambda call: gallery.classes(call, name, kind)),
        models=models,
        has_other=_has_other(visit, name, kind),
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
            _, shown = _page(visit, _filters(visit))
            state["entries"] = [_as_json(entry) for entry in shown.entries]
    return JSONResponse(state)


def show_image(visit: Visit) -> Response:
    """One image, with its label and its mask."""
    name, kind = visit.path["project"], visit.path["kind"]
    reference = visit.query.get("ref", "")
    filters = _filters(visit)
    only = _filter(visit, name, filters)

    def find(call: Call) -> tuple[Entry, tuple[str | None, str | None], dict[str, str]]:
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


def _page(visit: Visit, filters: Mapping[str, str]) -> tuple[int, gallery.Page]:
    """The page that the query asks for, by its number or by the image before it, and where it begins."""
    name, kind = visit.path["project"], visit.path["kind"]
    only = _filter(visit, name, filters)
    number, after = visit.number("page", 1, 1, 10**6), visit.query.get("after")

    def find(call: Call) -> tuple[int, gallery.Page]:
        start = gallery.position(call, name, kind, only, after) if after else (number - 1) * PAGE
        return start, gallery.page(call, name, kind, only, start, PAGE)

    return visit.look("ListDatasetEntries", name, find)


def _filters(visit: Visit, models: Sequence[str] | None = None) -> dict[str, str]:
    """What the gallery is filtered by; a verdict is that of the newest model, if none is named."""
    filters = {key: visit.query.get(key, "").strip() for key in _FILTERS}
    if filters["verdict"] and not filters["model"]:
        trained = _trained(visit, visit.path["project"]) if models is None else models
        filters["model"] = trained[-1] if trained else ""
    return filters


def _filter(visit: Visit, project: str, filters: Mapping[str, str]) -> Filter:
    model, verdict, label = filters["model"], filters["verdict"], filters["label"]
    references = None
    if model and verdict in VERDICTS:
        references = frozenset(
            each.source_ref
            for each in verdicts(visit, project, model)
            if (each.wrong if verdict == "wrong" else each.predicted == verdict)
        )
    known = label if label in {"normal", "anomaly", gallery.UNLABELLED} else ""
    return Filter(known, filters["class"], filters["name"], references)


def _has_other(visit: Visit, project: str, kind: str) -> bool:
    found = visit.optional("DescribeProject", ProjectName=project)
    datasets = found["ProjectDescription"]["Datasets"] if found else ()
    return any(each["DatasetType"].lower() != kind for each in datasets)


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
