"""The API's rules for what is sent: checked by its model before a call, nested members too.

botocore checks types and minimum lengths only. To find out the rest would cost a call, or what has been
written before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.operators.values import text, whole_number

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape


@cache
def service_model() -> ServiceModel:
    """The API's model, for checks that need no client."""
    from botocore.model import ServiceModel

    from airflow_provider_lookoutvision.model import API_VERSION, MODEL_PATH, SERVICE_NAME
    from airflow_provider_lookoutvision.model.loader import SharedLoader

    loader = SharedLoader([MODEL_PATH])
    return ServiceModel(loader.load_service_model(SERVICE_NAME, "service-2", API_VERSION), SERVICE_NAME)


def conform_input(operation: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """The members of an operation's input, as the API's model has them.

    :raises AirflowFailException: naming the member that breaks a rule.
    """
    shapes: Mapping[str, Any] = service_model().operation_model(operation).input_shape.members
    return {
        name: conform(name, value, shapes[name]) if name in shapes else value
        for name, value in members.items()
    }


def conform(name: str, value: Any, shape: Shape) -> Any:
    """A value as a shape of the API's model has it; what isn't of its type is left to botocore.

    :param name: names it in the error.
    :raises AirflowFailException: when it breaks the shape's rule.
    """
    rules: Any = shape
    match shape.type_name, value:
        case "string", None:
            return None
        case "string", _:
            return _conform_text(name, text(name, value) or "", rules.metadata)
        case "integer", _:
            return whole_number(name, value)
        case "structure", Mapping():
            return {
                member: conform(f"{name}.{member}", each, rules.members[member])
                if member in rules.members
                else each
                for member, each in value.items()
            }
        case "list", list() | tuple():
            return [conform(f"{name}[{index}]", each, rules.member) for index, each in enumerate(value)]
    return value


def _conform_text(name: str, value: str, rule: Mapping[str, Any]) -> str:
    shortest, longest = rule.get("min", 0), rule.get("max", math.inf)
    pattern, allowed = rule.get("pattern", "(?s:.*)"), rule.get("enum")
    if allowed and value not in allowed:
        raise AirflowFailException(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    try:
        matches: Any = re.fullmatch(pattern, value)
    except re.error:
        matches = True  # the classes of Unicode, in the patterns of tags, are the service's to check
    if not shortest <= len(value) <= longest or not matches:
        raise AirflowFailException(
            f"{name} {value!r} breaks the API's rule: {shortest} to {longest} characters that match {pattern}"
        )
    return value
