"""The connection of this process to the Ray cluster.

The cluster's nodes need this package with the extra ``ray``, and the data directory under the same path: for
the cache of the network, and for folder buckets if the disk is shared. Access to S3 is the nodes' own, from
their environment.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from airflow_provider_lookoutvision.server.settings import Settings, SettingsError

NAMESPACE = "lookoutvision"
# What the name of the actor ``HostedModels`` ends with.
MODELS = "-models"


def connect(settings: Settings) -> None:
    """Connect this process to the cluster that the settings name; at most once.

    It replaces the handler of SIGTERM, so it comes before those of the service.

    :raises SettingsError: when Ray isn't installed, or the cluster can't be reached.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise SettingsError(
            "cluster is set, but Ray is not installed: pip install 'airflow-provider-lookoutvision[ray]'"
        ) from None
    if ray.is_initialized():
        return
    try:
        ray.init(settings.cluster, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        log_as_the_service()
    except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise SettingsError(
            f"the Ray cluster {settings.cluster} can't be reached: {error}. Start one with "
            "`ray start --head`, or join one with `ray start --address=HOST:6379`, and set --cluster to auto"
        ) from None


def log_as_the_service() -> None:
    """Give Ray's lines in this process the form of the service's own."""
    for name in ("ray", "ray.serve"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)


def models_name(settings: Settings) -> str:
    """The name of the actor that reads the models of the services on one database."""
    return name_of(settings) + MODELS


def name_of(settings: Settings, *parts: Any) -> str:
    """The name of something that the services on one database share in the cluster."""
    digest = hashlib.sha256(settings.url.encode()).hexdigest()[:12]
    return "-".join(["lookoutvision", digest, *map(str, parts)])
