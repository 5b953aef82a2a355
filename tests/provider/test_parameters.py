"""Parameters as templates and people give them: made what the API takes, or refused before any call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException
from task_context import context
from test_operators import OF_PROJECTS, OPERATORS, SENSORS, made

from airflow_provider_lookoutvision.operators import api_rules, parameters
from airflow_provider_lookoutvision.operators.lookoutvision import (
    LookoutVisionBuildManifestOperator,
    LookoutVisionCreateModelOperator,
    LookoutVisionCreateProjectOperator,
    LookoutVisionStartModelOperator,
    LookoutVisionUpdateDatasetEntriesOperator,
)
from airflow_provider_lookoutvision.triggers.lookoutvision import LookoutVisionWaiterTrigger

ENTRY = {"source-ref": "s3://images/ä.png", "anomaly-label": 1}
LINE = json.dumps(ENTRY, ensure_ascii=False)


@pytest.mark.parametrize("operator", [*OPERATORS, *SENSORS], ids=lambda operator: operator.__name__)
def test_every_template_is_checked(operator: Any) -> None:
    assert set(operator.template_fields) <= parameters.CHECKS.keys()


@pytest.mark.parametrize("operator", [*OPERATORS, *SENSORS], ids=lambda operator: operator.__name__)
def test_a_value_that_is_no_text_is_refused_before_any_call(operator: Any, connect: Any) -> None:
    conn_id = connect(endpoint_url="http://localhost:9")  # nobody listens there
    named = {"project_name": "p"} if operator in OF_PROJECTS or operator in SENSORS else {}
    fields = parameters.TEXT.keys() & set(operator.template_fields)
    assert fields
    for field in fields - {"aws_conn_id"}:
        task = made(operator, aws_conn_id=conn_id, **named)
        setattr(task, field, {"not": "text"})
        with pytest.raises(AirflowFailException, match=f"{field} is .*; it must be"):
            task.execute(context("no text"))
        task.project_name, task.dataset_type = "p", "train"


# -- templates -------------------------------------------------------------------------------------------


def rendered(operator: Any, variables: dict[str, Any], **fields: Any) -> Any:
    """A task as Airflow renders it in a DAG of native objects."""
    with DAG("native", render_template_as_native_obj=True):
        task = operator(task_id="task", **fields)
    task.render_template_fields(variables)
    task.check_parameters()
    return task


@pytest.mark.parametrize(
    "text", ["2026", "2026_11_30", "1_0", "0x10", "1e5", "007", "True", "None-", "1-2", "[1]", "1,2"]
)
def test_a_text_stays_as_it_is(text: str) -> None:
    task = rendered(LookoutVisionCreateProjectOperator, {"name": text}, project_name="{{ name }}")
    assert task.project_name == text


def test_a_number_of_a_variable_is_a_text_and_nothing_is_nothing() -> None:
    task = rendered(
        LookoutVisionCreateModelOperator,
        {"year": 2026, "nothing": None},
        project_name="{{ year }}",
        output_s3_prefix="s3://models/{{ year }}/",
        kms_key_id="{{ nothing }}",
        tags={"year": "{{ year }}", "release": "{{ '1.10' }}", "f1": 0.5},
        min_f1="{{ '0.9' }}",
        aws_conn_id="{{ 7 }}",
        verify="{{ 'False' }}",
    )
    assert (task.project_name, task.output_s3_prefix, task.kms_key_id) == ("2026", "s3://models/2026/", None)
    pairs = [
        {"Key": "year", "Value": "2026"},
        {"Key": "release", "Value": "1.10"},
        {"Key": "f1", "Value": "0.5"},
    ]
    assert (task.tags, task.min_f1, task.aws_conn_id, task.verify) == (pairs, 0.9, "7", False)
    task.check_parameters()
    assert task.tags == pairs, "a task that goes on after a deferral checks again"


def test_versions_and_units_are_understood() -> None:
    task = rendered(
        LookoutVisionStartModelOperator,
        {"version": 3.0, "units": "2"},
        project_name="p",
        model_version="{{ version }}",
        min_inference_units="{{ units }}",
    )
    assert (task.model_version, task.min_inference_units) == ("3.0", 2)  # refused by the API's rule
    task.model_version = 3.0
    task.check_parameters()
    assert task.model_version == "3"
    task.model_version = "LATEST"
    task.check_parameters()
    assert task.model_version == "latest"


def test_a_trigger_takes_digits_for_text() -> None:
    trigger = LookoutVisionWaiterTrigger(
        waiter_name="ModelTrained",
        waiter_args={"ProjectName": 2026, "ModelVersion": 1},
        waiter_delay=1,
        waiter_max_attempts=1,
    )
    assert trigger.serialize()[1]["waiter_args"] == {"ProjectName": "2026", "ModelVersion": "1"}


# -- entries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        ENTRY,
        LINE,
        f"\n{LINE}\n\n",
        [ENTRY],
        (LINE,),
        pytest.param(iter([ENTRY]), id="iterator"),
        f"[{LINE}]",
        "{{ entry }}",
        "{{ [entry] }}",
        "{{ line }}",
    ],
    ids=str,
)
def test_entries_in_every_form_are_lines(changes: Any) -> None:
    task = rendered(
        LookoutVisionUpdateDatasetEntriesOperator,
        {"entry": ENTRY, "line": LINE},
        project_name="p",
        dataset_type="Train",
        changes=changes,
    )
    assert [json.loads(line) for line in task.changes.splitlines() if line.strip()] == [ENTRY]
    assert task.dataset_type == "train"
    before = task.changes
    task.check_parameters()
    assert task.changes == before


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (7, "changes is 7"),
        ("{'source-ref': 's3://images/a.png'}", "changes, entry 1 is .* not JSON .*native"),
        ("[{'source-ref': 's3://images/a.png'}]", "changes is .* not JSON .*native"),
        ([ENTRY, "source-ref"], "changes, entry 2 is .* not JSON"),
        ([ENTRY, 7], "changes, entry 2 is 7; it must be an object with a source-ref"),
        ([ENTRY, {"source": 1}], "changes, entry 2 is .* with a source-ref"),
        ([{**ENTRY, "at": {1, 2}}], "changes, entry 1 is .* which JSON doesn't have"),
        ([{**ENTRY, "at": float("nan")}], "changes, entry 1 is .* which JSON doesn't have"),
    ],
)
def test_what_is_no_entry_is_refused_before_any_part_is_sent(changes: Any, match: str, connect: Any) -> None:
    task = LookoutVisionUpdateDatasetEntriesOperator(
        task_id="task",
        aws_conn_id=connect(endpoint_url="http://localhost:9"),
        project_name="p",
        dataset_type="train",
        changes=changes,
    )
    with pytest.raises(AirflowFailException, match=match):
        task.execute(context("entries"))


# -- other values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mask_colors", '{"dent": "#FF0000"}', {"dent": "#FF0000"}),
        ("mask_colors", "['dent']", "it must be a dict"),
        ("configuration", "[]", "it must be a dict"),
        ("tags", '{"line": 7}', [{"Key": "line", "Value": "7"}]),
        ("tags", ["line"], "it must be a dict, or a list of Key and Value"),
        ("tags", {"line": None}, "it must be a dict, or a list"),
        ("seed", 1.5, "seed is 1.5; it must be a whole number"),
        ("seed", "inf", "seed is 'inf'"),
        ("test_size", "1", "it must be a number from 0 to less than 1"),
        ("cascade", "perhaps", "it must be true or false"),
        ("cascade", " TRUE", True),
        ("verify", "/etc/ca.pem", "/etc/ca.pem"),
        ("if_exists", "Skip", "skip"),
        (
            "results_s3_uri",
            "s3://reports/today/",
            "it must be s3://bucket/key, of an object and not a folder",
        ),
        ("image_s3_uri", "s3://images/a.png\n", "whitespace"),
        ("images_s3_prefix", "", "it must be s3://bucket/prefix"),
    ],
)
def test_other_values(name: str, value: Any, expected: Any) -> None:
    if isinstance(expected, str) and expected != value and expected != "skip":
        with pytest.raises(AirflowFailException, match=expected):
            parameters.CHECKS[name](name, value)
    else:
        assert parameters.CHECKS[name](name, value) == expected


def test_what_is_sent_keeps_to_the_apis_model() -> None:
    location = {"Bucket": "models", "Prefix": "my models/"}
    with pytest.raises(
        AirflowFailException, match=r"OutputConfig\.S3Location\.Prefix 'my models/' breaks the"
    ):
        api_rules.conform_input("CreateModel", {"OutputConfig": {"S3Location": location}})
    with pytest.raises(AirflowFailException, match=r"Tags\[0\].Key '' breaks the API's rule: 1 to 128"):
        api_rules.conform_input("TagResource", {"Tags": [{"Key": "", "Value": "ä"}]})
    greengrass = {"ComponentName": 7, "TargetDevice": "toaster"}
    with pytest.raises(
        AirflowFailException, match="TargetDevice is 'toaster'; it must be one of jetson_xavier"
    ):
        api_rules.conform_input("StartModelPackagingJob", {"Configuration": {"Greengrass": greengrass}})
    greengrass["TargetDevice"] = "jetson_xavier"
    sent = api_rules.conform_input("StartModelPackagingJob", {"Configuration": {"Greengrass": greengrass}})
    assert sent["Configuration"]["Greengrass"]["ComponentName"] == "7"


def test_a_manifest_goes_where_the_service_reads_it() -> None:
    task = LookoutVisionBuildManifestOperator(
        task_id="task", images_s3_prefix="s3://images/", manifests_s3_prefix="s3://my bucket/"
    )
    with pytest.raises(AirflowFailException, match="the bucket of manifests_s3_prefix 'my bucket' breaks"):
        task.check_parameters()
