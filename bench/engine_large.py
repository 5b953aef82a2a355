"""How small defects on large images fare: drawn plates with spots and scratches of 10 to 30 pixels.

    python -m bench.engine_large
    python -m bench.engine_large --sizes 4096x4096 --side 1280 --views plain

Trains on a few plates of each size, with masks, in a process of its own, whose memory is told, and tries the
model on others. Prints every recipe that was tried: its log-loss and IoU are out of fold. The same seed draws
the same plates.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from airflow_provider_lookoutvision.engine import (
    AnomalyClass,
    Label,
    Recipe,
    TrainingReport,
    evaluate,
    load,
    train,
)
from bench.engine_quality import Set

CLASSES = [AnomalyClass("spot", "#FF8A00"), AnomalyClass("scratch", "#0096FF")]
# Normal and anomalous plates to learn from, by their pixels; and to be tried on.
FEW, FEWER, TRIED = (14, 10), (10, 8), (12, 12)
Given = ParamSpec("Given")
Result = TypeVar("Result")


def plate(size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    """A brushed plate with bolts, under its own light."""
    width, height = size
    grain = generator.normal(0, 14, (height + 2, width + 8)).astype(np.float32)
    brushed = sum(grain[1:-1, shift : shift + width] for shift in range(8)) / 8
    light = np.add.outer(np.linspace(-1, 1, height), np.linspace(-1, 1, width) * generator.uniform(-1, 1))
    surface = generator.uniform(125, 145) + 4 * brushed / 3 + 12 * light * generator.uniform(-1, 1)
    image = Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))
    draw, radius = ImageDraw.Draw(image), 0.02 * min(size)
    for x in np.linspace(0.15, 0.85, 4) * width:
        for y in np.linspace(0.15, 0.85, 3) * height:
            middle = np.array([x, y]) + generator.uniform(-8, 8, 2)
            draw.ellipse([*(middle - radius), *(middle + radius)], fill=85, outline=170, width=3)
    return image


def spoil(image: Image.Image, defects: int, generator: np.random.Generator) -> Image.Image:
    """Draw spots and scratches, darker or brighter than what they are on, and return their mask."""
    mask = Image.new("RGB", image.size, "#FFFFFF")
    draw, paint = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    for number in range(defects):
        middle = generator.uniform(0.05, 0.95, 2) * image.size
        contrast = int(generator.integers(45, 75))
        ground = int(np.asarray(image)[int(middle[1]), int(middle[0])])
        colour = ground - contrast if generator.random() < 0.5 else ground + contrast
        if (number + int(generator.integers(2))) % 2 == 0:
            half = generator.uniform(5, 15) * np.array([1, generator.uniform(0.7, 1)])
            draw.ellipse([*(middle - half), *(middle + half)], fill=colour)
            paint.ellipse([*(middle - half - 1), *(middle + half + 1)], fill=CLASSES[0].color)
        else:
            angle = generator.uniform(0, np.pi)
            half = generator.uniform(8, 15) * np.array([np.cos(angle), np.sin(angle)])
            draw.line([*(middle - half), *(middle + half)], fill=colour, width=4)
            # Whoever marks a scratch by hand marks a little more than it.
            paint.line([*(middle - 1.15 * half), *(middle + 1.15 * half)], fill=CLASSES[1].color, width=9)
    return mask


def plates(folder: Path, size: tuple[int, int], counts: tuple[int, int], seed: int) -> Set:
    """So many normal and anomalous plates, drawn into a folder."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    found = Set([], [], [], CLASSES)
    for number in range(sum(counts)):
        label: Label = "normal" if number < counts[0] else "anomaly"
        photo, marked = folder / f"{number}.jpg", folder / f"{number}.png"
        defects = int(generator.integers(1, 4)) if label == "anomaly" else 0
        image = plate(size, generator)
        mask = spoil(image, defects, generator)
        image.filter(ImageFilter.GaussianBlur(0.8)).save(photo, quality=92)
        if defects:
            mask.save(marked, compress_level=1)
        found.images.append(photo)
        found.labels.append(label)
        found.masks.append(marked if defects else None)
    return found


def learn(some: Set, out: Path, recipe: Recipe | None) -> tuple[TrainingReport, float, float, float]:
    """Train; also the seconds and CPU seconds that it took, and the most megabytes."""
    wall, cpu = time.perf_counter(), time.process_time()
    report = train(some.images, some.labels, some.masks, some.classes, out, recipe=recipe)
    return report, time.perf_counter() - wall, time.process_time() - cpu, _megabytes()


def attempt(some: Set, model: Path) -> str:
    """Try the model, and say what came of it."""
    detector = load(model)
    found = evaluate(detector, some.images, some.labels, some.masks)
    times = []
    for path in some.images[-6:]:
        content, wall, cpu = path.read_bytes(), time.perf_counter(), time.process_time()
        detector.detect(content)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    return (
        f"F1 {found.verdicts.f1:.3f}, AUROC {found.roc_auc:.3f}, "
        f"IoU {statistics.mean(kind.iou for kind in found.classes):.3f} "
        f"({', '.join(f'{kind.name} {kind.iou:.3f}' for kind in found.classes)}); "
        f"one image {wall:.2f} s, {cpu:.2f} s of CPU; {_megabytes():.0f} MB at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="*", default=["1000x1500", "4096x4096"], metavar="WIDTHxHEIGHT")
    parser.add_argument("--side", type=int, help="instead of the search")
    parser.add_argument("--views", choices=["plain", "all"], default="plain")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = Recipe(options.side, options.views) if options.side else None
    for text in options.sizes:
        width, height = map(int, text.split("x"))
        counts = FEW if width * height < 4_000_000 else FEWER
        with tempfile.TemporaryDirectory() as folder:
            known = plates(Path(folder, "known"), (width, height), counts, options.seed)
            fresh = plates(Path(folder, "fresh"), (width, height), TRIED, options.seed + 1)
            model = Path(folder, "model")
            report, wall, cpu, megabytes = _apart(learn, known, model, recipe)
            chosen = report.recipe
            print(f"{text}, learnt from {counts[0]} + {counts[1]}: {chosen.side} {chosen.views}")
            for trial in report.trials:
                print(f"  {trial}")
            print(f"  training {wall:.0f} s, {cpu:.0f} s of CPU, {megabytes:.0f} MB at most")
            print(f"  {_apart(attempt, fresh, model)}", flush=True)


def _apart(action: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
    # A process of its own, so that the memory is what this took and nothing before it.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(action, *given, **named).result()


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
