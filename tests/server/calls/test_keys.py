"""``lookoutvision keys``, the first key, and where secrets are not."""

from __future__ import annotations

import configparser
import json
import re
import stat
import threading
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from command_line import error_message, run_command, start_command, wait_for_end, wait_until_listening
from cryptography.fernet import Fernet
from project_calls import names
from s3_clients import s3_client
from sdk_errors import error_response
from services import NewDatabase, NewService, Storage, client_of
from simultaneous import at_once

from airflow_provider_lookoutvision.server.calls import access
from airflow_provider_lookoutvision.server.serving import _make_first_key
from airflow_provider_lookoutvision.server.settings import Settings, SettingsError
from airflow_provider_lookoutvision.server.storage import encryption
from airflow_provider_lookoutvision.server.storage.opening import opened
from airflow_provider_lookoutvision.server.storage.schema import access_keys, lock
from airflow_provider_lookoutvision.testing.service import Key, Service


def at(service: Service) -> list[str | Path]:
    """The flags that lead a command to what a service keeps."""
    return ["--data-dir", service.data_dir, *service.flags]


def created(out: str, account: str = "123456789012") -> Key:
    key = json.loads(out)
    assert list(key) == ["AccessKeyId", "SecretAccessKey"]
    return Key(key["AccessKeyId"], key["SecretAccessKey"], account)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_made_beside_a_running_service_works_at_once(service: Service, account: str) -> None:
    outcome = run_command(
        *("keys", "create", "--json", *at(service), "--account", account),
        *("--allow", "lookoutvision:*Project*", "--allow", "lookoutvision:listmodels", "--project", "a*"),
    )
    assert (outcome.status, outcome.err) == (0, "")
    key = created(outcome.out, account)
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key.access_key_id)
    assert re.fullmatch(r"[A-Za-z0-9+/]{40}", key.secret_access_key)
    client = client_of(service.endpoint_url, key)
    arn = client.create_project(ProjectName="a")["ProjectMetadata"]["ProjectArn"]
    assert arn.split(":")[4] == account
    for call, members in (
        (client.create_project, {"ProjectName": "b"}),
        (client.list_tags_for_resource, {"ResourceArn": "arn"}),
    ):
        assert error_response(call, **members)["Error"]["Code"] == "AccessDeniedException"


def test_a_key_for_buckets_that_nobody_named_keeps_to_those_of_its_account(service: Service) -> None:
    first, second = "000000000201", "000000000202"
    own, granted = (
        created(
            run_command("keys", "create", "--json", *at(service), "--account", account, *flags).out, account
        )
        for account, flags in ((first, []), (second, ["--bucket", f"results-{first}"]))
    )
    stranger = created(run_command("keys", "create", "--json", *at(service), "--account", second).out, second)
    for name in (f"results-{first}", f"{first}-images"):
        s3_client(service.endpoint_url, own).create_bucket(Bucket=name)
    s3 = s3_client(service.endpoint_url, stranger)
    for name in (f"results-{first}", f"{first}-images", "images"):
        assert error_response(s3.list_objects_v2, Bucket=name)["Error"]["Code"] == "AccessDenied"
    assert s3.list_buckets()["Buckets"] == []
    output = {"S3Location": {"Bucket": f"results-{first}", "Prefix": ""}}
    client = client_of(service.endpoint_url, stranger)
    client.create_project(ProjectName="p")
    error = error_response(client.create_model, ProjectName="p", OutputConfig=output)
    assert error["Error"]["Code"] == "AccessDeniedException"
    # Unless it was told to, and in the first account, which is the operator's.
    assert (
        s3_client(service.endpoint_url, granted).list_objects_v2(Bucket=f"results-{first}")["KeyCount"] == 0
    )
    everything = created(run_command("keys", "create", "--json", *at(service)).out)
    assert s3_client(service.endpoint_url, everything).list_objects_v2(Bucket=f"results-{first}")


