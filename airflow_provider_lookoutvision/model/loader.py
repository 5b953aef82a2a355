"""A botocore loader for each session, over what the process has already read.

botocore gives every session its own loader, which reads and keeps its own copy of the endpoint and service
data: about 9 MB and 70 ms for each session, and a triggerer has thousands of sessions. :class:`SharedLoader`
reads a file once for all sessions with the same search paths. One object for all sessions wouldn't do: boto3
and others append to the search paths of a session's loader, and that must neither change other sessions nor
be answered from an older listing.

botocore's list of endpoints names the regions of each service, before 1.40.61 of this one too. Where it
doesn't, the seven regions that the service had are added to what a session sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from botocore.loaders import Loader

REGIONS = (
    "ap-northeast-1",
    "ap-northeast-2",
    "eu-central-1",
    "eu-west-1",
    "us-east-1",
    "us-east-2",
    "us-west-2",
)
_ENDPOINTS, _SERVICE = "endpoints", "lookoutvision"


@lru_cache(maxsize=16)
def _reader(search_paths: tuple[str, ...]) -> Loader:
    return Loader(extra_search_paths=list(search_paths), include_default_search_paths=False)


@lru_cache(maxsize=16)
def _endpoints(search_paths: tuple[str, ...]) -> tuple[Any, str]:
    data, path = _reader(search_paths).load_data_with_path(_ENDPOINTS)
    ours: dict[str, Any] = {"endpoints": {region: {} for region in REGIONS}}
    partitions = [
        {**partition, "services": {_SERVICE: ours, **partition["services"]}}
        if partition["partition"] == "aws"
        else partition
        for partition in data["partitions"]
    ]
    return {**data, "partitions": partitions}, path


class SharedLoader(Loader):  # type: ignore[misc]  # botocore is untyped
    """Find data along the search paths of one session, reading each file once in a process.

    :param search_paths: folders in botocore's data layout; the first one with the file wins. The list
        ``search_paths`` may be changed at any time.
    """

    def __init__(self, search_paths: Iterable[str]) -> None:
        super().__init__(extra_search_paths=list(search_paths), include_default_search_paths=False)

    @property
    def _shared(self) -> Loader:
        return _reader(tuple(dict.fromkeys(self.search_paths)))

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: D102
        return self._shared.list_available_services(type_name)  # type: ignore[no-any-return]

    def determine_latest_version(self, service_name: str, type_name: str) -> str:  # noqa: D102
        return self._shared.determine_latest_version(service_name, type_name)  # type: ignore[no-any-return]

    def list_api_versions(self, service_name: str, type_name: str) -> list[str]:  # noqa: D102
        return self._shared.list_api_versions(service_name, type_name)  # type: ignore[no-any-return]

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:  # noqa: D102
        return self._shared.load_service_model(service_name, type_name, api_version)

    def load_data_with_path(self, name: str) -> tuple[Any, str]:  # noqa: D102
        if name == _ENDPOINTS:
            return _endpoints(tuple(dict.fromkeys(self.search_paths)))
        return self._shared.load_data_with_path(name)  # type: ignore[no-any-return]
