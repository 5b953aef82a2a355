"""From folders of images in S3 to a project's datasets, for DAGs that are written as functions.

The images lie in ``normal/`` and ``anomaly/``, with masks in ``masks/scratch/``. A quarter of each is kept to
test with. A training that is given ``project_name=dataset["project_name"]`` begins when both datasets can be
used; see ``example_lookoutvision_train``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_lookoutvision.operators.lookoutvision import LookoutVisionCreateProjectOperator
from airflow_provider_lookoutvision.taskflow import image_dataset


@dag(
    doc_md=__doc__,
    schedule=None,
    params={
        "aws_conn_id": Param("aws_default", type="string", description="The connection to the service"),
        "project_name": Param("cast-parts", type="string", description="The project, which is made"),
        "images": Param("s3://images/line/", type="string", description="Where the images are"),
        "manifests": Param("s3://images/manifests/line/", type="string", description="Where manifests go"),
        "scratch": Param("#FFFFFF", type="string", description="The colour of scratches in the masks"),
    },
    default_args={
        "aws_conn_id": "{{ params.aws_conn_id }}",
        "retries": 1,
        "retry_delay": timedelta(seconds=1),
    },
    tags=["example", "lookoutvision"],
)
def example_lookoutvision_taskflow() -> None:
    project = LookoutVisionCreateProjectOperator(
        task_id="create_project",
        project_name="{{ params.project_name }}",
        if_exists="skip",
    )
    # [START howto_image_dataset]
    dataset = image_dataset(
        project.output["ProjectName"],
        images_s3_prefix="{{ params.images }}",
        manifests_s3_prefix="{{ params.manifests }}",
        test_size=0.25,
        mask_colors={"scratch": "{{ params.scratch }}"},
        waiter_delay=1,
    )
    # [END howto_image_dataset]

    @task
    def report(dataset: dict[str, Any]) -> dict[str, Any]:
        counts = {name: dataset[name]["ImageStats"] for name in ("train", "test")}
        for name, stats in counts.items():
            manifest = dataset["manifests"][f"{name}_manifest_s3_uri"]
            print(f"{manifest}: {stats['Normal']} normal, {stats['Anomaly']} anomalous")
        return counts

    report(dataset)


example_lookoutvision_taskflow()
