"""Anomaly maps: what DetectAnomalies of this package's service adds to its answer on request.

The request is a header that no AWS client sends. The result then has two more members:
`AnomalyMap`, a grey PNG of the whole image, 0 where nothing is anomalous and 255 where it is most, also from
models that make no masks; and `Probability`, that the image is anomalous, 0 to 1, whatever the threshold.
Importing this module imports only Python's standard library.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

HEADER: Final = "x-lookoutvision-anomaly-map"
MEMBERS: Final = {"AnomalyMap": {"shape": "AnomalyMask"}, "Probability": {"shape": "Float"}}

_EVENT = "{}.lookoutvision.DetectAnomalies"


def request_anomaly_maps(client: Any) -> None:
    """Have each `detect_anomalies` of a boto3 client request the anomaly map, and return it.

    The members are added to what `detect_anomalies` returns, `AnomalyMap` as bytes. A service that doesn't
    know the header, such as another implementation, answers without them.

    :param client: a boto3 or botocore client of the service, not one of aiobotocore.
    """
    client.meta.events.register(_EVENT.format("before-call"), _add_header)
    client.meta.events.register(_EVENT.format("after-call"), _add_members)


def _add_header(params: dict[str, Any], **_: Any) -> None:
    params["headers"][HEADER] = "true"


def _add_members(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
    result = parsed.get("DetectAnomalyResult")
    if result is None:
        return
    answer = json.loads(http_response.content)["DetectAnomalyResult"]
    if "AnomalyMap" in answer:
        result["AnomalyMap"] = base64.b64decode(answer["AnomalyMap"])
        result["Probability"] = answer["Probability"]
