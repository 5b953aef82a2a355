"""Operators whose call carries a client token: the task instance's own, or one that the user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_lookoutvision.idempotency import is_retry
from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator, to_json

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# Between Airflow's machines and the service's: for a warning, and for what is said of a retry.
_CLOCK_SKEW = timedelta(minutes=1)
_RETRY_CLOCK_SKEW = timedelta(seconds=1)


class ClientTokenMixin(LookoutVisionBaseOperator):
    """What an operator adds whose call changes something.

    :param client_token: a token of your own, used as it is; by default the task instance's.
    """

    template_fields: Sequence[str] = (*LookoutVisionBaseOperator.template_fields, "client_token")

    def __init__(self, *, client_token: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.client_token = client_token

    def token(self, context: Context, *purpose: str) -> str:
        """Return the token for the operator's main call.

        :param purpose: distinguishes the call from others of the same task instance.
        """
        if self.client_token is not None:
            return self.client_token
        if is_retry(context):
            self.log.info("This is a retry, with the first try's client token: what that began goes on")
        return self.derived_token(context, *purpose)

    def log_age(self, context: Context, metadata: Mapping[str, Any]) -> None:
        """Log where the service answers with what was there before: an earlier try's, or a deleted run's.

        Before Airflow 3.3 a run that is deleted and created again under its ID has the tokens that it had.

        :param metadata: what the service answered, with ``CreationTimestamp``.
        """
        created = metadata["CreationTimestamp"]
        this_try = getattr(context["ti"], "start_date", None)
        if is_retry(context) and this_try and created < this_try - _RETRY_CLOCK_SKEW:
            self.log.info("An earlier try created it at %s: this try goes on with it", to_json(created))
        start = getattr(context.get("dag_run"), "start_date", None)
        first_try = self.client_token is None and context["ti"].try_number <= 1
        if first_try and start and created < start - _CLOCK_SKEW:
            self.log.warning(
                "This was created at %s, before this run began at %s: by an earlier run with this run_id. To "
                "create it anew, clear this task, or use another run_id",
                created.isoformat(),
                start.isoformat(),
            )
