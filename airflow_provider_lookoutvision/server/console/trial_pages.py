"""Trying a model on a picture, and what people say of its verdict: right, or into the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from starlette.responses import JSONResponse, Response

from airflow_provider_lookoutvision.server.console.model_pages import describe
from airflow_provider_lookoutvision.server.console.objects import location_of
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.datasets import gallery
from airflow_provider_lookoutvision.server.protocol.errors import (
    AccessDeniedException,
    ResourceNotFoundException,
)

_MODEL = "/projects/{project}/models/{version}"


def show_trial(visit: Visit) -> Response:
    """The page on which a picture is dropped."""
    name = visit.path["project"]
    model = describe(visit)
    first: Sequence[gallery.Entry] | None
    try:
        first = visit.look(
            "ListDatasetEntries",
            name,
            lambda call: gallery.page(call, name, "train", gallery.Filter(), 0, 1).entries,
        )
    except (AccessDeniedException, ResourceNotFoundException):
        first = None
    # Where the dataset's images are; an empty dataset gets its first one from where the model is.
    bucket = (
        location_of(first[0].source_ref).bucket if first else model["OutputConfig"]["S3Location"]["Bucket"]
    )
    return visit.render("trial.html", project=name, model=model, bucket=bucket, has_dataset=first is not None)


async def detect(visit: Visit) -> Response:
    """DetectAnomalies of the picture in the body, or of an object: ``ref``."""
    content = visit.body
    if reference := visit.query.get("ref"):
        content = await anyio.to_thread.run_sync(visit.objects.read, location_of(reference))
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
    answer = await visit.call_hosted(
        "DetectAnomalies",
        ProjectName=visit.path["project"],
        ModelVersion=visit.path["version"],
        Body=content,
        ContentType=kind,
    )
    return JSONResponse(answer["DetectAnomalyResult"])


PAGES: dict[tuple[str, str], Any] = {
    ("GET", f"{_MODEL}/try"): show_trial,
    ("POST", f"{_MODEL}/detect"): detect,
}
