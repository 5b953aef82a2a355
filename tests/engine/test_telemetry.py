"""ONNX Runtime reports to nobody: proven where there is no network, and nothing at home yet."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "airflow_provider_lookoutvision"
INFERENCE = """
import sys
from pathlib import Path
import numpy as np
from airflow_provider_lookoutvision.engine.backbone import Backbone
Backbone(Path(sys.argv[1])).features(np.zeros((64, 64, 3), np.uint8))
for name in ("snmp", "snmp6"):
    sys.stdout.write(Path("/proc/self/net", name).read_text())
"""


def test_an_inference_sends_nothing_keeps_nothing_and_says_nothing(cache: Path, tmp_path: Path) -> None:
    alone = next((way for way in (["unshare", "-n"], ["unshare", "-rn"]) if _works(way)), None)
    if alone is None:
        pytest.skip("no right to make a network namespace (unshare -n)")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    done = subprocess.run(
        [*alone, sys.executable, "-c", INFERENCE, cache],
        env={**environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert list(tmp_path.rglob("*")) == []
    ip, udp = (_counters(done.stdout, protocol) for protocol in ("Ip", "Udp"))
    assert (ip["OutRequests"], ip["OutNoRoutes"], udp["OutDatagrams"]) == (0, 0, 0)


def test_every_module_has_it_from_where_telemetry_is_off() -> None:
    imports = re.compile(r"^\s*(import|from) onnxruntime", re.MULTILINE)
    direct = [path.name for path in PACKAGE.rglob("*.py") if imports.search(path.read_text())]
    assert direct == ["inference_runtime.py"]


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _counters(text: str, protocol: str) -> dict[str, int]:
    names, values = re.findall(rf"^{protocol}: (.*)$", text, re.MULTILINE)
    return dict(zip(names.split(), map(int, values.split()), strict=True))
