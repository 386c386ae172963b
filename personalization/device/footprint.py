"""What an exported model costs on this machine: bytes, latency at batch 1 with one thread, peak memory.

It is measured in a process of its own that holds the device package and the model and nothing else, because a process
that has torch in it says nothing about a device's memory.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from personalization.errors import UserError

WARM_UP, RUNS = 10, 50
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class DeviceFootprint:
    """What one exported model costs.

    bytes: size of the file. latency_ms: median of `RUNS` runs for one image, with one thread. peak_memory_bytes: the
    most memory that the process ever held, Python, numpy and onnxruntime included; runtime_memory_bytes: the most that
    it had held before the model was opened. onnxruntime: its version.
    """

    bytes: int
    latency_ms: float
    peak_memory_bytes: int
    runtime_memory_bytes: int
    onnxruntime: str


def measure_device_footprint(path: Path) -> DeviceFootprint:
    """Measure the ONNX file at `path` in a new process. Raises UserError if it cannot be run there."""
    code = "import sys; from personalization.device.measurement import main; main(sys.argv[1])"
    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
        raise UserError(f"{path}: its footprint could not be measured ({reason}); the export was not kept")
    return DeviceFootprint(
        **json.loads(done.stdout), bytes=path.stat().st_size, onnxruntime=str(onnxruntime.__version__)
    )
