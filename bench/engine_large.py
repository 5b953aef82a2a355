"""How well small defects on large images are found: drawn plates with spots and scratches of 10 to 30 pixels.

    python -m bench.engine_large
    python -m bench.engine_large --sizes 4096x4096 --side 1280

Trains on a few plates of each size, with masks, and evaluates on others; each in a process of its own, whose
memory is printed. Prints the hyperparameters that were tried with their out-of-fold metrics. The same seed
draws the same plates.
"""

import multiprocessing
import os
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
    Hyperparameters,
    Label,
    TrainingReport,
    load,
)
from bench import engine_data
from bench.engine_data import LabelledImages
from bench.processes import memory_mebibytes

CLASSES = [AnomalyClass("spot", "#FF8A00"), AnomalyClass("scratch", "#0096FF")]
# Numbers of normal and anomalous plates to train on (fewer of large ones), and to evaluate on.
TRAINED, TRAINED_LARGE, EVALUATED = (14, 10), (10, 8), (12, 12)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def plate(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A brushed plate with bolts, under its own light."""
    width, height = size
    grain = rng.normal(0, 14, (height + 2, width + 8)).astype(np.float32)
    brushed = sum(grain[1:-1, shift : shift + width] for shift in range(8)) / 8
    light = np.add.outer(np.linspace(-1, 1, height), np.linspace(-1, 1, width) * rng.uniform(-1, 1))
    surface = rng.uniform(125, 145) + 4 * brushed / 3 + 12 * light * rng.uniform(-1, 1)
    image = Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))
    draw, radius = ImageDraw.Draw(image), 0.02 * min(size)
    for x in np.linspace(0.15, 0.85, 4) * width:
        for y in np.linspace(0.15, 0.85, 3) * height:
            middle = np.array([x, y]) + rng.uniform(-8, 8, 2)
            draw.ellipse([*(middle - radius), *(middle + radius)], fill=85, outline=170, width=3)
    return image


def add_defects(image: Image.Image, defects: int, rng: np.random.Generator) -> Image.Image:
    """Draw spots and scratches, darker or brighter than what they are on, and return their mask."""
    mask = Image.new("RGB", image.size, "#FFFFFF")
    draw, paint = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    for number in range(defects):
        middle = rng.uniform(0.05, 0.95, 2) * image.size
        contrast = int(rng.integers(45, 75))
        ground = int(np.asarray(image)[int(middle[1]), int(middle[0])])
        colour = ground - contrast if rng.random() < 0.5 else ground + contrast
        if (number + int(rng.integers(2))) % 2 == 0:
            half = rng.uniform(5, 15) * np.array([1, rng.uniform(0.7, 1)])
            draw.ellipse([*(middle - half), *(middle + half)], fill=colour)
            paint.ellipse([*(middle - half - 1), *(middle + half + 1)], fill=CLASSES[0].color)
        else:
            angle = rng.uniform(0, np.pi)
            half = rng.uniform(8, 15) * np.array([np.cos(angle), np.sin(angle)])
            draw.line([*(middle - half), *(middle + half)], fill=colour, width=4)
            # A hand-drawn mask is a little larger than the scratch.
            paint.line([*(middle - 1.15 * half), *(middle + 1.15 * half)], fill=CLASSES[1].color, width=9)
    return mask


def plates(folder: Path, size: tuple[int, int], counts: tuple[int, int], seed: int) -> LabelledImages:
    """Draw as many normal and anomalous plates into a folder."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    result = LabelledImages([], [], [], CLASSES)
    for number in range(sum(counts)):
        label: Label = "normal" if number < counts[0] else "anomaly"
        photo, marked = folder / f"{number}.jpg", folder / f"{number}.png"
        defects = int(rng.integers(1, 4)) if label == "anomaly" else 0
        image = plate(size, rng)
        mask = add_defects(image, defects, rng)
        image.filter(ImageFilter.GaussianBlur(0.8)).save(photo, quality=92)
        if defects:
            mask.save(marked, compress_level=1)
        result.append(photo, label, marked if defects else None)
    return result


def measure_training(
    dataset: LabelledImages, out: Path, chosen: Hyperparameters | None
) -> tuple[TrainingReport, float, float, float]:
    """Train; also returns wall-clock seconds, CPU seconds and peak memory in MB."""
    wall, cpu = time.perf_counter(), time.process_time()
    report = dataset.train(out, hyperparameters=chosen)
    return report, time.perf_counter() - wall, time.process_time() - cpu, _megabytes()


def measure_detection(dataset: LabelledImages, model: Path) -> str:
    """Evaluate the model; returns a line to print."""
    detector = load(model)
    times = []
    for path in dataset.images[-6:]:
        content, wall, cpu = path.read_bytes(), time.perf_counter(), time.process_time()
        detector.detect(content)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    megabytes = _megabytes()  # an evaluation takes more
    evaluation = dataset.evaluate(detector)
    return (
        f"F1 {evaluation.image_metrics.f1:.3f}, AUROC {evaluation.roc_auc:.3f}, "
        f"IoU {statistics.mean(pixels.iou for pixels in evaluation.pixel_metrics):.3f} "
        f"({', '.join(f'{pixels.name} {pixels.iou:.3f}' for pixels in evaluation.pixel_metrics)}); "
        f"one image {wall:.2f} s, {cpu:.2f} s of CPU; {megabytes:.0f} MB at most"
    )


def main() -> None:
    parser = engine_data.argument_parser(__doc__)
    parser.add_argument("--sizes", nargs="*", default=["1000x1500", "4096x4096"], metavar="WIDTHxHEIGHT")
    engine_data.add_hyperparameter_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for text in options.sizes:
        width, height = map(int, text.split("x"))
        counts = TRAINED if width * height < 4_000_000 else TRAINED_LARGE
        with tempfile.TemporaryDirectory() as folder:
            training_set = plates(Path(folder, "train"), (width, height), counts, options.seed)
            test_set = plates(Path(folder, "test"), (width, height), EVALUATED, options.seed + 1)
            model = Path(folder, "model")
            report, wall, cpu, megabytes = _in_new_process(
                measure_training, training_set, model, engine_data.hyperparameters(options)
            )
            print(f"{text}, trained on {counts[0]} + {counts[1]}: {report.hyperparameters}")
            for trial in report.trials:
                print(f"  {trial}")
            print(f"  training {wall:.0f} s, {cpu:.0f} s of CPU, {megabytes:.0f} MB at most")
            print(f"  {_in_new_process(measure_detection, test_set, model)}", flush=True)


def _in_new_process(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    # So that the peak memory is of this function alone.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _megabytes() -> float:
    # Not by getrusage, whose maximum begins with that of the parent process.
    return memory_mebibytes(os.getpid(), "VmHWM")


if __name__ == "__main__":
    main()
