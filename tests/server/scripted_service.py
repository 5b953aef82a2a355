"""The command ``lookoutvision`` with replicas that do no engine's work: see ``scripted_replica``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airflow_provider_lookoutvision.server import cli
from airflow_provider_lookoutvision.server.hosting import replica_process

replica_process._MODULE = "scripted_replica"
os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # where a replica finds it
sys.exit(cli.main())
