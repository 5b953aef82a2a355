"""Airflow connections of the type ``lookoutvision``: what a service needs, in a form of its own.

A connection of this type is read as the Amazon connection that it stands for, with the same key and extras.
Its ``endpoint_url`` is the service and its S3, unless ``s3_endpoint_url`` names another S3. Connections of
the type ``aws`` are read as they are.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from airflow_provider_lookoutvision.provider_info import CONNECTION_TYPE, CONNECTION_TYPE_NAME

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


def aws_connection(connection: Connection) -> Connection:
    """Return the Amazon connection that a connection stands for; one of another type is returned as it is."""
    if connection.conn_type != CONNECTION_TYPE_NAME:
        return connection
    # A form stores what isn't filled in as an empty text.
    extra = {name: value for name, value in connection.extra_dejson.items() if value not in (None, "")}
    if url := extra.get("endpoint_url") or _url(connection):
        extra["endpoint_url"] = url
    if s3_url := extra.pop("s3_endpoint_url", None):
        services = extra.get("service_config", {})
        extra["service_config"] = {"s3": {"endpoint_url": s3_url}, **services}
    return type(connection)(
        conn_id=connection.conn_id,
        conn_type="aws",
        login=connection.login,
        password=connection.password,
        extra=json.dumps(extra),
    )


def _url(connection: Connection) -> str:
    """The URL of a connection that is given as one, such as ``lookoutvision://key:secret@localhost:8320``."""
    if not connection.host:
        return ""
    scheme, _, host = connection.host.rpartition("://")
    port = f":{connection.port}" if connection.port else ""
    return f"{scheme or connection.schema or 'http'}://{host}{port}"


class LookoutVisionConnectionMixin(AwsBaseHook):
    """A hook of the Amazon provider that reads connections of the type ``lookoutvision`` too."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return the connection, as an Amazon connection."""
        return aws_connection(super().get_connection(conn_id))


class LookoutVisionS3Hook(LookoutVisionConnectionMixin, S3Hook):
    """The S3 of a connection, which for the type ``lookoutvision`` is the service itself by default.

    ``S3Hook`` works with such a connection too, as long as it names no other S3.
    """


def s3_failure(aws_conn_id: str | None) -> str:
    """Why the S3 of a connection of the type ``lookoutvision`` fails; empty if it doesn't, or for others."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    if not aws_conn_id or AwsBaseHook.get_connection(aws_conn_id).conn_type != CONNECTION_TYPE_NAME:
        return ""
    once = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1})
    client = LookoutVisionS3Hook(aws_conn_id=aws_conn_id, config=once).conn
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError) as error:
        refused = isinstance(error, ClientError) and error.response["Error"]["Code"] == "AccessDenied"
        if not refused:  # which a key may be that works with some buckets
            return f"{client.meta.endpoint_url} is not its S3: {error}"
    return ""


def form_widgets() -> dict[str, Any]:
    """The fields of the connection's form, for Airflow before 3.2."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import StringField

    return {
        name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
        for name, field in CONNECTION_TYPE["conn-fields"].items()
    }


def form_behaviour() -> dict[str, Any]:
    """Which standard fields the form has, and under which names, for Airflow before 3.2."""
    behaviour = CONNECTION_TYPE["ui-field-behaviour"]
    return {name.replace("-", "_"): value for name, value in behaviour.items()}
