"""From a nightly batch to a better model: people label the images that the model was least sure of.

The verdicts of ``example_lookoutvision_batch`` start it. Their most uncertain images wait, each with its
picture, for somebody to say under *Required Actions* whether they are normal or an anomaly. The labels go
into the train dataset, and the dataset's event starts ``example_lookoutvision_retrain``, where somebody
approves the new model. It needs Airflow 3.1.

It works on the project of ``example_lookoutvision_train``, whose images are in the same bucket.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowOptionalProviderFeatureException,
    AssetAlias,
    Param,
    task,
)

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionUpdateDatasetEntriesOperator
from airflow_provider_lookoutvision.review import review_images

try:
    import airflow.providers.standard.operators.hitl  # noqa: F401
except (ImportError, AirflowOptionalProviderFeatureException):
    HAS_HITL = False
else:
    HAS_HITL = True

if HAS_HITL:
    with DAG(
        dag_id="example_lookoutvision_review",
        doc_md=__doc__,
        schedule=[AssetAlias("machined-parts-verdicts")],
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        is_paused_upon_creation=True,
        params={
            "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
            "project_name": Param("machined-parts", type="string", description="A project with datasets"),
        },
        default_args={
            "aws_conn_id": "{{ params.aws_conn_id }}",
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
        },
        tags=["example", "lookoutvision"],
    ) as dag:

        @task
        def uncertain_images(**context: Any) -> list[str]:
            """The uncertain images of the batches that have started this run."""
            events = context["triggering_asset_events"].values()
            return [uri for batch in events for event in batch for uri in event.extra["uncertain_refs"]]

        # [START howto_review_images]
        labels = review_images(
            uncertain_images(),
            aws_conn_id="{{ params.aws_conn_id }}",
            response_timeout=timedelta(days=5),
        )
        LookoutVisionUpdateDatasetEntriesOperator(
            task_id="add_to_dataset",
            project_name="{{ params.project_name }}",
            dataset_type="train",
            labels=labels,
            waiter_delay=2,
            outlets=[AssetAlias("machined-parts-dataset")],
        )
        # [END howto_review_images]
