"""The engine beside anomalib's PatchCore: the same network, images, folds, size and machine, in one run.

    python -m bench.engine_versus_anomalib FOLDER
    python -m bench.engine_versus_anomalib some.manifest --images DIR --masks DIR

Both learn from the same training images and are tried on the rest; each finds its threshold on its training
images alone. The engine chooses the working size, and PatchCore is given the same. Detection is timed from
the file's bytes to the score and the map, one image at a time; the engine's time includes the mask.

anomalib and torch get an environment of their own, kept beside `.venv`: on Linux, PyPI's torch is a CUDA
build of some gigabytes, which runs on the CPU here. --python names an environment that has them already.
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
    evaluate,
    images,
    load,
    metrics,
    train,
    weights,
)
from airflow_provider_lookoutvision.engine.backbone import Backbone
from bench.engine_quality import Set, add_source, read_source

PACKAGES = ("anomalib==2.7.0", "torch==2.14.1", "torchvision==0.29.1")
NAMES = ("engine", "PatchCore")
HERE = Path(__file__).parent


def environment() -> Path:
    """The Python of an environment with anomalib, made once."""
    folder = HERE.parent / ".venv-anomalib-2.7.0"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        venv.create(folder, clear=True, with_pip=True, symlinks=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        complete.touch()
    return python


class PatchCore:
    """A process of the other environment."""

    def __init__(self, python: Path, **environ: str) -> None:
        command = [python, HERE / "engine_patchcore.py"]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """Its answer to one question; see `bench.engine_patchcore`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({**question, "weights": str(weights.find())}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=60)


def check_network(other: PatchCore, image: Path) -> None:
    """Both look at images through the same network, or there is nothing to compare."""
    pixels = images.decode(image.read_bytes(), 224, 224).pixels
    maps = Backbone().features(pixels)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "pixels.npy"), pixels)
        theirs = other.ask(pixels=str(Path(folder, "pixels.npy")))["features"]
    np.testing.assert_allclose(theirs, [maps.fine[1, 1, :6], maps.middle[1, 1, :6]], atol=2e-3)


def timed(detector: Detector, paths: list[Path]) -> dict[str, Any]:
    """Detect in each, as the other process does."""
    for path in paths[:5]:
        detector.detect(path.read_bytes())
    walls, cpu = [], time.process_time()
    for path in paths:
        start = time.perf_counter()
        detector.detect(path.read_bytes())
        walls.append(1000 * (time.perf_counter() - start))
    return {"walls": walls, "cpu": 1000 * (time.process_time() - cpu) / len(paths)}


def compared(
    some: Set, rest: Set, learner: PatchCore, other: PatchCore, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Train both on some images and try them on the rest, in turns, so that what else the machine does is in
    the way of both.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(some.images, some.labels, some.masks, some.classes, Path(folder, "model"), seed=options.seed)
        training = time.perf_counter() - start
        size, detector = artifact.load(Path(folder, "model")).size, load(Path(folder, "model"))
        quality = evaluate(detector, rest.images, rest.labels, rest.masks)
        bank = str(Path(folder, "bank.npy"))
        learnt = learner.ask(
            learn=[str(path) for path in some.images],
            anomalous=[label == "anomaly" for label in some.labels],
            size=size,
            coreset=options.coreset,
            bank=bank,
        )
        turns = []
        for _ in range(options.rounds):
            mine = timed(detector, rest.images)
            theirs = other.ask(detect=[str(path) for path in rest.images], size=size, bank=bank)
            turns.append((mine, theirs))
    real = [label == "anomaly" for label in rest.labels]
    found = {
        "engine": [bad for bad, _ in quality.predictions],
        "PatchCore": [score > learnt["threshold"] for score in theirs["scores"]],
    }
    auc = {"engine": quality.roc_auc, "PatchCore": metrics.roc_auc(real, theirs["scores"])}
    trained = {"engine": training, "PatchCore": learnt["training"]}
    return {
        name: {
            "size": size,
            "found": found[name],
            "f1": metrics.verdicts(real, found[name]).f1,
            "auc": auc[name],
            "training": trained[name],
            "walls": [wall for turn in turns for wall in turn[place]["walls"]],
            "cpu": float(np.mean([turn[place]["cpu"] for turn in turns])),
        }
        for place, name in enumerate(NAMES)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="how often each detects the held-out images")
    parser.add_argument("--coreset", type=float, default=0.1, help="the part of patches that PatchCore keeps")
    parser.add_argument("--python", type=Path, help="of an environment that has anomalib")
    options = parser.parse_args()
    whole = read_source(options)
    anomalous = np.array([label == "anomaly" for label in whole.labels])
    python = options.python or environment()
    detector = PatchCore(python)
    # Choosing patches takes thousands of small steps: threads would mostly wait for each other, and glibc
    # would spread what they allocate over gigabytes of heap. Detection runs without these settings.
    learner = PatchCore(python, OMP_NUM_THREADS="1", MALLOC_MMAP_THRESHOLD_="1048576")
    check_network(detector, whole.images[0])
    truth: list[bool] = []
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    splitter = StratifiedKFold(options.folds, shuffle=True, random_state=options.seed)
    for fold, (fitted, held) in enumerate(splitter.split(anomalous, anomalous)):
        result = compared(whole.some(fitted), whole.some(held), learner, detector, options)
        truth += anomalous[held].tolist()
        said = []
        for name in NAMES:
            one = result[name]
            results[name].append(one)
            said.append(
                f"{name} F1 {one['f1']:.3f}, AUROC {one['auc']:.3f}, {np.median(one['walls']):.1f} ms, "
                f"{one['cpu']:.1f} of CPU, trained in {one['training']:.0f} s"
            )
        print(f"{fold}: {result['engine']['size']}; {'; '.join(said)}", flush=True)
    detector.close()
    learner.close()
    walls, cpu = {}, {}
    for name in NAMES:
        found = [bad for one in results[name] for bad in one["found"]]
        walls[name] = float(np.median([wall for one in results[name] for wall in one["walls"]]))
        cpu[name] = float(np.mean([one["cpu"] for one in results[name]]))
        print(
            f"{name}: F1 {metrics.verdicts(truth, found).f1:.3f}, {walls[name]:.1f} ms an image (median), "
            f"{cpu[name]:.1f} ms of CPU"
        )
    print(
        f"PatchCore takes {walls['PatchCore'] / walls['engine']:.2f} times as long, "
        f"{cpu['PatchCore'] / cpu['engine']:.2f} times the CPU"
    )


if __name__ == "__main__":
    main()
