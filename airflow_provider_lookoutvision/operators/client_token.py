"""Operators whose call carries a client token: the task instance's own, or one that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lookoutvision.operators.base import LookoutVisionBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


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
        return self.derived_token(context, *purpose) if self.client_token is None else self.client_token
