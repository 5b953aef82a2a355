"""Runs a service with the demo's data, for people to look around in: `make console`."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from example_dags.demo import images, parts
from example_dags.demo.backends import IMAGES, Backends, leave_settings_of_others, running_backends
from example_dags.demo.report import say

_POLL_SECONDS = 1.0


def main() -> int:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser("python -m example_dags.demo.console", description=__doc__)
    parser.add_argument("--images", type=Path, help="as for the demo (default: drawn parts)")
    parser.add_argument("--no-model", action="store_true", help="don't train and host a model")
    arguments = parser.parse_args()
    leave_settings_of_others()
    collection = images.collect(arguments.images)
    with tempfile.TemporaryDirectory(prefix="lookoutvision-console-") as temporary:
        say("Starting a service ...")
        with running_backends(Path(temporary)) as backends:
            _say_where(backends)
            try:
                _fill(backends, collection, train=not arguments.no_model)
                say("\nCtrl+C ends it, and deletes all of it.")
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                say()
    return 0


def _say_where(backends: Backends) -> None:
    service = backends.service
    say(f"\n  {service.endpoint_url}/console/")
    say(f"  access key ID      {service.access_key_id}")
    say(f"  secret access key  {service.secret_access_key}\n")


def _fill(backends: Backends, collection: images.Collection, *, train: bool) -> None:
    name, client = collection.name, backends.client
    client.create_project(ProjectName=name)
    for kind, samples in (("train", collection.train), ("test", collection.test)):
        images.put(backends.s3, f"{name}/{kind}", samples)
        manifest = {"Bucket": IMAGES, "Key": f"{name}/{kind}.manifest"}
        source = {"GroundTruthManifest": {"S3Object": manifest}}
        client.create_dataset(ProjectName=name, DatasetType=kind, DatasetSource=source)
    _wait(lambda: client.describe_dataset(ProjectName=name, DatasetType="test")["DatasetDescription"])
    _wait(lambda: client.describe_dataset(ProjectName=name, DatasetType="train")["DatasetDescription"])
    say(f"The project {name} has its datasets: {collection.source}.")
    if not train:
        return
    output = {"S3Location": {"Bucket": IMAGES, "Prefix": "models/"}}
    client.create_model(ProjectName=name, OutputConfig=output)
    model = {"ProjectName": name, "ModelVersion": "1"}
    say("Model 1 is being trained, about a minute; the page shows how far it is.")
    trained = _wait(lambda: client.describe_model(**model)["ModelDescription"])
    if trained["Status"] != "TRAINED":
        say(f"It could not be trained: {trained['StatusMessage']}")
        return
    client.start_model(**model, MinInferenceUnits=1)
    _wait(lambda: client.describe_model(**model)["ModelDescription"])
    results = _batch(backends, model)
    say(f"Model 1 is hosted. Try it, or review what it is uncertain of: {results}")


def _batch(backends: Backends, model: dict[str, str]) -> str:
    """Verdicts on new parts, as the operator of detection writes them."""
    lines = []
    for part in parts.draw(normal=8, scratched=4, dented=4, seed=7):
        key = f"batch/{part.name}.png"
        backends.s3.put_object(Bucket=IMAGES, Key=key, Body=part.image)
        answer = backends.client.detect_anomalies(**model, Body=part.image, ContentType="image/png")
        result = answer["DetectAnomalyResult"]
        lines.append(
            {
                "source-ref": f"s3://{IMAGES}/{key}",
                "IsAnomalous": result["IsAnomalous"],
                "Confidence": result["Confidence"],
            }
        )
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    backends.s3.put_object(Bucket=IMAGES, Key="batch.jsonl", Body=body)
    return f"{backends.service.endpoint_url}/console/review?results=s3://{IMAGES}/batch.jsonl&below=0.99"


def _wait(describe: Any) -> Any:
    while True:
        found = describe()
        if not found["Status"].endswith(("IN_PROGRESS", "TRAINING", "STARTING_HOSTING")):
            return found
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
