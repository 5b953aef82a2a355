"""Paints the mask of an image, or of a part of one, from the logits of its patches."""

import numpy as np
from PIL import Image

from airflow_provider_lookoutvision.engine import class_presence
from airflow_provider_lookoutvision.engine.backbone import FloatArray
from airflow_provider_lookoutvision.engine.class_presence import ClassPresence
from airflow_provider_lookoutvision.engine.masks import ClassMask

BAND_ROWS = 256
# The logit of a class that is not in the image.
NOT_PAINTED = -1000.0


def painted_logits(
    logits: FloatArray, offset: float, presence: ClassPresence | None, image_logit: float
) -> FloatArray:
    """What `class_mask` paints, `rows x columns x classes`: moved by the offset, without absent classes.

    :param logits: of the patches, `rows x columns x classes`
    :param presence: decides which classes are painted; all are when None
    :param image_logit: the log-odds that the image is anomalous
    """
    painted = logits + offset
    if presence is not None:
        present = presence.present(class_presence.scores(logits, image_logit))
        painted[..., ~present] = NOT_PAINTED
    return painted


def class_mask(logits: FloatArray, width: int, height: int) -> ClassMask:
    """The class of each pixel, `height x width`: the one with the highest logit, or 0 where that is not
    positive.

    :param logits: of the patches, `rows x columns x classes`; interpolated bilinearly
    """
    rows, columns, classes = logits.shape
    planes = [Image.fromarray(np.ascontiguousarray(logits[..., index])) for index in range(classes)]
    mask = np.empty((height, width), np.uint8)
    # In bands of rows, because the logits of a large mask with many classes would take gigabytes.
    for top in range(0, height, BAND_ROWS):
        band = mask[top : top + BAND_ROWS]
        box = (0, top * rows / height, columns, (top + len(band)) * rows / height)
        highest = np.zeros(band.shape, np.float32)
        band[:] = 0
        for index, plane in enumerate(planes, start=1):
            values = np.asarray(plane.resize((width, len(band)), Image.Resampling.BILINEAR, box))
            higher = values > highest
            band[higher] = index
            np.maximum(values, highest, out=highest)
    return mask
