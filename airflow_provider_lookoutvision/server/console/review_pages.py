"""Reviewing the results of a batch: the images whose verdict is uncertain, one after another.

The results are JSON Lines in a bucket, as the operator of detection writes them. Which verdicts are uncertain
is said by ``uncertain`` where a line has it, and else by a confidence below a limit.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import Response

from airflow_provider_lookoutvision.server.console.objects import LARGEST_DOCUMENT, location_of
from airflow_provider_lookoutvision.server.console.visit import Visit
from airflow_provider_lookoutvision.server.protocol.errors import ServiceError, ValidationException

MOST_SHOWN = 2000
_LIMIT = 0.8


def show_review(visit: Visit) -> Response:
    """The page: which results, and then one image after another."""
    uri = visit.query.get("results", "").strip()
    limit = _share(visit.query.get("below", ""))
    lines: list[dict[str, Any]] = []
    problem = None
    try:
        lines = _results(visit, uri) if uri else []
    except ServiceError as error:  # the form stays, to be mended
        problem = error
    uncertain = [line for line in lines if _is_uncertain(line, limit)]
    uncertain.sort(key=lambda line: float(line["Confidence"]))
    projects = [each["ProjectName"] for each in visit.all_of("ListProjects", "Projects")]
    project = visit.query.get("project", "") or _project_of(lines, projects)
    return visit.render(
        "review.html",
        problem.status if problem else 200,
        problem=problem.message if problem else None,
        results=uri,
        below=limit,
        total=len(lines),
        failed=sum("error" in line for line in lines),
        uncertain=uncertain[:MOST_SHOWN],
        left=max(0, len(uncertain) - MOST_SHOWN),
        projects=projects,
        project=project,
    )


def _results(visit: Visit, uri: str) -> list[dict[str, Any]]:
    content = visit.objects.read(location_of(uri), LARGEST_DOCUMENT)
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            if not isinstance(document["source-ref"], str):
                raise TypeError("source-ref")
            if "error" not in document:
                float(document["Confidence"])
        except (ValueError, KeyError, TypeError):
            raise ValidationException(
                f"Line {number} of {uri} is no result: it needs source-ref, IsAnomalous and Confidence, as "
                "the operator of detection writes them"
            ) from None
        found.append(document)
    return found


def _is_uncertain(line: dict[str, Any], limit: float) -> bool:
    if "error" in line:
        return False
    marked = line.get("uncertain", line.get("Uncertain"))
    return bool(marked) if marked is not None else float(line["Confidence"]) < limit


def _project_of(lines: list[dict[str, Any]], projects: list[str]) -> str:
    """The project that the results name, or the only one there is."""
    named = next((line["ProjectName"] for line in lines if line.get("ProjectName") in projects), "")
    return named or (projects[0] if len(projects) == 1 else "")


def _share(text: str) -> float:
    return float(text) if re.fullmatch(r"(0(\.[0-9]{1,4})?|1(\.0+)?)", text) else _LIMIT


PAGES: dict[tuple[str, str], Any] = {("GET", "/review"): show_review}
