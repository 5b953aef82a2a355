"""How good the engine is on labelled images, by cross-validation or on repeated held-out splits.

    python -m bench.engine_quality FOLDER --folds 5
    python -m bench.engine_quality FOLDER --train 30+15 --splits 10
    python -m bench.engine_quality some.manifest --images DIR --masks DIR --folds 5

FOLDER has `normal/` and `anomaly/`, and may have `masks/` with a PNG named like each anomalous image. A
manifest is of Ground Truth's JSON Lines; the files are looked for by their names in --images and --masks.
Each part trains anew, with all of the choices inside, and is tried on images that it has not seen.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold

from airflow_provider_lookoutvision.engine import AnomalyClass, Label, Recipe, evaluate, load, metrics, train


@dataclass(frozen=True)
class Set:
    images: list[Path]
    labels: list[Label]
    masks: list[Path | None]
    classes: list[AnomalyClass]

    def some(self, members: np.ndarray) -> "Set":
        return Set(
            [self.images[i] for i in members],
            [self.labels[i] for i in members],
            [self.masks[i] for i in members],
            self.classes,
        )


def read_folder(folder: Path, classes: list[AnomalyClass]) -> Set:
    found = Set([], [], [], classes)
    names: tuple[Label, ...] = ("normal", "anomaly")
    for label in names:
        for path in sorted((folder / label).iterdir()):
            mask = folder / "masks" / f"{path.stem}.png"
            found.images.append(path)
            found.labels.append(label)
            found.masks.append(mask if label == "anomaly" and mask.exists() else None)
    return found


def read_manifest(manifest: Path, images: Path, masks: Path | None) -> Set:
    found = Set([], [], [], [])
    classes: dict[str, AnomalyClass] = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        label = next(
            value["class-name"]
            for value in entry.values()
            if isinstance(value, dict) and value.get("type") == "groundtruth/image-classification"
        )
        mask = None
        for key, value in entry.items():
            if isinstance(value, dict) and "internal-color-map" in value and masks:
                mask = masks / Path(entry[key.removesuffix("-metadata")]).name
                for kind in value["internal-color-map"].values():
                    if kind["class-name"].lower() != "background":
                        classes[kind["class-name"]] = AnomalyClass(kind["class-name"], kind["hex-color"])
        found.images.append(images / Path(entry["source-ref"]).name)
        found.labels.append(label)
        found.masks.append(mask)
    return Set(found.images, found.labels, found.masks, list(classes.values()))


def add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where labelled images are."""
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--masks", type=Path)


def read_source(options: argparse.Namespace, classes: Sequence[AnomalyClass] = ()) -> Set:
    """The images that those arguments say."""
    if options.source.is_dir():
        return read_folder(options.source, list(classes))
    return read_manifest(options.source, options.images or options.source.parent, options.masks)


def parts(whole: Set, options: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    anomalous = np.array([label == "anomaly" for label in whole.labels])
    if options.train is None:
        splitter = StratifiedKFold(options.folds, shuffle=True, random_state=options.seed)
        yield from splitter.split(anomalous, anomalous)
        return
    normal, bad = (int(number) for number in options.train.split("+"))
    for split in range(options.splits):
        generator = np.random.default_rng(options.seed + split)
        good = generator.permutation(np.flatnonzero(~anomalous))
        worse = generator.permutation(np.flatnonzero(anomalous))
        yield np.concatenate([good[:normal], worse[:bad]]), np.concatenate([good[normal:], worse[bad:]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser)
    parser.add_argument("--classes", nargs="*", default=[], metavar="NAME=#RRGGBB")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--train", metavar="NORMAL+ANOMALOUS")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--side", type=int)
    parser.add_argument("--views", choices=["plain", "all"], default="plain")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    whole = read_source(options, [AnomalyClass(*item.split("=")) for item in options.classes])
    truth: list[bool] = []
    found: list[bool] = []
    probabilities: list[float] = []
    f1s, ious = [], []
    for number, (fitted, held) in enumerate(parts(whole, options)):
        with tempfile.TemporaryDirectory() as folder:
            some, rest = whole.some(fitted), whole.some(held)
            start = time.perf_counter()
            recipe = Recipe(options.side, options.views) if options.side else None
            out = Path(folder, "model")
            report = train(
                some.images, some.labels, some.masks, some.classes, out, recipe=recipe, seed=options.seed
            )
            took = time.perf_counter() - start
            result = evaluate(load(out), rest.images, rest.labels, rest.masks)
        truth += [label == "anomaly" for label in rest.labels]
        found += [bad for bad, _ in result.predictions]
        probabilities += [sure if bad else 1 - sure for bad, sure in result.predictions]
        f1s.append(result.verdicts.f1)
        ious += [kind.iou for kind in result.classes]
        iou = np.mean([kind.iou for kind in result.classes]) if result.classes else float("nan")
        print(
            f"{number}: {len(fitted)} -> {len(held)}, {report.recipe.side} {report.recipe.views}, "
            f"{took:.0f} s, F1 {result.verdicts.f1:.3f}, AUROC {result.roc_auc:.3f}, IoU {iou:.3f}",
            flush=True,
        )
    total = metrics.verdicts(truth, found)
    print(
        f"all: F1 {total.f1:.3f} (mean of parts {np.mean(f1s):.3f}), precision {total.precision:.3f}, "
        f"recall {total.recall:.3f}, AUROC {metrics.roc_auc(truth, probabilities):.3f}, "
        f"log-loss {metrics.log_loss(truth, probabilities):.3f}, IoU {np.mean(ious or [np.nan]):.3f}"
    )


if __name__ == "__main__":
    main()
