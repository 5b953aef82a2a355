"""One packaged model, loaded: pixels or an image file in, the verdict and the mask out.

What the model's graph leaves to be done is done as the service does it: the image is resized by Pillow with
the same filter, and an image file is decoded by the same code. So the same bytes have the same verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from airflow_provider_lookoutvision.edge.components import Component, UnusableComponent
from airflow_provider_lookoutvision.engine.inference_runtime import onnxruntime
from airflow_provider_lookoutvision.engine.threshold import predict

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
_CPU = "CPUExecutionProvider"


class UnusableImage(ValueError):
    """An image that the model can't look at; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """What was found.

    :param confidence: in the stated verdict, 0.5 to 1.
    :param probability: of an anomaly.
    :param class_mask: ``height x width``, 0 is the background; None for a model without classes.
    :param areas: of each of the component's classes, the background first, the part of the image.
    """

    is_anomalous: bool
    confidence: float
    probability: float
    class_mask: NDArray[np.uint8] | None
    areas: Sequence[float]


class Runner:
    """A session over a component's graph. Safe to share between threads.

    :param threads: of the network; as many as there are cores when None.
    :raises UnusableComponent: when the file is not the one that the manifest describes, or can't be loaded.
    """

    def __init__(self, component: Component, threads: int | None = None) -> None:
        self.component = component
        try:
            content = component.model_file.read_bytes()
        except OSError as error:
            raise UnusableComponent(f"{component.model_file} can't be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != component.sha256:
            raise UnusableComponent(
                f"{component.model_file} is not the file that the manifest describes: deploy the component "
                "anew"
            )
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores from everything else on the device.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                content, sess_options=options, providers=_providers(component.accelerator)
            )
        except Exception as error:  # of many kinds, none of them public
            raise UnusableComponent(f"{component.model_file} can't be loaded: {error}") from None
        colors = "".join(each.color.removeprefix("#") for each in component.classes)
        self._palette = np.frombuffer(bytes.fromhex(colors), np.uint8).reshape(-1, 3)
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def provider(self) -> str:
        """What the network runs on."""
        return str(self._session.get_providers()[0])

    def prepare(self, width: int, height: int, pixels: bytes | memoryview) -> NDArray[np.uint8]:
        """What the network is to see of an image, given as packed RGB.

        :raises UnusableImage: when it hasn't the size of the images that the model was trained on.
        """
        self._check_size(width, height, f"{width} x {height} pixels")
        image = Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
        if image.size != self.component.input_size:
            image = image.resize(self.component.input_size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        return np.asarray(image)

    def prepare_file(self, content: bytes) -> NDArray[np.uint8]:
        """The same of the bytes of a JPEG or PNG.

        :raises UnusableImage: also when it is no whole JPEG or PNG.
        """
        from airflow_provider_lookoutvision.engine import errors, images

        try:
            picture = images.decode(content, *self.component.input_size)
        except errors.UnusableImage as error:
            raise UnusableImage(str(error)) from None
        size = picture.width, picture.height
        self._check_size(*size, images.describe_size(*size, turned=picture.turned))
        return picture.pixels

    def look(self, prepared: NDArray[np.uint8]) -> Verdict:
        """Run the network."""
        answers = self._session.run(self._outputs, {"image": prepared})
        answer: dict[str, Any] = dict(zip(self._outputs, answers, strict=True))
        probability = float(answer["probability"])
        anomalous, confidence = predict(probability, self.component.threshold)
        mask = answer.get("class_mask")
        return Verdict(
            anomalous,
            confidence,
            probability,
            mask,
            () if mask is None else self._areas(mask),
        )

    def paint(self, mask: NDArray[np.uint8]) -> bytes:
        """A class mask as packed RGB, in the colours of the classes."""
        painted = np.empty((*mask.shape, 3), np.uint8)
        painted[:] = np.tile(self._palette[0], (mask.shape[1], 1))  # by rows: a pixel at a time takes long
        # Only where there is something to paint: most of a mask is background, and all of most masks.
        rows = np.flatnonzero(mask.any(axis=1))
        if len(rows):
            band = mask[rows[0] : rows[-1] + 1]
            columns = np.flatnonzero(band.any(axis=0))
            across = slice(columns[0], columns[-1] + 1)
            found = Image.fromarray(np.ascontiguousarray(band[:, across]))
            found.putpalette(self._palette.tobytes())
            painted[rows[0] : rows[-1] + 1, across] = np.asarray(found.convert("RGB"))
        return painted.tobytes()

    def _areas(self, mask: NDArray[np.uint8]) -> list[float]:
        counts = [np.count_nonzero(mask == index) for index in range(len(self.component.classes))]
        return [count / mask.size for count in counts]

    def _check_size(self, width: int, height: int, description: str) -> None:
        if (width, height) != self.component.image_size:
            raise UnusableImage(
                f"the image has {description}, and the model was trained on images of {{}} x {{}}".format(
                    *self.component.image_size
                )
            )


def _providers(accelerator: str | None) -> list[str]:
    if accelerator is None:
        return [_CPU]
    available = onnxruntime.get_available_providers()
    return [*(name for name in _GPU if name in available), _CPU]