def test_a_deleted_key_is_refused_at_once(service: Service, storage: Storage, account: str) -> None:
    key, other = storage.new_key(account), storage.new_key(account)
    client = client_of(service.endpoint_url, key)
    assert names(client) == []
    assert run_command("keys", "delete", key.access_key_id, *at(service)).status == 0
    error = error_response(client.list_projects)
    assert error["Error"]["Code"] == "UnrecognizedClientException"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert names(client_of(service.endpoint_url, other)) == []
    assert key.access_key_id in error_message(run_command("keys", "delete", key.access_key_id, *at(service)))


def test_the_list_shows_keys_and_no_secrets(service: Service, storage: Storage, account: str) -> None:
    key = storage.new_key(account, allow=["lookoutvision:List*"], project=["a", "b-*"])
    text, document = (
        run_command("keys", "list", *at(service)),
        run_command("keys", "list", "--json", *at(service)),
    )
    (line,) = [line for line in text.out.splitlines() if key.access_key_id in line]
    assert account in line
    assert "actions: lookoutvision:List*" in line
    assert "projects: a b-*" in line
    (row,) = [row for row in json.loads(document.out) if row["AccessKeyId"] == key.access_key_id]
    assert (row["Account"], row["Actions"], row["Projects"]) == (
        account,
        ["lookoutvision:List*"],
        ["a", "b-*"],
    )
    with storage.database.read() as connection:
        sealed = connection.execute(sa.select(access_keys.c.sealed_secret)).scalars().all()
    for secret in (key.secret_access_key, service.secret_access_key, *sealed):
        assert secret not in text.out + document.out


def test_the_database_holds_no_secret_that_can_be_read(
    service: Service, storage: Storage, account: str
) -> None:
    key = storage.new_key(account)
    with storage.database.read() as connection:
        rows = connection.execute(access_keys.select()).all()
    assert key.access_key_id in str(rows)
    assert key.secret_access_key not in str(rows)
    for file in service.data_dir.glob("lookoutvision.db*"):
        assert key.secret_access_key.encode() not in file.read_bytes()


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--account", "12"], "'12' is not 12 digits"),
        (["--account", "12345678901a"], "is not 12 digits"),
        (["--account", "\uff11" * 12], "is not 12 digits"),
        (["--allow", "iam:GetUser"], "'iam:GetUser' must be * or begin with lookoutvision: or s3:"),
        (["--allow", "*", "--allow", "Describe*"], "'Describe*' must be"),
    ],
)
def test_keys_that_can_not_be(arguments: list[str], said: str, service: Service, storage: Storage) -> None:
    with storage.database.read() as connection:
        before = connection.execute(sa.select(sa.func.count()).select_from(access_keys)).scalar_one()
    assert said in error_message(run_command("keys", "create", "--json", *at(service), *arguments))
    with storage.database.read() as connection:
        count = sa.select(sa.func.count()).select_from(access_keys)
        assert connection.execute(count).scalar_one() == before


