"""The same with aiobotocore: verdicts of a hosted model for images in S3, several at a time."""

import asyncio
import json
import os
import sys

import aiobotocore
from aiobotocore.session import get_session


async def main() -> None:
    session = get_session()
    async with session.create_client("s3") as s3, session.create_client("lookoutvision") as client:

        async def verdict(name: str) -> bool:
            body = (await s3.get_object(Bucket=os.environ["BUCKET"], Key=os.environ[name]))["Body"]
            answer = await client.detect_anomalies(
                ProjectName=os.environ["PROJECT"],
                ModelVersion="1",
                ContentType="image/jpeg",
                Body=await body.read(),
            )
            return bool(answer["DetectAnomalyResult"]["IsAnomalous"])

        names = ("NORMAL", "ANOMALY")
        verdicts = dict(zip(names, await asyncio.gather(*map(verdict, names)), strict=True))
        pages = client.get_paginator("list_models").paginate(ProjectName=os.environ["PROJECT"])
        models = [model["ModelVersion"] async for page in pages for model in page["Models"]]
        await client.get_waiter("model_hosted").wait(ProjectName=os.environ["PROJECT"], ModelVersion="1")
    json.dump({"version": aiobotocore.__version__, "verdicts": verdicts, "models": models}, sys.stdout)


asyncio.run(main())
