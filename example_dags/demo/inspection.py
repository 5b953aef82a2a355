"""A DAG finds defects: from labelled images to verdicts on images that the model hasn't seen.

It reports each step. At the end there is a picture sheet, and the service has nothing left;
``NotAsPromised`` is raised where the hosted model doesn't judge as its evaluation says that it does.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from example_dags.demo import images, sheet
from example_dags.demo.backends import RESULTS, Backends
from example_dags.demo.images import Collection
from example_dags.demo.local_airflow import LocalAirflow
from example_dags.demo.report import NotAsPromised, facts, heading, say, table
from example_dags.demo.samples import Sample
from example_dags.demo.sheet import Judged

DAG_ID = "example_lookoutvision_inspection"
VERDICTS, SHEET, EVALUATION = "verdicts.jsonl", "inspection.png", "evaluation.json"
# A drawn defect is plain to see: a service that misses many doesn't work.
LEAST_F1_OF_PARTS = 0.9
_STEP = 0.2


def run(backends: Backends, airflow: LocalAirflow, collection: Collection, out: Path) -> None:
    """Put images into a bucket, run the DAG, print what comes of it, and draw the sheet.

    :param out: the folder for the sheet and the verdicts.
    :raises NotAsPromised: when the verdicts aren't what the evaluation says, or something is left behind.
    """
    heading("2. A DAG finds defects: it trains a model, hosts it, and looks at images new to the model")
    images.put(backends.s3, "train", collection.train)
    samples = images.put(backends.s3, "test", collection.test)
    facts(
        [
            ("images", collection.source),
            ("to learn from", _told(collection.train)),
            ("to be tried on", _told(collection.test)),
            ("buckets", f"{backends.s3.meta.endpoint_url}, which is the service's own S3"),
            ("Airflow", f"`airflow dags test {DAG_ID}`"),
        ]
    )
    say()
    progress = _Progress(backends, airflow, collection.name)
    airflow.test_dag(DAG_ID, backends.connection(), watch=progress.report, project_name=collection.name)
    say()
    model = airflow.result(DAG_ID, "create_model")
    evaluation = _read(backends, model["EvaluationResult"]["Key"])
    metrics = json.loads(evaluation)["AggregatedEvaluationResults"]["Metrics"]
    _print_metrics(metrics)
    verdicts = _read(backends, VERDICTS)
    tested = _tested(backends, samples, verdicts)
    _print_verdicts(tested)
    out.mkdir(parents=True, exist_ok=True)
    (out / EVALUATION).write_bytes(evaluation)
    (out / VERDICTS).write_bytes(verdicts)
    title = f"{collection.name}, model {model['ModelVersion']}"
    is_segmented = "PixelAnomalyClassMetrics" in metrics
    sheet.draw(title, _figures(metrics), tested, is_segmented=is_segmented).save(out / SHEET)
    facts(
        [
            ("picture", f"{(out / SHEET).resolve()}: the images, with what was found in them"),
            ("verdicts", str((out / VERDICTS).resolve())),
            ("evaluation", str((out / EVALUATION).resolve())),
        ]
    )
    _check(backends, collection, metrics, tested)


class _Progress:
    """Reports each task that has ended, and the progress of the training."""

    def __init__(self, backends: Backends, airflow: LocalAirflow, project: str) -> None:
        self._client, self._airflow, self._project = backends.client, airflow, project
        self._begin = time.monotonic()
        self._ended: set[str] = set()
        self._done = -_STEP

    def report(self) -> None:
        """Print what is new."""
        tasks = self._airflow.tasks(DAG_ID)
        for task in tasks:
            if task.state in ("success", "failed") and task.task_id not in self._ended:
                self._ended.add(task.task_id)
                self._say(task.task_id, f"{task.state} after {task.seconds or 0:.1f} s")
        if any(task.task_id == "create_model" and task.state == "running" for task in tasks):
            self._report_training()

    def _report_training(self) -> None:
        models = self._client.list_models(ProjectName=self._project)["Models"]
        # "The model is being trained. 42%, extracting features at 224 x 224"
        for model in models:
            _, _, now = model["StatusMessage"].partition(". ")
            percent, _, _ = now.partition("%")
            if model["Status"] == "TRAINING" and percent.isdigit():
                done = int(percent) / 100
                if done >= self._done + _STEP:
                    self._done = done
                    self._say("create_model", now)

    def _say(self, task_id: str, what: str) -> None:
        seconds = round(time.monotonic() - self._begin)
        say(f"  {seconds // 60}:{seconds % 60:02}  {task_id:<20}  {what}")


def _told(samples: Iterable[Sample]) -> str:
    counts = Counter(sample.defect or "normal" for sample in samples)
    return f"{sum(counts.values())}: " + ", ".join(f"{count} {name}" for name, count in counts.items())


def _read(backends: Backends, key: str) -> bytes:
    content: bytes = backends.s3.get_object(Bucket=RESULTS, Key=key)["Body"].read()
    return content


def _figures(metrics: dict[str, Any]) -> str:
    names = {"F1Score": "F1", "Precision": "precision", "Recall": "recall"}
    return "    ".join(f"{name} {metrics[key]:.3f}" for key, name in names.items())


def _print_metrics(metrics: dict[str, Any]) -> None:
    say("  How good the model is, on the images to be tried on:")
    say()
    header, rows = ["of", "F1", "precision", "recall"], [["verdicts", *_three(metrics)]]
    if classes := metrics.get("PixelAnomalyClassMetrics"):
        header.append("IoU")
        rows[0].append("")
        rows += [[f"pixels: {each['ClassName']}", *_three(each), f"{each['AIOU']:.3f}"] for each in classes]
    table(header, rows)
    say("  (1 is perfect; F1 sums up precision, which false alarms lower, and recall, which misses lower)")
    if classes:
        say("  (IoU is how far the pixels that it marks agree with the masks)")
    say()


def _three(metrics: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{metrics[name]:.3f}" for name in ("F1Score", "Precision", "Recall"))


def _tested(backends: Backends, samples: Mapping[str, Sample], verdicts: bytes) -> list[Judged]:
    tested = []
    for line in map(json.loads, verdicts.splitlines()):
        sample = samples[line["source-ref"]]
        if "error" in line:
            raise NotAsPromised(f"{sample.name} could be trained with, but not looked at: {line['error']}")
        found = [each for each in line.get("Anomalies", ()) if each["Name"] != "background"]
        mask, heatmap = (
            _read(backends, line[name].removeprefix(f"s3://{RESULTS}/")) if name in line else None
            for name in ("mask-ref", "heatmap-ref")
        )
        tested.append(
            Judged(
                sample,
                line["IsAnomalous"],
                line["Confidence"],
                {each["Name"]: each["PixelAnomaly"]["TotalPercentageArea"] for each in found},
                mask,
                {each["Name"]: each["PixelAnomaly"]["Color"] for each in found},
                heatmap,
            )
        )
    return tested


def _print_verdicts(tested: list[Judged]) -> None:
    say("  What the hosted model says of them:")
    say()
    kinds = sorted({each.sample.defect or "normal" for each in tested}, key=lambda kind: kind != "normal")
    rows = []
    for kind in kinds:
        members = [each for each in tested if (each.sample.defect or "normal") == kind]
        anomalous = sum(each.is_anomalous for each in members)
        least = min(each.confidence for each in members)
        rows.append((kind, len(members), len(members) - anomalous, anomalous, f"{least:.1%}"))
    table(("labelled", "images", "found normal", "found anomalous", "least confidence"), rows)
    for each in tested:
        if not each.is_right:
            say(f"  wrong: {each.sample.name} ({each.confidence:.1%} sure)")
    say()


def _check(backends: Backends, collection: Collection, metrics: dict[str, Any], tested: list[Judged]) -> None:
    hits = sum(each.is_anomalous and each.is_right for each in tested)
    wrong = sum(not each.is_right for each in tested)
    f1 = 2 * hits / (2 * hits + wrong) if hits else 0.0
    broken = []
    if len(tested) != len(collection.test):
        broken.append(f"{len(collection.test)} images were to be looked at, and {len(tested)} were")
    if abs(f1 - metrics["F1Score"]) > 1e-6:
        broken.append(f"the hosted model's verdicts have F1 {f1}, and its evaluation {metrics['F1Score']}")
    if collection.is_drawn and f1 < LEAST_F1_OF_PARTS:
        broken.append(f"F1 is {f1:.3f} on the drawn parts, and less than {LEAST_F1_OF_PARTS}")
    if left := backends.client.list_projects()["Projects"]:
        broken.append(f"the service still has {left}")
    if broken:
        raise NotAsPromised("; ".join(broken))
