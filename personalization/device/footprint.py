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
from typing import Any

import onnxruntime

from personalization.errors import UserError

WARM_UP, RUNS = 10, 50
PROMPT, STEPS, TEXT_RUNS = 128, 64, 3
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


@dataclass(frozen=True, kw_only=True)
class TextFootprint:
    """What one exported language model costs, with one thread.

    bytes: size of the model's file, and tokenizer_bytes of its tokenizer's. prompt_tokens_per_second: of a prompt of
    `PROMPT` tokens that is read at once; tokens_per_second: of `STEPS` tokens that follow one by one (fewer of both
    where the model reads less); medians of `TEXT_RUNS` runs. Memory as of `DeviceFootprint`.
    """

    bytes: int
    tokenizer_bytes: int
    prompt_tokens_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int
    runtime_memory_bytes: int
    onnxruntime: str


def measure_device_footprint(path: Path) -> DeviceFootprint:
    """Measure the ONNX file at `path` in a new process. Raises UserError if it cannot be run there."""
    return DeviceFootprint(**_measured(path, "measurement"))


def measure_text_footprint(path: Path, tokenizer: Path, *, context: int) -> TextFootprint:
    """Measure the language model at `path`, which reads at most `context` tokens. Raises UserError likewise."""
    measured = _measured(path, "text_measurement", str(context))
    return TextFootprint(**measured, tokenizer_bytes=tokenizer.stat().st_size)


def _measured(path: Path, module: str, *arguments: str) -> dict[str, Any]:
    code = f"import sys; from personalization.device.{module} import main; main(*sys.argv[1:])"
    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
        raise UserError(f"{path}: its footprint could not be measured ({reason}); the export was not kept")
    own: dict[str, Any] = json.loads(done.stdout)
    return own | {"bytes": path.stat().st_size, "onnxruntime": str(onnxruntime.__version__)}
