"""Time one exported model and see what memory it takes, in a process that does nothing else."""

import json
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime

from personalization.device.footprint import RUNS, WARM_UP
from personalization.device.runtime import INPUT, OUTPUT, open_session


def main(path: str) -> None:
    """Print latency (milliseconds) and memory (bytes) of the ONNX file at `path` as JSON."""
    runtime = peak_memory()
    session = open_session(Path(path))
    shape = session.get_inputs()[0].shape
    sample = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    times = time_sessions([session], sample, runs=RUNS, warm_up=WARM_UP)
    record = {
        "latency_ms": 1e3 * statistics.median(times[0]),
        "peak_memory_bytes": peak_memory(),
        "runtime_memory_bytes": runtime,
    }
    print(json.dumps(record))


def time_sessions(
    sessions: list[onnxruntime.InferenceSession], sample: np.ndarray, *, runs: int, warm_up: int
) -> list[list[float]]:
    """Return the seconds of each run [sessions][runs] on `sample` [1, channels, height, width].

    Sessions run in turns, so that what else the machine does falls on all of them alike.
    """
    times: list[list[float]] = [[] for _ in sessions]
    for number in range(warm_up + runs):
        for session, own in zip(sessions, times, strict=True):
            started = time.perf_counter()
            session.run([OUTPUT], {INPUT: sample})
            if number >= warm_up:
                own.append(time.perf_counter() - started)
    return times


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held.

    Linux counts them anew for every program that is started; `getrusage` would go on with those of the process that
    started this one. Elsewhere `getrusage` has to do.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return 1024 * int(peak)
    except (OSError, ValueError):
        import resource
        import sys

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else 1024 * used
