"""The environment of the processes that decode strangers' images: what they need, and no other secret.

The secret key, the database's password and whatever else the service's environment holds stay out of them.
"""

from __future__ import annotations

import os
from dataclasses import replace

from airflow_provider_lookoutvision.server.settings import Settings, as_environ

_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "XDG_CACHE_HOME"}
)
# Of the interpreter, of the libraries that compute, and of what measures tests.
_PREFIXES = (
    *("LC_", "PYTHON", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "CUDA_", "NVIDIA_", "TORCH", "COV_"),
    "COVERAGE_",
)
# Of the AWS SDK, for a process that reads buckets in S3 itself.
_S3_NAMES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"})
_S3_PREFIXES = ("AWS_", "REQUESTS_CA_")


def minimal_environ() -> dict[str, str]:
    """The variables for a process that computes."""
    return _allowed(_NAMES, _PREFIXES)


def environ_with_buckets(settings: Settings) -> dict[str, str]:
    """The variables for a process that reads buckets too: the settings, without the database's URL."""
    environ = minimal_environ() | as_environ(replace(settings, database_url=""))
    if settings.buckets == "s3":
        environ |= _allowed(_S3_NAMES, _S3_PREFIXES)
    return environ


def _allowed(names: frozenset[str], prefixes: tuple[str, ...]) -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in names or name.upper() in names or name.startswith(prefixes)
    }
