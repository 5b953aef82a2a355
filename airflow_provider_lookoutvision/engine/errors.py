"""The engine's errors.

The message of every error can be shown to the user: it states what is wrong and what to do. An error about
one image has its index in the sequence that was passed, so that the caller can name the image.

    EngineError
    +-- UnusableDataset     the images, labels and masks are no training set
    +-- UnusableImage       one image, or its mask, cannot be used; `index` is its place
    +-- UnusableArtifact    a folder is not a model that this version can load
    +-- UnusableBackbone    the network's weights are missing or not the ones expected, or a user's
                            network can't be used
    +-- MissingDependency   what was requested needs a package that is not installed
    +-- Cancelled           the caller cancelled the training or the evaluation
"""

from collections.abc import Sequence

_MAX_NAMED = 5


class EngineError(Exception):
    """The base class of the engine's errors."""


class UnusableImage(EngineError):
    """One image, or its mask, cannot be used.

    :param reason: the message without the index
    :param index: the place in the sequence of images, or None when a single image was passed
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"image {index}: {reason}")
        self.reason = reason
        self.index = index

    def with_index(self, index: int) -> "UnusableImage":
        """The same error, of the image at this index."""
        return UnusableImage(self.reason, index)


class UnusableDataset(EngineError):
    """The images, labels and masks are no training set.

    :param reason: the message without the images
    :param faults: an error for each image that is at fault; the message has the first five
    """

    def __init__(self, reason: str, faults: Sequence[UnusableImage] = ()) -> None:
        self.reason = reason
        self.faults = tuple(sorted(faults, key=lambda fault: fault.index or 0))
        named = "; ".join(str(fault) for fault in self.faults[:_MAX_NAMED])
        more = f"; and {len(self.faults) - _MAX_NAMED} more" if len(self.faults) > _MAX_NAMED else ""
        super().__init__(f"{reason}: {named}{more}" if faults else reason)


class UnusableArtifact(EngineError):
    """A folder is not a model that this version can load."""


class UnusableBackbone(EngineError):
    """The network's weights are missing or not the ones expected, or a user's network can't be used."""


class MissingDependency(EngineError):
    """What was requested needs a package that is not installed; the message says how to install it."""


class Cancelled(EngineError):
    """The caller cancelled the training or the evaluation."""
