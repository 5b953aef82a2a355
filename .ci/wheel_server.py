"""Checks the wheel with the extra ``server``, in an environment without Airflow: it serves."""

from importlib.util import find_spec
from urllib.request import urlopen

from botocore.session import Session

from airflow_provider_lookoutvision.model import teach
from airflow_provider_lookoutvision.testing.service import running_service

assert find_spec("airflow") is None

with running_service() as service:
    client = teach(Session()).create_client(
        "lookoutvision",
        region_name="us-east-1",
        endpoint_url=service.endpoint_url,
        aws_access_key_id=service.access_key_id,
        aws_secret_access_key=service.secret_access_key,
    )
    arn = client.create_project(ProjectName="from-the-wheel")["ProjectMetadata"]["ProjectArn"]
    assert [project["ProjectArn"] for project in client.list_projects()["Projects"]] == [arn]
    for page in ("sign-in", "static/console.css", "static/gallery.js"):
        with urlopen(f"{service.endpoint_url}/console/{page}") as answer:
            assert answer.status == 200, page
print(f"served {arn}, and the console")
