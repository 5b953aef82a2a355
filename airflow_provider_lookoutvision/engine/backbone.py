"""From pixels to feature maps, by a network that is built once and kept.

The graph made from the published weights is kept in the cache folder under the digest of what it was made
from, so that later processes read one file. `features` runs it; `graph` hands it out for a detector to build
upon.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from airflow_provider_lookoutvision.engine import network, weights
from airflow_provider_lookoutvision.engine.images import Pixels

STRIDE = 32
LEVELS = ("fine", "middle", "coarse")
CHANNELS = (40, 112, 320)
# Of the summary: the texture's part and the content's.
SUMMARIES = (144, 320)
# Changes when the graph does: models remember which features they were trained on.
NAME = f"efficientnet-lite0-{weights.SHA256[:12]}-2"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """The maps of one image, each `rows x columns x channels`: `fine` has twice the rows and columns of
    `middle`, and that twice those of `coarse`; and its summary, 464 numbers.
    """

    fine: Array
    middle: Array
    coarse: Array
    summary: Array


def default_cache() -> Path:
    """The folder for what can be made again, of the user who runs this process."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "airflow-provider-lookoutvision")


def graph(cache: Path | None = None) -> onnx.ModelProto:
    """The network with its three feature maps and the summary as outputs.

    :param cache: folder to keep it in; the user's cache folder when None
    :raises UnusableBackbone: the weights are not installed or not the ones expected
    """
    kept = (cache or default_cache()) / f"{NAME}.onnx"
    if kept.is_file():
        content = kept.read_bytes()
        digest, body = content[:32], content[32:]
        # A cache is never trusted: a file that was cut short or changed is made again.
        if hashlib.sha256(body).digest() == digest:
            return onnx.load_from_string(body)
    model = network.build(weights.read(weights.find()))
    body = model.SerializeToString()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
        file.write(hashlib.sha256(body).digest() + body)
    Path(file.name).replace(kept)
    return model


def session(model: onnx.ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """An inference session over a graph.

    :param threads: how many to use; as many as the machine has cores when None
    """
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from everything else on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


class Backbone:
    """The network, ready to run on one image at a time."""

    def __init__(self, cache: Path | None = None, threads: int | None = None) -> None:
        self._session = session(graph(cache), threads)

    def features(self, pixels: Pixels) -> Features:
        """The feature maps and the summary of an image whose sides are multiples of 32."""
        *maps, summary = self._session.run((*LEVELS, network.SUMMARY), {network.IMAGE: pixels})
        fine, middle, coarse = (np.ascontiguousarray(level[0].transpose(1, 2, 0)) for level in maps)
        return Features(fine, middle, coarse, summary[0])
