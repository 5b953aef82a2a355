"""What the operators share: the connection's parameters, checked calls, faults told apart, plain results.

Importing an operator imports neither boto3 nor the hook: a DAG file is parsed far more often than its tasks
run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator

from airflow_provider_lookoutvision.idempotency import client_token

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from botocore.exceptions import ClientError

    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

# A retry meets these again; the others (throttling, quotas, 5xx, lost connections) may have passed by then.
FAULTS_OF_THE_INPUT = frozenset(
    {
        "AccessDeniedException",
        "AuthorizationHeaderMalformed",
        "ConflictException",
        "InvalidSignatureException",
        "NotImplementedException",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
        "ValidationException",
    }
)

# The refusal of a conflict names the state that it met. These pass by themselves; and whoever looked at the
# state only then might find that it has passed, and take the refusal for another.
_PASSING_STATE = re.compile(
    r" is (\w+_IN_PROGRESS|TRAINING|STARTING_HOSTING|STOPPING_HOSTING|SYSTEM_UPDATING|DELETING)\b"
)


class LookoutVisionBaseOperator(BaseOperator):
    """The base of the operators.

    :param aws_conn_id: the Airflow connection, of type ``aws``; ``None`` for boto3's own configuration.
    :param region_name: the AWS region; by default the connection's.
    :param verify: whether, or with which bundle, TLS certificates are verified; by default as the connection
        says.
    :param botocore_config: arguments of ``botocore.config.Config``; by default the connection's
        ``config_kwargs``.
    """

    template_fields: Sequence[str] = ("aws_conn_id", "region_name", "verify", "botocore_config")
    # Of an operator that has them.
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("botocore_config", "changes", "configuration", "mask_colors", "tags"), "json"
    )
    ui_color = "#c2e6dd"

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    @cached_property
    def hook(self) -> LookoutVisionHook:
        """The hook, made when the task runs."""
        from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook

        return LookoutVisionHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )

    def derived_token(self, context: Context, *purpose: str) -> str:
        """Return this task instance's own client token; see :func:`.client_token`."""
        return client_token(context, *purpose, namespace=self.hook.client_token_namespace)

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of the service, and return the members of its answer.

        :param operation: the operation's name in the API, such as ``CreateProject``.
        :param parameters: the members of its input.
        :raises AirflowFailException: before the call, when a text breaks the API's rule for it.
        :raises botocore.exceptions.ClientError: when the service refuses.
        """
        from botocore import xform_name

        client = self.hook.conn
        rules = client.meta.service_model.operation_model(operation).input_shape.members
        for name, value in parameters.items():
            _check(name, value, rules[name].metadata)
        answer = getattr(client, xform_name(operation))(**parameters)
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


@contextmanager
def no_retry_for_faults_of_the_input() -> Iterator[None]:
    """Tell a retry's chances by the exception.

    :raises AirflowFailException: for the errors that a retry would meet again.
    :raises AirflowException: for a conflict with a state that passes. Other errors are left alone.
    """
    from botocore.exceptions import ClientError, ParamValidationError

    try:
        yield
    except ParamValidationError as error:
        raise AirflowFailException(str(error)) from error
    except ClientError as error:
        if is_busy(error):
            raise AirflowException(f"{error}. That passes: a retry of this task asks again") from error
        if error.response["Error"]["Code"] in FAULTS_OF_THE_INPUT:
            raise AirflowFailException(str(error)) from error
        raise


def is_busy(error: ClientError) -> bool:
    """Whether the service refuses something because of a state that passes by itself."""
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    return code == "ConflictException" and bool(_PASSING_STATE.search(message))


def for_xcom(value: Any) -> Any:
    """Return an answer of the service as plain data: its times as ISO 8601 text in UTC.

    Airflow can't read botocore's times back from an XCom unless the worker's time zone is UTC.
    """
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case dict():
            return {key: for_xcom(member) for key, member in value.items()}
        case list():
            return [for_xcom(member) for member in value]
        case _:
            return value


def _check(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    # botocore checks types and least lengths only. The rest would cost a call to find out.
    if not isinstance(value, str):
        return
    shortest, longest, pattern = rule.get("min", 0), rule.get("max", math.inf), rule.get("pattern", "(?s:.*)")
    if not shortest <= len(value) <= longest or not re.fullmatch(pattern, value):
        raise AirflowFailException(
            f"{name} {value!r} breaks the API's rule: {shortest} to {longest} characters that match {pattern}"
        )
