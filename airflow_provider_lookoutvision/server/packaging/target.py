"""What a component is made for: the device or platform of a Greengrass configuration, and compiler options.

The options steer a compiler that this service has no use for: ONNX Runtime finds out by itself what a
processor can do. They are held to the rules that AWS documents, kept, and shown.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_lookoutvision.server.protocol.errors import ValidationException

NVIDIA = "NVIDIA"
_X86_64, _ARM64 = "X86_64", "ARM64"
_JETSON = "jetson_xavier"
_DEFAULT_PROCESSOR = "core-avx2"
# What each option that a GPU needs looks like.
_GPU_OPTIONS = {
    "gpu-code": (re.compile(r"\S+"), "as sm_72"),
    "trt-ver": (re.compile(r"[0-9]+\.[0-9]+\.[0-9]+"), "a version x.y.z"),
    "cuda-ver": (re.compile(r"[0-9]+\.[0-9]+"), "a version x.y"),
}
_FIELD = "Configuration.Greengrass"


@dataclass(frozen=True)
class Target:
    """Where a model is to run.

    :param arch: ``X86_64`` or ``ARM64``.
    :param accelerator: ``NVIDIA``, or None for the processor alone.
    :param device: the name of the device, if it was one that was named.
    :param compiler_options: as they were given, and the defaults.
    """

    arch: str
    accelerator: str | None
    device: str | None
    compiler_options: Mapping[str, Any]


def target(greengrass: Mapping[str, Any]) -> Target:
    """The target of a GreengrassConfiguration; the processor of X86_64 where none is named.

    :raises ValidationException: when its members contradict each other, or options are missing or wrong.
    """
    device, platform = greengrass.get("TargetDevice"), greengrass.get("TargetPlatform")
    text = greengrass.get("CompilerOptions")
    if device is not None:
        for member in ("TargetPlatform", "CompilerOptions"):
            if greengrass.get(member) is not None:
                raise ValidationException(
                    f"{_FIELD} has both TargetDevice and {member}: a device says all there is to say, "
                    "so leave one of them out"
                )
        return Target(_ARM64, NVIDIA, device, {})
    platform = platform or {"Arch": _X86_64}
    arch, accelerator = platform["Arch"], platform.get("Accelerator")
    options = {} if text is None else _options(text)
    if accelerator == NVIDIA:
        _check_gpu(options)
    else:
        _check_processor(options)
        if arch == _X86_64:
            options = {"mcpu": _DEFAULT_PROCESSOR, **options}
    return Target(arch, accelerator, None, options)


def _options(text: str) -> dict[str, Any]:
    """The options as JSON, or with the quotes of Python, as AWS's own pages have them."""
    for read in (json.loads, ast.literal_eval):
        try:
            options = read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(options, dict) and all(isinstance(name, str) for name in options):
            return options
    raise ValidationException(
        f"""{_FIELD}.CompilerOptions is no JSON object; it must be one, as {{"mcpu": "skylake-avx512"}}"""
    )


def _check_gpu(options: Mapping[str, Any]) -> None:
    for name, (pattern, wanted) in _GPU_OPTIONS.items():
        if name not in options:
            raise ValidationException(
                f"{_FIELD}.CompilerOptions has no {name}; a target with the accelerator NVIDIA needs "
                f"{', '.join(_GPU_OPTIONS)}"
            )
        value = options[name]
        if not (isinstance(value, str) and pattern.fullmatch(value)):
            raise ValidationException(
                f"{_FIELD}.CompilerOptions has {name} {value!r}; it must be a string, {wanted}"
            )


def _check_processor(options: Mapping[str, Any]) -> None:
    mcpu, mattr = options.get("mcpu", ""), options.get("mattr", "")
    if not isinstance(mcpu, str):
        raise ValidationException(
            f"{_FIELD}.CompilerOptions has mcpu {mcpu!r}; it must be a string, as {_DEFAULT_PROCESSOR}"
        )
    listed = isinstance(mattr, list) and all(isinstance(each, str) for each in mattr)
    if not (listed or isinstance(mattr, str)):
        raise ValidationException(
            f"{_FIELD}.CompilerOptions has mattr {mattr!r}; it must be a string or a list of strings, as "
            '["+neon"]'
        )
