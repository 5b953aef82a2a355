"""The settings of the service, in one frozen value.

Each setting has three sources, of which the later overrides: its default here, the environment variable
``LOOKOUTVISION_<NAME>``, and the flag ``--<name>`` of ``lookoutvision serve``.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

ENVIRONMENT_PREFIX = "LOOKOUTVISION_"
DEFAULT_ACCOUNT = "123456789012"
_LARGEST_PORT = 65535
_ORIGIN = re.compile(r"https?://[^/?#\s]+")
EFFORTS = ("quick", "thorough")
TORCH_MISSING = (
    "the effort 'thorough' trains a network with torch, which is not installed here: "
    "pip install 'airflow-provider-lookoutvision[finetune]'"
)
NOT_WITH_A_BACKBONE = (
    "the effort 'thorough' trains EfficientNet-lite0, and can't be chosen where the setting backbone is"
)
# Before a path in which every sign is one of the path; in a URL some signs have another meaning.
SQLITE_FILE = "sqlite-file:"


class SettingsError(ValueError):
    """A setting that can't be used; the message says which, why, and what to set instead."""


def default_data_dir() -> Path:
    """The data directory if none is set: in ``$XDG_DATA_HOME``, or the default of that.

    :raises SettingsError: when there is no home directory that it could be in.
    """
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return _expanded(Path(base)) / "lookoutvision"


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise SettingsError(
            f"there is no home directory for {path}: set --data-dir, LOOKOUTVISION_DATA_DIR or HOME"
        ) from None


def _setting(default: Any, description: str, kind: type = str) -> Any:
    return field(default=default, metadata={"help": description, "kind": kind})


