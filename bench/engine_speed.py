"""How fast the engine is, and how much memory it takes, on labelled images.

    python -m bench.engine_speed some.manifest --images DIR --masks DIR
    python -m bench.engine_speed FOLDER

Trains once, and detects in every image several times, from bytes to prediction and mask. Prints wall-clock
and CPU time: on a machine with other work, compare the CPU time.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from airflow_provider_lookoutvision.engine import load
from bench import engine_data
from bench.processes import memory_mebibytes


def main() -> None:
    parser = engine_data.argument_parser(__doc__)
    engine_data.add_image_arguments(parser)
    engine_data.add_hyperparameter_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dataset = engine_data.read_images(options)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "model")
        wall, cpu = time.perf_counter(), time.process_time()
        report = dataset.train(out, hyperparameters=engine_data.hyperparameters(options))
        print(
            f"training: {len(dataset.images)} images, {time.perf_counter() - wall:.1f} s, "
            f"{time.process_time() - cpu:.1f} s of CPU, {report.hyperparameters}, "
            f"model of {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.1f} MB"
        )
        wall = time.perf_counter()
        detector = load(out)
        print(f"loading: {time.perf_counter() - wall:.2f} s")
    contents = [path.read_bytes() for path in dataset.images]
    for content in contents[:5]:
        detector.detect(content)
    for number in range(options.rounds):
        cpu, walls = time.process_time(), []
        for content in contents:
            start = time.perf_counter()
            detector.detect(content)
            walls.append(1000 * (time.perf_counter() - start))
        cpu_ms = 1000 * (time.process_time() - cpu) / len(contents)
        low, middle, high = np.percentile(walls, [10, 50, 95])
        print(f"round {number}: p10 {low:.1f} ms, p50 {middle:.1f}, p95 {high:.1f}; CPU {cpu_ms:.1f}")
    print(f"memory: {memory_mebibytes(os.getpid(), 'VmHWM'):.0f} MB at most")


if __name__ == "__main__":
    main()
