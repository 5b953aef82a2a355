"""The pretrained network: from pixels to feature maps.

The ONNX graph is built once from the published weights and cached in a folder, under a name with the digest
of the weights, so that later processes read one file. `Backbone.features` runs the graph; `load_graph`
returns it for a detector to extend. A user's own network, of `custom_backbone`, takes its place.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from airflow_provider_lookoutvision.engine import network, weights
from airflow_provider_lookoutvision.engine.errors import UnusableBackbone
from airflow_provider_lookoutvision.engine.images import Pixels
from airflow_provider_lookoutvision.engine.inference_runtime import onnxruntime
from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder

if TYPE_CHECKING:
    from airflow_provider_lookoutvision.engine.custom_backbone import CustomBackbone

STRIDE = 32
LEVELS = network.LEVELS
# Changes whenever the graph does: a model names the features that it was trained on.
NAME = f"efficientnet-lite0-{weights.SHA256[:12]}-2"

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """The channels of a network's outputs.

    :param maps: of the feature maps at strides 8, 16 and 32
    :param summary: of the two parts of the summary, texture and content
    :param detail: of the map at stride 4, by two times two cells; 0 where there is none
    """

    maps: tuple[int, ...]
    summary: tuple[int, ...]
    detail: int = 0


CHANNELS = Channels((40, 112, 320), (144, 320), 96)


@dataclass(frozen=True)
class Features:
    """The feature maps of one image, each `rows x columns x channels`, and its summary.

    :param fine: stride 8; 40 channels, or those of a user's network
    :param middle: stride 16; 112 channels
    :param coarse: stride 32; 320 channels
    :param summary: pooled features of the whole image; 464 numbers, see `network`
    :param detail: stride 4, two times two cells as one of `fine`; 96 channels; None unless requested
    :param half: those of the image at half its size, see `working_size.is_halved`; None unless requested
    """

    fine: FloatArray
    middle: FloatArray
    coarse: FloatArray
    summary: FloatArray
    detail: FloatArray | None = None
    half: "Features | None" = None


def default_cache() -> Path:
    """The cache folder of the user who runs this process."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "airflow-provider-lookoutvision")


def channels_of(custom: "CustomBackbone | None") -> Channels:
    """The channels of a user's network; those of EfficientNet-lite0 when None."""
    return CHANNELS if custom is None else custom.channels


def load_graph(cache: Path | None = None, custom: "CustomBackbone | None" = None) -> onnx.ModelProto:
    """The network, with its three feature maps and the summary as outputs.

    :param cache: folder for the ONNX file of EfficientNet-lite0; the user's cache folder when None
    :param custom: a user's network; EfficientNet-lite0 when None
    :raises UnusableBackbone: the weights are not installed or not the ones expected
    """
    if custom is not None:
        return custom.graph
    path = (cache or default_cache()) / f"{NAME}.onnx"
    if path.is_file():
        content = path.read_bytes()
        digest, body = content[:32], content[32:]
        # A file that was cut short or changed is written again.
        if hashlib.sha256(body).digest() == digest:
            return onnx.load_from_string(body)
    model = network.build(weights.read(weights.find()))
    body = model.SerializeToString()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(hashlib.sha256(body).digest() + body)
    Path(file.name).replace(path)
    return model


def create_session(model: onnx.ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU.

    :param threads: number of threads for one inference; as many as the machine has cores when None
    """
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # Spinning threads would take the cores from everything else on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # It would keep the memory of the first image, and take as much again for all others.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


class Backbone:
    """The network, for one image at a time.

    :param custom: a user's network; EfficientNet-lite0 when None
    :param detail: whether features have the map at stride 4 too, where the network has one
    """

    def __init__(
        self,
        cache: Path | None = None,
        threads: int | None = None,
        custom: "CustomBackbone | None" = None,
        *,
        detail: bool = False,
    ) -> None:
        self.custom, self.channels = custom, channels_of(custom)
        self._cache, self._threads = cache, threads
        graph = load_graph(cache, custom)
        self._outputs = [*LEVELS, network.SUMMARY]
        if detail and self.channels.detail:
            self._outputs.append(_add_detail(graph))
        self._session = create_session(graph, threads)

    @property
    def has_detail(self) -> bool:
        """Whether its features have the map at stride 4."""
        return network.DETAIL in self._outputs

    def with_detail(self) -> "Backbone":
        """The same network, with the map at stride 4 where it has one."""
        return Backbone(self._cache, self._threads, self.custom, detail=True)

    def features(self, pixels: Pixels) -> Features:
        """Feature maps and summary.

        :param pixels: `height x width x 3`, RGB; both sides multiples of 32
        :raises UnusableBackbone: those of a user's network are not finite
        """
        values = self._session.run(self._outputs, {network.IMAGE: pixels})
        maps, summary, details = values[: len(LEVELS)], values[len(LEVELS)], values[len(LEVELS) + 1 :]
        if self.custom is not None and not np.isfinite(summary).all():
            raise UnusableBackbone(f"the maps of the backbone {self.custom.name} are not finite for an image")
        cells = [np.ascontiguousarray(each[0].transpose(1, 2, 0)) for each in (*maps, *details)]
        fine, middle, coarse = cells[: len(LEVELS)]
        return Features(fine, middle, coarse, summary[0], cells[-1] if details else None)


def _add_detail(graph: onnx.ModelProto) -> str:
    builder = GraphBuilder()
    name = network.add_detail(builder)
    graph.graph.node.extend(builder.nodes)
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None, None])
    graph.graph.output.append(output)
    return name
