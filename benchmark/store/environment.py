"""What a run ran on: code, packages, machine. Read without importing torch."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmark.store.code import code_version

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "safetensors", "pydantic")


def describe() -> dict[str, Any]:
    """Plain data for environment.json; the training side adds the device and the precision flags."""
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def processor() -> str:
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def nvidia_driver() -> str | None:
    """The kernel module's version, such as 550.54.15."""
    try:
        found = re.search(r"Kernel Module\D*([\d.]+)", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return None
    return found[1] if found else None


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; elsewhere it is emulated, many times slower."""
    return any(flag in _cpuinfo() for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def has_bfloat16_matrix_units() -> bool:
    """Whether it multiplies whole tiles of bfloat16 at once (Intel's AMX)."""
    return "amx_bf16" in _cpuinfo()
