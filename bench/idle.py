"""What an idle service costs: its start, and what it uses without requests.

    python -m bench.idle --seconds 60 --rounds 3

Starts ``lookoutvision serve`` on SQLite, in a new data directory and once more in the same, and then leaves
it alone. CPU is that of the process and of its worker, from the kernel.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from airflow_provider_lookoutvision.testing.service import Service, running_service
from bench.processes import children, cpu_seconds, memory_mebibytes

_SETTLED_SECONDS = 5


def main() -> None:
    """Measure, and print the medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="without requests, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = [_round(options.seconds) for _ in range(options.rounds)]
    for name in rounds[0]:
        print(f"| {name} | {statistics.median(each[name] for each in rounds):.2f} |")


def _round(seconds: float) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory(prefix="lookoutvision-bench-") as folder:
        data_dir = Path(folder) / "data"
        with running_service(data_dir) as service:
            first = _settled(service)
        with running_service(data_dir) as service:
            again = _settled(service)
            time.sleep(seconds)
            after = _cpu(service)
            memory = {name: memory_mebibytes(pid, "VmRSS") for name, pid in _processes(service).items()}
    return {
        **{f"first start, {name}, CPU s": used for name, used in first.items()},
        **{f"another start, {name}, CPU s": used for name, used in again.items()},
        **{f"idle, {name}, % of a core": 100 * (after[name] - again[name]) / seconds for name in after},
        **{f"idle, {name}, MiB": used for name, used in memory.items()},
    }


def _settled(service: Service) -> Mapping[str, float]:
    time.sleep(_SETTLED_SECONDS)
    return _cpu(service)


def _processes(service: Service) -> Mapping[str, int]:
    [worker] = children(service.process.pid)
    return {"API": service.process.pid, "worker": worker}


def _cpu(service: Service) -> Mapping[str, float]:
    return {name: cpu_seconds(pid) for name, pid in _processes(service).items()}


if __name__ == "__main__":
    main()
