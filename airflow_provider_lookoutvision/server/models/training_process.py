"""The child process that trains one model: it copies the images, trains, and evaluates.

It reads its task from ``task.json`` in the folder that it is given, reports progress and its end in messages,
a JSON object a line, and writes the model and ``outcome.json`` into the folder. ``child_process`` starts it,
and ends it when its worker has ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine.dataset import check_dataset
from airflow_provider_lookoutvision.engine.masks import erase
from airflow_provider_lookoutvision.server import settings
from airflow_provider_lookoutvision.server.jobs.errors import InvalidInput
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location
from airflow_provider_lookoutvision.server.storage.stores import store

_TASK, _OUTCOME, _MODEL, _BACKBONE = "task.json", "outcome.json", "model", "backbone.onnx"
LARGEST_IMAGE = 8 << 20
_COPIERS = 8
_MAX_NAMED = 10

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Task:
    """The task of a training process.

    :param train: examples as dicts: ``source_ref``, ``label``, ``mask_ref``, which may be None, and
        ``mask_background``, the colours of the mask that are background though the engine doesn't know it.
    :param classes: of defects, each name with its colour; empty without masks.
    :param refit: whether the model is trained again on all images after the evaluation.
    :param effort: ``quick`` or ``thorough``.
    :param backbone: whether the folder has a pretrained network, ``backbone.onnx`` and ``backbone.json``.
    :param patterns: of the buckets that may be used.
    """

    train: Sequence[Mapping[str, Any]]
    test: Sequence[Mapping[str, Any]]
    classes: Mapping[str, str]
    refit: bool
    effort: engine.Effort
    backbone: bool
    patterns: Sequence[str]


def main(folder: Path, output: TextIO) -> int:
    """Run the task in ``folder``."""

    def send(**message: Any) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    try:
        configuration = settings.load({})
        task = Task(**json.loads((folder / _TASK).read_text()))
        training = _Training(
            task, folder, configuration, lambda done, doing: send(progress=round(done, 3), doing=doing)
        )
        (folder / _OUTCOME).write_text(json.dumps(training.run()))
    except InvalidInput as error:
        send(invalid=str(error))
    except BucketError as error:
        send(unreachable=str(error))
    except engine.EngineError as error:
        send(fault=str(error))
    except OSError as error:
        send(fault=f"the data directory can't be used: {error.strerror or error}")
    else:
        send(trained=True)
    return 0


class _Training:
    def __init__(self, task: Task, folder: Path, configuration: settings.Settings, report: Progress) -> None:
        self._task, self._folder, self._report = task, folder, report
        self._buckets = Buckets(store(configuration), task.patterns)
        self._cache = configuration.data_dir / "cache"
        self._classes = [engine.AnomalyClass(name, color) for name, color in task.classes.items()]

    def run(self) -> dict[str, Any]:
        """Train, evaluate, and return the metrics."""
        task = self._task
        backbone = self._folder / _BACKBONE if task.backbone else None
        engine.check_effort(task.effort, backbone)
        everything = [*task.train, *task.test]
        images, masks = self._copy(everything)
        train, test = slice(0, len(task.train)), slice(len(task.train), None)
        labels = [example["label"] for example in everything]
        with _naming_images(everything):
            check_dataset(images, labels, masks, self._classes, self._stage(0.05, 0.1, "checking images"))
        trained, evaluated = (0.6, 0.7) if task.refit else (0.9, 1.0)
        first = self._folder / ("trial" if task.refit else _MODEL)
        with _naming_images(everything[train]):
            report = engine.train(
                images[train],
                labels[train],
                masks[train],
                self._classes,
                first,
                effort=task.effort,
                backbone=backbone,
                cache=self._cache,
                progress=self._scale(0.1, trained),
            )
        with _naming_images(everything[test]):
            evaluation = engine.evaluate(
                engine.load(first, cache=self._cache),
                images[test],
                labels[test],
                masks[test],
                progress=self._scale(trained, evaluated),
            )
        if task.refit:
            with _naming_images(everything):
                report = engine.train(
                    images,
                    labels,
                    masks,
                    self._classes,
                    self._folder / _MODEL,
                    effort=task.effort,
                    backbone=backbone,
                    cache=self._cache,
                    hyperparameters=report.hyperparameters,
                    progress=self._scale(evaluated, 1.0),
                )
        return {
            **_outcome(evaluation),
            "calibrated": report.calibrated,
            "effort": report.effort,
            "backbone": report.hyperparameters.backbone,
            "effort_message": f"Effort {task.effort}: {report.summary}." if report.summary else "",
        }

    def _copy(self, examples: Sequence[Mapping[str, Any]]) -> tuple[list[Path], list[Path | None]]:
        """Copies of the images and masks, which don't change during the training."""
        stage = self._stage(0.0, 0.05, "copying images")
        (self._folder / "images").mkdir()
        problems: dict[tuple[int, str], str] = {}

        def copy(number: int, kind: str, source_ref: str | None) -> Path | None:
            if source_ref is None:
                return None
            path = self._folder / "images" / f"{number}.{kind}"
            try:
                with (
                    self._buckets.open(Location.of(source_ref), LARGEST_IMAGE) as original,
                    path.open("wb") as file,
                ):
                    shutil.copyfileobj(original, file)
            except BucketError as error:
                if not error.input:
                    raise
                problems[number, kind] = str(error)
            return path

        def copy_both(number: int) -> tuple[Path | None, Path | None]:
            example = examples[number]
            image = copy(number, "image", example["source_ref"])
            mask = copy(number, "mask", example["mask_ref"])
            if mask and mask.exists() and example["mask_background"]:
                with suppress(engine.UnusableImage):  # which is reported when all are checked
                    mask.write_bytes(erase(mask.read_bytes(), example["mask_background"]))
            return image, mask

        images, masks = [], []
        with ThreadPoolExecutor(_COPIERS) as copiers:
            for number, (image, mask) in enumerate(copiers.map(copy_both, range(len(examples)))):
                stage(number / len(examples))
                images.append(image)
                masks.append(mask)
        if problems:
            # In the order of the images, not in that of the copiers.
            raise InvalidInput(_first_problems([problem for _, problem in sorted(problems.items())]))
        return [image for image in images if image], masks

    def _scale(self, start: float, end: float) -> Progress:
        return lambda done, doing: self._report(start + (end - start) * done, doing)

    def _stage(self, start: float, end: float, doing: str) -> Callable[[float], None]:
        return lambda done: self._report(start + (end - start) * done, doing)


