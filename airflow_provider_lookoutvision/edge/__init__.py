"""Models on devices: an agent that detects anomalies for the programs beside it, by gRPC on a Unix socket.

These modules, and the few of the engine's that read image files, are also what a component carries as its
runner, under the name ``lookoutvision_edge``. So they need ONNX Runtime, numpy, Pillow and grpcio, and
nothing else of this package.
"""
