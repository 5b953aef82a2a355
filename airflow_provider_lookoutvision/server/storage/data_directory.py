"""The data directory, which its owner alone may use: it has the secrets, the images and the models."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
SECRETS = ("secret.key", "credentials")
DATABASE = "lookoutvision.db"

log = logging.getLogger("lookoutvision")


def prepare(settings: Settings) -> None:
    """Make the data directory if it isn't there; take it, its secrets and its database away from others.

    :raises SettingsError: when others may use it, and it is not ours to change.
    :raises OSError: when it can't be made.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not settings.database_url:
        # SQLite gives the files beside it the mode that this one has.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        os.close(os.open(settings.data_dir / DATABASE, flags, 0o600))
    for path in private_paths(settings.data_dir):
        if mode := open_mode(path):
            try:
                tighten(path)
            except PermissionError:
                raise SettingsError(
                    f"others may use {path} (mode {mode:o}), and it belongs to another user: give it to the "
                    "user of the service"
                ) from None
            log.warning(
                "others could use this: its mode is changed", extra={"path": str(path), "mode": f"{mode:o}"}
            )


def private_paths(data_dir: Path) -> list[Path]:
    """What of a data directory is for its owner alone, as far as it is there."""
    return [path for path in (data_dir, *(data_dir / name for name in (*SECRETS, DATABASE))) if path.exists()]


def open_mode(path: Path) -> int:
    """The mode of what others may use; 0 if they may not."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return mode if mode & OTHERS else 0


def tighten(path: Path) -> None:
    """Let its owner alone use it."""
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)
