"""What the machine is made of, and how busy it is."""

import os
import platform
from pathlib import Path

import psutil

from geniehive.rules.model import Machine, MachineLoad


def machine() -> Machine:
    """Reads files: not for the event loop."""
    return Machine(
        os=_os(),
        architecture=platform.machine(),
        cpu_model=_cpu(),
        cpu_threads=os.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
    )


class Sampler:
    """The machine's figures of now. The share of the processor is that since the sample before."""

    def __init__(self) -> None:
        psutil.cpu_percent(None)

    def sample(self, host_id: str) -> MachineLoad:
        """Reads files: not for the event loop."""
        memory = psutil.virtual_memory()
        return MachineLoad(
            host_id=host_id,
            cpu_used_fraction=min(1.0, psutil.cpu_percent(None) / 100),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            memory_used_bytes=memory.total - memory.available,
        )


def _os() -> str:
    if hasattr(platform, "freedesktop_os_release"):
        try:
            return platform.freedesktop_os_release().get("PRETTY_NAME", "") or platform.platform(terse=True)
        except OSError:
            pass
    return platform.platform(terse=True)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor()
