"""The address that the AWS service had, which leads nowhere now."""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit

from botocore.loaders import Loader

from airflow_provider_lookoutvision.model import SERVICE_NAME


def is_of_aws(url: str) -> bool:
    """Whether a URL is one of AWS's own, for whichever service."""
    return (urlsplit(url).hostname or "").endswith(_aws_domains())


def is_ended_service(url: str) -> bool:
    """Whether a URL is that of the AWS service, which ended on 2025-10-31."""
    names = {SERVICE_NAME, f"{SERVICE_NAME}-fips"}
    return is_of_aws(url) and not names.isdisjoint((urlsplit(url).hostname or "").split("."))


@cache
def _aws_domains() -> tuple[str, ...]:
    partitions = Loader().load_data("partitions")["partitions"]
    names = ("dnsSuffix", "dualStackDnsSuffix")
    return tuple(f".{partition['outputs'][name]}" for partition in partitions for name in names)
