"""Time one exported language model and see what memory it takes, in a process that does nothing else."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from personalization.device.decoder import LOGITS, DecoderRun
from personalization.device.footprint import PROMPT, STEPS, TEXT_RUNS
from personalization.device.measurement import peak_memory
from personalization.device.runtime import open_session


@dataclass(frozen=True)
class TextSpeed:
    """Seconds of each run: to read the prompt, and for all steps after it."""

    prompt: list[float]
    steps: list[float]


def main(path: str, context: str) -> None:
    """Print speed (tokens per second) and memory (bytes) of the ONNX file at `path` as JSON."""
    runtime = peak_memory()
    session = open_session(Path(path))
    steps = min(STEPS, int(context) // 2)
    prompt = min(PROMPT, int(context) - steps)
    (speed,) = time_texts([session], prompt=prompt, steps=steps, runs=TEXT_RUNS)
    record = {
        "prompt_tokens_per_second": prompt / statistics.median(speed.prompt),
        "tokens_per_second": steps / statistics.median(speed.steps),
        "peak_memory_bytes": peak_memory(),
        "runtime_memory_bytes": runtime,
    }
    print(json.dumps(record))


def time_texts(
    sessions: Sequence[onnxruntime.InferenceSession], *, prompt: int, steps: int, runs: int
) -> list[TextSpeed]:
    """Return how long each session takes for a prompt of so many tokens at once, and for so many single ones after it.

    Sessions run in turns, so that what else the machine does falls on all of them alike. A first run is not counted.
    """
    speeds = [TextSpeed([], []) for _ in sessions]
    for number in range(runs + 1):
        for session, own in zip(sessions, speeds, strict=True):
            vocabulary = next(value.shape[1] for value in session.get_outputs() if value.name == LOGITS)
            tokens = np.random.default_rng(0).integers(0, vocabulary, prompt + steps)
            text = DecoderRun(session)
            times = [time.perf_counter()]
            text.read(tokens[:prompt])
            times.append(time.perf_counter())
            for token in tokens[prompt:]:
                text.read(np.array([token]))
            times.append(time.perf_counter())
            if number:
                own.prompt.append(times[1] - times[0])
                own.steps.append(times[2] - times[1])
    return speeds
