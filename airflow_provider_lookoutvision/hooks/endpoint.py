"""Whether a connection leads to a Lookout for Vision service: checked of each client, and of each answer.

A configuration that can't work fails at once, since no retry of a task changes it, and the message names the
connection and the setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException
from botocore import exceptions

from airflow_provider_lookoutvision.model import SERVICE_NAME
from airflow_provider_lookoutvision.model.endpoints import is_ended_service


class LookoutVisionConfigurationError(AirflowFailException):
    """The connection can't work as it is configured, and a retry would not change that."""


class LookoutVisionEndpointError(LookoutVisionConfigurationError):
    """The endpoint isn't that of a Lookout for Vision service, or none is configured."""


@contextmanager
def configuration_errors(aws_conn_id: str | None) -> Iterator[None]:
    """Name the connection and the setting where botocore can't make a client.

    :raises LookoutVisionConfigurationError: for a missing region or profile, or an endpoint that is no URL.
    """
    where = f"the connection {aws_conn_id!r}" if aws_conn_id else "boto3's own configuration"
    try:
        yield
    except exceptions.NoRegionError as error:
        raise LookoutVisionConfigurationError(
            f"No region is configured: set region_name in the extra of {where}, the parameter region_name, "
            f"or AWS_DEFAULT_REGION.{_hint(aws_conn_id)}"
        ) from error
    except (exceptions.ProfileNotFound, exceptions.PartialCredentialsError) as error:
        raise LookoutVisionConfigurationError(f"{error}. See {where}.{_hint(aws_conn_id)}") from error
    except ValueError as error:
        if "endpoint" not in str(error).lower():
            raise
        raise LookoutVisionEndpointError(
            f"{error}. The endpoint of {where} must be a URL with its scheme, such as http://127.0.0.1:8320"
        ) from error


def refuse_aws(client: Any, aws_conn_id: str | None) -> None:
    """Refuse the endpoint of the AWS service, which has ended.

    :raises LookoutVisionEndpointError: when the client has it, because no other endpoint is configured.
    """
    # An endpoint can be configured in many places, and settings turn some of them off: the client has the
    # endpoint that botocore chose.
    url = client.meta.endpoint_url
    if is_ended_service(url):
        raise LookoutVisionEndpointError(
            f"No endpoint is configured for Lookout for Vision, and {url} is gone: AWS ended "
            "the service on 2025-10-31. Run `lookoutvision serve`, and name its URL in one of these: "
            f"the Endpoint of the connection {aws_conn_id!r}, if that is of the type lookoutvision; the "
            'extra of one of the type aws, as {"service_config": {"lookoutvision": {"endpoint_url": '
            '"http://127.0.0.1:8320"}}}, '
            'or as "endpoint_url" for all services; the variable AWS_ENDPOINT_URL_LOOKOUTVISION, or '
            "AWS_ENDPOINT_URL for all services; endpoint_url in the AWS configuration file. The "
            "connection's always counts, the others unless AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is set."
            f"{_hint(aws_conn_id)}"
        )


def check_answers(client: Any, aws_conn_id: str | None) -> None:
    """Let each successful answer of a client show that a Lookout for Vision service gave it.

    A login page, another API or a proxy answers 200 too. Taken for an answer, it would be waited for until
    the timeout, or for a deletion that has happened.
    """

    def check(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
        if response_dict["status_code"] >= 300 or _is_answer(operation_model, response_dict):
            return
        content_type = response_dict["headers"].get("content-type", "without a Content-Type")
        raise LookoutVisionEndpointError(
            f"{client.meta.endpoint_url} does not answer as a Lookout for Vision service: "
            f"{operation_model.name} was answered {response_dict['status_code']} ({content_type}). Check the "
            f"endpoint of the connection {aws_conn_id!r}"
        )

    client.meta.events.register(f"before-parse.{SERVICE_NAME}", check)


def _is_answer(operation_model: Any, response: Mapping[str, Any]) -> bool:
    """Whether a response is a JSON object with some of the operation's output members, if it has any."""
    members = operation_model.output_shape.members if operation_model.output_shape else {}
    if not response["body"]:
        return not members and "x-amzn-requestid" in response["headers"]
    try:
        document = json.loads(response["body"])
    except ValueError:
        return False
    return isinstance(document, dict) and (not members or not members.keys().isdisjoint(document))


def _hint(aws_conn_id: str | None) -> str:
    """What to know where the Amazon provider takes a missing connection for an empty one."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    if not aws_conn_id:
        return ""
    try:
        AwsBaseHook.get_connection(aws_conn_id)
    except AirflowNotFoundException:
        return f" There is no connection {aws_conn_id!r} in this Airflow."
    except Exception:  # what is wrong with it is in the error that this hint is for
        return ""
    return ""
