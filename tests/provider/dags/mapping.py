"""A DAG in which every operator and sensor is mapped over two projects, from their images to their deletion.

What waits does so in the task for the project ``left``, and deferred for ``right``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionBuildManifestOperator,
    LookoutVisionCreateDatasetOperator,
    LookoutVisionCreateModelOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionDeleteDatasetOperator,
    LookoutVisionDeleteModelOperator,
    LookoutVisionDeleteProjectOperator,
    LookoutVisionDetectAnomaliesOperator,
    LookoutVisionImportDatasetsOperator,
    LookoutVisionPromoteModelOperator,
    LookoutVisionSetThresholdOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionStartModelPackagingJobOperator,
    LookoutVisionStopModelOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)
from airflow_provider_lookoutvision.sensors.lookoutvision import (
    LookoutVisionDatasetSensor,
    LookoutVisionModelPackagingJobSensor,
    LookoutVisionModelSensor,
)
from airflow_provider_lookoutvision.triggers import lookoutvision as triggers

# Nothing can be overtaken where one process runs the tasks and their triggers.
triggers._FIRST_SECONDS = 0.0

PROJECTS = ["left", "right"]
KINDS = ["train", "test"]
WAITS = [
    {"project_name": "left", "deferrable": False, "defer_after": 0},
    {"project_name": "right", "deferrable": True, "defer_after": 0},
]
POKES = [
    {"project_name": "left", "deferrable": False, "defer_after": 0, "mode": "reschedule"},
    {"project_name": "right", "deferrable": True, "defer_after": 0, "mode": "poke"},
]
ADDED = {
    "source-ref": "s3://plates/{{ task.project_name }}/train/normal/0.png",
    "label": 0,
    "label-metadata": {"class-name": "normal", "type": "groundtruth/image-classification"},
}


@task
def report(place: str, results: dict[str, Any]) -> None:
    Path(place).write_text(json.dumps({name: list(of_each) for name, of_each in results.items()}))


with DAG(
    "mapping",
    schedule=None,
    params={"report": "/dev/null"},
    default_args={"aws_conn_id": "service", "retries": 0},
):
    manifest = LookoutVisionBuildManifestOperator.partial(
        task_id="build_manifest",
        manifests_s3_prefix="{{ task.images_s3_prefix | replace('plates', 'manifests') }}",
        test_size="{{ 0.0 }}",
        seed="{{ 7 }}",
    ).expand(images_s3_prefix=[f"s3://plates/{name}/{kind}/" for name in PROJECTS for kind in KINDS])
    project = LookoutVisionCreateProjectOperator.partial(task_id="create_project").expand(
        project_name=PROJECTS
    )
    dataset = LookoutVisionCreateDatasetOperator.partial(
        task_id="create_dataset",
        manifest_s3_uri="s3://manifests/{{ task.project_name }}/{{ task.dataset_type }}/train.manifest",
        waiter_delay=0.2,
    ).expand_kwargs([{**wait, "dataset_type": kind} for wait in WAITS for kind in KINDS])
    dataset_sensor = LookoutVisionDatasetSensor.partial(
        task_id="wait_for_dataset", dataset_type="train", poke_interval=1
    ).expand_kwargs(POKES)
    import_datasets = LookoutVisionImportDatasetsOperator.partial(
        task_id="import_datasets", source="s3://plates/{{ task.project_name }}/train/"
    ).expand(project_name=PROJECTS)
    entries = LookoutVisionUpdateDatasetEntriesOperator.partial(
        task_id="update_entries", dataset_type="train", changes=[ADDED], waiter_delay=0.2
    ).expand_kwargs(WAITS)
    model = LookoutVisionCreateModelOperator.partial(
        task_id="create_model", output_s3_prefix="s3://reports/{{ task.project_name }}/", waiter_delay=0.2
    ).expand_kwargs(WAITS)
    package = LookoutVisionStartModelPackagingJobOperator.partial(
        task_id="package",
        model_version="1",
        job_name="job",
        configuration={
            "Greengrass": {
                "S3OutputLocation": {"Bucket": "reports", "Prefix": "{{ task.project_name }}/"},
                "ComponentName": "{{ task.project_name }}",
            }
        },
        waiter_delay=0.2,
    ).expand_kwargs(WAITS)
    package_sensor = LookoutVisionModelPackagingJobSensor.partial(
        task_id="wait_for_package",
        job_name="job",
        poke_interval=1,
    ).expand_kwargs(POKES)
    threshold = LookoutVisionSetThresholdOperator.partial(
        task_id="set_threshold", model_version="latest", threshold="{{ 0.5 }}"
    ).expand(project_name=PROJECTS)
    promote = LookoutVisionPromoteModelOperator.partial(
        task_id="promote_model", model_version="latest", waiter_delay=0.2
    ).expand_kwargs(WAITS)
    start = LookoutVisionStartModelOperator.partial(
        task_id="start_model", model_version="stage=production", min_inference_units="1", waiter_delay=0.2
    ).expand_kwargs(WAITS)
    model_sensor = LookoutVisionModelSensor.partial(
        task_id="wait_for_model", model_version="1", state="hosted", poke_interval=1
    ).expand_kwargs(POKES)
    detect = LookoutVisionDetectAnomaliesOperator.partial(
        task_id="detect",
        model_version="1",
        images_s3_prefix="s3://plates/{{ task.project_name }}/test/normal/",
        results_s3_uri="s3://reports/{{ task.project_name }}.jsonl",
    ).expand(project_name=PROJECTS)
    stop = LookoutVisionStopModelOperator.partial(
        task_id="stop_model", model_version="1", waiter_delay=0.2
    ).expand_kwargs(WAITS)
    delete_dataset = LookoutVisionDeleteDatasetOperator.partial(
        task_id="delete_dataset", dataset_type="test"
    ).expand(project_name=PROJECTS)
    delete_model = LookoutVisionDeleteModelOperator.partial(
        task_id="delete_model", model_version="1", waiter_delay=0.2
    ).expand_kwargs(WAITS)
    delete_project = LookoutVisionDeleteProjectOperator.partial(
        task_id="delete_project", cascade="{{ true }}"
    ).expand(project_name=PROJECTS)

    manifest >> project >> dataset >> dataset_sensor >> import_datasets >> entries >> model
    model >> package >> package_sensor >> threshold >> promote >> start
    start >> model_sensor >> detect >> stop >> delete_dataset >> delete_model >> delete_project
    delete_project >> report(
        "{{ params.report }}",
        {
            "build_manifest": manifest.output,
            "create_project": project.output["ProjectName"],
            "create_dataset": dataset.output,
            "wait_for_dataset": dataset_sensor.output,
            "update_entries": entries.output,
            "create_model": model.output["Performance"],
            "set_threshold": threshold.output["Threshold"],
            "promote_model": promote.output["promoted"],
            "start_model": start.output["Status"],
            "wait_for_model": model_sensor.output,
            "detect": detect.output["total"],
            "stop_model": stop.output["Status"],
        },
    )
