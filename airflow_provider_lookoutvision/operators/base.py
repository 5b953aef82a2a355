"""What the operators share: the connection's parameters, checked calls, retryable errors, results as JSON.

Importing an operator imports neither boto3 nor the hook: a DAG file is parsed far more often than its tasks
run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator

from airflow_provider_lookoutvision.idempotency import client_token
from airflow_provider_lookoutvision.operators.api_rules import conform_input
from airflow_provider_lookoutvision.operators.parameters import CHECKS, TEXT, rendered_as_text
from airflow_provider_lookoutvision.waiters.transient import error_response, is_busy, is_foreign, is_retryable

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lookoutvision.hooks.lookoutvision import LookoutVisionHook
    from airflow_provider_lookoutvision.operators.parameters import Check

_USED_BEFORE = (
    "An earlier try of this task, or an earlier run with this run_id, used the token. To have another token, "
    "clear the task, or start a run with another run_id"
)


class LookoutVisionBaseOperator(BaseOperator):
    """The base of the operators.

    :param aws_conn_id: the Airflow connection, of type ``lookoutvision`` or ``aws``; ``None`` for boto3's own
        configuration.
    :param region_name: the AWS region; by default the connection's.
    :param verify: whether, or with which bundle, TLS certificates are verified; by default as the connection
        says.
    :param botocore_config: arguments of ``botocore.config.Config``; by default the connection's
        ``config_kwargs``.
    """

    template_fields: Sequence[str] = ("aws_conn_id", "region_name", "verify", "botocore_config")
    # For the operators that have these fields.
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(
        ("botocore_config", "changes", "configuration", "labels", "mask_colors", "reference_map", "tags"),
        "json",
    )
    ui_color = "#c2e6dd"
    parameter_checks: ClassVar[Mapping[str, Check]] = CHECKS

    console_pages: Mapping[str, str] | None = None

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

    def check_parameters(self) -> None:
        """Make each parameter what the API takes: the first thing that a task does, and before it writes.

        :raises AirflowFailException: naming the parameter that can't be used.
        """
        for name in self.template_fields:
            if check := self.parameter_checks.get(name):
                setattr(self, name, check(name, getattr(self, name)))

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        # Where Airflow renders a task's parameters, mapped or not: nothing public knows their names.
        fields = tuple(template_fields)
        templates = {name: getattr(parent, name, None) for name in fields}
        super()._do_render_template_fields(parent, fields, context, jinja_env, seen_oids)
        for name, template in templates.items():
            if name in TEXT or (name == "tags" and isinstance(template, dict)):
                rendered = getattr(parent, name, None)
                setattr(parent, name, rendered_as_text(template, rendered, context, jinja_env))

    def persist_links(self, context: Context, project_name: str, **names: str) -> None:
        """Keep the addresses of the console's pages for the task's links; without any the task goes on.

        :param names: as for :func:`.console_pages`.
        """
        from airflow_provider_lookoutvision.links.lookoutvision import XCOM_KEY, console_pages

        if not self.do_xcom_push:
            return
        try:
            self.console_pages = console_pages(self.hook.console_url, str(project_name), **names)
            context["ti"].xcom_push(key=XCOM_KEY, value=self.console_pages)
        except Exception as error:  # a link is no reason for a task to fail
            self.log.debug("The task has no links: %s", error)

    def derived_token(self, context: Context, *purpose: str) -> str:
        """Return this task instance's own client token; see :func:`.client_token`."""
        return client_token(context, *purpose, namespace=self.hook.client_token_namespace)

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of the service, and return the members of its output.

        :param operation: the operation's name in the API, such as ``CreateProject``.
        :param parameters: the members of its input.
        :raises AirflowFailException: before the call, when a string breaks the API's constraint.
        :raises botocore.exceptions.ClientError: when the service refuses.
        """
        from botocore import xform_name
        from botocore.exceptions import ClientError

        members = conform_input(operation, parameters)
        try:
            answer = getattr(self.hook.conn, xform_name(operation))(**members)
        except ClientError as error:
            self._log_request(operation, error.response)
            raise
        self._log_request(operation, answer)
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}

    def _log_request(self, operation: str, answer: Mapping[str, Any]) -> None:
        """Log the ID under which the service's log has the request, and the job that it began."""
        if request_id := answer.get("ResponseMetadata", {}).get("RequestId"):
            self.log.info("%s was request %s", operation, request_id)


@contextmanager
def fail_fast_on_client_errors() -> Iterator[None]:
    """Raise AirflowFailException for errors that a retry of the task would meet again.

    :raises AirflowFailException: for these.
    :raises AirflowException: for a conflict with a state that ends by itself. Other errors are left alone.
    """
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        yield
    except ParamValidationError as error:
        raise AirflowFailException(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        response = error_response(error)
        if is_busy(response):
            raise AirflowException(f"{error}. This state ends by itself: let the task retry") from error
        if is_foreign(response):
            raise AirflowFailException(
                f"{error}. That is no error of a Lookout for Vision service: check the connection's endpoint"
            ) from error
        if not is_retryable(response):
            message = str(error) if isinstance(error, ClientError) else response["Error"]["Message"]
            if "use another token" in message:
                message += f". {_USED_BEFORE}"
            raise AirflowFailException(message) from error
        raise


def to_json(value: Any) -> Any:
    """Return a response of the service as plain data: times as ISO 8601 in UTC.

    Airflow can't read botocore's times back from an XCom unless the worker's time zone is UTC.
    """
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case dict():
            return {key: to_json(member) for key, member in value.items()}
        case list():
            return [to_json(member) for member in value]
        case _:
            return value
