"""Where a measured number comes from: versions, machine, date."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

from kerasmodels import runs


def versions() -> dict[str, str]:
    """Versions of everything that decides what is measured."""
    return runs.versions() | {name: importlib.metadata.version(name) for name in ("onnxruntime", "ai-edge-litert")}


def machine() -> dict[str, str | int | list[str]]:
    """Processor, the cores this process may use, system, and GPUs (this imports TensorFlow)."""
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    gpus = [details(gpu).get("device_name", gpu.name) for gpu in tf.config.list_physical_devices("GPU")]
    return {"processor": _processor(), "cores": _cores(), "system": platform.platform(), "gpus": gpus}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
