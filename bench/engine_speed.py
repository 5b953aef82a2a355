"""How fast the engine is, and how much memory it takes, on labelled images.

    python -m bench.engine_speed some.manifest --images DIR --masks DIR
    python -m bench.engine_speed FOLDER

Trains once and detects every image several times over, bytes to verdict and mask. Prints wall-clock and CPU
time: on a machine that does other work as well, the CPU time is the one to compare.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from airflow_provider_lookoutvision.engine import Recipe, load, train
from bench.engine_quality import add_source, read_source


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser)
    parser.add_argument("--side", type=int, help="instead of the one that the training chooses")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    whole = read_source(options)
    recipe = Recipe(options.side, "plain") if options.side else None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "model")
        wall, cpu = time.perf_counter(), time.process_time()
        report = train(whole.images, whole.labels, whole.masks, whole.classes, out, recipe=recipe)
        print(
            f"training: {len(whole.images)} images, {time.perf_counter() - wall:.1f} s, "
            f"{time.process_time() - cpu:.1f} s of CPU, {report.recipe.side} {report.recipe.views}, "
            f"model of {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.1f} MB"
        )
        wall = time.perf_counter()
        detector = load(out)
        print(f"loading: {time.perf_counter() - wall:.2f} s")
    contents = [path.read_bytes() for path in whole.images]
    for content in contents[:5]:
        detector.detect(content)
    for number in range(options.rounds):
        cpu, walls = time.process_time(), []
        for content in contents:
            start = time.perf_counter()
            detector.detect(content)
            walls.append(1000 * (time.perf_counter() - start))
        spent = 1000 * (time.process_time() - cpu) / len(contents)
        low, middle, high = np.percentile(walls, [10, 50, 95])
        print(f"round {number}: p10 {low:.1f} ms, p50 {middle:.1f}, p95 {high:.1f}; CPU {spent:.1f}")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")


if __name__ == "__main__":
    main()