@contextmanager
def _naming_images(examples: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Name images by their references, where the engine numbers them."""
    try:
        yield
    except engine.UnusableDataset as error:
        named = [
            f"{examples[fault.index]['source_ref']}: {fault.reason}"
            for fault in error.faults
            if fault.index is not None
        ]
        raise InvalidInput(f"{error.reason}: {_first_problems(named)}" if named else error.reason) from None


def _first_problems(problems: Sequence[str]) -> str:
    more = len(problems) - _MAX_NAMED
    return "; ".join(problems[:_MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _outcome(evaluation: engine.Evaluation) -> dict[str, Any]:
    classes = [
        {
            "Precision": metrics.precision,
            "Recall": metrics.recall,
            "F1Score": metrics.f1,
            "AIOU": metrics.iou,
            "ClassName": metrics.name,
        }
        for metrics in evaluation.pixel_metrics
    ]
    return {
        "roc_auc": evaluation.roc_auc,
        "average_precision": evaluation.average_precision,
        **asdict(evaluation.image_metrics),
        "classes": classes,
        "operating_points": [
            {
                "Threshold": point.threshold,
                "Precision": point.precision,
                "Recall": point.recall,
                "F1Score": point.f1,
            }
            for point in evaluation.operating_points
        ],
        "predictions": evaluation.predictions,
    }
