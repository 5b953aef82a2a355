"""Parameters as templates and people give them: made what the API takes, or refused before anything is done.

``CHECKS`` says for each parameter of the operators and sensors what is made of it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.operators.api_rules import conform, service_model
from airflow_provider_lookoutvision.operators.s3 import parse_s3_folder, parse_s3_prefix, parse_s3_uri
from airflow_provider_lookoutvision.operators.values import (
    NATIVE,
    boolean,
    choice,
    mapping,
    metric,
    model_version,
    number,
    tags,
    text,
    verify,
    whole_number,
)

Check = Callable[[str, Any], Any]

_SHOWN = 200  # characters of a value in an error


def changes(name: str, value: Any) -> str | None:
    """The JSON Lines of entries: of such text, of an entry, or of a list of either, or the JSON of a list.

    Each line is checked here, since a large update is sent in parts, and the first would be applied already.
    """
    if value is None:
        return None
    found = value
    if isinstance(value, str):
        # Not splitlines, which knows more ends of lines than JSON Lines do.
        found = _json(name, value) if value.lstrip().startswith("[") else value.split("\n")
    elif isinstance(value, Mapping):
        found = [value]
    if not isinstance(found, Iterable):
        raise AirflowFailException(f"{name} is {value!r}; it must be JSON Lines, or a list of objects")
    entries = enumerate(found, start=1)
    return "\n".join(_entry(f"{name}, entry {count}", each) for count, each in entries if not _is_blank(each))


def _is_blank(line: Any) -> bool:
    return isinstance(line, str) and not line.strip()


def _entry(where: str, given: Any) -> str:
    entry = _json(where, given) if isinstance(given, str) else given
    if not isinstance(entry, Mapping) or "source-ref" not in entry:
        raise AirflowFailException(f"{where} is {_shown(given)}; it must be an object with a source-ref")
    if isinstance(given, str):
        return given
    try:
        return json.dumps(dict(entry), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AirflowFailException(f"{where} is {_shown(given)}, which JSON doesn't have: {error}") from error


def _json(where: str, document: str) -> Any:
    try:
        return json.loads(document)
    except ValueError as error:
        raise AirflowFailException(
            f"{where} is {_shown(document)}, which is not JSON ({error}): {NATIVE}"
        ) from error


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _s3(parse: Callable[[str, str], tuple[str, str]], name: str, value: Any) -> str | None:
    uri = text(name, value)
    if uri is not None:
        parse(name, uri)
        if uri != uri.rstrip("\r\n\t"):  # of a template; a key that ends with it would be found by nobody
            raise AirflowFailException(f"{name} is {uri!r}; it must not end with whitespace")
    return uri


def s3_object(name: str, value: Any) -> str | None:
    """The URI of an object, ``s3://bucket/key``, or None."""
    uri = _s3(parse_s3_uri, name, value)
    if uri and uri.endswith("/"):
        raise AirflowFailException(
            f"{name} is {uri!r}; it must be s3://bucket/key, of an object and not a folder"
        )
    return uri


s3_prefix = partial(_s3, parse_s3_prefix)
s3_folder = partial(_s3, parse_s3_folder)


def manifests_s3_prefix(name: str, value: Any) -> str | None:
    """A folder whose manifests CreateDataset can be given: the API takes fewer characters than S3 does."""
    uri = s3_folder(name, value)
    if uri is not None:
        bucket, prefix = parse_s3_folder(name, uri)
        shapes = service_model()
        conform(f"the bucket of {name}", bucket, shapes.shape_for("S3BucketName"))
        conform(f"the manifest below {name}", f"{prefix}train.manifest", shapes.shape_for("S3ObjectKey"))
    return uri


TEXT: Mapping[str, Check] = {
    **dict.fromkeys(
        (
            "aws_conn_id",
            "client_token",
            "description",
            "job_name",
            "kms_key_id",
            "manifest_version_id",
            "mask_class",
            "project_name",
            "ray_conn_id",
            "region_name",
            "s3_conn_id",
            "source",
            "source_format",
        ),
        text,
    ),
    "changes_s3_uri": s3_object,
    "if_not_better": partial(choice, of=("skip", "fail", "succeed")),
    "metric": metric,
    "on_gate_failure": partial(choice, of=("fail", "warn")),
    "replaced_tag": text,
    "tag": text,
    "dataset_type": partial(choice, of=("train", "test")),
    "engine": partial(choice, of=("service", "ray")),
    "effort": partial(choice, of=("quick", "thorough"), optional=True),
    "if_exists": partial(choice, of=("fail", "skip", "use")),
    "heatmaps_s3_prefix": s3_prefix,
    "image_s3_uri": s3_object,
    "images_s3_prefix": s3_prefix,
    "manifest_s3_uri": s3_object,
    "manifests_s3_prefix": manifests_s3_prefix,
    "masks_s3_prefix": s3_prefix,
    "model_version": model_version,
    "on_invalid_image": partial(choice, of=("fail", "record")),
    "output_s3_prefix": s3_prefix,
    "results_s3_uri": s3_object,
    "state": partial(choice, of=("trained", "hosted", "stopped")),
    "table_s3_uri": s3_object,
}
"""The parameters that are text: a template is rendered to exactly its text, native objects or not."""

CHECKS: Mapping[str, Check] = {
    **TEXT,
    "botocore_config": mapping,
    "cascade": boolean,
    "changes": changes,
    "configuration": mapping,
    "labels": mapping,
    "mask_colors": mapping,
    "max_anomaly_rate": partial(number, least=0, most=1),
    "max_inference_units": whole_number,
    "min_f1": partial(number, least=0, most=1),
    "min_gain": partial(number, least=-1, most=1),
    "min_images": whole_number,
    "min_inference_units": whole_number,
    "min_precision": partial(number, least=0, most=1),
    "min_recall": partial(number, least=0, most=1),
    "reference_map": mapping,
    "seed": whole_number,
    "tags": tags,
    "test_size": partial(number, least=0, below=1),
    "threshold": partial(number, least=0, most=1),
    "verify": verify,
}
"""All parameters that are templates."""


def rendered_as_text(template: Any, rendered: Any, context: Any, jinja_env: Any) -> Any:
    """What a template of text renders to, or each of a dict, where native rendering makes other things of it.

    ``2026_11_30`` and ``2026.10`` are numbers to it, whose own text is ``20261130`` and ``2026.1``.
    """
    if isinstance(template, dict) and isinstance(rendered, dict):
        pairs = ((key, template.get(key), each) for key, each in rendered.items())
        return {key: rendered_as_text(source, each, context, jinja_env) for key, source, each in pairs}
    if not isinstance(template, str) or rendered is None or isinstance(rendered, str):
        return rendered
    compiled = jinja_env.from_string(template)
    variables = copy.copy(context)  # as Airflow does it
    variables.update({name: each for name, each in compiled.globals.items() if name not in variables})
    found = jinja_env.context_class(jinja_env, variables, compiled.name, compiled.blocks)
    return "".join(map(str, compiled.root_render_func(found)))
