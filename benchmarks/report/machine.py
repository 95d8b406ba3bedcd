"""The machine that a benchmark ran on, for its results."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("otpmail", "aiosmtplib", "grpcio", "protobuf", "uvloop")


def machine() -> dict[str, object]:
    """The machine and the versions, without names that would say whose it is."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
