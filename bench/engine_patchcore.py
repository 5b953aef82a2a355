"""anomalib's PatchCore on the engine's network, as a process that `bench.engine_versus_anomalib` asks.

Runs in an environment that has anomalib, and imports nothing of ours. Reads a JSON object a line and answers
with one: to learn from labelled images, to detect images, or to show that its network is the engine's.

PatchCore learns from normal images alone. Its threshold is the one with the best F1 on the training images,
each scored while it was held out: in three folds for the normal ones.
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
    """Timm's EfficientNet-lite0 of timm with these weights: both list the same tensors in the same order."""
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
    """An untrained model on the feature maps that the engine's memory bank has."""
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
    """A model of these images; its memory bank keeps this part of their patches."""
    torch.manual_seed(0)
    model = patchcore(weights)
    model.train()
    model.feature_extractor.eval()
    with torch.inference_mode():
        for path in paths:
            model(pixels(path, size))
        # It draws a bar of its progress.
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
    right = [(scores[anomalous] > cut).sum() for cut in cuts]
    f1 = [2 * hits / ((scores > cut).sum() + anomalous.sum()) for cut, hits in zip(cuts, right, strict=True)]
    return float(cuts[int(np.argmax(f1))])


def learn(question: dict[str, Any]) -> dict[str, Any]:
    """Write a memory bank to a file; find the threshold."""
    weights, size, coreset = Path(question["weights"]), tuple(question["size"]), question["coreset"]
    paths, anomalous = question["learn"], np.array(question["anomalous"], bool)
    start = time.perf_counter()
    normal = np.random.default_rng(0).permutation(np.flatnonzero(~anomalous))
    scores = np.zeros((len(paths), FOLDS))
    counted = np.zeros(scores.shape, bool)
    for fold in range(FOLDS):
        held = normal[fold::FOLDS]
        model = fit(weights, [paths[index] for index in np.setdiff1d(normal, held)], size, coreset)
        for index in [*held.tolist(), *np.flatnonzero(anomalous).tolist()]:
            scores[index, fold], counted[index, fold] = score(model, paths[index], size), True
    cut = threshold(scores.sum(axis=1) / counted.sum(axis=1), anomalous)
    model = fit(weights, [paths[index] for index in normal], size, coreset)
    np.save(question["bank"], model.memory_bank.numpy())
    return {"threshold": cut, "training": time.perf_counter() - start}


def detect(question: dict[str, Any]) -> dict[str, Any]:
    """Score images by a memory bank from a file, one at a time."""
    size, model = tuple(question["size"]), patchcore(Path(question["weights"])).eval()
    model.memory_bank = torch.from_numpy(np.load(question["bank"]))
    for path in question["detect"][:5]:
        score(model, path, size)
    found, walls, cpu = [], [], time.process_time()
    for path in question["detect"]:
        start = time.perf_counter()
        found.append(score(model, path, size))
        walls.append(1000 * (time.perf_counter() - start))
    return {"scores": found, "walls": walls, "cpu": 1000 * (time.process_time() - cpu) / len(found)}


def features(question: dict[str, Any]) -> dict[str, Any]:
    """A few numbers of the two feature maps, to compare networks by."""
    model = patchcore(Path(question["weights"])).feature_extractor.eval()
    image = np.load(question["pixels"]).astype(np.float32)
    planes = torch.from_numpy(((image - _MEAN) / _SCALE).transpose(2, 0, 1)[None].copy())
    with torch.inference_mode():
        return {"features": [level[0, :6, 1, 1].tolist() for level in model(planes).values()]}


def main() -> None:
    tasks = {"learn": learn, "detect": detect, "pixels": features}
    for line in sys.stdin:
        question = json.loads(line)
        task = next(tasks[name] for name in tasks if name in question)
        print(json.dumps(task(question)), flush=True)


if __name__ == "__main__":
    main()
