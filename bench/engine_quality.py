"""How good the engine is on labelled images, by cross-validation or on repeated held-out splits.

    python -m bench.engine_quality FOLDER --folds 5
    python -m bench.engine_quality FOLDER --train 30+15 --splits 10
    python -m bench.engine_quality some.manifest --images DIR --masks DIR --folds 5

`bench.engine_data` describes folders and manifests. Each split trains anew, with the search for
hyperparameters inside, and is evaluated on the other images.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import AnomalyClass, load, metrics
from bench import engine_data
from bench.engine_data import LabelledImages


def splits(dataset: LabelledImages, options: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The indices of the images to train on, and of the others."""
    anomalous = dataset.anomalous
    if options.train is None:
        splitter = StratifiedKFold(options.folds, shuffle=True, random_state=options.seed)
        yield from splitter.split(anomalous, anomalous)
        return
    normal_count, anomaly_count = (int(number) for number in options.train.split("+"))
    for split in range(options.splits):
        rng = np.random.default_rng(options.seed + split)
        normal = rng.permutation(np.flatnonzero(~anomalous))
        anomalies = rng.permutation(np.flatnonzero(anomalous))
        yield (
            np.concatenate([normal[:normal_count], anomalies[:anomaly_count]]),
            np.concatenate([normal[normal_count:], anomalies[anomaly_count:]]),
        )


def main() -> None:
    parser = engine_data.argument_parser(__doc__)
    engine_data.add_image_arguments(parser)
    parser.add_argument("--classes", nargs="*", default=[], metavar="NAME=#RRGGBB")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--train", metavar="NORMAL+ANOMALOUS")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--effort", choices=["quick", "thorough"], default="quick")
    parser.add_argument("--backbone", type=Path, help="the ONNX file of another network; see docs/engine.md")
    engine_data.add_hyperparameter_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = engine_data.read_images(options, [AnomalyClass(*item.split("=")) for item in options.classes])
    y_true: list[bool] = []
    y_pred: list[bool] = []
    probabilities: list[float] = []
    f1s, ious = [], []
    for number, (training, held_out) in enumerate(splits(dataset, options)):
        with tempfile.TemporaryDirectory() as folder:
            some, rest = dataset.subset(training), dataset.subset(held_out)
            start = time.perf_counter()
            out = Path(folder, "model")
            given = engine_data.hyperparameters(options)
            how = {"seed": options.seed, "effort": options.effort, "backbone": options.backbone}
            report = some.train(out, hyperparameters=given, **how)
            seconds = time.perf_counter() - start
            if report.summary:
                print(report.summary)
            result = rest.evaluate(load(out))
        y_true += rest.anomalous.tolist()
        y_pred += [anomalous for anomalous, _ in result.predictions]
        probabilities += [
            confidence if anomalous else 1 - confidence for anomalous, confidence in result.predictions
        ]
        f1s.append(result.image_metrics.f1)
        class_ious = [pixels.iou for pixels in result.pixel_metrics]
        ious += class_ious
        print(
            f"{number}: {len(training)} -> {len(held_out)}, {report.hyperparameters}, {seconds:.0f} s, "
            f"F1 {f1s[-1]:.3f}, AUROC {result.roc_auc:.3f}, IoU {np.mean(class_ious or [np.nan]):.3f}",
            flush=True,
        )
    total = metrics.classification_metrics(y_true, y_pred)
    print(
        f"all: F1 {total.f1:.3f} (mean of splits {np.mean(f1s):.3f}), precision {total.precision:.3f}, "
        f"recall {total.recall:.3f}, AUROC {metrics.roc_auc(y_true, probabilities):.3f}, "
        f"log-loss {metrics.log_loss(y_true, probabilities):.3f}, IoU {np.mean(ious or [np.nan]):.3f}"
    )


if __name__ == "__main__":
    main()
