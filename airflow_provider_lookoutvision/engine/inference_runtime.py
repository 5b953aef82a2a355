"""ONNX Runtime, with its telemetry off, for every module that uses it.

Since 1.29 it looks up a Microsoft host, stores a device ID below the home directory and writes to standard
error. It reads the variable once, when it is imported.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

# For a process that had imported it before.
onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
