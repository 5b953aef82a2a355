"""The pages of models, beside what a browser shows: failures, cancelling, tags, packaging, two models."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from model_fixtures import ModelProject
from polling import until
from signed_in import Session

pytest_plugins = ["model_fixtures"]
pytestmark = pytest.mark.one_database

MODEL = "/projects/p/models/1"


@pytest.fixture
def project(sqlite_project: ModelProject) -> ModelProject:
    return sqlite_project


@pytest.fixture
def session(project: ModelProject) -> Session:
    training = project.training_service
    return Session(training.service, training.new_key(project.account))


def links(text: str) -> dict[str, str]:
    """The addresses of links, by their text."""
    found = re.findall(r'<a href="([^"]*)">([^<]*)</a>', text)
    return {html.unescape(label): html.unescape(address) for address, label in found}


def test_why_a_training_failed_leads_to_the_images(project: ModelProject, session: Session) -> None:
    odd = "a: b (1).jpg"
    project.put_image("good.jpg", 1)
    project.put_image(odd, 2)
    lines = [{"source-ref": f"s3://{project.bucket}/{name}"} for name in ("good.jpg", odd)]
    project.dataset(lines)
    named = f"s3://{project.bucket}/{odd}"
    reason = f"some images can't be used: {named}: it is damaged; s3://{project.bucket}/gone.jpg: not there"
    project.put(status="TRAINING_FAILED", status_message=reason)
    text = session.page(MODEL)
    assert named in links(text)
    assert f"s3://{project.bucket}/gone.jpg" not in links(text)
    shown = re.search('id="message">(.*?)</p>', text, re.DOTALL)
    assert shown
    assert html.unescape(re.sub("<[^>]*>", "", shown[1])) == reason
    image = session.page(links(text)[named].removeprefix("/console"))
    assert html.escape(odd) in image


def test_a_training_is_watched_and_cancelled(project: ModelProject, session: Session) -> None:
    project.put(status="TRAINING", status_message="The model is being trained. 42%, extracting features")
    state = session.http.get(f"{MODEL}/state").json()
    assert (state["status"], state["progress"]) == ("TRAINING", 42)
    assert "Cancel the training" in session.page(MODEL)
    session.send(f"{MODEL}/delete")
    assert project.versions() == []


def test_tags(project: ModelProject, session: Session) -> None:
    project.put()
    session.send(f"{MODEL}/tags", key="line", value="hall 3")
    assert "hall 3" in session.page(MODEL)
    session.send(f"{MODEL}/untag", key="line")
    assert "hall 3" not in session.page(MODEL)
    assert "between 0 and 1" in session.send(f"{MODEL}/evaluation/threshold", 400, threshold="2").text


def test_a_packaging_job_is_shown_with_its_end(
    project: ModelProject, session: Session, classifier: ModelProject
) -> None:
    project.put(artifact=classifier.artifact())
    fields = {"component": "com.example.parts", "architecture": "X86_64", "token": "once"}
    answer = session.send(f"{MODEL}/package", **fields, output=f"s3://{project.bucket}/components/")
    assert answer.headers["location"] == f"/console{MODEL}"
    (job,) = project.client.list_model_packaging_jobs(**project.of)["ModelPackagingJobs"]
    text = session.page(f"/projects/p/packaging/{job['JobName']}")
    assert "com.example.parts" in text
    assert job["JobName"] in session.page("/projects/p")


def evaluated(project: ModelProject, version: int, scores: dict[str, float]) -> None:
    """A model, and the files of its evaluation, as far as the page reads them."""
    lines = []
    for name, score in scores.items():
        lines.append(
            {
                "source-ref": f"s3://{project.bucket}/{name}",
                "anomaly-label": int("bad" in name),
                "anomaly-label-detected": int(score > 0.5),
                "anomaly-label-detected-metadata": {"confidence": max(score, 1 - score)},
            }
        )
    metrics = dict.fromkeys(("F1Score", "Precision", "Recall", "ROCAUC", "AveragePrecision"), 0.5)
    result = {
        "EvaluationDetails": {"NumberOfTrainingImages": 2, "NumberOfTestingImages": len(lines)},
        "AggregatedEvaluationResults": {"Metrics": metrics},
    }
    project.put(version, output_prefix="out/")
    name = f"p-{version}.json"
    project.write(f"out/EvaluationManifest-{name}", "\n".join(map(json.dumps, lines)).encode())
    project.write(f"out/EvaluationResult-{name}", json.dumps(result).encode())


def test_the_most_wrong_come_first_and_models_stand_beside_each_other(
    project: ModelProject, session: Session
) -> None:
    evaluated(project, 1, {"good-1": 0.1, "good-2": 0.9, "bad-1": 0.6, "bad-2": 0.2})
    evaluated(project, 2, {"good-1": 0.2, "good-2": 0.3, "bad-1": 0.6, "bad-2": 0.9})
    verdicts: list[Any] = session.http.get(f"{MODEL}/evaluation/verdicts").json()["verdicts"]
    assert [each["ref"].rpartition("/")[2] for each in verdicts] == ["good-2", "bad-2", "bad-1", "good-1"]
    assert [round(each["score"], 3) for each in verdicts] == [0.9, 0.2, 0.6, 0.1]
    text = session.page(f"{MODEL}/evaluation?with=2")
    assert "Metrics of model 2" in text

    project.dataset([{"source-ref": f"s3://{project.bucket}/{name}"} for name in ("good-2", "bad-1")])
    gallery = session.page("/projects/p/datasets/train?model=1&verdict=wrong")
    assert "good-2" in gallery
    assert "bad-1" not in gallery


def test_an_evaluation_that_is_gone_is_said_to_be(project: ModelProject, session: Session) -> None:
    project.put(output_prefix="out/")
    assert "is gone from its bucket" in session.page(f"{MODEL}/evaluation")
    project.write("out/EvaluationManifest-p-1.json", b"no JSON")
    project.write("out/EvaluationResult-p-1.json", b"no JSON")
    assert "as the training wrote it" in html.unescape(session.page(f"{MODEL}/evaluation", 400))


def test_results_that_are_none_are_named_by_their_line(project: ModelProject, session: Session) -> None:
    project.write("results.jsonl", b'{"source-ref": "s3://b/k", "Confidence": 0.9}\n{}\n')
    answer = session.page(f"/review?results=s3://{project.bucket}/results.jsonl", 400)
    assert "Line 2 of" in answer


def test_images_of_a_prefix(project: ModelProject, session: Session) -> None:
    for name in ("normal/1.jpg", "anomaly/2.png", "other/3.jpeg", "masks/2.png", "notes.txt"):
        project.write(f"line/{name}", b"x")
    of = {**project.of, "DatasetType": "train"}
    project.client.create_dataset(**of)
    asked = {"prefix": f"s3://{project.bucket}/line/", "label": "folder", "token": "t"}
    path = "/projects/p/datasets/train/prefix"
    assert session.ask(path, asked) == {"added": 3, "done": 3, "total": 3, "after": None}
    until(
        lambda: project.client.describe_dataset(**of)["DatasetDescription"]["Status"],
        lambda status: "IN_PROGRESS" not in status,
    )
    found = [json.loads(line) for line in project.client.list_dataset_entries(**of)["DatasetEntries"]]
    assert {each["source-ref"].rpartition("/")[2]: each.get("anomaly-label") for each in found} == {
        "1.jpg": 0,
        "2.png": 1,
        "3.jpeg": None,
    }
    assert session.ask(path, {**asked, "token": "u"})["added"] == 0
