"""A DAG chains datasets onto its project: images in, statistics out."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_lookoutvision.testing.service import Service
from example_dags.demo import images
from example_dags.demo.local_airflow import LocalAirflow
from example_dags.demo.project import NotAsPromised, connection
from example_dags.demo.report import facts, say, table

DAG_ID = "example_lookoutvision_dataset"


def run(service: Service, airflow: LocalAirflow, folder: Path | None) -> None:
    """Put images into a bucket, run the DAG, and print what the datasets hold.

    :param folder: where the images are; None for parts that the demo draws.
    :raises NoImages: when there are none.
    :raises NotAsPromised: when a dataset doesn't hold what its manifest lists.
    """
    manifests = images.prepare(service.data_dir, folder)
    say("A DAG fills the project's datasets")
    say()
    facts([("images", manifests.source), ("Airflow", f"`airflow dags test {DAG_ID}`")])
    say()
    airflow.test_dag(DAG_ID, {"aws_default": connection(service, service.endpoint_url)})
    report = airflow.result("report")
    rows = [
        (name, manifest, stats["Total"], stats["Labeled"], stats["Normal"], stats["Anomaly"])
        for (name, stats), manifest in zip(report.items(), (manifests.train, manifests.test), strict=True)
    ]
    table(("dataset", "manifest", "total", "labelled", "normal", "anomaly"), rows)
    say()
    for name, manifest, total, labelled, *_ in rows:
        listed = len((service.data_dir / "buckets" / manifest.removeprefix("s3://")).read_text().splitlines())
        if not listed == total == labelled:
            raise NotAsPromised(
                f"the {name} manifest lists {listed} labelled images, and the dataset has {total}"
            )
