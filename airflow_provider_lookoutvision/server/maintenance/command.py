"""The commands ``check``, ``backup`` and ``restore``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from airflow_provider_lookoutvision.server import settings as settings_module


def add_check(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``check``, and what it runs."""
    parser.add_argument("--mend", action="store_true", help="put right what can be")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_check)


def add_backup(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``backup``, and what it runs."""
    parser.add_argument("destination", type=Path, metavar="FOLDER", help="a folder that isn't there yet")
    parser.add_argument(
        "--without-buckets", action="store_true", help="leave the images and results in folder buckets out"
    )
    parser.set_defaults(run=_back_up)


def add_restore(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``restore``, and what it runs."""
    parser.add_argument("source", type=Path, metavar="FOLDER", help="what `lookoutvision backup` has made")
    parser.set_defaults(run=_restore)


def _check(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server.maintenance import check
    from airflow_provider_lookoutvision.server.maintenance.opening import as_it_is

    settings = settings_module.load(vars(flags))
    with as_it_is(settings) as (database, cipher):
        findings = check.check(settings, database, cipher)
        mended = check.mend(settings, database, findings) if flags.mend else 0
    if flags.json:
        rows = [
            {"where": each.where, "what": each.what, "remedy": each.remedy, "mendable": each.mend is not None}
            for each in findings
        ]
        print(json.dumps({"findings": rows, "mended": mended}, indent=2))  # noqa: T201
    else:
        for each in findings:
            print(f"{each.where}: {each.what}. {_what_happens(each, flags.mend)}")  # noqa: T201
        print(f"{len(findings)} found, {mended} mended")  # noqa: T201
    return 1 if len(findings) > mended else 0


def _what_happens(finding: object, mends: bool) -> str:
    remedy, can_be = getattr(finding, "remedy", ""), getattr(finding, "mend", None) is not None
    if not can_be:
        return f"To do: {remedy}"
    return f"Mended: {remedy}" if mends else f"With --mend: {remedy}"


def _back_up(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server.maintenance.backup import back_up
    from airflow_provider_lookoutvision.server.maintenance.opening import as_it_is

    settings = settings_module.load(vars(flags))
    with as_it_is(settings) as (database, _):
        made = back_up(settings, database, flags.destination, buckets=not flags.without_buckets)
    print(f"{flags.destination}: {sum(made['rows'].values())} rows" + _contents(made))  # noqa: T201
    if made["secret_key"]:
        print("It has the secret key: keep it as safe as the service.", file=sys.stderr)  # noqa: T201
    return 0


def _contents(made: dict[str, object]) -> str:
    return ", and the folder buckets" if made["buckets"] else ", without buckets"


def _restore(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server.maintenance.restore import restore

    settings = settings_module.load(vars(flags))
    made = restore(settings, flags.source)
    print(f"Restored the service of {made['created']}" + _contents(made))  # noqa: T201
    return 0
