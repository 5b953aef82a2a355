"""Parameters as templates and people give them: made what the API takes, or refused before anything is done.

A DAG that renders templates to native objects turns the text ``2026`` into a number, one that doesn't turns a
dict into text, and a YAML file has its own ideas of both. ``CHECKS`` says for each parameter of the operators
and sensors what is made of it; what is sent is checked against the API's model.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lookoutvision.operators.s3 import parse_s3_folder, parse_s3_prefix, parse_s3_uri

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape

Check = Callable[[str, Any], Any]

_SHOWN = 200  # characters of a value in an error
_NATIVE = "set render_template_as_native_obj on the DAG, or give JSON"


def text(name: str, value: Any) -> str | None:
    """A text. A number is what native rendering, or YAML, makes of digits."""
    match value:
        case None | str():
            return value
        case float() if value.is_integer():
            return str(int(value))
        case bool() | int() | float():
            return str(value)
    raise AirflowFailException(f"{name} is {value!r}, of type {type(value).__name__}; it must be a text")


def choice(name: str, value: Any, *, of: tuple[str, ...]) -> str:
    """One of these words, in upper or lower case."""
    word = str(text(name, value)).lower()
    if word not in of:
        raise AirflowFailException(f"{name} is {value!r}; it must be one of {', '.join(of)}")
    return word


def model_version(name: str, value: Any) -> str | None:
    """A version as text; ``LATEST`` is ``latest``."""
    version = text(name, value)
    return version.lower() if version and version.lower() == "latest" else version


def boolean(name: str, value: Any) -> bool:
    """True or false: a text ``False`` would be true."""
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        raise AirflowFailException(f"{name} is {value!r}; it must be true or false")
    return word == "true"


def verify(name: str, value: Any) -> bool | str | None:
    """True or false, or the path of a CA bundle."""
    word = str(value).strip().lower()
    return boolean(name, value) if word in ("true", "false") else text(name, value)


def number(name: str, value: Any, *, least: float, below: float = math.inf, most: float = math.inf) -> Any:
    """A number in a range, or None."""
    if value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (least <= found <= most and found < below):
        end = f" to {most:g}" if most < math.inf else f" to less than {below:g}" if below < math.inf else ""
        raise AirflowFailException(f"{name} is {value!r}; it must be a number from {least:g}{end}")
    return found


def whole_number(name: str, value: Any) -> int | None:
    """A whole number, or None."""
    try:
        if value is None or int(value) == float(value):
            return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise AirflowFailException(f"{name} is {value!r}; it must be a whole number")


def mapping(name: str, value: Any) -> dict[str, Any] | None:
    """A dict, or the JSON of one, or None."""
    found = _from_json(value)
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise AirflowFailException(f"{name} is {value!r}; it must be a dict: {_NATIVE}")
    return dict(found)


def tags(name: str, value: Any) -> list[dict[str, Any]] | None:
    """The API's list of tags: of a dict or of such a list, or of the JSON of either; or None."""
    found = _from_json(value)
    if found is None:
        return None
    if isinstance(found, Mapping):
        found = [{"Key": key, "Value": each} for key, each in found.items()]
    if not isinstance(found, list | tuple) or not all(map(_is_tag, found)):
        raise AirflowFailException(
            f"{name} is {value!r}; it must be a dict, or a list of Key and Value: {_NATIVE}"
        )
    return [{part: text(f"{name}, {tag['Key']}", each) for part, each in tag.items()} for tag in found]


def _is_tag(tag: Any) -> bool:
    return isinstance(tag, Mapping) and tag.keys() == {"Key", "Value"} and None not in tag.values()


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


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
            f"{where} is {_shown(document)}, which is not JSON ({error}): {_NATIVE}"
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
            "project_name",
            "region_name",
            "s3_conn_id",
        ),
        text,
    ),
    "changes_s3_uri": s3_object,
    "dataset_type": partial(choice, of=("train", "test")),
    "if_exists": partial(choice, of=("fail", "skip", "use")),
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
    "mask_colors": mapping,
    "max_inference_units": whole_number,
    "min_f1": partial(number, least=0, most=1),
    "min_inference_units": whole_number,
    "seed": whole_number,
    "tags": tags,
    "test_size": partial(number, least=0, below=1),
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


@cache
def service_model() -> ServiceModel:
    """The API's model, for checks that need no client."""
    from botocore.model import ServiceModel

    from airflow_provider_lookoutvision.model import API_VERSION, MODEL_PATH, SERVICE_NAME
    from airflow_provider_lookoutvision.model.loader import SharedLoader

    loader = SharedLoader([MODEL_PATH])
    return ServiceModel(loader.load_service_model(SERVICE_NAME, "service-2", API_VERSION), SERVICE_NAME)


def conform_input(operation: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """The members of an operation's input, as the API's model has them.

    botocore checks types and minimum lengths only. To find out the rest would cost a call, or what has been
    written before it.

    :raises AirflowFailException: naming the member that breaks a rule.
    """
    shapes: Mapping[str, Any] = service_model().operation_model(operation).input_shape.members
    return {
        name: conform(name, value, shapes[name]) if name in shapes else value
        for name, value in members.items()
    }


def conform(name: str, value: Any, shape: Shape) -> Any:
    """A value as a shape of the API's model has it; what isn't of its type is left to botocore.

    :param name: names it in the error.
    :raises AirflowFailException: when it breaks the shape's rule.
    """
    rules: Any = shape
    match shape.type_name, value:
        case "string", None:
            return None
        case "string", _:
            return _conform_text(name, text(name, value) or "", rules.metadata)
        case "integer", _:
            return whole_number(name, value)
        case "structure", Mapping():
            return {
                member: conform(f"{name}.{member}", each, rules.members[member])
                if member in rules.members
                else each
                for member, each in value.items()
            }
        case "list", list() | tuple():
            return [conform(f"{name}[{index}]", each, rules.member) for index, each in enumerate(value)]
    return value


def _conform_text(name: str, value: str, rule: Mapping[str, Any]) -> str:
    shortest, longest = rule.get("min", 0), rule.get("max", math.inf)
    pattern, allowed = rule.get("pattern", "(?s:.*)"), rule.get("enum")
    if allowed and value not in allowed:
        raise AirflowFailException(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    try:
        matches: Any = re.fullmatch(pattern, value)
    except re.error:
        matches = True  # the classes of Unicode, in the patterns of tags, are the service's to check
    if not shortest <= len(value) <= longest or not matches:
        raise AirflowFailException(
            f"{name} {value!r} breaks the API's rule: {shortest} to {longest} characters that match {pattern}"
        )
    return value
