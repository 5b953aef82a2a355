"""What the imports of a DAG file cost beyond BaseOperator: ours, and those of peers in the Amazon provider.

``python -m bench.parsing [--rounds N]``. Each import is timed in a process of its own, which has imported
BaseOperator before; the modules take turns, round by round. A ratio is taken within a round, and its median
over the rounds. Beside the time is how many modules are loaded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime

from bench.service import machine

OURS = "airflow_provider_lookoutvision.operators.lookoutvision"
MODULES = (
    OURS,
    "airflow_provider_lookoutvision.sensors.lookoutvision",
    "airflow_provider_lookoutvision.taskflow",
    "airflow.providers.amazon.aws.operators.comprehend",
    "airflow.providers.amazon.aws.operators.bedrock",
    "airflow.providers.amazon.aws.operators.sagemaker",
)
_IMPORT = """
import sys, time
from airflow.providers.common.compat.sdk import BaseOperator
before, began = len(sys.modules), time.perf_counter()
__import__(sys.argv[1])
print((time.perf_counter() - began) * 1000, len(sys.modules) - before)
"""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        # All are imported as bytecode, which is written first, wherever they are installed.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ["PYTHONPYCACHEPREFIX"] = home
        for module in MODULES:
            _import(module, environ)
        measured = [{module: _import(module, environ) for module in MODULES} for _ in range(rounds)]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}\n")
    print("| imported after BaseOperator | ms | of our operators' | modules |\n| --- | ---: | ---: | ---: |")
    for module in MODULES:
        times = [each[module][0] for each in measured]
        ratio = statistics.median(each[module][0] / each[OURS][0] for each in measured)
        print(f"| `{module}` | {statistics.median(times):.1f} | {ratio:.2f} | {measured[0][module][1]} |")


def _import(module: str, environ: dict[str, str]) -> tuple[float, int]:
    """The milliseconds that an import takes in a new process, and the modules that it loads."""
    command = [sys.executable, "-c", _IMPORT, module]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    milliseconds, modules = done.stdout.splitlines()[-1].split()
    return float(milliseconds), int(modules)


if __name__ == "__main__":
    main()
