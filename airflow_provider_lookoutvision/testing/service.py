"""A real service for a test: its own process, port, data directory and access key.

::

    with running_service() as service:
        client = boto3.client("lookoutvision", endpoint_url=service.endpoint_url, ...)
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Names the service of the tests, if it isn't this environment's: a command, or the URL of a running service.
SERVICE_VARIABLE = "LOOKOUTVISION_TEST_SERVICE"

_ELSEWHERE = (
    f"({SERVICE_VARIABLE} may name another environment's command `lookoutvision`, or the URL of a running "
    "service, http://...)"
)
_START_SECONDS = 60
_STOP_SECONDS = 40


@dataclass(frozen=True)
class Key:
    """An access key of the service."""

    access_key_id: str
    secret_access_key: str
    account: str


class ServiceFailed(RuntimeError):
    """The service did not start; the message has its output."""


class Service:
    """A ``lookoutvision serve`` process, and a key for it.

    :param data_dir: its data directory; existing data is used.
    :param flags: further flags of ``serve``.
    :param environ: environment variables to add.
    :param command: ``lookoutvision``, of another environment for example; by default the one that
        ``LOOKOUTVISION_TEST_SERVICE`` names, or this environment's.
    """

    def __init__(
        self,
        data_dir: Path,
        flags: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._command = tuple(command or service_command())
        self.data_dir = data_dir
        self.log_file = data_dir / "service.log"
        self.port = 0
        self.flags = tuple(flags)
        # A test may break the service, so it gets no settings from outside, such as the URL of a real
        # database.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("LOOKOUTVISION_")
        }
        self._environ = {**inherited, **(environ or {})}
        self._process: subprocess.Popen[str] | None = None
        data_dir.mkdir(parents=True, exist_ok=True)
        self.start()
        self._key = self._first_key() or self.new_key()

    @property
    def endpoint_url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def access_key_id(self) -> str:
        """The ID of a key with all permissions in the default account."""
        return self._key.access_key_id

    @property
    def secret_access_key(self) -> str:
        """The secret of that key."""
        return self._key.secret_access_key

    @property
    def process(self) -> subprocess.Popen[str]:
        """The running process, or the last one."""
        if self._process is None:
            raise ServiceFailed("the service has not been started")
        return self._process

    def start(self) -> None:
        """Start it, at the same port as before, and wait until it listens.

        :raises ServiceFailed: when it can't be run, or ends instead.
        """
        command = [
            *self._command,
            "serve",
            "--data-dir",
            str(self.data_dir),
            "--port",
            str(self.port),
            *self.flags,
        ]
        try:
            with self.log_file.open("a") as log:
                self._process = subprocess.Popen(  # noqa: S603 (our own command)
                    command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environ
                )
        except OSError as error:
            raise ServiceFailed(f"{command[0]} can't be run: {error.strerror}. {_ELSEWHERE}") from error
        # A process that neither listens nor ends would keep readline waiting.
        watchdog = threading.Timer(_START_SECONDS, self._process.kill)
        watchdog.start()
        try:
            assert self._process.stdout is not None  # noqa: S101 (stdout is a pipe)
            for line in self._process.stdout:
                if match := re.search(r"listening on \w+://.*:(\d+)", line):
                    self.port = int(match[1])
                    return
        finally:
            watchdog.cancel()
        raise ServiceFailed(
            f"{' '.join(command)} ended with {self._process.wait()}: {self.log_file.read_text()[-2000:]}"
            f"{_ELSEWHERE}"
        )

    def stop(self) -> None:
        """Stop it with SIGTERM and wait until it has finished what was under way."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """End it with SIGKILL, as if the power had failed."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_STOP_SECONDS)
        self._close()

    def new_key(
        self,
        *,
        account: str = "123456789012",
        allow: Sequence[str] = (),
        project: Sequence[str] = (),
        bucket: Sequence[str] = ("*",),
    ) -> Key:
        """Make another key, as ``lookoutvision keys create`` does, beside the running service.

        It may use every bucket, unlike one that the command makes for another account than the first.
        """
        command = [
            *self._command,
            "keys",
            "create",
            "--json",
            "--data-dir",
            str(self.data_dir),
            "--account",
            account,
        ]
        command += [f"--allow={pattern}" for pattern in allow] + [
            f"--project={pattern}" for pattern in project
        ]
        command += [f"--bucket={pattern}" for pattern in bucket]
        if "--database-url" in self.flags:
            command += ["--database-url", self.flags[self.flags.index("--database-url") + 1]]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environ, check=False)  # noqa: S603
        if done.returncode:
            raise ServiceFailed(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        key = json.loads(done.stdout)
        return Key(key["AccessKeyId"], key["SecretAccessKey"], account)

    def _first_key(self) -> Key | None:
        profile = ConfigParser(interpolation=None)
        if not profile.read(self.data_dir / "credentials"):
            return None  # there were keys before this service
        default = profile["default"]
        return Key(default["aws_access_key_id"], default["aws_secret_access_key"], "123456789012")

    def _close(self) -> None:
        if self.process.stdout:
            self.process.stdout.close()


def service_url() -> str | None:
    """Return the URL of the running service that ``LOOKOUTVISION_TEST_SERVICE`` names, if it names one."""
    named = os.environ.get(SERVICE_VARIABLE, "")
    return named if named.startswith(("http://", "https://")) else None


def service_command() -> list[str]:
    """Return the command ``lookoutvision`` that tests use: another environment's, or else this one's.

    :raises ServiceFailed: when ``LOOKOUTVISION_TEST_SERVICE`` is a URL.
    """
    if service_url():
        raise ServiceFailed(f"{SERVICE_VARIABLE} names a running service; here it must be a command")
    named = shlex.split(os.environ.get(SERVICE_VARIABLE, ""))
    return named or [sys.executable, "-m", "airflow_provider_lookoutvision.server.cli"]


@contextmanager
def running_service(
    data_dir: Path | None = None,
    flags: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Iterator[Service]:
    """A service that runs inside the block.

    :param data_dir: its data directory; by default a folder that is deleted after the block.
    :param flags: as for ``Service``, like the others.
    """
    with tempfile.TemporaryDirectory(prefix="lookoutvision-") as temporary:
        service = Service(data_dir or Path(temporary), flags, environ, command)
        try:
            yield service
        finally:
            service.stop()
