"""Detection operators that run through a proxy, which counts requests and loses those that a test names."""

from __future__ import annotations

import json
from typing import Any

from task_context import context, unguarded
from trained_models import Account, plate

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionDetectAnomaliesOperator
from airflow_provider_lookoutvision.testing.lossy_proxy import Exchange, LossyProxy


class DetectionRuns:
    """Runs operators through a proxy that counts requests, and loses those that ``drop`` selects."""

    def __init__(self, account: Account, s3: Any, connect: Any) -> None:
        self.s3 = s3
        self.drop: Any = lambda _: False
        self.proxy = LossyProxy(account.service.endpoint_url, lambda exchange: bool(self.drop(exchange)))
        services = {"lookoutvision": self.proxy.endpoint_url, "s3": s3.meta.endpoint_url}
        self.conn_id = connect(
            login=account.key.access_key_id,
            password=account.key.secret_access_key,
            service_config={name: {"endpoint_url": url} for name, url in services.items()},
        )

    @property
    def detections(self) -> int:
        """How many detections were answered."""
        return sum(detecting(exchange) and not exchange.dropped for exchange in self.proxy.exchanges)

    def operator(self, **parameters: Any) -> LookoutVisionDetectAnomaliesOperator:
        given = {"project_name": "plates", "model_version": "1", **parameters}
        return LookoutVisionDetectAnomaliesOperator(task_id="task", aws_conn_id=self.conn_id, **given)

    def run(self, folder: str, cleared: int = 0, **parameters: Any) -> Any:
        """Run over a prefix, as a try of one task instance."""
        given = {
            "images_s3_prefix": f"s3://images/{folder}",
            "results_s3_uri": results_of(folder),
            **parameters,
        }
        return unguarded(self.operator(**given), context(folder, cleared=cleared))

    def lines(self, folder: str) -> list[dict[str, Any]]:
        found = self.s3.get_object(Bucket="reports", Key=f"{folder}run.jsonl")["Body"].read()
        return [json.loads(line) for line in found.splitlines()]

    def parts(self, folder: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket="reports", Prefix=f"{folder}run.jsonl.parts/")
        return [each["Key"] for each in found.get("Contents", ())]


def detecting(exchange: Exchange) -> bool:
    return exchange.path.endswith("/detect")


def results_of(folder: str) -> str:
    return f"s3://reports/{folder}run.jsonl"


def filled(s3: Any, folder: str) -> str:
    """Put twelve plates below a prefix, every third of them spotted; return the prefix."""
    for number in range(12):
        s3.put_object(Bucket="images", Key=f"{folder}{number:02}.png", Body=plate(number, number % 3 == 0))
    return folder
