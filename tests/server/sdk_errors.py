"""Errors as boto3 raises them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError


def error_response(call: Callable[..., Any], **members: Any) -> dict[str, Any]:
    """The response of a call that fails, as the SDK parsed it."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    return dict(caught.value.response)
