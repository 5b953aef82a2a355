"""Deleting a project with everything in it, after a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

TIMEOUT_SECONDS = 120
_POLL_SECONDS = 0.2
_BUSY = {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "STOPPING_HOSTING"}


def delete_project(client: Any, name: str) -> None:
    """Stop the project's models, wait for its imports, and delete it all. A missing project is no error.

    :raises TimeoutError: when something is still busy after two minutes.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    project = {"ProjectName": name}
    with suppress(client.exceptions.ResourceNotFoundException):
        for page in client.get_paginator("list_models").paginate(**project):
            for found in page["Models"]:
                model = project | {"ModelVersion": found["ModelVersion"]}
                if found["Status"] in ("STARTING_HOSTING", "HOSTED"):
                    client.stop_model(**model)
                _wait_until_idle(client.describe_model, "ModelDescription", model, deadline)
                client.delete_model(**model)  # which cancels a training
        for found in client.describe_project(**project)["ProjectDescription"]["Datasets"]:
            dataset = project | {"DatasetType": found["DatasetType"]}
            _wait_until_idle(client.describe_dataset, "DatasetDescription", dataset, deadline)
            client.delete_dataset(**dataset)
        client.delete_project(**project)


def _wait_until_idle(
    describe: Callable[..., Any], member: str, what: dict[str, str], deadline: float
) -> None:
    while (status := describe(**what)[member]["Status"]) in _BUSY:
        if time.monotonic() > deadline:
            named = ", ".join(f"{name} {value}" for name, value in what.items())
            raise TimeoutError(
                f"{named} is still {status} after {TIMEOUT_SECONDS} s, so the project can't be deleted: does "
                "the service's worker run?"
            )
        time.sleep(_POLL_SECONDS)
