"""The data directory is for the user of the service alone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from command_line import run_command

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage import data_directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_private(tmp_path: Path) -> None:
    assert run_command("keys", "create", "--data-dir", tmp_path / "data").status == 0
    assert mode(tmp_path / "data") == 0o700
    assert {mode(path) for path in (tmp_path / "data").iterdir()} == {0o600}


def test_what_is_there_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert run_command("keys", "create", "--data-dir", tmp_path).status == 0
    for name in ("secret.key", "lookoutvision.db"):
        (tmp_path / name).chmod(0o664)
    tmp_path.chmod(0o777)
    assert run_command("keys", "create", "--data-dir", tmp_path).status == 0
    assert mode(tmp_path) == 0o700
    assert mode(tmp_path / "secret.key") == mode(tmp_path / "lookoutvision.db") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_what_belongs_to_another_user_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        os.seteuid(65534)
        try:
            with pytest.raises(SettingsError, match="belongs to another user"):
                data_directory.prepare(Settings(data_dir=Path(folder)))
        finally:
            os.seteuid(0)
