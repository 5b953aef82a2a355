"""All operations in any order against a reference, with few names and few tokens, so that they meet.

What a client sees must be what ``service_reference`` says: codes of errors, states, counts. The same request
is also sent by several threads at once, whose answers must be those of one after another. Jobs are done by
this process, when the machine chooses: imports by the service's importer, trainings without an engine. Models
are hosted by the service, whose replicas are scripted. ``--state-machine-steps`` sets the number of steps; a
failure prints the steps that lead to it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from jobs_by_hand import CONTENTS, JobsByHand
from polling import until
from service_reference import BUSY, NOT_FOUND, Reference, TrainingEnd
from services import NewService, client_of, storage_of

from airflow_provider_lookoutvision.server.settings import Settings

STEPS_OF_A_RUN = 50
# A service whose replicas do no engine's work.
SCRIPTED_SERVICE = (sys.executable, str(Path(__file__).with_name("scripted_service.py")))
NAMES, KINDS = st.sampled_from("pppq"), st.sampled_from(["train", "test"])
VERSIONS = st.sampled_from(["1", "2", "latest"])
TOKENS = st.sampled_from([None, "t1", "t1", "t2", "t3"])
THREADS = st.sampled_from([1, 1, 1, 4])
TRAINING_ENDS: st.SearchStrategy[TrainingEnd] = st.sampled_from(["succeeds", "succeeds", "loses it", "fails"])
SCRIPTED_IMAGE = {"answer": {"IsAnomalous": True, "Confidence": 0.9}}


class Machine(RuleBasedStateMachine):
    """One account: each run of the machine has its own."""

    harness: JobsByHand
    accounts = iter(range(1, 10**9))
    outcomes: Counter[tuple[str, str | None]]

    def __init__(self) -> None:
        super().__init__()
        self.account = f"{next(Machine.accounts):012}"
        key = self.harness.storage.new_key(self.account)
        self.client = client_of(self.harness.service.endpoint_url, key)
        self.reference = Reference()

    def teardown(self) -> None:
        for name, project in self.reference.projects.items():
            for version in [number for number, model in project.models.items() if model.status == "HOSTED"]:
                self.stop_model(name, str(version), None, 1)
        for name in "pq":
            self.look(name)
        assert sorted(self.reference.projects) == [
            each["ProjectName"] for each in self.client.list_projects()["Projects"]
        ]
        self.client.close()

    def send(self, method: str, threads: int, **members: Any) -> Counter[str | None]:
        """How often each code of an error, or none, answers a request that is sent by so many threads."""

        def once(_: int) -> str | None:
            try:
                getattr(self.client, method)(**members)
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return None

        with ThreadPoolExecutor(threads) as pool:
            codes = Counter(pool.map(once, range(threads)))
        self.outcomes.update({(method, code): count for code, count in codes.items()})
        return codes

    def sent_once(self, method: str, **members: Any) -> str | None:
        """The code of the error that answers a request, or none."""
        (code,) = self.send(method, 1, **members)
        return code

    def change(
        self,
        operation: str,
        method: str,
        token: str | None,
        threads: int,
        do: Callable[[str | None], str],
        **members: Any,
    ) -> bool:
        """Send a change, and compare the answers; whether there was one without an error."""
        expected = Counter(self.reference.call(operation, token, members, do) for _ in range(threads))
        given = {"ClientToken": token} if token else {}
        found = self.send(method, threads, **members, **given)
        assert found == expected, (operation, members, token, threads)
        return None in found

    @initialize()
    def begin_with_a_hosted_model(self) -> None:
        """Most orders of few operations come no further than to errors."""
        self.create_project("p", "t1", 1)
        self.create_dataset("p", "train", "good", "t1", 1)
        self.finish_imports()
        self.create_model("p", "t1", 1)
        self.create_model("p", None, 1)
        self.finish_trainings("succeeds")
        self.start_model("p", "1", "t1", 1)

    # -- changes -------------------------------------------------------------------------------------------

    @rule(name=NAMES, token=TOKENS, threads=THREADS)
    def create_project(self, name: str, token: str | None, threads: int) -> None:
        do = self.reference.create_project
        self.change("CreateProject", "create_project", token, threads, lambda _: do(name), ProjectName=name)

    @precondition(lambda self: any(not project.models for project in self.reference.projects.values()))
    @rule(name=NAMES, token=TOKENS, threads=THREADS)
    def delete_project(self, name: str, token: str | None, threads: int) -> None:
        do = self.reference.delete_project
        self.change("DeleteProject", "delete_project", token, threads, lambda _: do(name), ProjectName=name)

    @rule(name=NAMES, kind=KINDS, content=st.sampled_from([None, *CONTENTS]), token=TOKENS, threads=THREADS)
    def create_dataset(
        self, name: str, kind: str, content: str | None, token: str | None, threads: int
    ) -> None:
        members: dict[str, Any] = {"ProjectName": name, "DatasetType": kind}
        if content is not None:
            source = {"Bucket": "images", "Key": f"{content}.manifest"}
            members["DatasetSource"] = {"GroundTruthManifest": {"S3Object": source}}
        labels, key = CONTENTS.get(content or ""), _key("CreateDataset", token)

        def do(failed: str | None) -> str:
            return self.reference.create_dataset(name, kind, labels, failed, key, imports=content is not None)

        self.change("CreateDataset", "create_dataset", token, threads, do, **members)

    @rule(name=NAMES, kind=KINDS, content=st.sampled_from([*CONTENTS]), token=TOKENS, threads=THREADS)
    def update_dataset_entries(
        self, name: str, kind: str, content: str, token: str | None, threads: int
    ) -> None:
        members = {"ProjectName": name, "DatasetType": kind, "Changes": self.harness.manifest(content)}
        key = _key("UpdateDatasetEntries", token)

        def do(_: str | None) -> str:
            return self.reference.update_dataset(name, kind, CONTENTS[content], key)

        self.change("UpdateDatasetEntries", "update_dataset_entries", token, threads, do, **members)

    @rule(name=NAMES, kind=KINDS, token=TOKENS, threads=THREADS)
    def delete_dataset(self, name: str, kind: str, token: str | None, threads: int) -> None:
        members = {"ProjectName": name, "DatasetType": kind}
        do = self.reference.delete_dataset
        self.change("DeleteDataset", "delete_dataset", token, threads, lambda _: do(name, kind), **members)

    @rule(name=NAMES, token=TOKENS, threads=THREADS)
    def create_model(self, name: str, token: str | None, threads: int) -> None:
        output = {"S3Location": {"Bucket": "results", "Prefix": ""}}
        key = _key("CreateModel", token)

        def do(failed: str | None) -> str:
            return self.reference.create_model(name, failed, key)

        members = {"ProjectName": name, "OutputConfig": output}
        self.change("CreateModel", "create_model", token, threads, do, **members)

    @rule(name=NAMES, version=st.sampled_from("12"), token=TOKENS, threads=THREADS)
    def delete_model(self, name: str, version: str, token: str | None, threads: int) -> None:
        members = {"ProjectName": name, "ModelVersion": version}
        do = self.reference.delete_model
        self.change("DeleteModel", "delete_model", token, threads, lambda _: do(name, version), **members)

    @rule(name=NAMES, version=VERSIONS, token=TOKENS, threads=THREADS)
    def start_model(self, name: str, version: str, token: str | None, threads: int) -> None:
        members = {"ProjectName": name, "ModelVersion": version, "MinInferenceUnits": 1}
        do, threads = self.reference.start_model, threads if token else 1  # it may fail between two of them
        if self.change("StartModel", "start_model", token, threads, lambda _: do(name, version), **members):
            until(lambda: self.status_of_model(name, version), lambda status: status != "STARTING_HOSTING")
            self.reference.forget_failed_start(name, version)

    @rule(name=NAMES, version=VERSIONS, token=TOKENS, threads=THREADS)
    def stop_model(self, name: str, version: str, token: str | None, threads: int) -> None:
        members = {"ProjectName": name, "ModelVersion": version}
        do = self.reference.stop_model
        if self.change("StopModel", "stop_model", token, threads, lambda _: do(name, version), **members):
            until(lambda: self.status_of_model(name, version), lambda status: status != "STOPPING_HOSTING")

    @rule(name=NAMES, version=VERSIONS, job=st.sampled_from("jk"), token=TOKENS, threads=THREADS)
    def start_packaging(self, name: str, version: str, job: str, token: str | None, threads: int) -> None:
        place = {"Bucket": "results", "Prefix": "components/"}
        configuration = {"Greengrass": {"S3OutputLocation": place, "ComponentName": job}}
        members = {"ProjectName": name, "ModelVersion": version, "JobName": job}

        def do(_: str | None) -> str:
            return self.reference.start_packaging(name, version, job)

        self.change(
            "StartModelPackagingJob",
            "start_model_packaging_job",
            token,
            threads,
            do,
            **members,
            Configuration=configuration,
        )

    @rule(name=NAMES, version=st.sampled_from("12"), key=st.sampled_from("ab"), value=st.sampled_from("xy"))
    def tag(self, name: str, version: str, key: str, value: str) -> None:
        code = self.sent_once(
            "tag_resource", ResourceArn=self.arn(name, version), Tags=[{"Key": key, "Value": value}]
        )
        assert code == self.reference.tag(name, version, key, value)

    @rule(name=NAMES, version=st.sampled_from("12"), key=st.sampled_from("ab"))
    def untag(self, name: str, version: str, key: str) -> None:
        code = self.sent_once("untag_resource", ResourceArn=self.arn(name, version), TagKeys=[key])
        assert code == self.reference.tag(name, version, key, None)

    @rule(name=NAMES, version=VERSIONS, threads=THREADS)
    def detect(self, name: str, version: str, threads: int) -> None:
        names, image = {"ProjectName": name, "ModelVersion": version}, json.dumps(SCRIPTED_IMAGE)
        codes = self.send("detect_anomalies", threads, **names, Body=image, ContentType="image/png")
        assert codes == {self.reference.code_of_detection(name, version): threads}

    # -- jobs ----------------------------------------------------------------------------------------------

    @rule()
    def finish_imports(self) -> None:
        self.harness.finish_imports()
        self.reference.finish_imports()

    @rule(end=TRAINING_ENDS)
    def finish_trainings(self, end: TrainingEnd) -> None:
        self.harness.finish_trainings(end)
        self.reference.finish_trainings(end)

    # -- what there is -------------------------------------------------------------------------------------

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        expected = self.reference.projects.get(name)
        if expected is None:
            assert self.sent_once("describe_project", ProjectName=name) == NOT_FOUND
            return
        described = self.client.describe_project(ProjectName=name)["ProjectDescription"]
        assert {each["DatasetType"]: each["Status"] for each in described["Datasets"]} == {
            kind: dataset.status for kind, dataset in expected.datasets.items()
        }
        for kind, dataset in expected.datasets.items():
            of = {"ProjectName": name, "DatasetType": kind}
            if dataset.status not in BUSY:
                stats = self.client.describe_dataset(**of)["DatasetDescription"]["ImageStats"]
                labels = list(dataset.entries.values())
                normal, anomaly = labels.count("normal"), labels.count("anomaly")
                assert (stats["Total"], stats["Normal"], stats["Anomaly"]) == (len(labels), normal, anomaly)
            shown = self.client.list_dataset_entries(**of)["DatasetEntries"]
            assert len(shown) == len(dataset.entries), "half an import, or a failed update, is not shown"
        models = self.client.list_models(ProjectName=name)["Models"]
        assert {each["ModelVersion"]: each["Status"] for each in models} == {
            str(version): model.status for version, model in expected.models.items()
        }
        for version, model in expected.models.items():
            tags = self.client.list_tags_for_resource(ResourceArn=self.arn(name, version))["Tags"]
            assert {tag["Key"]: tag["Value"] for tag in tags} == model.tags
        jobs = self.client.list_model_packaging_jobs(ProjectName=name)["ModelPackagingJobs"]
        assert [each["JobName"] for each in jobs] == list(expected.packagings)
        for job in expected.packagings:
            assert self.client.describe_model_packaging_job(ProjectName=name, JobName=job)

    def status_of_model(self, name: str, version: str) -> str:
        answer = self.client.describe_model(ProjectName=name, ModelVersion=version)
        return str(answer["ModelDescription"]["Status"])

    def arn(self, name: str, version: Any) -> str:
        return f"arn:aws:lookoutvision:eu-central-1:{self.account}:model/{name}/{version}"


def _key(operation: str, token: str | None) -> tuple[str, ...] | None:
    return None if token is None else (operation, token, "")


@pytest.mark.timeout(24 * 3600)
def test_any_order_of_operations(new_service: NewService, pytestconfig: pytest.Config) -> None:
    steps = pytestconfig.getoption("--state-machine-steps")
    service = new_service("--no-worker", "--max-trainings", "100000", command=SCRIPTED_SERVICE)
    folder = service.data_dir / "buckets" / "images"
    folder.mkdir(parents=True)
    with storage_of(service) as storage:
        harness = JobsByHand(service, storage, Settings(data_dir=service.data_dir))
        for content in CONTENTS:
            (folder / f"{content}.manifest").write_bytes(harness.manifest(content))
        Machine.harness, Machine.outcomes = harness, Counter()
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=max(1, steps // 20),
                stateful_step_count=STEPS_OF_A_RUN,
                deadline=None,
                database=None,
                print_blob=True,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    done = {method for method, code in Machine.outcomes if code is None}
    print(f"{sum(Machine.outcomes.values())} requests and comparisons: {dict(Machine.outcomes)}")
    assert done >= {"create_project", "create_dataset", "start_model"}  # a few steps need not lead further
