"""The lifecycle in the getting-started notebook of the SDK ``lookoutvision``, as it is published.

Its waits sleep for a minute each, which here are a second.
"""

import json
import os
import sys
import time

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, 1))

from lookoutvision.lookoutvision import LookoutForVision  # noqa: E402
from lookoutvision.manifest import Manifest  # noqa: E402
from lookoutvision.metrics import Metrics  # noqa: E402

PROJECT = "of-the-sdk"
bucket = os.environ["BUCKET"]

sdk = LookoutForVision(project_name=PROJECT)
found = {"arn": sdk.create_project()}
manifests = Manifest(bucket=bucket, s3_path="sdk/", datasets=["training", "test"]).push_manifests()
found["datasets"] = {name: each["Status"] for name, each in sdk.create_datasets(manifests).items()}
found["trained"] = sdk.fit(output_bucket=bucket, model_prefix="sdk-")["status"]
metrics = Metrics(project_name=PROJECT)
found["metrics"] = sorted(metrics.describe_model()["Performance"].dropna().index)
sdk.deploy(model_version="1")
found["single"] = sdk.predict(model_version="1", bucket=bucket, key="sdk/test/normal/0.jpg")
sdk.batch_predict(
    model_version="1",
    input_bucket=bucket,
    input_prefix="sdk/test/anomaly/",
    output_bucket=bucket,
    output_prefix="sdk-verdicts/",
)
sdk.stop_model(model_version="1")
found["deleted"] = sdk.delete_lookoutvision_project(PROJECT)
json.dump(found, sys.stderr, default=str)
