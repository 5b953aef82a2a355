"""The threshold: from the probability that an image is anomalous to a verdict and the confidence in it.

A model's own threshold is 0.5. Another one does not only move the boundary: it shifts the probability so that
the boundary is 0.5 again, as if anomalies were more frequent, or rarer, than the model assumes (Bayes' rule
with the prior odds `(1 - threshold) / threshold`). So the confidence is always that of the verdict, 0.5 to 1,
and the order of images stays.
"""

DEFAULT_THRESHOLD = 0.5


def predict(probability: float, threshold: float = DEFAULT_THRESHOLD) -> tuple[bool, float]:
    """Whether the image is anomalous, and the confidence in that, 0.5 to 1.

    :param probability: that the image is anomalous, 0 to 1, as the model has it
    :param threshold: between 0 and 1; the image is anomalous exactly when the probability is above it
    """
    anomalous = probability > threshold
    if threshold != DEFAULT_THRESHOLD:
        above, below = probability * (1 - threshold), (1 - probability) * threshold
        probability = above / (above + below)
    return anomalous, max(probability if anomalous else 1 - probability, 0.5)
