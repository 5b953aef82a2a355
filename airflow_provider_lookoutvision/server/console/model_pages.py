"""The pages of models: training, one model with its state, hosting, packaging, tags, deletion."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.responses import JSONResponse, Response

from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.console.objects import folder_of
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.datasets import gallery
from airflow_provider_lookoutvision.server.models.operations import find_model
from airflow_provider_lookoutvision.server.protocol.errors import (
    ResourceNotFoundException,
    ValidationException,
)

_MODEL = "/projects/{project}/models/{version}"
_KINDS = ("train", "test")


def train(visit: Visit) -> Response:
    """Train a model."""
    name, form = visit.path["project"], visit.form
    output = folder_of(form.get("output", ""))
    made = visit.call(
        "CreateModel",
        ProjectName=name,
        OutputConfig={"S3Location": {"Bucket": output.bucket, "Prefix": output.key}},
        Description=form.get("description") or None,
        ClientToken=visit.token,
    )
    return visit.done(f"/projects/{name}/models/{made['ModelMetadata']['ModelVersion']}")


def show_model(visit: Visit) -> Response:
    """One model: its state, its metrics, and what can be done with it."""
    name = visit.path["project"]
    model = _describe(visit)
    tags = visit.optional("ListTagsForResource", ResourceArn=model["ModelArn"])
    jobs = []
    if visit.may("ListModelPackagingJobs", name):
        found = visit.all_of("ListModelPackagingJobs", "ModelPackagingJobs", ProjectName=name)
        jobs = [job for job in found if job["ModelVersion"] == model["ModelVersion"]]
    return visit.render(
        "model.html",
        project=name,
        model=model,
        message=_linked(visit, name, model["StatusMessage"]),
        progress=_progress(model),
        tags=tags["Tags"] if tags else None,
        jobs=list(reversed(jobs)),
        most_units=visit.settings.max_inference_units,
    )


def show_state(visit: Visit) -> Response:
    """The model's state, for a page that stays open."""
    model = _describe(visit)
    return JSONResponse(
        {
            "status": model["Status"],
            "message": model["StatusMessage"],
            "progress": _progress(model),
            "load": _load(visit) if model["Status"] == "HOSTED" else None,
        }
    )


def delete_model(visit: Visit) -> Response:
    """Delete a model; one that is being trained is cancelled by it."""
    name, version = visit.path["project"], visit.path["version"]
    visit.call("DeleteModel", ProjectName=name, ModelVersion=version, ClientToken=visit.token)
    return visit.done(f"/projects/{name}")


def start_model(visit: Visit) -> Response:
    """Host a model."""
    name, version, form = visit.path["project"], visit.path["version"], visit.form
    visit.call(
        "StartModel",
        ProjectName=name,
        ModelVersion=version,
        MinInferenceUnits=_integer(form.get("min_units", "1"), "The units"),
        MaxInferenceUnits=_integer(form["max_units"], "The most units") if form.get("max_units") else None,
        ClientToken=visit.token,
    )
    return visit.done(f"/projects/{name}/models/{version}")


def stop_model(visit: Visit) -> Response:
    """Stop hosting it."""
    name, version = visit.path["project"], visit.path["version"]
    visit.call("StopModel", ProjectName=name, ModelVersion=version, ClientToken=visit.token)
    return visit.done(f"/projects/{name}/models/{version}")


def tag_model(visit: Visit) -> Response:
    """Add a tag, or change its value."""
    arn, form = _describe(visit)["ModelArn"], visit.form
    visit.call(
        "TagResource", ResourceArn=arn, Tags=[{"Key": form.get("key", ""), "Value": form.get("value", "")}]
    )
    return visit.done(f"/projects/{visit.path['project']}/models/{visit.path['version']}")


def untag_model(visit: Visit) -> Response:
    """Remove a tag."""
    arn = _describe(visit)["ModelArn"]
    visit.call("UntagResource", ResourceArn=arn, TagKeys=[visit.form.get("key", "")])
    return visit.done(f"/projects/{visit.path['project']}/models/{visit.path['version']}")


