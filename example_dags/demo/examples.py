"""Runs the examples of models in a real Airflow, one after another, as their users would.

``make examples`` does it, or ``python -m example_dags.demo.examples`` in the repository's folder: train a
model, promote one that is as good, turn down one that isn't better, and look at a night's images with the one
in use. The exit status is 0 when each did what it says.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from example_dags.demo import images
from example_dags.demo.backends import IMAGES, RESULTS, Backends, leave_settings_of_others, running_backends
from example_dags.demo.local_airflow import LocalAirflow
from example_dags.demo.report import say
from example_dags.demo.samples import Sample

TRAIN, PROMOTE, BATCH = (f"example_lookoutvision_{name}" for name in ("train", "promote", "batch"))


class Examples:
    """The examples, in the order in which they build on each other; each asserts what it is to do."""

    def __init__(self, backends: Backends, airflow: LocalAirflow) -> None:
        self._backends, self._airflow = backends, airflow
        # As few as the service takes: there are three trainings.
        train, test = images.split(images.drawn(normal=20, scratched=20, dented=0))
        images.put(backends.s3, "train", train)
        self._tested = images.put(backends.s3, "test", test)

    def run(self) -> None:
        """Run them all."""
        for example in (self.train, self.promote, self.turn_down, self.batch):
            begin = time.monotonic()
            told = example()
            say(f"  {example.__name__:<10}  {told} ({time.monotonic() - begin:.0f} s)")

    def train(self) -> str:
        """The first model is good enough; it is in use from now on."""
        self._test(TRAIN, min_f1=0.8, stage="production")
        metrics = self._airflow.result(TRAIN, "report")
        assert metrics["F1Score"] >= 0.8
        assert self._stages() == {"1": "production"}
        return f"model 1 has F1 {metrics['F1Score']:.3f}, and is in use"

    def promote(self) -> str:
        """The second is as good, and takes its place."""
        self._test(PROMOTE)
        assert self._airflow.result(PROMOTE, "promote") == "2"
        assert self._stages() == {"1": "retired", "2": "production"}
        return "model 2 is as good, and is in use instead"

    def turn_down(self) -> str:
        """The third would have to be better by more than there is."""
        self._test(PROMOTE, min_gain=1)
        assert self._stages() == {"1": "retired", "2": "production"}
        return "model 3 is not better by 1.0, and is deleted"

    def batch(self) -> str:
        """Two stations have images tonight; the model is hosted no longer than it takes."""
        stations: dict[str, list[tuple[str, Sample]]] = {"press-1": [], "press-2": []}
        for number, (source_ref, sample) in enumerate(self._tested.items()):
            name = ("press-1", "press-2")[number % 2]
            key = source_ref.replace(f"s3://{IMAGES}/test/", f"line/{name}/")
            self._backends.s3.put_object(Bucket=IMAGES, Key=key, Body=sample.image)
            stations[name].append((f"s3://{IMAGES}/{key}", sample))
        self._test(BATCH)
        counts = self._airflow.result(BATCH, "report")
        assert counts["total"] == len(self._tested)
        assert not counts["failed"]
        listed = self._backends.s3.list_objects_v2(Bucket=RESULTS, Prefix="nightly/")["Contents"]
        for (name, expected), found in zip(stations.items(), listed, strict=True):
            assert found["Key"].endswith(f"/{name}.jsonl"), found["Key"]
            content = self._backends.s3.get_object(Bucket=RESULTS, Key=found["Key"])["Body"].read()
            lines = [json.loads(line) for line in content.splitlines()]
            assert [line["source-ref"] for line in lines] == sorted(uri for uri, _ in expected)
        model = self._backends.client.describe_model(ProjectName=images.PARTS, ModelVersion="2")
        assert model["ModelDescription"]["Status"] == "TRAINED"
        return f"{counts['anomalous']} of {counts['total']} images at {len(stations)} stations are anomalous"

    def _test(self, dag_id: str, **params: Any) -> None:
        self._airflow.test_dag(dag_id, self._backends.connection(), project_name=images.PARTS, **params)

    def _stages(self) -> dict[str, str]:
        client = self._backends.client
        tags = {
            model["ModelVersion"]: client.list_tags_for_resource(ResourceArn=model["ModelArn"])["Tags"]
            for model in client.list_models(ProjectName=images.PARTS)["Models"]
        }
        return {version: tag["Value"] for version, each in tags.items() for tag in each}


def main() -> None:
    """Run the examples against a service, an S3 and an Airflow of their own."""
    leave_settings_of_others()
    with (
        tempfile.TemporaryDirectory(prefix="lookoutvision-examples-") as temporary,
        running_backends(Path(temporary) / "service") as backends,
    ):
        say("The examples of models, with `airflow dags test`, on parts that are drawn:")
        airflow = LocalAirflow(Path(temporary) / "airflow", dags=Path(__file__).parents[1])
        Examples(backends, airflow).run()


if __name__ == "__main__":
    main()
