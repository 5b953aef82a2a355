"""The command ``lookoutvision``: serve the API, run a worker, manage access keys, print where
the API model is.

What a subcommand needs is imported when it runs, so that ``model-path`` works without the ``server`` extra.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from airflow_provider_lookoutvision import __version__
from airflow_provider_lookoutvision.edge import command as edge_command
from airflow_provider_lookoutvision.moving import command as moving_command
from airflow_provider_lookoutvision.moving.errors import MovingError
from airflow_provider_lookoutvision.server import keys_command
from airflow_provider_lookoutvision.server import settings as settings_module
from airflow_provider_lookoutvision.server.maintenance import command as maintenance
from airflow_provider_lookoutvision.server.settings import Settings, SettingsError

_BACKBONE_CHECK = "airflow_provider_lookoutvision.engine.custom_backbone"
_LISTENER_SETTINGS = {
    *("host", "port", "tls_certificate", "tls_key", "allow_plaintext", "regions", "worker"),
    *("max_connections", "max_connections_per_address", "metrics_address"),
    *("console", "console_frame_ancestors", "keep_alive_seconds", "allowed_origins"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 2 when a setting or an argument is wrong."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    try:
        return int(flags.run(flags))
    except (SettingsError, MovingError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("airflow_provider_lookoutvision"):
            raise
        return _fail(
            f"{error.name} is not installed: pip install 'airflow-provider-lookoutvision[{flags.extra}]'"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lookoutvision", description="A drop-in service for the API of Amazon Lookout for Vision."
    )
    parser.set_defaults(extra="server")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the API")
    for setting in fields(Settings):
        _add_setting(serve, setting.name)
    serve.set_defaults(run=_serve)

    worker = commands.add_parser("worker", help="run imports and trainings only, on any machine")
    for setting in fields(Settings):
        if setting.name not in _LISTENER_SETTINGS:
            _add_setting(worker, setting.name)
    worker.set_defaults(run=_run_worker)

    agent = commands.add_parser("edge-agent", help="detect anomalies for the programs on a device, by gRPC")
    edge_command.add_arguments(agent)
    agent.set_defaults(run=edge_command.run)

    moving = commands.add_parser("import", help="import what was saved elsewhere into projects and datasets")
    moving_command.add_import_arguments(moving)
    export = commands.add_parser("export", help="write a project, with its images, into an archive")
    moving_command.add_export_arguments(export)
    doctor = commands.add_parser("doctor", help="find out what is wrong between this machine and a service")
    moving_command.add_doctor_arguments(doctor)

    model_path = commands.add_parser("model-path", help="print the folder to put into AWS_DATA_PATH")
    model_path.set_defaults(run=_model_path)

    threshold = commands.add_parser(
        "threshold",
        help="print the threshold of a model's verdicts, or set it, from the next detection on",
    )
    threshold.add_argument("project", metavar="PROJECT")
    threshold.add_argument("version", metavar="VERSION", type=int)
    threshold.add_argument("threshold", metavar="THRESHOLD", nargs="?", help="between 0 and 1")
    threshold.add_argument(
        "--account", default=settings_module.DEFAULT_ACCOUNT, help="(default: %(default)s)"
    )
    threshold.add_argument("--region", default="us-east-1", help="(default: %(default)s)")
    threshold.set_defaults(run=_threshold)

    for name, add, text in (
        ("check", maintenance.add_check, "see whether what the service keeps fits together"),
        ("backup", maintenance.add_backup, "back the service up, while it runs"),
        ("restore", maintenance.add_restore, "make a service again from a backup"),
    ):
        command = commands.add_parser(name, help=text)
        add(command)
        for setting_name in ("data_dir", "database_url", "buckets", "s3_endpoint_url"):
            _add_setting(command, setting_name)

    keys = commands.add_parser("keys", help="manage access keys")
    for command in (threshold, *keys_command.add_actions(keys)):
        _add_setting(command, "data_dir")
        _add_setting(command, "database_url")
    return parser


def _add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    setting = next(setting for setting in fields(Settings) if setting.name == name)
    default = _default_data_dir() if name == "data_dir" else setting.default
    default_text = (
        ""
        if default in (None, "", ())
        else f" (default: {str(default).lower() if default is False else default})"
    )
    options: dict[str, Any] = {
        "dest": name,
        "default": None,
        "help": (setting.metadata["help"] + default_text).replace("%", "%%"),
    }
    if setting.metadata["kind"] is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["metavar"] = name.upper()
    parser.add_argument("--" + name.replace("_", "-"), **options)


def _default_data_dir() -> str:
    try:
        return str(settings_module.default_data_dir())
    except SettingsError:
        return "none, without a home directory"


def _serve(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server.serving import serve

    settings = settings_module.load(vars(flags))
    if settings.worker:
        _check_training(settings)
    return serve(settings)


def _check_training(settings: Settings) -> None:
    from airflow_provider_lookoutvision.server.jobs.child_environment import minimal_environ

    if settings.training_effort == "thorough" and not settings_module.has_torch():
        raise SettingsError(f"training_effort: {settings_module.TORCH_MISSING}")
    if settings.backbone is not None:
        # In a process of its own: this one never loads the engine.
        command = [sys.executable, "-m", _BACKBONE_CHECK, str(settings.backbone)]
        checked = subprocess.run(  # noqa: S603 (our own command)
            command, capture_output=True, text=True, env=minimal_environ(), check=False
        )
        if checked.returncode != 0:
            reason = checked.stderr.strip().rpartition("\n")[2]
            raise SettingsError(f"backbone: {reason or f'its check ended with {checked.returncode}'}")


def _run_worker(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server import logs
    from airflow_provider_lookoutvision.server.signals import exit_on_stop_signal
    from airflow_provider_lookoutvision.server.storage.opening import opened_database
    from airflow_provider_lookoutvision.server.worker import is_beside_the_api, work

    settings = settings_module.load(vars(flags))
    if is_beside_the_api():  # which has checked it
        logs.configure(settings.log_level)
    else:
        _check_training(settings)
    try:
        with exit_on_stop_signal(), opened_database(settings, create=False) as database:
            work(settings, database)
    except SettingsError as error:
        if not is_beside_the_api():
            raise
        logs.log.error("the worker can't start", extra={"reason": str(error)})
        return 2
    return 0


def _model_path(_flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.model import MODEL_PATH

    print(MODEL_PATH)  # noqa: T201
    return 0


def _threshold(flags: argparse.Namespace) -> int:
    from airflow_provider_lookoutvision.server import tags
    from airflow_provider_lookoutvision.server.maintenance.opening import as_it_is
    from airflow_provider_lookoutvision.server.protocol.errors import ServiceError

    name = (flags.account, flags.region, flags.project, flags.version)
    with as_it_is(settings_module.load(vars(flags))) as (database, _), database.write() as connection:
        try:
            if flags.threshold is not None:
                tags.set_threshold(connection, *name, flags.threshold)
            print(tags.threshold(connection, *name))  # noqa: T201
        except ServiceError as error:
            return _fail(error.message)
    return 0


def _fail(message: str) -> int:
    print(f"lookoutvision: {message}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())
