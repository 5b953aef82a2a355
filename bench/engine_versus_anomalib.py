"""The engine beside anomalib's PatchCore: the same network, images, folds, size and machine, in one run.

    python -m bench.engine_versus_anomalib FOLDER
    python -m bench.engine_versus_anomalib some.manifest --images DIR --masks DIR

Both are trained on the same images and evaluated on the others; each sets its threshold on its training
images alone. The engine chooses the working size, and PatchCore uses the same. Detection is timed from the
file's bytes to the score and the map, one image at a time; the engine's time includes the mask.

anomalib and torch are installed into an environment of their own, beside `.venv`: on Linux, PyPI's torch is a
CUDA build of some gigabytes, which runs on the CPU here. --python names an environment that has them already.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import (
    Detector,
    artifact,
    images,
    load,
    metrics,
    weights,
)
from airflow_provider_lookoutvision.engine.backbone import Backbone
from bench.engine_data import LabelledImages, add_image_arguments, argument_parser, read_images

PACKAGES = ("anomalib==2.7.0", "torch==2.14.1", "torchvision==0.29.1")
NAMES = ("engine", "PatchCore")
HERE = Path(__file__).parent


def environment() -> Path:
    """The Python of an environment with anomalib, which is made once."""
    folder = HERE.parent / ".venv-anomalib-2.7.0"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        venv.create(folder, clear=True, with_pip=True, symlinks=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        complete.touch()
    return python


class PatchCore:
    """A process in the other environment."""

    def __init__(self, python: Path, **environ: str) -> None:
        command = [python, HERE / "engine_patchcore.py"]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def request(self, **request: Any) -> dict[str, Any]:
        """Its response to one request; see `bench.engine_patchcore`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({**request, "weights": str(weights.find())}), file=self._process.stdin, flush=True)
        response: dict[str, Any] = json.loads(self._process.stdout.readline())
        return response

    def close(self) -> None:
        self._process.communicate(timeout=60)


def check_network(other: PatchCore, image: Path) -> None:
    """Check that both have the same network."""
    pixels = images.decode(image.read_bytes(), 224, 224).pixels
    maps = Backbone().features(pixels)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "pixels.npy"), pixels)
        theirs = other.request(pixels=str(Path(folder, "pixels.npy")))["features"]
    np.testing.assert_allclose(theirs, [maps.fine[1, 1, :6], maps.middle[1, 1, :6]], atol=2e-3)


def time_detection(detector: Detector, paths: list[Path]) -> dict[str, Any]:
    """Detect in each image, as the other process does; milliseconds."""
    for path in paths[:5]:
        detector.detect(path.read_bytes())
    walls, cpu = [], time.process_time()
    for path in paths:
        start = time.perf_counter()
        detector.detect(path.read_bytes())
        walls.append(1000 * (time.perf_counter() - start))
    return {"walls": walls, "cpu": 1000 * (time.process_time() - cpu) / len(paths)}


def compare(
    some: LabelledImages,
    rest: LabelledImages,
    trainer: PatchCore,
    other: PatchCore,
    options: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Train both on some images, and evaluate them on the rest in alternating rounds, so that other work of
    the machine slows both.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        some.train(Path(folder, "model"), seed=options.seed)
        training = time.perf_counter() - start
        size, detector = artifact.load(Path(folder, "model")).working_size, load(Path(folder, "model"))
        evaluation = rest.evaluate(detector)
        bank = str(Path(folder, "bank.npy"))
        trained = trainer.request(
            train=[str(path) for path in some.images],
            anomalous=some.anomalous.tolist(),
            size=size,
            coreset=options.coreset,
            bank=bank,
        )
        rounds = []
        for _ in range(options.rounds):
            mine = time_detection(detector, rest.images)
            theirs = other.request(detect=[str(path) for path in rest.images], size=size, bank=bank)
            rounds.append((mine, theirs))
    y_true = rest.anomalous
    y_pred = {
        "engine": [anomalous for anomalous, _ in evaluation.predictions],
        "PatchCore": [score > trained["threshold"] for score in theirs["scores"]],
    }
    auc = {"engine": evaluation.roc_auc, "PatchCore": metrics.roc_auc(y_true, theirs["scores"])}
    seconds = {"engine": training, "PatchCore": trained["training"]}
    return {
        name: {
            "size": size,
            "y_pred": y_pred[name],
            "f1": metrics.classification_metrics(y_true, y_pred[name]).f1,
            "auc": auc[name],
            "training": seconds[name],
            "walls": [wall for one in rounds for wall in one[number]["walls"]],
            "cpu": float(np.mean([one[number]["cpu"] for one in rounds])),
        }
        for number, name in enumerate(NAMES)
    }


def main() -> None:
    parser = argument_parser(__doc__)
    add_image_arguments(parser)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="how often each detects the held-out images")
    parser.add_argument(
        "--coreset", type=float, default=0.1, help="the fraction of patches that PatchCore keeps"
    )
    parser.add_argument("--python", type=Path, help="of an environment that has anomalib")
    options = parser.parse_args()
    dataset = read_images(options)
    python = options.python or environment()
    detector = PatchCore(python)
    # Selecting patches takes thousands of small steps: threads would mostly wait for each other, and glibc
    # would spread their allocations over gigabytes of heap. Detection runs without these settings.
    trainer = PatchCore(python, OMP_NUM_THREADS="1", MALLOC_MMAP_THRESHOLD_="1048576")
    check_network(detector, dataset.images[0])
    y_true: list[bool] = []
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    splitter = StratifiedKFold(options.folds, shuffle=True, random_state=options.seed)
    for fold, (training, held_out) in enumerate(splitter.split(dataset.anomalous, dataset.anomalous)):
        result = compare(dataset.subset(training), dataset.subset(held_out), trainer, detector, options)
        y_true += dataset.anomalous[held_out].tolist()
        parts = []
        for name in NAMES:
            one = result[name]
            results[name].append(one)
            parts.append(
                f"{name} F1 {one['f1']:.3f}, AUROC {one['auc']:.3f}, {np.median(one['walls']):.1f} ms, "
                f"{one['cpu']:.1f} of CPU, trained in {one['training']:.0f} s"
            )
        print(f"{fold}: {result['engine']['size']}; {'; '.join(parts)}", flush=True)
    detector.close()
    trainer.close()
    walls, cpu = {}, {}
    for name in NAMES:
        y_pred = [anomalous for one in results[name] for anomalous in one["y_pred"]]
        walls[name] = float(np.median([wall for one in results[name] for wall in one["walls"]]))
        cpu[name] = float(np.mean([one["cpu"] for one in results[name]]))
        f1 = metrics.classification_metrics(y_true, y_pred).f1
        print(f"{name}: F1 {f1:.3f}, {walls[name]:.1f} ms an image (median), {cpu[name]:.1f} ms of CPU")
    print(
        f"PatchCore takes {walls['PatchCore'] / walls['engine']:.2f} times as long, "
        f"{cpu['PatchCore'] / cpu['engine']:.2f} times the CPU"
    )


if __name__ == "__main__":
    main()
