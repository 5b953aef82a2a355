"""Each waiter knows what to do in every status that the API has, and ends."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import WaiterError

# waiter: arguments, statuses that are a success, statuses that are a failure; in all others it goes on
PROJECT = {"ProjectName": "p"}
DATASET = {**PROJECT, "DatasetType": "train"}
MODEL = {**PROJECT, "ModelVersion": "1"}
JOB = {**PROJECT, "JobName": "j"}
WAITERS: dict[str, tuple[dict[str, str], str, str]] = {
    "DatasetCreated": (
        DATASET,
        "CREATE_COMPLETE UPDATE_COMPLETE UPDATE_FAILED_ROLLBACK_COMPLETE",
        "CREATE_FAILED DELETE_IN_PROGRESS DELETE_COMPLETE DELETE_FAILED",
    ),
    "DatasetUpdated": (
        DATASET,
        "UPDATE_COMPLETE",
        "CREATE_FAILED UPDATE_FAILED_ROLLBACK_COMPLETE DELETE_IN_PROGRESS DELETE_COMPLETE DELETE_FAILED",
    ),
    "DatasetDeleted": (DATASET, "DELETE_COMPLETE", "DELETE_FAILED"),
    "ModelTrained": (
        MODEL,
        "TRAINED STARTING_HOSTING HOSTED HOSTING_FAILED STOPPING_HOSTING SYSTEM_UPDATING",
        "TRAINING_FAILED DELETING",
    ),
    "ModelHosted": (MODEL, "HOSTED", "HOSTING_FAILED STOPPING_HOSTING TRAINING TRAINING_FAILED DELETING"),
    "ModelStopped": (MODEL, "TRAINED", "HOSTING_FAILED TRAINING TRAINING_FAILED DELETING"),
    "ModelDeleted": (MODEL, "", "TRAINING STARTING_HOSTING HOSTED STOPPING_HOSTING SYSTEM_UPDATING"),
    "ModelPackagingJobSucceeded": (JOB, "SUCCEEDED", "FAILED"),
}
GONE_IS_SUCCESS = {"DatasetDeleted", "ModelDeleted"}
AT_ONCE = {"Delay": 0, "MaxAttempts": 3}
# operation: where its answer has the status, the enumeration of its values
STATUSES = {
    "DescribeDataset": ("DatasetDescription", "DatasetStatus"),
    "DescribeModel": ("ModelDescription", "ModelStatus"),
    "DescribeModelPackagingJob": ("ModelPackagingDescription", "ModelPackagingJobStatus"),
}


@pytest.fixture(scope="module")
def waiters(model_data: dict[str, Any]) -> dict[str, Any]:
    return model_data["waiters-2"]["waiters"]


@pytest.fixture(params=WAITERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def states(name: str, waiters: dict[str, Any], model_data: dict[str, Any]) -> dict[str, str]:
    """Every status of the enumeration, with what the table above says about it."""
    enumeration = STATUSES[waiters[name]["operation"]][1]
    _, success, failure = WAITERS[name]
    table = dict.fromkeys(model_data["service-2"]["shapes"][enumeration]["enum"], "retry")
    table |= dict.fromkeys(success.split(), "success") | dict.fromkeys(failure.split(), "failure")
    return table


def answers(service: Any, operation: str, *statuses: str) -> None:
    member = STATUSES[operation][0]
    for status in statuses:
        service.answer({member: {"Status": status}})


def test_these_are_the_waiters(client: Any, waiters: dict[str, Any]) -> None:
    assert set(waiters) == set(WAITERS)
    assert set(client.waiter_names) == {xform_name(name) for name in WAITERS}
    assert "model_packaging_job_succeeded" in client.waiter_names


def test_every_status_has_exactly_one_acceptor(
    waiters: dict[str, Any], name: str, states: dict[str, str], model_data: dict[str, Any]
) -> None:
    waiter = waiters[name]
    member, enumeration = STATUSES[waiter["operation"]]
    on_status = [acceptor for acceptor in waiter["acceptors"] if acceptor["matcher"] == "path"]
    assert {acceptor["argument"] for acceptor in on_status} == {f"{member}.Status"}
    enum = model_data["service-2"]["shapes"][enumeration]["enum"]
    assert sorted(acceptor["expected"] for acceptor in on_status) == sorted(enum)
    assert {acceptor["expected"]: acceptor["state"] for acceptor in on_status} == states


def test_botocore_accepts_a_waiter_and_help_says_how_it_polls(
    client: Any, waiters: dict[str, Any], name: str
) -> None:
    waiter = client.get_waiter(xform_name(name))
    assert waiter.config.description == waiters[name]["description"] != ""
    polls = " ".join(str(waiter.wait.__doc__).split())
    assert f"every {waiters[name]['delay']} seconds" in polls
    assert f"after {waiters[name]['maxAttempts']} failed checks" in polls


def test_a_waiter_does_what_a_status_asks_for(
    client: Any, service: Any, waiters: dict[str, Any], name: str, states: dict[str, str]
) -> None:
    waiter = client.get_waiter(xform_name(name))
    operation = waiters[name]["operation"]
    for status, outcome in states.items():
        service.reset()
        answers(service, operation, status)
        if outcome == "success":
            waiter.wait(**WAITERS[name][0], WaiterConfig=AT_ONCE)
        else:
            reason = "terminal failure state" if outcome == "failure" else "Max attempts exceeded"
            with pytest.raises(WaiterError, match=reason):
                waiter.wait(**WAITERS[name][0], WaiterConfig=AT_ONCE)
        assert len(service.requests) == (3 if outcome == "retry" else 1), status


def test_a_waiter_goes_on_until_it_may_end(
    client: Any, service: Any, waiters: dict[str, Any], name: str, states: dict[str, str]
) -> None:
    on_the_way = [status for status, outcome in states.items() if outcome == "retry"]
    answers(service, waiters[name]["operation"], *on_the_way)
    service.fail("ThrottlingException", 429)
    service.fail("InternalServerException", 500)
    if name in GONE_IS_SUCCESS:
        service.fail("ResourceNotFoundException", 404, {"ResourceId": "p", "ResourceType": "PROJECT"})
    else:
        answers(service, waiters[name]["operation"], WAITERS[name][1].split()[0])
    client.get_waiter(xform_name(name)).wait(
        **WAITERS[name][0], WaiterConfig={"Delay": 0, "MaxAttempts": len(on_the_way) + 3}
    )
    assert len(service.requests) == len(on_the_way) + 3


@pytest.mark.parametrize("name", sorted(set(WAITERS) - GONE_IS_SUCCESS), indirect=True)
def test_what_does_not_exist_is_not_waited_for(client: Any, service: Any, name: str) -> None:
    service.fail("ResourceNotFoundException", 404, {"ResourceId": "p", "ResourceType": "PROJECT"})
    with pytest.raises(WaiterError, match="ResourceNotFoundException"):
        client.get_waiter(xform_name(name)).wait(**WAITERS[name][0], WaiterConfig=AT_ONCE)
    assert len(service.requests) == 1


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException"])
def test_an_error_that_repeats_itself_is_not_waited_out(
    client: Any, service: Any, name: str, code: str
) -> None:
    service.fail(code, 400)
    with pytest.raises(WaiterError, match=code):
        client.get_waiter(xform_name(name)).wait(**WAITERS[name][0], WaiterConfig=AT_ONCE)
    assert len(service.requests) == 1


def test_the_failed_status_message_reaches_the_caller(client: Any, service: Any) -> None:
    service.answer({"ModelDescription": {"Status": "TRAINING_FAILED", "StatusMessage": "too few images"}})
    with pytest.raises(WaiterError) as raised:
        client.get_waiter("model_trained").wait(**MODEL)
    assert raised.value.last_response["ModelDescription"]["StatusMessage"] == "too few images"


def test_training_is_waited_for_longer_than_training_and_testing_may_take(waiters: dict[str, Any]) -> None:
    assert waiters["ModelTrained"]["delay"] * waiters["ModelTrained"]["maxAttempts"] > 48 * 3600


def test_every_other_waiter_gives_up_within_hours(waiters: dict[str, Any]) -> None:
    seconds = {name: waiter["delay"] * waiter["maxAttempts"] for name, waiter in waiters.items()}
    del seconds["ModelTrained"]
    assert all(10 * 60 <= value <= 2 * 3600 for value in seconds.values()), seconds
