"""The four lists are read to their end."""

from __future__ import annotations

from typing import Any

import pytest

LISTS: dict[str, tuple[str, list[Any], dict[str, str]]] = {
    "list_projects": ("Projects", [{"ProjectName": name} for name in "abc"], {}),
    "list_models": (
        "Models",
        [{"ModelVersion": str(version)} for version in (1, 2, 3)],
        {"ProjectName": "p"},
    ),
    "list_dataset_entries": (
        "DatasetEntries",
        [f'{{"source-ref": "s3://b/{number}.png"}}' for number in (1, 2, 3)],
        {"ProjectName": "p", "DatasetType": "train"},
    ),
    "list_model_packaging_jobs": (
        "ModelPackagingJobs",
        [{"JobName": name} for name in "abc"],
        {"ProjectName": "p"},
    ),
}


@pytest.mark.parametrize("operation", LISTS)
def test_a_list_is_read_to_its_end(client: Any, service: Any, operation: str) -> None:
    key, items, arguments = LISTS[operation]
    service.answer({key: items[:2], "NextToken": "ab/+="})
    service.answer({key: items[2:]})
    pages = client.get_paginator(operation).paginate(**arguments, PaginationConfig={"PageSize": 2})
    assert pages.build_full_result() == {key: items}
    queries = [request.target.partition("?")[2] for request in service.requests]
    assert [sorted(query.split("&")) for query in queries] == [
        ["maxResults=2"],
        ["maxResults=2", "nextToken=ab%2F%2B%3D"],
    ]


def test_exactly_the_operations_with_a_page_token_are_lists(client: Any, model_data: dict[str, Any]) -> None:
    shapes = model_data["service-2"]["shapes"]
    with_token = {
        name
        for name, operation in model_data["service-2"]["operations"].items()
        if "NextToken" in shapes[operation["output"]["shape"]]["members"]
    }
    assert with_token == set(model_data["paginators-1"]["pagination"])
    assert {method for method in client.meta.method_to_api_mapping if client.can_paginate(method)} == set(
        LISTS
    )
