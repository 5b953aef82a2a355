"""A program of a plant, with any boto3: images in S3, a dataset of them, verdicts of a hosted model.

It imports nothing but boto3, finds key and region in the environment, and prints JSON. An SDK that reads no
``AWS_ENDPOINT_URL_...`` is given ``ENDPOINT_URL``.
"""

import json
import os
import sys
import time

import boto3
from botocore.exceptions import ClientError


def main():
    endpoint = {"endpoint_url": os.environ["ENDPOINT_URL"]} if "--endpoint" in sys.argv else {}
    s3 = boto3.client("s3", **endpoint)
    client = boto3.client("lookoutvision", **endpoint)
    bucket, model = os.environ["BUCKET"], os.environ["PROJECT"]
    try:
        client.list_projects()
        s3.list_objects_v2(Bucket=bucket)
    except ClientError as error:
        json.dump({"refused": error.response["Error"]["Code"]}, sys.stdout)
        return
    project = f"of-boto3-{boto3.__version__.replace('.', '-')}-{os.getpid()}"
    name = f"{project}/part.jpg"
    image = s3.get_object(Bucket=bucket, Key=os.environ["NORMAL"])["Body"].read()
    s3.put_object(Bucket=bucket, Key=name, Body=image, ContentType="image/jpeg")
    line = {
        "source-ref": f"s3://{bucket}/{name}",
        "anomaly-label": 1,
        "anomaly-label-metadata": {"class-name": "normal", "type": "groundtruth/image-classification"},
    }
    s3.put_object(Bucket=bucket, Key=f"{project}.manifest", Body=json.dumps(line).encode())
    client.create_project(ProjectName=project)
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": bucket, "Key": f"{project}.manifest"}}}
    dataset = {"ProjectName": project, "DatasetType": "train"}
    client.create_dataset(**dataset, DatasetSource=source)
    while (described := client.describe_dataset(**dataset)["DatasetDescription"])[
        "Status"
    ] == "CREATE_IN_PROGRESS":
        time.sleep(0.2)
    entries = client.list_dataset_entries(**dataset)["DatasetEntries"]
    verdicts = {}
    for each in ("NORMAL", "ANOMALY"):
        body = s3.get_object(Bucket=bucket, Key=os.environ[each])["Body"]
        answer = client.detect_anomalies(
            ProjectName=model, ModelVersion="1", ContentType="image/jpeg", Body=body.read()
        )
        verdicts[each] = answer["DetectAnomalyResult"]["IsAnomalous"]
    evaluation = client.describe_model(ProjectName=model, ModelVersion="1")["ModelDescription"][
        "EvaluationResult"
    ]
    evaluated = json.loads(s3.get_object(**evaluation)["Body"].read())
    client.delete_dataset(**dataset)
    client.delete_project(ProjectName=project)
    json.dump(
        {
            "version": boto3.__version__,
            "dataset": [described["Status"], described["ImageStats"], [json.loads(each) for each in entries]],
            "verdicts": verdicts,
            "evaluated": evaluated["EvaluationDetails"]["NumberOfTestingImages"],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
