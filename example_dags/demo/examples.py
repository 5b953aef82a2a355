"""Runs the examples in a real Airflow, one after another, as their users would.

``make examples`` does it, or ``python -m example_dags.demo.examples`` in the repository's folder: make
datasets of folders, train a model, promote one that is as good, turn down one that isn't better, and look at
a night's images with the one in use. Then the lineage in OpenLineage must lead from a verdict back to
the images. The exit status is 0 when each did what it says.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from example_dags.demo import images, parts
from example_dags.demo.backends import IMAGES, RESULTS, Backends, leave_settings_of_others, running_backends
from example_dags.demo.local_airflow import LocalAirflow
from example_dags.demo.report import say
from example_dags.demo.samples import Sample

TASKFLOW, DATASETS, TRAIN, PROMOTE, PACKAGING, BATCH = (
    f"example_lookoutvision_{name}"
    for name in ("taskflow", "folders", "train", "promote", "packaging", "batch")
)
FOLDERS = "folders/"

Place = tuple[str, str]


class Examples:
    """The examples, in the order in which they build on each other; each asserts what it is to do."""

    def __init__(self, backends: Backends, airflow: LocalAirflow, events: Path) -> None:
        self._backends, self._airflow, self._events = backends, airflow, events
        # As few as the service takes: there are three trainings.
        train, test = images.split(images.drawn(normal=20, scratched=20, dented=0))
        images.put(backends.s3, "train", train)
        self._tested = images.put(backends.s3, "test", test)

    def run(self) -> None:
        """Run them all."""
        for example in (
            *(self.taskflow, self.datasets, self.train, self.promote),
            *(self.turn_down, self.packaging, self.batch, self.lineage),
        ):
            begin = time.monotonic()
            summary = example()
            say(f"  {example.__name__:<10}  {summary} ({time.monotonic() - begin:.0f} s)")

    def taskflow(self) -> str:
        """Folders become two datasets, a quarter of each kind in the test dataset."""
        for sample in images.drawn(normal=8, scratched=8, dented=0):
            objects = {f"{sample.label}/{sample.name}": sample.image}
            if sample.mask:
                objects[f"masks/{sample.defect}/{sample.name}"] = sample.mask
            for key, content in objects.items():
                self._backends.s3.put_object(Bucket=IMAGES, Key=FOLDERS + key, Body=content)
        scratch = parts.COLORS["scratch"]
        self._test(TASKFLOW, project_name="folders", images=f"s3://{IMAGES}/{FOLDERS}", scratch=scratch)
        counts = self._airflow.result(TASKFLOW, "report")
        assert {name: (each["Normal"], each["Anomaly"]) for name, each in counts.items()} == {
            "train": (6, 6),
            "test": (2, 2),
        }
        return "folders of 16 images are a train and a test dataset"

    def datasets(self) -> str:
        """The same folders become datasets again; one image is labelled anew, and all is deleted."""
        manifest = self._backends.s3.get_object(Bucket=IMAGES, Key="manifests/line/train.manifest")
        lines = map(json.loads, manifest["Body"].iter_lines())
        (mislabelled, *_) = (line["source-ref"] for line in lines if line["anomaly-label"])
        self._test(DATASETS, "labelled-parts", images=f"s3://{IMAGES}/{FOLDERS}", mislabelled=mislabelled)
        stats = self._airflow.result(DATASETS, "label_anew")["ImageStats"]
        assert (stats["Normal"], stats["Anomaly"]) == (7, 5), stats
        projects = self._backends.client.list_projects()["Projects"]
        assert "labelled-parts" not in {project["ProjectName"] for project in projects}
        return "one of 12 images to train with is labelled anew"

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
        promoted = self._airflow.result(PROMOTE, "promote")
        assert (promoted["ModelVersion"], promoted["replaced"]) == ("2", ["1"])
        assert self._stages() == {"1": "retired", "2": "production"}
        return "model 2 is as good, and is in use instead"

    def turn_down(self) -> str:
        """The third would have to be better by more than there is."""
        self._test(PROMOTE, min_gain=1)
        assert self._stages() == {"1": "retired", "2": "production"}
        return "model 3 is not better by 1.0, and is deleted"

    def packaging(self) -> str:
        """The newest model is found at once, and is a component in S3 soon after."""
        self._test(PACKAGING)
        assert self._airflow.result(PACKAGING, "is_trained")["ModelVersion"] == "2"
        job = self._airflow.result(PACKAGING, "is_packaged")
        made = job["ModelPackagingOutputDetails"]["Greengrass"]
        key = f"components/{made['ComponentName']}-{made['ComponentVersion']}.zip"
        size = self._backends.s3.head_object(Bucket=RESULTS, Key=key)["ContentLength"]
        component = f"{made['ComponentName']} {made['ComponentVersion']}"
        return f"model 2 is the component {component}, {size / 1e6:.0f} MB"

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

    def lineage(self) -> str:
        """OpenLineage has what each task read and wrote."""
        account = "lookoutvision://us-east-1/123456789012"
        (verdicts, *_) = (
            name for bucket, name in self._inputs if bucket == f"s3://{RESULTS}" and "press-1" in name
        )
        upstream = self._upstream((f"s3://{RESULTS}", verdicts))
        assert upstream >= {
            (f"s3://{IMAGES}", "line/press-1/"),
            (account, f"model/{images.PARTS}/2"),
            (account, f"dataset/{images.PARTS}/train"),
            (f"s3://{IMAGES}", "train.manifest"),
        }, upstream
        upstream = self._upstream((account, "dataset/folders/test"))
        assert upstream == {
            (f"s3://{IMAGES}", "manifests/line/test.manifest"),
            (f"s3://{IMAGES}", FOLDERS),
        }, upstream
        return "a verdict leads back to the model, to its datasets and to the images"

    @property
    def _inputs(self) -> dict[Place, set[Place]]:
        """The inputs of each dataset, by OpenLineage's events."""
        inputs: dict[Place, set[Place]] = {}
        for line in self._events.read_text().splitlines():
            event = json.loads(line)
            if event["eventType"] == "COMPLETE":
                read = {(each["namespace"], each["name"]) for each in event["inputs"]}
                for each in event["outputs"]:
                    inputs.setdefault((each["namespace"], each["name"]), set()).update(read)
        return inputs

    def _upstream(self, place: Place) -> set[Place]:
        """All datasets upstream of one, near and far."""
        inputs = self._inputs
        found: set[Place] = set()
        left = [place]
        while left:
            new = inputs.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    def _test(self, dag_id: str, project_name: str = images.PARTS, **params: Any) -> None:
        self._airflow.test_dag(dag_id, self._backends.connection(), project_name=project_name, **params)

    def _stages(self) -> dict[str, str]:
        client = self._backends.client
        tags = {
            model["ModelVersion"]: client.list_tags_for_resource(ResourceArn=model["ModelArn"])["Tags"]
            for model in client.list_models(ProjectName=images.PARTS)["Models"]
        }
        return {
            version: tag["Value"] for version, each in tags.items() for tag in each if tag["Key"] == "stage"
        }


def main() -> None:
    """Run the examples against a service and an Airflow of their own."""
    leave_settings_of_others()
    with (
        tempfile.TemporaryDirectory(prefix="lookoutvision-examples-") as temporary,
        running_backends(Path(temporary) / "service") as backends,
    ):
        say("The examples, with `airflow dags test`, on parts that are drawn:")
        events = Path(temporary) / "openlineage.jsonl"
        transport = {"type": "file", "log_file_path": str(events), "append": True}
        os.environ["AIRFLOW__OPENLINEAGE__TRANSPORT"] = json.dumps(transport)
        airflow = LocalAirflow(Path(temporary) / "airflow", dags=Path(__file__).parents[1])
        airflow.reserialize()
        Examples(backends, airflow, events).run()


if __name__ == "__main__":
    main()