def package_model(visit: Visit) -> Response:
    """Package a model as a component for devices."""
    name, version, form = visit.path["project"], visit.path["version"], visit.form
    output = folder_of(form.get("output", ""))
    device: dict[str, Any] = {}
    if form.get("device"):
        device["TargetDevice"] = form["device"]
    else:
        device["TargetPlatform"] = {"Os": "LINUX", "Arch": form.get("architecture", "X86_64")}
    visit.call(
        "StartModelPackagingJob",
        ProjectName=name,
        ModelVersion=version,
        Configuration={
            "Greengrass": {
                **device,
                "S3OutputLocation": {"Bucket": output.bucket, "Prefix": output.key},
                "ComponentName": form.get("component", ""),
                "ComponentVersion": form.get("component_version") or None,
            }
        },
        ClientToken=visit.token,
    )
    return visit.done(f"/projects/{name}/models/{version}")


def show_job(visit: Visit) -> Response:
    """One packaging job."""
    name, job = visit.path["project"], visit.path["job"]
    found = visit.call("DescribeModelPackagingJob", ProjectName=name, JobName=job)
    return visit.render("packaging_job.html", project=name, job=found["ModelPackagingDescription"])


def describe(visit: Visit) -> dict[str, Any]:
    """The model of the path, as DescribeModel has it."""
    return _describe(visit)


def _describe(visit: Visit) -> dict[str, Any]:
    found = visit.call("DescribeModel", ProjectName=visit.path["project"], ModelVersion=visit.path["version"])
    return found["ModelDescription"]  # type: ignore[no-any-return]


def _load(visit: Visit) -> dict[str, int] | None:
    """What the units of a hosted model have to do, in the process that shows this page."""
    name, version = visit.path["project"], visit.path["version"]
    identity = visit.look("DescribeModel", name, lambda call: int(find_model(call, name, version).id))
    load = visit.dispatcher.fleet.load(identity)
    return asdict(load) if load else None


def _progress(model: dict[str, Any]) -> int | None:
    """Percent of a training that is done, as its message says."""
    found = re.search(r" ([0-9]{1,3})%", model["StatusMessage"])
    return int(found[1]) if found and model["Status"] == "TRAINING" else None


def _linked(visit: Visit, project: str, message: str) -> list[tuple[str, str | None]]:
    """A message in pieces, each with the address of the image that it names, or None."""
    starts = [match.start() for match in re.finditer("s3://", message)]
    if not starts or not visit.may("ListDatasetEntries", project):
        return [(message, None)]
    # A key may have any characters: what follows may be the message's own, or the key's.
    candidates = {start: list(_beginnings(message[start:])) for start in starts}
    wanted = {each for some in candidates.values() for each in some}
    known: dict[str, str] = {}
    for kind in reversed(_KINDS):
        try:
            found = visit.look("ListDatasetEntries", project, partial(_found, project, kind, wanted))
        except ResourceNotFoundException:
            continue
        known |= {ref: visit.url(f"/projects/{project}/datasets/{kind}/image", ref=ref) for ref in found}
    pieces: list[tuple[str, str | None]] = []
    position = 0
    for start, some in candidates.items():
        reference = next((each for each in some if each in known), None)
        if reference is None or start < position:
            continue
        pieces += [(message[position:start], None), (reference, known[reference])]
        position = start + len(reference)
    return [*pieces, (message[position:], None)]


def _found(project: str, kind: str, references: Iterable[str], call: Call) -> list[str]:
    return list(gallery.find(call, project, kind, references))


def _beginnings(text: str) -> Iterable[str]:
    """What may be a reference at the beginning of a text, the longest first."""
    ends = [match.start() for match in re.finditer(r"[\s:;,()]|$", text[:1200])]
    return (text[:end] for end in sorted(ends, reverse=True))


def _integer(text: str, what: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise ValidationException(f"{what} must be a number, not {text[:20]!r}")
    return int(text)


PAGES: dict[tuple[str, str], Any] = {
    ("POST", "/projects/{project}/models"): train,
    ("GET", _MODEL): show_model,
    ("GET", f"{_MODEL}/state"): show_state,
    ("POST", f"{_MODEL}/delete"): delete_model,
    ("POST", f"{_MODEL}/start"): start_model,
    ("POST", f"{_MODEL}/stop"): stop_model,
    ("POST", f"{_MODEL}/tags"): tag_model,
    ("POST", f"{_MODEL}/untag"): untag_model,
    ("POST", f"{_MODEL}/package"): package_model,
    ("GET", "/projects/{project}/packaging/{job}"): show_job,
}