@pytest.mark.one_database
def test_the_first_key_is_in_a_file_for_its_owner_only(new_database: NewDatabase, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    flags = ["--data-dir", folder, "--port", "0", "--no-worker", *new_database()]
    said = []
    for _ in range(2):
        process = start_command("serve", *flags)
        text, endpoint_url = wait_until_listening(process)
        assert [mode(folder), mode(folder / "credentials"), mode(folder / "secret.key")] == [
            0o700,
            0o600,
            0o600,
        ]
        profile = configparser.ConfigParser()
        profile.read(folder / "credentials")
        key = Key(profile["default"]["aws_access_key_id"], profile["default"]["aws_secret_access_key"], "")
        assert names(client_of(endpoint_url, key)) == []
        process.terminate()
        outcome = wait_for_end(process)
        said.append(text + outcome.out + outcome.err)
        assert outcome.status == 0
        assert key.secret_access_key not in said[-1]
    assert f"The first access key is in {folder / 'credentials'}\n" in said[0]
    assert "access key is in" not in said[1]


@pytest.mark.one_database
def test_before_the_first_serve(new_database: NewDatabase, new_service: NewService, tmp_path: Path) -> None:
    folder, database = tmp_path / "data", new_database()
    outcome = wait_for_end(start_command("keys", "create", "--json", "--data-dir", folder, *database))
    assert (outcome.status, outcome.err) == (0, "")
    service = new_service("--no-worker", data_dir=folder, database=database)
    assert names(client_of(service.endpoint_url, created(outcome.out))) == []
    assert not (folder / "credentials").exists()


def test_all_at_one_instant_on_nothing(new_database: NewDatabase, tmp_path: Path) -> None:
    """Three keys and a service, all of which find neither a schema nor a secret key."""
    flags = ["--data-dir", tmp_path / "data", *new_database()]
    creating = [start_command("keys", "create", "--json", *flags) for _ in range(3)]
    serving = [start_command("serve", "--port", "0", "--no-worker", *flags)]
    try:
        outcomes = [wait_for_end(process) for process in creating]
        assert [(outcome.status, outcome.err) for outcome in outcomes] == [(0, "")] * 3
        listening = [wait_until_listening(process) for process in serving]
        for outcome in outcomes:
            for _, endpoint_url in listening:
                assert names(client_of(endpoint_url, created(outcome.out))) == []
    finally:
        for process in serving:
            process.terminate()
    assert [wait_for_end(process).status for process in serving] == [0]
    # If it came before any key, it made the first.
    firsts = sum("first access key" in said for said, _ in listening)
    assert firsts <= 1
    assert len(json.loads(run_command("keys", "list", "--json", *flags).out)) == 3 + firsts


def test_who_comes_second_finds_the_first_key(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (new_database() or ["", f"sqlite:///{tmp_path / 'shared.db'}"])[1]
    settings = Settings(data_dir=tmp_path / "data", database_url=url)
    with opened(settings) as (database, cipher), opened(settings) as (others, _):
        arrived, write = threading.Event(), others.write
        monkeypatch.setattr(others, "write", lambda: arrived.set() or write())
        second = threading.Thread(target=_make_first_key, args=(settings, others, cipher))
        with database.write() as connection:
            lock(connection, ("first key",))
            second.start()
            arrived.wait()
            second.join(0.5)  # so that it would be done by now, if it did not wait
            access.create_key(connection, cipher)
        second.join()
        with database.read() as connection:
            assert len(list(access.list_keys(connection))) == 1
    assert not (tmp_path / "data" / "credentials").exists()


def test_who_makes_the_secret_key_at_one_instant_has_the_same(tmp_path: Path) -> None:
    for number in range(20):
        ciphers = at_once([partial(encryption.load, tmp_path / str(number))] * 6)
        sealed = ciphers[0].encrypt("secret")
        assert [cipher.decrypt(sealed) for cipher in ciphers] == ["secret"] * 6
        assert [file.name for file in (tmp_path / str(number)).iterdir()] == ["secret.key"]


def test_the_secret_key_may_come_from_the_environment(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two machines with folders of their own, and one database.
    url = (new_database() or ["", f"sqlite:///{tmp_path / 'shared.db'}"])[1]
    here, there = (Settings(data_dir=tmp_path / name, database_url=url) for name in ("here", "there"))
    monkeypatch.setenv("LOOKOUTVISION_SECRET_KEY", Fernet.generate_key().decode())
    with opened(here) as (database, cipher), database.write() as connection:
        key, secret = access.create_key(connection, cipher)
    with opened(there) as (database, cipher), database.read() as connection:
        stored = access.find_key(connection, cipher, key.access_key_id)
        assert stored
        assert (stored.key, stored.secret) == (key, secret)
    assert not [*tmp_path.rglob("secret.key")]

    monkeypatch.setenv("LOOKOUTVISION_SECRET_KEY", Fernet.generate_key().decode())
    with pytest.raises(SettingsError, match="not that of the database"), opened(there):
        raise AssertionError("they do not belong together")
    monkeypatch.setenv("LOOKOUTVISION_SECRET_KEY", "too short")
    assert "32 bytes" in error_message(
        run_command("keys", "list", "--data-dir", here.data_dir, "--database-url", url)
    )
