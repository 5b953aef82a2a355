"""Cross-validation within the training set: how well given hyperparameters do on images not trained on.

The folds are stratified and repeated. Hyperparameters are compared by the log-loss of the stacked
probability, which differs even where all of a few images are classified correctly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import calibration, heads, mask_calibration, metrics
from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.calibration import StackedClassifier
from airflow_provider_lookoutvision.engine.feature_store import FeatureStore
from airflow_provider_lookoutvision.engine.mask_calibration import HeldOutMap, HeldOutMaps, MaskCalibration
from airflow_provider_lookoutvision.engine.targets import Targets

FOLDS = 5
# The fewer images a bank has, the farther are the others: the threshold is of scores by banks of nearly all.
_FOLDS_WITHOUT_ANOMALIES = 10
# Enough to hold some out and still fit the heads.
MIN_ANOMALIES = 4


@dataclass(frozen=True)
class CrossValidationResult:
    """Out-of-fold scores, and what was fitted to them.

    :param classifier: of the scores
    :param scores: `(repeats * n) x heads`
    :param anomalous: the labels of the scores
    :param loss: log-loss of the classifier; infinite without enough anomalies
    :param masks: how masks are painted, and how well they match
    :param maps: what the masks were calibrated on
    """

    classifier: StackedClassifier
    scores: FloatArray
    anomalous: NDArray[np.bool_]
    loss: float
    masks: MaskCalibration
    maps: tuple[HeldOutMap, ...]

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
    repeats: int,
    seed: int,
    on_progress: Callable[[float], None],
) -> CrossValidationResult:
    """Fit the heads to all views of each training fold, and score the held-out images without augmentation.

    :param repeats: how often to split into folds; once without enough anomalies
    :param on_progress: called with the fraction done, 0 to 1, before each fold; may raise to stop
    """
    supervised = has_enough_anomalies(targets.anomalous)
    count = len(targets.anomalous)
    smallest_class = int((targets.anomalous if supervised else ~targets.anomalous).sum())
    if supervised:
        folds = max(2, min(FOLDS, smallest_class))
    else:
        folds, repeats = max(2, min(_FOLDS_WITHOUT_ANOMALIES, smallest_class)), 1
    rows: list[FloatArray] = []
    maps = HeldOutMaps(targets, repeats, store.shape[0] * store.shape[1], np.random.default_rng([seed, 5]))
    for repeat in range(repeats):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed + repeat)
        scores: dict[int, FloatArray] = {}
        splits = splitter.split(np.zeros(count), targets.anomalous & supervised)
        for fold, (train, held_out) in enumerate(splits):
            on_progress((repeat * folds + fold) / (repeats * folds))
            rng = np.random.default_rng([seed, repeat, fold])
            fitted = heads.fit(store, targets, train, supervised=supervised, rng=rng)
            for index in held_out.tolist():
                scores[index], logits = fitted.scores(store.get(index))
                if logits is not None:
                    maps.add(index, repeat * count + index, logits)
        rows.append(np.stack([scores[index] for index in range(count)]))
    out_of_fold, anomalous = np.concatenate(rows), np.tile(targets.anomalous, repeats)
    if supervised:
        classifier = calibration.fit(out_of_fold, anomalous)
        loss = metrics.log_loss(anomalous, classifier.probability(out_of_fold))
    else:
        classifier = calibration.fit_without_anomalies(out_of_fold[~anomalous])
        loss = float("inf")
    masks = mask_calibration.calibrate(maps.maps, classifier.logit(out_of_fold), targets)
    return CrossValidationResult(classifier, out_of_fold, anomalous, loss, masks, tuple(maps.maps))