@dataclass(frozen=True)
class Settings:
    """The settings of one service process."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8320, "port to listen on; 0 takes a free one", int)
    data_dir: Path = _setting(None, "folder of everything the service keeps", Path)
    database_url: str = _setting("", "SQLAlchemy URL; SQLite in the data directory when empty")
    tls_certificate: Path | None = _setting(None, "PEM file of the TLS certificate chain", Path)
    tls_key: Path | None = _setting(None, "PEM file of the TLS private key", Path)
    allow_plaintext: bool = _setting(False, "listen beyond loopback without TLS", bool)
    regions: tuple[str, ...] = _setting(
        (), "regions to serve, comma-separated; every region when empty", tuple
    )
    max_projects: int | None = _setting(None, "projects per account; no limit when empty", int)
    max_train_images: int = _setting(16_000, "images in a training dataset", int)
    max_test_images: int = _setting(4_000, "images in a test dataset", int)
    max_segmentation_train_images: int = _setting(8_000, "images in a training dataset with masks", int)
    max_segmentation_test_images: int = _setting(800, "images in a test dataset with masks", int)
    max_trainings: int = _setting(2, "models being trained per account", int)
    max_total_trainings: int | None = _setting(
        None, "models being trained, of all accounts; no limit when empty", int
    )
    max_training_hours: float = _setting(24, "how long a training may take", float)
    max_silent_minutes: float = _setting(
        30, "how long a job or its process may show no progress before it is ended", float
    )
    training_effort: str = _setting(
        "quick", "quick, or thorough: train the network too, with torch; a model's tag overrides it"
    )
    backbone: Path | None = _setting(
        None, "ONNX file of the pretrained network, with a JSON file; EfficientNet-lite0 when empty", Path
    )
    max_inference_units: int = _setting(5, "inference units per model", int)
    max_hosted_models: int | None = _setting(
        None, "models hosted at the same time, of all accounts; no limit when empty", int
    )
    max_total_inference_units: int | None = _setting(
        None, "inference units of all hosted models, at their most; no limit when empty", int
    )
    buckets: str = _setting("directory", "where buckets are: directory (in the data directory) or s3")
    s3_endpoint_url: str = _setting("", "S3 endpoint; what the AWS configuration says when empty")
    import_workers: int = _setting(2, "datasets imported at the same time", int)
    training_workers: int = _setting(2, "models trained at the same time", int)
    packaging_workers: int = _setting(1, "models packaged at the same time", int)
    cluster: str = _setting(
        "",
        "Ray cluster that trains and hosts, auto or host:6379, with a node here; this machine when empty",
    )
    training_cpus: float = _setting(1, "CPUs of the cluster that a training reserves", float)
    training_gpus: float = _setting(0, "GPUs of the cluster that a training reserves", float)
    worker: bool = _setting(True, "run a worker beside the API; without it, run `lookoutvision worker`", bool)
    console: bool = _setting(True, "serve the console, the page for people, at /console/", bool)
    console_frame_ancestors: tuple[str, ...] = _setting(
        (), "addresses whose pages may show the console in a frame, comma-separated, as Airflow's", tuple
    )
    requests_per_second: float | None = _setting(
        None, "requests a second per account and operation; no limit when empty", float
    )
    queue_per_unit: int = _setting(16, "DetectAnomalies requests that may wait for an inference unit", int)
    threads: int = _setting(16, "requests answered at the same time; on SQLite at most 2 of them read", int)
    max_connections: int = _setting(1000, "connections open at the same time", int)
    max_connections_per_address: int = _setting(
        250, "of these, from one address; raise it for a proxy through which all clients come", int
    )
    keep_alive_seconds: int = _setting(75, "how long an idle connection is kept for the next request", int)
    allowed_origins: tuple[str, ...] = _setting(
        (), "origins whose pages may call the service (CORS), comma-separated, or *; none when empty", tuple
    )
    shutdown_seconds: int = _setting(30, "how long a stopping server waits for requests under way", int)
    metrics_address: str = _setting(
        "", "host:port where /metrics is served without a key; only to keys, at the API's address, when empty"
    )
    log_level: str = _setting("info", "debug, info, warning or error")

    def __post_init__(self) -> None:
        """Set the data directory if it is missing, and check the values."""
        object.__setattr__(self, "data_dir", _expanded(Path(self.data_dir or default_data_dir())))
        for name, least in (
            ("port", 0),
            ("threads", 1),
            ("shutdown_seconds", 0),
            ("keep_alive_seconds", 1),
            ("max_projects", 0),
            ("import_workers", 1),
            ("training_workers", 1),
            ("packaging_workers", 1),
            ("max_trainings", 0),
            ("max_total_trainings", 0),
            ("max_hosted_models", 0),
            ("max_total_inference_units", 0),
            ("max_inference_units", 1),
            ("queue_per_unit", 1),
            ("max_connections", 1),
            ("max_connections_per_address", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingsError(f"{name} is {value}; it must be at least {least}")
        if self.training_effort not in EFFORTS:
            raise SettingsError(
                f"training_effort is {self.training_effort!r}; it must be one of {', '.join(EFFORTS)}"
            )
        if self.training_effort == "thorough" and self.backbone is not None:
            raise SettingsError(f"training_effort: {NOT_WITH_A_BACKBONE}: {self.backbone}")
        rate = self.requests_per_second
        if rate is not None and not 0 < rate < math.inf:
            raise SettingsError(f"requests_per_second is {rate}; it must be more than 0, and finite")
        if self.cluster.startswith("ray://"):
            raise SettingsError(
                f"cluster is {self.cluster}; a process whose Ray client loses its connection lives on and "
                "answers nothing. Start a node on this machine that is given no work, `ray start "
                "--address=HOST:6379 --num-cpus=0`, and set --cluster auto"
            )
        for name in ("training_cpus", "training_gpus"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 0, and finite")
        if self.training_gpus > 1 and self.training_gpus % 1:
            raise SettingsError(
                f"training_gpus is {self.training_gpus}; Ray gives a part of one GPU, or whole ones"
            )
        for name in ("max_training_hours", "max_silent_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be more than 0, and finite")
        if self.port > _LARGEST_PORT:
            raise SettingsError(f"port is {self.port}; it must be at most {_LARGEST_PORT}")
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise SettingsError(f"log_level is {self.log_level!r}; it must be debug, info, warning or error")
        if self.buckets not in {"directory", "s3"}:
            raise SettingsError(f"buckets is {self.buckets!r}; it must be directory or s3")
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise SettingsError(
                    f"allowed_origins has {origin!r}; an origin is a scheme, a host and perhaps a port, as "
                    "https://app.example.com:8443, with nothing behind"
                )
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise SettingsError("TLS needs both files: set tls_certificate and tls_key")

    @property
    def url(self) -> str:
        """The database's URL, or ``SQLITE_FILE`` and the path of the one in the data directory."""
        return self.database_url or f"{SQLITE_FILE}{self.data_dir.absolute() / 'lookoutvision.db'}"

    def refuse_open_plaintext(self) -> None:
        """Raise SettingsError if signed requests would be sent over a network without TLS."""
        if is_loopback(self.host) or self.tls_certificate or self.allow_plaintext:
            return
        raise SettingsError(
            f"refusing to listen on {self.host} without TLS: anyone who sees a signed request can send it "
            "again for 15 minutes. Set --tls-certificate and --tls-key, or --allow-plaintext behind TLS"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def has_torch() -> bool:
    """Whether a training of this environment can be thorough; torch isn't imported."""
    return importlib.util.find_spec("torch") is not None


def load(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from ``flags`` (those not None) and the environment.

    :raises SettingsError: on a value of the wrong type, with its source.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        variable = ENVIRONMENT_PREFIX + setting.name.upper()
        if flags.get(setting.name) is not None:
            source, value = "--" + setting.name.replace("_", "-"), flags[setting.name]
        elif environ.get(variable):
            source, value = variable, environ[variable]
        else:
            continue
        try:
            values[setting.name] = _convert(setting.metadata["kind"], value)
        except ValueError as error:
            raise SettingsError(f"{source} is {value!r}: {error}") from None
    return Settings(**values)


def as_environ(settings: Settings) -> dict[str, str]:
    """The environment variables from which ``load`` reads the same settings."""
    environ = {}
    for setting in fields(Settings):
        value = getattr(settings, setting.name)
        if value is not None:
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            environ[ENVIRONMENT_PREFIX + setting.name.upper()] = text
    return environ


def _convert(kind: type, value: Any) -> Any:
    if kind is bool and isinstance(value, str):
        if value.lower() not in {"1", "true", "yes", "0", "false", "no"}:
            raise ValueError("it must be true or false")
        return value.lower() in {"1", "true", "yes"}
    if kind is tuple and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return kind(value)
