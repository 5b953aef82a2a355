"""What can be wrong with what the engine is given.

Every error says what is wrong and what to do, in a sentence that can be shown to the user as it is. Errors
about one image carry its index in the sequence that was passed, so that the caller can name it in its own
terms.

    EngineError
    +-- UnusableDataset     the images, labels and masks together cannot be learnt from
    +-- UnusableImage       one image, or its mask, cannot be used; `index` says which
    +-- UnusableArtifact    a folder is not a model that this version can load
    +-- UnusableBackbone    the network's weights are missing or not the ones expected
    +-- Cancelled           the caller asked for the training to stop
"""

# The names say what is wrong; "Error" behind each would say nothing more.

from collections.abc import Sequence

_NAMED = 5


class EngineError(Exception):
    """Anything the engine refuses."""


class UnusableImage(EngineError):
    """One image, or its mask, cannot be used.

    `index` is its place in the sequence of images, or None when a single image was passed; `reason` is the
    sentence without the index.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"image {index}: {reason}")
        self.reason = reason
        self.index = index

    def at(self, index: int) -> "UnusableImage":
        """The same fault, named as that of the image at this index."""
        return UnusableImage(self.reason, index)


class UnusableDataset(EngineError):
    """The images, labels and masks together cannot be learnt from.

    `faults` holds an error for each image that is at fault, in the order of their indices; the message names
    the first few.
    """

    def __init__(self, reason: str, faults: Sequence[UnusableImage] = ()) -> None:
        self.reason = reason
        self.faults = tuple(sorted(faults, key=lambda fault: fault.index or 0))
        named = "; ".join(str(fault) for fault in self.faults[:_NAMED])
        more = f"; and {len(self.faults) - _NAMED} more" if len(self.faults) > _NAMED else ""
        super().__init__(f"{reason}: {named}{more}" if faults else reason)


class UnusableArtifact(EngineError):
    """A folder is not a model that this version can load."""


class UnusableBackbone(EngineError):
    """The network's weights are missing or not the ones expected."""


class Cancelled(EngineError):
    """The caller asked for the training to stop."""
