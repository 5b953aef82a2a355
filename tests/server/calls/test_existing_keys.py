"""``lookoutvision keys import``: one key for S3 and for this service, as programs have it."""

from __future__ import annotations

import io
import json
import secrets
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from command_line import error_message, run_command
from sdk_errors import error_response
from services import REGION, NewService

from airflow_provider_lookoutvision.model import register_service_model
from airflow_provider_lookoutvision.testing.service import Service

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def at(service: Service) -> list[str | Path]:
    return ["--data-dir", service.data_dir, *service.flags]


def new_key_id() -> str:
    return f"AKIA{secrets.token_hex(8).upper()}"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    return tmp_path / "credentials"


def client(service: Service, key_id: str, secret: str = SECRET) -> Any:
    session = register_service_model(boto3.Session(key_id, secret, region_name=REGION))
    return session.client("lookoutvision", endpoint_url=service.endpoint_url)


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_one_credential_chain_for_s3_and_for_the_service(
    service: Service, new_service: NewService, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An S3 that checks keys, which knows one that this service doesn't.
    s3 = new_service("--no-worker")
    flags = ("--credentials-file", s3.data_dir / "credentials", "--account", account)
    imported = run_command("keys", "import", *flags, *at(service))
    assert (imported.status, imported.err) == (0, "")
    assert s3.secret_access_key not in imported.out
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": str(s3.data_dir / "credentials"),
        "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
        "AWS_ENDPOINT_URL_LOOKOUTVISION": service.endpoint_url,
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    session = register_service_model(boto3.Session())
    session.client("s3").create_bucket(
        Bucket="parts", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    arn = session.client("lookoutvision").create_project(ProjectName="p")["ProjectMetadata"]["ProjectArn"]
    assert arn.split(":")[4] == account
    assert [bucket["Name"] for bucket in session.client("s3").list_buckets()["Buckets"]] == ["parts"]


@pytest.mark.one_database
@pytest.mark.parametrize(
    "form",
    [
        json.dumps({"Version": 1, "AccessKeyId": "{id}", "SecretAccessKey": "{secret}"}),
        json.dumps({"AccessKey": {"UserName": "u", "AccessKeyId": "{id}", "SecretAccessKey": "{secret}"}}),
        "export AWS_ACCESS_KEY_ID={id}\nexport AWS_SECRET_ACCESS_KEY={secret}\n",
        "[default]\naws_access_key_id = {id}\n aws_secret_access_key={secret}\nregion = x\n",
    ],
    ids=["export-credentials", "create-access-key", "shell", "credentials file"],
)
def test_a_key_from_standard_input(
    form: str, service: Service, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = new_key_id()
    give(monkeypatch, form.replace("{id}", key_id).replace("{secret}", SECRET))
    flags = ("--stdin", "--account", account, "--allow", "lookoutvision:List*")
    assert run_command("keys", "import", *flags, *at(service)).status == 0
    assert client(service, key_id).list_projects()["Projects"] == []
    error = error_response(client(service, key_id).create_project, ProjectName="p")
    assert error["Error"]["Code"] == "AccessDeniedException"


def test_the_same_key_again_gets_other_permissions(
    service: Service, account: str, other_account: str, credentials: Path
) -> None:
    key_id = new_key_id()
    credentials.write_text(f"[factory]\naws_access_key_id = {key_id}\naws_secret_access_key = {SECRET}\n")
    flags = ("--profile", "factory", "--credentials-file", credentials, *at(service))
    assert run_command("keys", "import", *flags, "--account", account, "--allow", "s3:*").status == 0
    error = error_response(client(service, key_id).list_projects)
    assert error["Error"]["Code"] == "AccessDeniedException"
    assert run_command("keys", "import", *flags, "--account", account).status == 0
    assert client(service, key_id).list_projects()["Projects"] == []
    said = error_message(run_command("keys", "import", *flags, "--account", other_account))
    assert f"there is a key {key_id} of account {account} already" in said
    credentials.write_text(credentials.read_text().replace(SECRET, "another"))
    said = error_message(run_command("keys", "import", *flags, "--account", account))
    assert f"there is a key {key_id} with another secret already" in said
    assert "another\n" not in said
    assert client(service, key_id).list_projects()["Projects"] == []
    # A key whose secret was wrong: what a process has seen of the old one is no hindrance.
    assert run_command("keys", "delete", key_id, *at(service)).status == 0
    assert run_command("keys", "import", *flags, "--account", account).status == 0
    assert client(service, key_id, "another").list_projects()["Projects"] == []
    assert (
        error_response(client(service, key_id).list_projects)["Error"]["Code"] == "InvalidSignatureException"
    )


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "credentials can't be read: No such file or directory"),
        (f"aws_secret_access_key = {SECRET}\n", "is no credentials file of AWS's form"),
        ("[other]\n[third]\n", "has no profile 'default'; it has: other, third"),
        ("[default]\naws_access_key_id = AKIA1\n", "has no aws_access_key_id with an aws_secret_access_key"),
        (f"[default]\naws_access_key_id = a b\naws_secret_access_key = {SECRET}\n", "is not of 1 to 128"),
        (
            f"[default]\naws_access_key_id = A\naws_secret_access_key = {SECRET}\naws_session_token = t\n",
            "has temporary credentials, with a session token, which end within hours",
        ),
        (f"[default]\naws_access_key_id = ASIA1\naws_secret_access_key = {SECRET}\n", "keys create"),
    ],
)
def test_a_profile_that_can_not_be_used(
    content: str | None, said: str, service: Service, credentials: Path
) -> None:
    if content is not None:
        credentials.write_text(content)
    message = error_message(run_command("keys", "import", "--credentials-file", credentials, *at(service)))
    assert said in message
    assert SECRET not in message


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "standard input has no aws_access_key_id"),
        ("{", "begins like JSON, and is none"),
        ('{"AccessKey": 7}', "standard input has no aws_access_key_id"),
        (
            json.dumps({"AccessKeyId": "ASIA1", "SecretAccessKey": SECRET, "SessionToken": "t"}),
            "standard input has temporary credentials, with a session token",
        ),
    ],
)
def test_standard_input_that_can_not_be_used(
    text: str, said: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, text)
    message = error_message(run_command("keys", "import", "--stdin", *at(service)))
    assert said in message
    assert SECRET not in message
