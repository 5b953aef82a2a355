"""The pages that judge a model: its metrics and its test images; and two models side by side."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.responses import JSONResponse, Response

from airflow_provider_lookoutvision.server.calls.call import Call
from airflow_provider_lookoutvision.server.console import evaluations
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.datasets import gallery
from airflow_provider_lookoutvision.server.protocol.errors import ResourceNotFoundException
from airflow_provider_lookoutvision.server.tags import DEFAULT_THRESHOLD, THRESHOLD

_EVALUATION = "/projects/{project}/models/{version}/evaluation"


def show_evaluation(visit: Visit) -> Response:
    """A model's evaluation, and that of another one beside it."""
    name, version = visit.path["project"], visit.path["version"]
    model = _model(visit, name, version)
    other_version = visit.query.get("with", "")
    other = _model(visit, name, other_version) if other_version else None
    others = []
    if visit.may("ListModels", name):
        found = visit.all_of("ListModels", "Models", ProjectName=name)
        others = [each for each in found if each.get("Performance") and each["ModelVersion"] != version]
    return visit.render(
        "evaluation.html",
        project=name,
        model=model,
        evaluation=evaluations.read(visit, model),
        other=other,
        other_evaluation=evaluations.read(visit, other) if other else None,
        others=[each["ModelVersion"] for each in reversed(others)],
        threshold=_threshold(visit, model),
        own=DEFAULT_THRESHOLD,
    )


def save_threshold(visit: Visit) -> Response:
    """Set the threshold of a model's verdicts; empty for the one that it was trained with."""
    name, version = visit.path["project"], visit.path["version"]
    arn = _model(visit, name, version)["ModelArn"]
    if threshold := visit.form.get("threshold"):
        visit.call("TagResource", ResourceArn=arn, Tags=[{"Key": THRESHOLD, "Value": threshold}])
    else:
        visit.call("UntagResource", ResourceArn=arn, TagKeys=[THRESHOLD])
    return visit.done(f"/projects/{name}/models/{version}/evaluation")


def show_verdicts(visit: Visit) -> Response:
    """The verdicts of a model, those that are furthest from the label first, for the page's scripts."""
    name, version = visit.path["project"], visit.path["version"]
    evaluation = evaluations.read(visit, _model(visit, name, version))
    found = sorted(evaluation.verdicts, key=lambda each: -each.error) if evaluation else []
    listed = [
        {"ref": each.source_ref, "label": each.label, "predicted": each.predicted, "score": each.score}
        for each in found
    ]
    return JSONResponse({"verdicts": listed})


def show_truth(visit: Visit) -> Response:
    """The mask of a test image, where it has one: ``ref`` in, ``mask`` and its ``colors`` out."""
    name, reference = visit.path["project"], visit.query.get("ref", "")

    def find(kind: str, call: Call) -> gallery.Entry | None:
        return gallery.find(call, name, kind, [reference]).get(reference)

    for kind in ("test", "train"):
        try:
            entry = visit.look("ListDatasetEntries", name, partial(find, kind))
        except ResourceNotFoundException:
            continue
        if entry is not None:
            mask = entry.mask
            page = visit.url(f"/projects/{name}/datasets/{kind}/image", ref=reference)
            return JSONResponse(
                {
                    "mask": mask.source_ref if mask else None,
                    "colors": mask.colors if mask else {},
                    "page": page,
                }
            )
    return JSONResponse({"mask": None, "colors": {}, "page": None})


def _threshold(visit: Visit, model: dict[str, Any]) -> str:
    """The threshold of a model; its own one when the key may not see tags."""
    tags = visit.optional("ListTagsForResource", ResourceArn=model["ModelArn"])
    found = {tag["Key"]: tag["Value"] for tag in tags["Tags"]} if tags else {}
    return str(found.get(THRESHOLD, DEFAULT_THRESHOLD))


def _model(visit: Visit, name: str, version: str) -> dict[str, Any]:
    found = visit.call("DescribeModel", ProjectName=name, ModelVersion=version)
    return found["ModelDescription"]  # type: ignore[no-any-return]


PAGES: dict[tuple[str, str], Any] = {
    ("GET", _EVALUATION): show_evaluation,
    ("GET", f"{_EVALUATION}/verdicts"): show_verdicts,
    ("GET", f"{_EVALUATION}/truth"): show_truth,
    ("POST", f"{_EVALUATION}/threshold"): save_threshold,
}
