"""Code with type stubs over ``hook.conn``: what mypy makes of it. The last call is wrong, on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

if TYPE_CHECKING:
    from mypy_boto3_lookoutvision import LookoutforVisionClient

client: LookoutforVisionClient = LookoutVisionHook("plant").conn
model = client.describe_model(ProjectName="boards", ModelVersion="1")["ModelDescription"]
reveal_type(model["Performance"]["F1Score"])  # noqa: F821
reveal_type(client.get_paginator("list_models").paginate(ProjectName="boards"))  # noqa: F821
client.start_model(ProjectName="boards", ModelVersion="1")
