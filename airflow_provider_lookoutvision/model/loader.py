"""A botocore loader for each session, over what the process has read already.

botocore gives every session a loader of its own, which reads and keeps its own copy of the endpoint and
service data: about 9 MB and 70 ms a session, and a triggerer has thousands of sessions. :class:`SharedLoader`
reads a file once for all sessions that have the same search paths. It can't be one object for all of them:
boto3 and others append to the search paths of the loader that they find in a session, and that must neither
change other sessions nor be answered from a listing that is older than what they added.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from botocore.loaders import Loader


@lru_cache(maxsize=16)
def _reader(search_paths: tuple[str, ...]) -> Loader:
    return Loader(extra_search_paths=list(search_paths), include_default_search_paths=False)


class SharedLoader(Loader):  # type: ignore[misc]  # botocore is untyped
    """Find data along the search paths of one session, reading each file once a process.

    :param search_paths: folders in botocore's data layout, the first one that has a file wins. The list
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
        return self._shared.load_data_with_path(name)  # type: ignore[no-any-return]
