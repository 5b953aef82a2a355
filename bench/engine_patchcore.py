"""anomalib's PatchCore on the engine's network, as a child process of `bench.engine_versus_anomalib`.

Runs in an environment that has anomalib, and imports nothing of ours. Reads requests and writes responses,
one JSON object a line: to train, to detect, or for features, to compare the networks by.

PatchCore is trained on normal images alone. Its threshold is the one with the best F1 on the out-of-fold
scores of the training images, in three folds of the normal ones.
"""

import contextlib
import importlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

torch: Any = importlib.import_module("torch")
timm: Any = importlib.import_module("timm")

FOLDS = 3
_MEAN, _SCALE = 127.0, 128.0


def network(weights: Path) -> Any:
    """Timm's EfficientNet-lite0 with these weights: both have the same tensors in the same order."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    published = torch.load(weights, map_location="cpu", weights_only=True)
    own = model.state_dict()
    renamed = {}
    for name, (given, tensor) in zip(own, published.items(), strict=True):
        if own[name].shape != tensor.shape:
            raise SystemExit(f"{given} does not fit {name}")
        renamed[name] = tensor
    model.load_state_dict(renamed)
    return model.eval()


def patchcore(weights: Path) -> Any:
    """An untrained model on the feature maps of the engine's memory bank."""
    kind = importlib.import_module("anomalib.models.image.patchcore.torch_model").PatchcoreModel
    model = kind(layers=["blocks.2", "blocks.4"], backbone="tf_efficientnet_lite0", pre_trained=False)
    wanted = model.feature_extractor.feature_extractor.state_dict()
    full = network(weights).state_dict()
    model.feature_extractor.feature_extractor.load_state_dict({name: full[name] for name in wanted})
    return model


def pixels(path: str, size: tuple[int, int]) -> Any:
    """`1 x 3 x height x width`, normalised, from the file."""
    image = Image.open(path)
    image.draft("RGB", size)
    shrunk = image.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    array = (np.asarray(shrunk, np.float32) - _MEAN) / _SCALE
    return torch.from_numpy(array.transpose(2, 0, 1)[None].copy())


def fit(weights: Path, paths: list[str], size: tuple[int, int], coreset: float) -> Any:
    """A model of these images; its memory bank keeps this fraction of their patches."""
    torch.manual_seed(0)
    model = patchcore(weights)
    model.train()
    model.feature_extractor.eval()
    with torch.inference_mode():
        for path in paths:
            model(pixels(path, size))
        # It prints a progress bar.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            model.subsample_embedding(coreset)
    return model.eval()


def score(model: Any, path: str, size: tuple[int, int]) -> float:
    """The anomaly score; the map is computed as well."""
    with torch.inference_mode():
        return float(model(pixels(path, size)).pred_score)


def threshold(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> float:
    """The middle of the gap between scores that gives the best F1."""
    ordered = np.unique(scores)
    cuts = np.concatenate([[ordered[0] - 1e-6], (ordered[1:] + ordered[:-1]) / 2])
    true_positives = [(scores[anomalous] > cut).sum() for cut in cuts]
    f1 = [
        2 * hits / ((scores > cut).sum() + anomalous.sum())
        for cut, hits in zip(cuts, true_positives, strict=True)
    ]
    return float(cuts[int(np.argmax(f1))])


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Write a memory bank to a file, and find the threshold."""
    weights, size, coreset = Path(request["weights"]), tuple(request["size"]), request["coreset"]
    paths, anomalous = request["train"], np.array(request["anomalous"], bool)
    start = time.perf_counter()
    normal = np.random.default_rng(0).permutation(np.flatnonzero(~anomalous))
    scores = np.zeros((len(paths), FOLDS))
    counted = np.zeros(scores.shape, bool)
    for fold in range(FOLDS):
        held_out = normal[fold::FOLDS]
        model = fit(weights, [paths[index] for index in np.setdiff1d(normal, held_out)], size, coreset)
        for index in [*held_out.tolist(), *np.flatnonzero(anomalous).tolist()]:
            scores[index, fold], counted[index, fold] = score(model, paths[index], size), True
    cut = threshold(scores.sum(axis=1) / counted.sum(axis=1), anomalous)
    model = fit(weights, [paths[index] for index in normal], size, coreset)
    np.save(request["bank"], model.memory_bank.numpy())
    return {"threshold": cut, "training": time.perf_counter() - start}


def detect(request: dict[str, Any]) -> dict[str, Any]:
    """Score images by a memory bank from a file, one at a time."""
    size, model = tuple(request["size"]), patchcore(Path(request["weights"])).eval()
    model.memory_bank = torch.from_numpy(np.load(request["bank"]))
    for path in request["detect"][:5]:
        score(model, path, size)
    scores, walls, cpu = [], [], time.process_time()
    for path in request["detect"]:
        start = time.perf_counter()
        scores.append(score(model, path, size))
        walls.append(1000 * (time.perf_counter() - start))
    return {"scores": scores, "walls": walls, "cpu": 1000 * (time.process_time() - cpu) / len(scores)}


def features(request: dict[str, Any]) -> dict[str, Any]:
    """A few numbers of the two feature maps, to compare networks by."""
    model = patchcore(Path(request["weights"])).feature_extractor.eval()
    image = np.load(request["pixels"]).astype(np.float32)
    planes = torch.from_numpy(((image - _MEAN) / _SCALE).transpose(2, 0, 1)[None].copy())
    with torch.inference_mode():
        return {"features": [level[0, :6, 1, 1].tolist() for level in model(planes).values()]}


def main() -> None:
    tasks = {"train": train, "detect": detect, "pixels": features}
    for line in sys.stdin:
        request = json.loads(line)
        task = next(tasks[name] for name in tasks if name in request)
        print(json.dumps(task(request)), flush=True)


if __name__ == "__main__":
    main()
