"""A user's own pretrained network in place of EfficientNet-lite0: an ONNX file, and a JSON file beside it.

`resnet18.onnx` comes with `resnet18.json`:

    {"name": "resnet18", "licence": "BSD-3-Clause",
     "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
     "taps": [{"output": "layer2", "stride": 8}, {"output": "layer3", "stride": 16},
              {"output": "layer4", "stride": 32}],
     "texture": "layer1"}

The network's one input is `1 x 3 x height x width`, RGB of 0 to 1, less `mean` and divided by `std`. The taps
are values of the graph, outputs or not, whose maps become `fine`, `middle` and `coarse`; `texture` is the map
that the texture is pooled from, `fine` when it is left out. `licence` may be left out too.

What is used, and carried by models, is a graph of the same form as `network.build` makes. Nothing here runs
code of the files but the operators of ONNX, and files are read only if they were named.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, compose, helper, version_converter

from airflow_provider_lookoutvision.engine import backbone, network
from airflow_provider_lookoutvision.engine.backbone import Channels
from airflow_provider_lookoutvision.engine.backbone_description import STRIDES, Description, describe
from airflow_provider_lookoutvision.engine.errors import UnusableArtifact, UnusableBackbone
from airflow_provider_lookoutvision.engine.onnx_graph import GraphBuilder, foreign_parts, remove_unused

# Of WideResNet50, the largest of the usual ones, 255 MiB are needed.
MAX_BYTES = 256 * 1024 * 1024
_MAX_DESCRIPTION_BYTES = 64 * 1024
_MAX_CHANNELS = 4096
# Larger numbers are cut off: 16-bit floats hold them, and so does their eighth power 32-bit ones.
_LARGEST = 1e4
# Rows and columns of the images that it is tried on.
_TRIALS = ((64, 96), (160, 128))
_PREFIX = "backbone."


@dataclass(frozen=True)
class CustomBackbone:
    """A user's network.

    :param graph: from an image to its feature maps and summary, as `network.build` makes it
    :param name: as its JSON file has it
    :param licence: as its JSON file has it; empty if it says nothing
    :param sha256: of the ONNX file
    """

    graph: onnx.ModelProto
    name: str
    licence: str
    sha256: str
    channels: Channels

    @property
    def title(self) -> str:
        """The name and the digest, for reports."""
        return f"{self.name}, SHA-256 {self.sha256}"


def read(path: Path) -> CustomBackbone:
    """Read the network in an ONNX file and its JSON file, and try it on two images.

    :raises UnusableBackbone: a file is missing, or isn't one that can be used; the message says why
    """
    try:
        beside = path.parent / f"{path.stem}.json"
        description = describe(_read_bytes(beside, _MAX_DESCRIPTION_BYTES))
        content = _read_bytes(path, MAX_BYTES)
        graph = _adapted(_parse(content), description)
        if graph.ByteSize() > MAX_BYTES:
            raise UnusableBackbone(f"it has more than {MAX_BYTES >> 20} MiB; use a smaller network")
        channels = _try_out(graph, description)
    except UnusableBackbone as error:
        raise UnusableBackbone(f"the backbone {path}: {error}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    return CustomBackbone(graph, description.name, description.licence, sha256, channels)


def save(custom: CustomBackbone, path: Path) -> dict[str, Any]:
    """Write its graph to a file, and return what `load` needs beside it, for JSON."""
    content = custom.graph.SerializeToString(deterministic=True)
    path.write_bytes(content)
    return {
        "name": custom.name,
        "licence": custom.licence,
        "sha256": custom.sha256,
        "channels": asdict(custom.channels),
        "graph_sha256": hashlib.sha256(content).hexdigest(),
    }


def load(path: Path, description: Mapping[str, Any]) -> CustomBackbone:
    """Read what `save` wrote.

    :raises UnusableArtifact: the file is another one, or its graph has another form
    """
    if path.stat().st_size > MAX_BYTES:
        raise UnusableArtifact(f"the model's {path.name} is larger than any that is written")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != description["graph_sha256"]:
        raise UnusableArtifact(f"the model's {path.name} is not the one that it was saved with")
    graph = onnx.load_from_string(content)
    inputs = [value.name for value in graph.graph.input]
    outputs = [value.name for value in graph.graph.output]
    if inputs != [network.IMAGE] or outputs != [*backbone.LEVELS, network.SUMMARY] or foreign_parts(graph):
        raise UnusableArtifact(f"the model's {path.name} has other inputs, outputs or operators")
    onnx.checker.check_model(graph)
    counts = description["channels"]
    channels = Channels(tuple(counts["maps"]), tuple(counts["summary"]))
    name, licence, sha256 = texts = [description[key] for key in ("name", "licence", "sha256")]
    if (
        (len(channels.maps), len(channels.summary)) != (len(STRIDES), 2)
        or not all(type(count) is int for count in (*channels.maps, *channels.summary))
        or not all(isinstance(text, str) for text in texts)
    ):
        raise UnusableArtifact("the model's backbone is described in another way than any is")
    return CustomBackbone(graph, name, licence, sha256, channels)


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise UnusableBackbone(f"{path.name} has {size:,} bytes; it may have {most:,}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnusableBackbone(
            f"{path.name} is missing; the ONNX file and a JSON file of the same name are needed"
        ) from error
    except OSError as error:
        raise UnusableBackbone(f"{path.name} cannot be read: {error.strerror}") from error


def _parse(content: bytes) -> onnx.ModelProto:
    """The graph, in the opset of all others."""
    try:
        model = onnx.load_from_string(content)
        if not model.graph.node:
            raise UnusableBackbone("it is no ONNX file, or its graph is empty; export the network as ONNX")
        for node in model.graph.node:
            # Another name of the same domain.
            node.domain = "" if node.domain == "ai.onnx" else node.domain
        opset = max(
            (each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1
        )
        # Exporters name domains that no operator is of.
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid("", opset))
        if foreign := foreign_parts(model):
            raise UnusableBackbone(
                f"it has {foreign}; export it into one file, with the operators of ONNX alone"
            )
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise UnusableBackbone(f"it is no valid ONNX file: {_first_line(error)}") from error
    if opset == network.OPSET:
        return model
    try:
        return version_converter.convert_version(model, network.OPSET)
    except Exception as error:
        # The converter raises what its C++ does.
        raise UnusableBackbone(
            f"its opset is {opset}, and can't be converted: {_first_line(error)}; export it with the opset "
            f"{network.OPSET}"
        ) from error


def _adapted(model: onnx.ModelProto, description: Description) -> onnx.ModelProto:
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    _check_input(inputs)
    values = {name for node in model.graph.node for name in node.output}
    for name in (*description.taps, description.texture):
        if name is not None and name not in values:
            outputs = ", ".join(output.name for output in model.graph.output)
            raise UnusableBackbone(f"its graph has no value {name!r}; its outputs are {outputs}")
    model = compose.add_prefix(model, _PREFIX)
    builder = GraphBuilder()
    constant, node = builder.constant, builder.node
    value = node("Cast", [network.IMAGE], "image.float", to=TensorProto.FLOAT)
    value = node("Sub", [value, constant("image.mean", 255 * description.mean)], "image.centred")
    value = node("Div", [value, constant("image.std", 255 * description.std)], "image.scaled")
    value = node("Transpose", [value], "image.planes", perm=[2, 0, 1])
    node("Unsqueeze", [value, constant("image.first", np.array([0], np.int64))], _PREFIX + inputs[0].name)
    builder.nodes.extend(model.graph.node)
    bounds = [
        constant(f"map.{name}", np.array(bound, np.float32))
        for name, bound in (("least", -_LARGEST), ("most", _LARGEST))
    ]
    for tap, level in zip(description.taps, backbone.LEVELS, strict=True):
        node("Clip", [_PREFIX + tap, *bounds], level)
    texture = "fine"
    if description.texture is not None:
        texture = node("Clip", [_PREFIX + description.texture, *bounds], "texture")
    parts = [builder.generalised_mean(texture, 3), builder.generalised_mean("coarse", 2)]
    node("Concat", parts, network.SUMMARY, axis=1)
    for each in builder.nodes:
        del each.metadata_props[:]
        each.ClearField("doc_string")
    builder.initializers.extend(model.graph.initializer)
    try:
        adapted = network.model(builder, description.name)
    except onnx.checker.ValidationError as error:
        raise UnusableBackbone(f"its graph can't be used: {_first_line(error)}") from error
    remove_unused(adapted.graph)
    return adapted


def _check_input(inputs: Sequence[onnx.ValueInfoProto]) -> None:
    if len(inputs) != 1:
        raise UnusableBackbone(f"it has {len(inputs)} inputs; it must have one, the image")
    kind = inputs[0].type.tensor_type
    sizes = [size.dim_value for size in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT:
        raise UnusableBackbone("its input is not of 32-bit floats; export it with those")
    if len(sizes) != 4 or sizes[0] > 1 or sizes[1] not in (0, 3):
        raise UnusableBackbone(
            f"its input has the shape {sizes} (0 for any); it must be 1 x 3 x height x width"
        )


def _try_out(graph: onnx.ModelProto, description: Description) -> Channels:
    """The channels of its outputs, which must be the same for images of two sizes."""
    rng = np.random.default_rng(0)
    sizes = " and ".join(f"{columns} x {rows}" for rows, columns in _TRIALS)
    try:
        session = backbone.create_session(graph, 1)
        noise = [rng.integers(0, 256, (*size, 3), np.uint8) for size in _TRIALS]
        runs = [session.run((*backbone.LEVELS, network.SUMMARY), {network.IMAGE: each}) for each in noise]
    except Exception as error:
        # The runtime's exceptions have no base class but this.
        raise UnusableBackbone(
            f"it can't be run on images of {sizes} pixels: {_first_line(error)}; export it for any height "
            "and width that are multiples of 32"
        ) from error
    found = set()
    for (rows, columns), (*maps, summary) in zip(_TRIALS, runs, strict=True):
        for name, stride, each in zip(description.taps, STRIDES, maps, strict=True):
            if each.ndim != 4 or each.shape[0] != 1 or each.shape[2:] != (rows // stride, columns // stride):
                raise UnusableBackbone(
                    f"{name!r} has the shape {each.shape} for an image of {columns} x {rows} pixels; at the "
                    f"stride {stride} it must be (1, channels, {rows // stride}, {columns // stride})"
                )
        counts = tuple(int(each.shape[1]) for each in maps)
        texture = int(summary.shape[1]) - counts[-1]
        if not all(1 <= count <= _MAX_CHANNELS for count in (*counts, texture)):
            raise UnusableBackbone(
                f"its maps have {', '.join(map(str, counts))} channels, and that of the texture {texture}; "
                f"each may have 1 to {_MAX_CHANNELS}"
            )
        if not all(np.isfinite(each).all() and np.ptp(each) > 0 for each in (*maps, summary)):
            raise UnusableBackbone(
                "its maps of noise are not finite, or the same everywhere; check the taps and the weights"
            )
        found.add(Channels(counts, (texture, counts[-1])))
    if len(found) != 1:
        raise UnusableBackbone("its maps have other numbers of channels for images of other sizes")
    return found.pop()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def main(arguments: Sequence[str]) -> int:
    """Check the files of a backbone, and print what it is: 0 when it can be used, or else 1."""
    try:
        custom = read(Path(arguments[0]))
    except UnusableBackbone as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(custom.title)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
