"""Which machine it was, and what the process and the GPU have used."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path

from wm_ros.runtime.backend import Backend


def host(device: str = '') -> dict[str, object]:
    """Return the machine in words: `device` is what its owner calls it."""
    return {'device': device or gpu_name() or cpu_name(), 'cpu': cpu_name(),
            'gpu': gpu_name(), 'cores': os.cpu_count(),
            'system': f'{platform.system()} {platform.machine()}',
            'load': round(os.getloadavg()[0], 2)}


def cpu_name() -> str:
    """Return the processor's name and the vector extensions that matter here."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.split(':', 1) for line in reversed(lines) if ':' in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get('flags', '').split()
    extensions = [flag for flag in ('avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_int8')
                  if flag in flags]
    return ' '.join([fields.get('model name', platform.processor()), *extensions])


def gpu_name() -> str:
    """Return the name of the CUDA device of PyTorch, where that is loaded and there is one."""
    torch = sys.modules.get('torch')
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else ''


def runs_on_cuda(backend: Backend) -> bool:
    """Tell whether a backend is PyTorch's on a CUDA device."""
    return (backend.name == 'pytorch' and gpu_name() != ''
            and str(backend.options['device']) != 'cpu')


def peak_rss_mb() -> float:
    """Return the most memory that this process has held, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


class GpuEnergy:
    """Joules that the first NVIDIA GPU has used, where its driver counts them."""

    def __init__(self) -> None:
        self._handle = None
        try:
            import pynvml
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self.joules()
        except Exception:   # no module, no driver, no GPU, no counter: then there is none
            self._handle = None

    def __bool__(self) -> bool:
        return self._handle is not None

    def joules(self) -> float:
        """Return the count since the driver was loaded."""
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
