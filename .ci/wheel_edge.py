"""The wheel with the extra edge: an agent that listens, answers and ends, where nothing else is installed."""

import importlib.util
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc

from airflow_provider_lookoutvision.edge import edge_agent_pb2 as messages
from airflow_provider_lookoutvision.engine import images

for heavy in ("airflow", "boto3", "onnx", "sklearn", "sqlalchemy", "starlette"):
    assert importlib.util.find_spec(heavy) is None, f"{heavy} is installed: this shows nothing"
assert images.MAX_SIDE == 4096

with tempfile.TemporaryDirectory() as folder:
    socket = Path(folder) / "agent.sock"
    command = [Path(sys.executable).with_name("lookoutvision"), "edge-agent", "--components", folder]
    agent = subprocess.Popen([*command, "--socket", socket])
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        models = channel.unary_unary(
            "/AWS.LookoutVision.EdgeAgent/ListModels",
            messages.ListModelsRequest.SerializeToString,
            messages.ListModelsResponse.FromString,
        )(messages.ListModelsRequest(), wait_for_ready=True, timeout=60)
    assert not models.models
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(30) == 0

print("an agent with no components has no models, and ends on SIGTERM")
