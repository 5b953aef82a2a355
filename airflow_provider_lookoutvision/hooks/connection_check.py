"""The checks of ``lookoutvision doctor`` for an Airflow connection: ``python -m ... CONN_ID [BUCKET ...]``.

A program of its own, since the command runs where Airflow isn't, too. The clients are those of the operators.
It prints the checks as JSON, in one line after whatever Airflow prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from airflow_provider_lookoutvision.hooks.connection import LookoutVisionS3Hook
from airflow_provider_lookoutvision.hooks.endpoint import LookoutVisionConfigurationError
from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
from airflow_provider_lookoutvision.moving.doctor import Check, check_service, to_json


def check_connection(conn_id: str, buckets: Sequence[str] = ()) -> Iterator[Check]:
    """Whether the operators can work with a connection."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    what = f"connection {conn_id}"
    try:
        LookoutVisionHook.get_connection(conn_id)
    except AirflowNotFoundException:
        yield Check(
            what,
            "warning",
            "there is none in this Airflow, so that operators use the AWS configuration instead",
        )
    except Exception as error:  # whatever a secrets backend or a database raises
        yield Check(what, "error", f"it can't be read: {error}")
        return
    try:
        client = LookoutVisionHook(conn_id).conn
    except LookoutVisionConfigurationError as error:
        yield Check(what, "error", str(error))
        return
    except Exception as error:  # of botocore, and of the Amazon provider about the connection's extra
        yield Check(what, "error", f"no client can be made of it: {error}")
        return
    yield Check(what, "ok", f"leads to {client.meta.endpoint_url}, {client.meta.region_name}")
    for check in check_service(client, lambda: LookoutVisionS3Hook(conn_id).conn, list(buckets)):
        yield Check(f"{what}, {check.what}", check.result, check.found)


if __name__ == "__main__":
    print(to_json(list(check_connection(sys.argv[1], sys.argv[2:]))))  # noqa: T201
