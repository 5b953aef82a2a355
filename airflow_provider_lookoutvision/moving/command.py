"""The commands of the way over: ``lookoutvision import``, ``export`` and ``doctor``.

What they need is imported when they run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_lookoutvision.moving.reading import FORMATS

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.moving.clients import Clients
    from airflow_provider_lookoutvision.moving.doctor import Check
    from airflow_provider_lookoutvision.moving.plan import Plan
    from airflow_provider_lookoutvision.moving.reading import Options

Item = TypeVar("Item")
INTERRUPTED = 130
_GOES_ON = "The same command goes on where this one was"
IF_EXISTS = ("fail", "skip", "update")
DEFAULT_ENDPOINT = "http://127.0.0.1:8320"


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``import``."""
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder, a file, an archive, or s3://bucket/prefix/"
    )
    parser.add_argument("--project", metavar="NAME", help="the project, where the source doesn't say")
    parser.add_argument(
        "--to", metavar="S3_PREFIX", help="where what isn't in S3 goes, as s3://images/line-1/"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--format", choices=FORMATS, help="of the source, where it may be of several")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="references that begin with OLD lead to NEW, as s3://old/=s3://new/, or s3://old/=./images/ "
        "for a folder to upload; may be repeated",
    )
    parser.add_argument(
        "--dataset",
        choices=("train", "test"),
        help="where the source doesn't say (default: train)",
    )
    parser.add_argument(
        "--test-size",
        type=float,
        metavar="PART",
        help="the part of the images to test with, as 0.2",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one divides otherwise")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=LABEL",
        help="what a label of the source means, as OK=normal or scratch=anomaly; may be repeated",
    )
    parser.add_argument("--no-masks", action="store_true", help="labels only")
    parser.add_argument("--mask-class", metavar="NAME", help="one class for all masks")
    parser.add_argument(
        "--mask-color",
        action="append",
        default=[],
        metavar="CLASS=#RRGGBB",
        help="the colour of a class in the masks; may be repeated",
    )
    parser.add_argument("--skip-missing", action="store_true", help="leave out images that aren't there")
    parser.add_argument("--overwrite", action="store_true", help="overwrite other objects below --to")
    parser.add_argument("--create-bucket", action="store_true", help="make the bucket, if there is none")
    parser.add_argument(
        "--if-exists",
        choices=IF_EXISTS,
        default="fail",
        help="about a dataset with other entries: fail, skip it, or update it with what it lacks (default: "
        "%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    add_client_arguments(parser)
    parser.set_defaults(run=run_import, extra="moving")


def run_import(flags: argparse.Namespace) -> int:
    """Import a source; 0, or 2 with what is in the way."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    from airflow_provider_lookoutvision.moving import importing
    from airflow_provider_lookoutvision.moving.errors import MovingError
    from airflow_provider_lookoutvision.moving.sources import refusal

    made = clients_of(flags)
    try:
        plan = _plan(flags, made)
        if plan.missing:
            print("\n".join(plan.missing), file=sys.stderr if flags.json else sys.stdout)
            if not flags.skip_missing:
                raise MovingError(
                    f"{len(plan.missing)} images or masks are missing, listed above. --map says where they "
                    "are, --skip-missing leaves them out"
                )
        _describe(plan)
        if flags.dry_run:
            say("Nothing was changed: a dry run")
            return _print(flags, {each.id: len(each.lines) for each in plan.datasets})
        result = importing.carry_out(
            plan,
            client=made.service,
            s3=made.s3,
            if_exists=flags.if_exists,
            create_bucket=flags.create_bucket,
            progress=bar,
            say=say,
        )
    except ClientError as error:
        failure = refusal(error, "")
        raise failure if isinstance(failure, MovingError) else MovingError(f"{error}. {_GOES_ON}") from error
    except ParamValidationError as error:
        raise MovingError(str(error)) from error
    except BotoCoreError as error:
        raise MovingError(f"{error}. {_GOES_ON}") from error
    except KeyboardInterrupt:
        say(f"Interrupted. {_GOES_ON}")
        return INTERRUPTED
    return _print(flags, {name: each.description["ImageStats"] for name, each in result.items()})


def _plan(flags: argparse.Namespace, made: Clients) -> Plan:
    from airflow_provider_lookoutvision.moving import formats, places, plan
    from airflow_provider_lookoutvision.moving.reading import check_project_name

    check_project_name(flags.project)
    source, name = formats.open_source(flags.source, lambda: made.s3)
    kind, reading = formats.read(source, name, _options(flags), flags.format)
    say(f"{source.uri}{name or ''}: {len(reading.entries)} images, as {kind}")
    for remark in reading.remarks:
        say(remark)
    return plan.make_plan(
        source,
        reading.entries,
        s3=made.s3,
        project=flags.project,
        maps=places.parse_maps(flags.map),
        to=flags.to,
        skip_missing=flags.skip_missing,
        overwrite=flags.overwrite,
        progress=bar,
    )


def _options(flags: argparse.Namespace) -> Options:
    from airflow_provider_lookoutvision.moving.reading import make_options

    return make_options(
        dataset=flags.dataset,
        labels=_pairs("--label", flags.label),
        colors=_pairs("--mask-color", flags.mask_color),
        mask_class=flags.mask_class,
        masks=not flags.no_masks,
        test_size=flags.test_size,
        seed=flags.seed,
    )


def _pairs(flag: str, given: list[str]) -> dict[str, str]:
    from airflow_provider_lookoutvision.moving.errors import MovingError

    pairs = {}
    for each in given:
        name, equals, value = each.rpartition("=")
        if not equals or not name:
            raise MovingError(f"{flag} {each} has no name and value, as NAME=VALUE")
        pairs[name] = value
    return pairs


def _describe(plan: Plan) -> None:
    for remark in plan.remarks:
        say(remark)
    for dataset in plan.datasets:
        say(str(dataset))
    size = sum(upload.size for upload in plan.uploads.values())
    if plan.uploads or plan.present:
        say(
            f"{len(plan.uploads)} files to upload to s3://{plan.bucket}/{plan.prefix} ({size / 1e6:.1f} MB), "
            f"{plan.present} are there already"
        )


def _print(flags: argparse.Namespace, result: dict[str, Any]) -> int:
    if flags.json:
        print(json.dumps(result, indent=2))  # noqa: T201
    return 0


def say(text: str) -> None:
    """Report to the user, beside the result."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def bar(items: Iterable[Item], total: int, what: str) -> Iterable[Item]:
    """A progress bar, where somebody looks at one."""
    from tqdm import tqdm

    shown: Iterable[Item] = tqdm(items, total=total, desc=what, unit="file", disable=None, leave=False)
    return shown


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``export``."""
    parser.add_argument("project", metavar="PROJECT", help="the project's name")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the archive (default: PROJECT.zip)")
    parser.add_argument("--skip-missing", action="store_true", help="leave out images that aren't there")
    parser.add_argument("--overwrite", action="store_true", help="overwrite the archive, if there is one")
    add_client_arguments(parser)
    parser.set_defaults(run=run_export, extra="moving")


def run_export(flags: argparse.Namespace) -> int:
    """Write a project into an archive; 0, or 2 with what is in the way."""
    from botocore.exceptions import BotoCoreError, ClientError

    from airflow_provider_lookoutvision.moving import archive
    from airflow_provider_lookoutvision.moving.errors import MovingError
    from airflow_provider_lookoutvision.moving.reading import check_project_name

    check_project_name(flags.project)
    file = flags.output or Path(f"{flags.project}.zip")
    if file.exists() and not flags.overwrite:
        raise MovingError(f"There is a {file}: --overwrite it, or --output another")
    made = clients_of(flags)
    try:
        done = archive.export(
            flags.project,
            file,
            client=made.service,
            s3=made.s3,
            skip_missing=flags.skip_missing,
            report_missing=print,
            progress=bar,
        )
    except (BotoCoreError, ClientError, OSError) as error:
        raise MovingError(str(error)) from error
    datasets = ", ".join(f"{count} entries of {kind}" for kind, count in done.datasets.items())
    models = f"the models {', '.join(done.models)}" if done.models else "no models"
    say(f"{file}: {datasets or 'no datasets'}, {done.images} images and masks, {models}")
    return 0


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``doctor``."""
    parser.add_argument(
        "--bucket",
        action="append",
        default=[],
        metavar="NAME",
        help="a bucket that this program and the service should both use; may be repeated",
    )
    parser.add_argument(
        "--conn-id", metavar="ID", help="check an Airflow connection, instead of the AWS configuration"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_client_arguments(parser)
    parser.set_defaults(run=run_doctor, extra="moving")


def run_doctor(flags: argparse.Namespace) -> int:
    """Check, and print what was found; 0, or 1 when something is wrong."""
    from airflow_provider_lookoutvision.moving import doctor
    from airflow_provider_lookoutvision.moving.errors import MovingError

    checks = list(doctor.check_versions())
    if flags.conn_id:
        checks += _check_connection(flags.conn_id, flags.bucket)
    else:
        made = clients_of(flags)
        try:
            checks += doctor.check_service(made.service, lambda: made.s3, flags.bucket)
        except MovingError as error:
            checks.append(doctor.Check("configuration", "error", str(error)))
    print(doctor.to_json(checks) if flags.json else "\n".join(map(str, checks)))  # noqa: T201
    return int(any(check.result == "error" for check in checks))


def _check_connection(conn_id: str, buckets: list[str]) -> list[Check]:
    """The checks of an Airflow connection, in a process of its own: here is no Airflow."""
    from airflow_provider_lookoutvision.moving import doctor

    what = f"connection {conn_id}"
    if importlib.util.find_spec("airflow") is None:
        found = f"Airflow is not installed beside {sys.executable}: run this where it is"
        return [doctor.Check(what, "error", found)]
    command = [
        sys.executable,
        "-m",
        "airflow_provider_lookoutvision.hooks.connection_check",
        conn_id,
        *buckets,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own module)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        return [doctor.Check(what, "error", f"Airflow can't be used here: {last}")]
    return doctor.from_json(done.stdout.strip().rpartition("\n")[2])


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where the service is."""
    group = parser.add_argument_group("the service", "by default as the AWS configuration says")
    group.add_argument("--endpoint-url", metavar="URL", help=f"of the service, as {DEFAULT_ENDPOINT}")
    group.add_argument(
        "--s3-endpoint-url",
        metavar="URL",
        help="of S3 (default: as configured for S3, else the service's)",
    )
    group.add_argument("--region", metavar="NAME")
    group.add_argument("--profile", metavar="NAME", help="of the AWS configuration")
    group.add_argument("--s3-profile", metavar="NAME", help="another one for S3, if S3 has another key")


def clients_of(flags: argparse.Namespace) -> Clients:
    """The clients of these arguments."""
    from airflow_provider_lookoutvision.moving.clients import Clients

    return Clients(flags.endpoint_url, flags.s3_endpoint_url, flags.region, flags.profile, flags.s3_profile)
