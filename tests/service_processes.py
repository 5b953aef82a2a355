"""The processes of a service that runs."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_lookoutvision.testing.service import Service


def processes(*words: str) -> list[int]:
    """The processes whose command line has all these words."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (
                (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
            )
        except OSError:
            continue
        if command and all(word in command for word in words):
            found.append(int(entry.name))
    return found


def replicas(service: Service) -> list[int]:
    """The inference units of a service's data directory, whichever process has them."""
    return processes("server.hosting.replica", str(service.data_dir))
