"""The actions of ``lookoutvision keys``: create, import, list, delete and reset access keys."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lookoutvision.server import settings
from airflow_provider_lookoutvision.server.calls import existing_keys
from airflow_provider_lookoutvision.server.settings import SettingsError

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.server.calls.access import AccessKey


def add_actions(keys: argparse.ArgumentParser) -> Sequence[argparse.ArgumentParser]:
    """Add the actions; each still needs the settings that say where the keys are."""
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create an access key and print it, once")
    _add_permissions(create)
    create.add_argument(
        "--json", action="store_true", help="print AccessKeyId and SecretAccessKey as JSON, and nothing else"
    )
    create.set_defaults(run=_create_key)
    existing = actions.add_parser(
        "import", help="take an access key that exists elsewhere, so that one key serves S3 and this service"
    )
    source = existing.add_mutually_exclusive_group()
    source.add_argument(
        "--profile", metavar="NAME", help="of the credentials file (default: $AWS_PROFILE, or default)"
    )
    source.add_argument(
        "--stdin", action="store_true", help="read the key from standard input, as JSON or as name = value"
    )
    existing.add_argument(
        "--credentials-file",
        type=Path,
        metavar="FILE",
        help="(default: $AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/credentials)",
    )
    _add_permissions(existing)
    existing.set_defaults(run=_import_key)
    listing = actions.add_parser("list", help="list the access keys, without their secrets")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list_keys)
    delete = actions.add_parser("delete", help="delete an access key")
    delete.add_argument("access_key_id", metavar="ACCESS_KEY_ID")
    delete.set_defaults(run=_delete_key)
    reset = actions.add_parser(
        "reset", help="delete all access keys, after the secret key that encrypted them was lost"
    )
    reset.set_defaults(run=_reset_keys)
    return create, existing, listing, delete, reset


def _add_permissions(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--account", default=settings.DEFAULT_ACCOUNT, help="12 digits (default: %(default)s)"
    )
    command.add_argument(
        "--allow",
        action="append",
        metavar="ACTION",
        help="an action the key may call, as 'lookoutvision:Describe*' or 's3:GetObject'; may be repeated "
        "(default: all)",
    )
    command.add_argument(
        "--project",
        action="append",
        metavar="NAME",
        help="a pattern of project names that the key may see, as 'line-*'; may be repeated (default: all)",
    )
    command.add_argument(
        "--bucket",
        action="append",
        metavar="NAME",
        help="a pattern of bucket names that the key may use, as 'images-*'; may be repeated (default: "
        "'<account>-*' and '*-<account>'; all in the default account)",
    )


def _create_key(flags: argparse.Namespace) -> int:
    key, secret = _new_key(flags)
    if flags.json:
        print(json.dumps({"AccessKeyId": key.access_key_id, "SecretAccessKey": secret}))  # noqa: T201
    else:
        print(f"aws_access_key_id = {key.access_key_id}\naws_secret_access_key = {secret}")  # noqa: T201
        print(f"For account {key.account_id}. The secret is not shown again.", file=sys.stderr)  # noqa: T201
    return 0


def _import_key(flags: argparse.Namespace) -> int:
    found = (
        existing_keys.from_text(sys.stdin.read())
        if flags.stdin
        else existing_keys.from_profile(flags.profile, flags.credentials_file)
    )
    key, _ = _new_key(flags, found)
    print(f"The key {key.access_key_id} is a key of account {key.account_id} now.")  # noqa: T201
    return 0


def _new_key(flags: argparse.Namespace, existing: tuple[str, str] | None = None) -> tuple[AccessKey, str]:
    """Make a key with the permissions of the flags, or take an existing one: its ID and its secret."""
    from airflow_provider_lookoutvision.server.calls import access
    from airflow_provider_lookoutvision.server.storage.opening import opened
    from airflow_provider_lookoutvision.server.storage.wildcards import EVERYTHING

    with opened(settings.load(vars(flags))) as (database, cipher), database.write() as connection:
        try:
            return access.create_key(
                connection,
                cipher,
                account_id=flags.account,
                allowed_actions=flags.allow or EVERYTHING,
                allowed_projects=flags.project or EVERYTHING,
                allowed_buckets=flags.bucket,
                existing=existing,
            )
        except access.InvalidKey as error:
            raise SettingsError(str(error)) from None


def _list_keys(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server.calls import access
    from airflow_provider_lookoutvision.server.maintenance.opening import as_it_is

    with as_it_is(settings.load(vars(flags))) as (database, _), database.read() as connection:
        rows = [
            {
                "AccessKeyId": key.access_key_id,
                "Account": key.account_id,
                "Actions": list(key.allowed_actions),
                "Projects": list(key.allowed_projects),
                "Buckets": list(key.allowed_buckets),
                "CreateDate": datetime.fromtimestamp(key.created_at // 1000, UTC).isoformat(),
            }
            for key in access.list_keys(connection)
        ]
    if flags.json:
        print(json.dumps(rows, indent=2))  # noqa: T201
    else:
        for row in rows:
            print(  # noqa: T201
                f"{row['AccessKeyId']}  {row['Account']}  {row['CreateDate']}  "
                f"actions: {' '.join(row['Actions'])}  projects: {' '.join(row['Projects'])}  "
                f"buckets: {' '.join(row['Buckets'])}"
            )
    return 0


def _delete_key(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server.calls import access
    from airflow_provider_lookoutvision.server.maintenance.opening import as_it_is

    with as_it_is(settings.load(vars(flags))) as (database, _), database.write() as connection:
        deleted = access.delete_key(connection, flags.access_key_id)
    if not deleted:
        raise SettingsError(f"there is no key {flags.access_key_id}: `lookoutvision keys list` shows them")
    return 0


def _reset_keys(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server.storage import belonging
    from airflow_provider_lookoutvision.server.storage.opening import opened_database

    configuration = settings.load(vars(flags))
    with opened_database(configuration, create=False) as database:
        deleted = belonging.reset(configuration, database)
    print(f"{deleted} access keys are deleted: `lookoutvision keys create` makes new ones")  # noqa: T201
    return 0
