"""Cross-validation within the training set: how well given hyperparameters do on images not trained on.

The folds are stratified and repeated. Hyperparameters are compared by the log-loss of the stacked
probability, which differs even where all of a few images are classified correctly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import calibration, heads, metrics
from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.calibration import StackedClassifier
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore, upsample
from airflow_provider_lookoutvision.engine.masks import Coverage
from airflow_provider_lookoutvision.engine.memory_bank import DEFAULT_FEATURES, BankFeatures
from airflow_provider_lookoutvision.engine.targets import Targets

FOLDS = 5
# Enough to hold some out and still fit the heads.
MIN_ANOMALIES = 4
# Candidates for what is added to the logits of the classes before they are compared with the background's 0.
LOGIT_OFFSETS = np.arange(-6.0, 2.5, 0.5)


@dataclass(frozen=True)
class CrossValidationResult:
    """Out-of-fold scores, and what was fitted to them.

    :param classifier: of the scores
    :param scores: `(repeats * n) x heads`
    :param anomalous: the labels of the scores
    :param loss: log-loss of the classifier; infinite without enough anomalies
    :param offset: what to add to the logits of the classes for the best masks
    :param iou: mean IoU of the masks at that offset, 0 to 1; 0 without masks
    :param ious: by image with a mask, the IoU at each offset
    """

    classifier: StackedClassifier
    scores: FloatArray
    anomalous: NDArray[np.bool_]
    loss: float
    offset: float
    iou: float
    ious: dict[int, FloatArray]

    @property
    def f1(self) -> float:
        """F1 of the classifier on the scores that it was fitted to: somewhat optimistic."""
        return metrics.classification_metrics(
            self.anomalous, self.classifier.probability(self.scores) > 0.5
        ).f1


def has_enough_anomalies(anomalous: NDArray[np.bool_]) -> bool:
    """Whether the heads that need anomalies can be fitted and validated: there are four or more."""
    return int(anomalous.sum()) >= MIN_ANOMALIES


def cross_validate(
    store: FeatureStore,
    targets: Targets,
    *,
    features: BankFeatures = DEFAULT_FEATURES,
    repeats: int,
    seed: int,
    on_progress: Callable[[float], None],
) -> CrossValidationResult:
    """Fit the heads to all views of each training fold, and score the held-out images without augmentation.

    :param features: of the memory bank
    :param on_progress: called with the fraction done, 0 to 1, before each fold; may raise to stop
    """
    supervised = has_enough_anomalies(targets.anomalous)
    count = len(targets.anomalous)
    smallest_class = int((targets.anomalous if supervised else ~targets.anomalous).sum())
    folds = max(2, min(FOLDS, smallest_class))
    rows: list[FloatArray] = []
    ious: dict[int, list[FloatArray]] = {}
    for repeat in range(repeats):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed + repeat)
        scores: dict[int, FloatArray] = {}
        splits = splitter.split(np.zeros(count), targets.anomalous & supervised)
        for fold, (train, held_out) in enumerate(splits):
            on_progress((repeat * folds + fold) / (repeats * folds))
            rng = np.random.default_rng([seed, repeat, fold])
            fitted = heads.fit(store, targets, train, supervised=supervised, features=features, rng=rng)
            for index in held_out.tolist():
                scores[index], logits = fitted.scores(store.get(index))
                if logits is not None and targets.coverage.get(index):
                    ious.setdefault(index, []).append(mask_ious(logits, targets.coverage[index]))
        rows.append(np.stack([scores[index] for index in range(count)]))
    out_of_fold, anomalous = np.concatenate(rows), np.tile(targets.anomalous, repeats)
    if supervised:
        classifier = calibration.fit(out_of_fold, anomalous)
        loss = metrics.log_loss(anomalous, classifier.probability(out_of_fold))
    else:
        classifier = calibration.fit_without_anomalies(out_of_fold[~anomalous])
        loss = float("inf")
    means = {index: np.mean(rows, axis=0) for index, rows in ious.items()}
    table = np.stack(list(means.values())) if means else np.zeros((1, len(LOGIT_OFFSETS)), np.float32)
    offset = calibration.best_offset(table, LOGIT_OFFSETS) if means else 0.0
    return CrossValidationResult(
        classifier, out_of_fold, anomalous, loss, offset, float(table.mean(axis=0).max()), means
    )


def mask_ious(logits: FloatArray, coverage: Coverage) -> FloatArray:
    """The IoU at each offset, on the cells of the coverage: the mean over the classes in the mask.

    :param logits: `rows x columns x classes`; interpolated to the cells
    """
    enlarged = upsample(logits, len(next(iter(coverage.values()))) // len(logits))
    best_class, highest = enlarged.argmax(axis=2), enlarged.max(axis=2)
    true = {index: cells.astype(np.float32) / 255 for index, cells in coverage.items()}
    result = np.zeros(len(LOGIT_OFFSETS), np.float32)
    for column, offset in enumerate(LOGIT_OFFSETS):
        defective = highest + offset > 0
        for index, covered in true.items():
            predicted = defective & (best_class == index)
            both = float(covered[predicted].sum())
            either = float(covered.sum()) + float(predicted.sum()) - both
            result[column] += both / max(either, 1e-6) / len(true)
    return result
