"""Runs the demo, and makes its exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from airflow_provider_lookoutvision.testing.service import ServiceFailed, running_service
from example_dags.demo import dataset, images, project
from example_dags.demo.local_airflow import AirflowFailed, LocalAirflow
from example_dags.demo.report import say

# What the caller's shell sets for Airflow, AWS or the service must not lead the demo to a real one.
_FOREIGN = ("AIRFLOW", "AWS_", "BOTO_", "LOOKOUTVISION_", "HTTP_PROXY", "ALL_PROXY")


def main() -> int:
    """Run every part of the demo; 0 when each showed what it is to show."""
    parser = argparse.ArgumentParser("python -m example_dags.demo", description=__doc__)
    parser.add_argument(
        "--images", type=Path, help="a folder with normal/ and anomaly/, or with a *.manifest"
    )
    folder = parser.parse_args().images
    for name in [name for name in os.environ if name.upper().startswith(_FOREIGN)]:
        del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="lookoutvision-demo-") as temporary:
            say("Starting a service and an Airflow of their own; it all takes about a minute ...")
            with running_service(Path(temporary) / "service") as service:
                airflow = LocalAirflow(Path(temporary) / "airflow", dags=Path(__file__).parents[1])
                project.run(service, airflow)
                dataset.run(service, airflow, folder)
    except (AirflowFailed, ServiceFailed, images.NoImages, project.NotAsPromised) as error:
        say(f"\nThe demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
