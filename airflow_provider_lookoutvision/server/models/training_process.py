"""The child process that trains one model: it copies the images, learns, and tries what it learnt.

It reads what to do from ``task.json`` in the folder that it is given, says in messages, a JSON object a line,
how far it is and how it ended, and leaves the model and ``outcome.json`` in the folder. ``child`` starts it,
and ends it when its worker has gone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_lookoutvision import engine
from airflow_provider_lookoutvision.engine.dataset import check_dataset
from airflow_provider_lookoutvision.server import settings
from airflow_provider_lookoutvision.server.jobs.handler import InvalidInput
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location, store

_TASK, _OUTCOME, _MODEL = "task.json", "outcome.json", "model"
LARGEST_IMAGE = 8 << 20
_COPIERS = 8
_SHOWN = 10

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Task:
    """What to do.

    :param train: examples as dicts: ``source_ref``, ``label`` and ``mask_ref``, which may be None.
    :param classes: of defects, each name with its colour; empty without masks.
    :param refit: whether the model is fitted on all images once it has been tried.
    :param patterns: the buckets that may be used.
    """

    train: Sequence[Mapping[str, Any]]
    test: Sequence[Mapping[str, Any]]
    classes: Mapping[str, str]
    refit: bool
    patterns: Sequence[str]


def main(folder: Path, output: TextIO) -> int:
    """Do the task in ``folder``."""

    def say(**message: Any) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    try:
        configuration = settings.load({})
        task = Task(**json.loads((folder / _TASK).read_text()))
        work = _Work(
            task, folder, configuration, lambda done, doing: say(progress=round(done, 3), doing=doing)
        )
        (folder / _OUTCOME).write_text(json.dumps(work.do()))
    except InvalidInput as error:
        say(invalid=str(error))
    except BucketError as error:
        say(unreachable=str(error))
    except engine.EngineError as error:
        say(fault=str(error))
    except OSError as error:
        say(fault=f"the data directory can't be used: {error.strerror or error}")
    else:
        say(trained=True)
    return 0


class _Work:
    def __init__(self, task: Task, folder: Path, configuration: settings.Settings, report: Report) -> None:
        self._task, self._folder, self._report = task, folder, report
        self._buckets = Buckets(store(configuration), task.patterns)
        self._cache = configuration.data_dir / "cache"
        self._classes = [engine.AnomalyClass(name, color) for name, color in task.classes.items()]

    def do(self) -> dict[str, Any]:
        """Train, evaluate, and tell the figures."""
        task = self._task
        everything = [*task.train, *task.test]
        images, masks = self._copy(everything)
        train, test = slice(0, len(task.train)), slice(len(task.train), None)
        labels = [example["label"] for example in everything]
        with _naming(everything):
            check_dataset(images, labels, masks, self._classes, self._stage(0.05, 0.1, "checking images"))
        trained, tried = (0.6, 0.7) if task.refit else (0.9, 1.0)
        first = self._folder / ("trial" if task.refit else _MODEL)
        with _naming(everything[train]):
            report = engine.train(
                images[train],
                labels[train],
                masks[train],
                self._classes,
                first,
                cache=self._cache,
                progress=self._scale(0.1, trained),
            )
        with _naming(everything[test]):
            evaluation = engine.evaluate(
                engine.load(first, cache=self._cache),
                images[test],
                labels[test],
                masks[test],
                progress=self._scale(trained, tried),
            )
        if task.refit:
            with _naming(everything):
                engine.train(
                    images,
                    labels,
                    masks,
                    self._classes,
                    self._folder / _MODEL,
                    cache=self._cache,
                    hyperparameters=report.hyperparameters,
                    progress=self._scale(tried, 1.0),
                )
        return {**_outcome(evaluation), "calibrated": report.calibrated}

    def _copy(self, examples: Sequence[Mapping[str, Any]]) -> tuple[list[Path], list[Path | None]]:
        """The images and masks as files of this training's own: nobody changes them while it lasts."""
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
            return copy(number, "image", example["source_ref"]), copy(number, "mask", example["mask_ref"])

        images, masks = [], []
        with ThreadPoolExecutor(_COPIERS) as copiers:
            for number, (image, mask) in enumerate(copiers.map(copy_both, range(len(examples)))):
                stage(number / len(examples))
                images.append(image)
                masks.append(mask)
        if problems:
            # Not in the order in which the copiers met them.
            raise InvalidInput(_counted([problem for _, problem in sorted(problems.items())]))
        return [image for image in images if image], masks

    def _scale(self, start: float, end: float) -> Report:
        return lambda done, doing: self._report(start + (end - start) * done, doing)

    def _stage(self, start: float, end: float, doing: str) -> Callable[[float], None]:
        return lambda done: self._report(start + (end - start) * done, doing)


@contextmanager
def _naming(examples: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Name images as their users do, where the engine numbers them."""
    try:
        yield
    except engine.UnusableDataset as error:
        named = [
            f"{examples[fault.index]['source_ref']}: {fault.reason}"
            for fault in error.faults
            if fault.index is not None
        ]
        raise InvalidInput(f"{error.reason}: {_counted(named)}" if named else error.reason) from None


def _counted(problems: Sequence[str]) -> str:
    left = len(problems) - _SHOWN
    return "; ".join(problems[:_SHOWN]) + (f"; and {left} more" if left > 0 else "")


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
        "predictions": evaluation.predictions,
    }
