"""The second pass over small defects on large images: their masks are painted from the image's own pixels.

Where the working size is much smaller than the image, a patch of it covers more pixels than a small defect
has, and what is painted is a blob of the wrong size. So windows of the image around the most suspicious
patches are enlarged twofold and shown to the pretrained network, and a patch head of their own paints them: a
patch is then four pixels wide. The verdict stays that of the whole image. Looking coarsely first and finely
where it pays is the cascade of Viola and Jones (2001), "Rapid Object Detection using a Boosted Cascade of
Simple Features".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from airflow_provider_lookoutvision.engine import linear_description, mask_painting
from airflow_provider_lookoutvision.engine.backbone import STRIDE, Backbone, FloatArray
from airflow_provider_lookoutvision.engine.class_presence import ClassPresence
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact
from airflow_provider_lookoutvision.engine.feature_store import PATCH_PIXELS
from airflow_provider_lookoutvision.engine.images import Pixels
from airflow_provider_lookoutvision.engine.masks import ClassMask
from airflow_provider_lookoutvision.engine.patch_head import PatchHead

# How much windows are enlarged, and how many of them an image has at most.
ZOOM, MAX_WINDOWS = 2, 8
# How much larger than its working size an image has to be, in both directions.
_MIN_RATIO = 1.5
# The least side of a window in pixels of the image, and in patches of the working size, because the most
# suspicious patch may be beside the defect.
_MIN_SIDE, _MIN_PATCHES = 128, 4
_KEYS = {"window", "floor", "offset"}


class Window(NamedTuple):
    """A square part of an image, by its left upper corner, in pixels of the image.

    :param logit: of its most suspicious patch being of any class
    """

    left: int
    top: int
    logit: float

    @property
    def corner(self) -> tuple[int, int]:
        """The left and the top."""
        return self.left, self.top


@dataclass(frozen=True)
class Refinement:
    """What paints the windows.

    :param head: of the patches of windows
    :param offset: is added to its logits before they are compared with the background's 0
    :param presence: decides which classes are painted in the windows; all are when None
    :param window: the side of a window in pixels of the image, a multiple of 16
    :param floor: the any-class logit of the whole image's patches above which a place is refined
    """

    head: PatchHead
    offset: float
    presence: ClassPresence | None
    window: int
    floor: float

    def paint(
        self,
        mask: ClassMask,
        parts: Sequence[Pixels],
        places: Sequence[Window],
        backbone: Backbone,
        image_logit: float,
    ) -> None:
        """Replace windows of a mask.

        :param mask: of the whole image, `height x width`, which is changed
        :param parts: the pixels of each window, `window x window x 3`, RGB
        :param places: one or more windows, the most suspicious first
        :param image_logit: the log-odds that the image is anomalous
        """
        logits = [self.head.logits(backbone.features(enlarged(pixels))) for pixels in parts]
        self.paint_logits(mask, places, logits, image_logit)

    def paint_logits(
        self, mask: ClassMask, places: Sequence[Window], logits: Sequence[FloatArray], image_logit: float
    ) -> None:
        """Replace windows of a mask, given the head's logits, `rows x columns x classes` of each window."""
        stacked = mask_painting.painted_logits(
            np.concatenate(logits), self.offset, self.presence, image_logit
        )
        # Where windows overlap, the more suspicious one counts.
        for place, painted in list(zip(places, np.split(stacked, len(places)), strict=True))[::-1]:
            crop(mask, place, self.window)[:] = mask_painting.class_mask(painted, self.window, self.window)


def window_side(image_size: tuple[int, int], working_size: tuple[int, int]) -> int | None:
    """The side of windows in pixels of the image, a multiple of 16; None where a second pass is of no use.

    :param image_size: width and height in pixels
    :param working_size: width and height that the image is resized to
    """
    ratios = [length / working for length, working in zip(image_size, working_size, strict=True)]
    step = STRIDE // ZOOM
    side = step * math.ceil(max(_MIN_SIDE, _MIN_PATCHES * PATCH_PIXELS * max(ratios)) / step)
    return side if min(ratios) >= _MIN_RATIO and side <= min(image_size) else None


def windows(
    any_class: FloatArray, image_size: tuple[int, int], side: int, floor: float = -np.inf
) -> list[Window]:
    """The most suspicious places of an image, the most suspicious first, at most eight.

    Each is around the patch with the highest logit that is in no window before it.

    :param any_class: the logit of each patch of the whole image being of any class, `rows x columns`
    :param image_size: width and height of the image in pixels, at least `side`
    :param floor: only places with logits above it
    """
    remaining, (rows, columns) = any_class.astype(np.float32), any_class.shape
    width, height = image_size
    across, down = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    places: list[Window] = []
    while len(places) < MAX_WINDOWS:
        row, column = np.unravel_index(int(remaining.argmax()), remaining.shape)
        logit = float(remaining[row, column])
        if logit <= floor:
            break
        left, top = around((float(across[column]), float(down[row])), image_size, side)
        places.append(Window(left, top, logit))
        inside = np.ix_((down >= top) & (down < top + side), (across >= left) & (across < left + side))
        remaining[inside] = -np.inf
    return places


def around(centre: tuple[float, float], image_size: tuple[int, int], side: int) -> tuple[int, int]:
    """The left and the top of a window around a point of an image, moved to be inside of it."""
    left, top = (
        min(max(0, round(at - side / 2)), length - side)
        for at, length in zip(centre, image_size, strict=True)
    )
    return left, top


def crop(mask: ClassMask, place: Window, side: int) -> ClassMask:
    """A view of a window of a mask, `side x side`."""
    return mask[place.top : place.top + side, place.left : place.left + side]


def enlarged(pixels: Pixels) -> Pixels:
    """A window as the network sees it, twice as large."""
    height, width, _ = pixels.shape
    size = ZOOM * width, ZOOM * height
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def describe(refinement: Refinement) -> dict[str, Any]:
    """What `build` reads, but for the head."""
    description: dict[str, Any] = {
        "window": refinement.window,
        "floor": refinement.floor,
        "offset": refinement.offset,
    }
    if refinement.presence is not None:
        description["presence"] = linear_description.describe(refinement.presence)
    return description


def build(
    description: dict[str, Any],
    head: PatchHead,
    image_size: tuple[int, int],
    working_size: tuple[int, int],
    class_count: int,
) -> Refinement:
    """The refinement that the description of a model has.

    :param image_size: of the model, width and height in pixels
    :param working_size: likewise
    :param class_count: of the model
    :raises UnusableArtifact: it is not one of such a model, or has unknown parts
    """
    if not _KEYS <= set(description) <= _KEYS | {"presence"}:
        raise UnusableArtifact("the model's refinement of masks is of another version; train it anew")
    side = window_side(image_size, working_size)
    if side is None or description["window"] != side or not len(head.bias) == class_count > 0:
        raise UnusableArtifact("the model's refinement of masks does not fit its images or classes")
    floor, offset = float(description["floor"]), float(description["offset"])
    if not (math.isfinite(floor) and math.isfinite(offset)):
        raise UnusableArtifact("the model's refinement of masks has numbers that are not finite")
    return Refinement(head, offset, linear_description.read_presence(description), side, floor)
