"""Runs the demo, and makes its exit status."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from airflow_provider_lookoutvision.testing.service import ServiceFailed
from example_dags.demo import images, inspection, project
from example_dags.demo.backends import leave_settings_of_others, running_backends
from example_dags.demo.local_airflow import AirflowFailed, LocalAirflow
from example_dags.demo.report import NotAsPromised, say
from example_dags.demo.samples import NoImages


def main() -> int:
    """Run every part of the demo; 0 when each showed what it is to show."""
    parser = argparse.ArgumentParser("python -m example_dags.demo", description=__doc__)
    parser.add_argument(
        "--images",
        type=Path,
        help="a folder with normal/ and anomaly/ (and masks/), or with a *.manifest (default: drawn parts)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/demo"), help="where the picture sheet goes (%(default)s)"
    )
    arguments = parser.parse_args()
    leave_settings_of_others()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begin = time.monotonic()
    try:
        collection = images.collect(arguments.images)
        with tempfile.TemporaryDirectory(prefix="lookoutvision-demo-") as temporary:
            say("Starting a service and an Airflow of their own; it all takes 1 to 3 minutes ...")
            with running_backends(Path(temporary) / "service") as backends:
                airflow = LocalAirflow(Path(temporary) / "airflow", dags=Path(__file__).parents[1])
                project.run(backends, airflow)
                inspection.run(backends, airflow, collection, arguments.out)
    except NoImages as error:
        say(f"These images won't do: {error}")
        return 2
    except (AirflowFailed, ServiceFailed, NotAsPromised) as error:
        say(f"\nThe demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    say()
    say(f"Done in {time.monotonic() - begin:.0f} s. Model, datasets and project are deleted again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
