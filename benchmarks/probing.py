"""Probes against bare forward passes of the same batches: `python -m benchmarks.probing [--json]`.

A probe chooses units, refits a layer and runs the model from there on; what came before is reused. Both are timed in
turns in one process, on the bundled ViT with one client's 200 private images.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.personalization.client import load_client
from personalization.cutting.masked import MaskedModel
from personalization.sensing.probes import draw_probes, take_samples
from personalization.transformer.readout import outputs_of

# Evaluations per second must be at least this many times the forward passes per second.
TARGET = 1.2
PROBES = 24


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(turns: int, seed: int) -> list[dict[str, Any]]:
    """Return for probes of one and of three layers: evaluations and forward passes per second, and their ratio."""
    client = load_client(seed, 0, 30)
    layers, levels = len(client.world.layers), client.settings.levels
    compensation = client.masked(everything=False).compensation
    rows = []
    for layers_per_probe in (1, 3):
        design = draw_probes(
            layers,
            len(levels),
            PROBES,
            layers_per_probe=layers_per_probe,
            prior=None,
            seen=np.zeros(layers * len(levels)),
            rng=np.random.default_rng(seed),
        )

        def probes(design: Any = design) -> None:
            # A new masked model each time: moments that an earlier turn computed must not count as free.
            take_samples(MaskedModel(client.trace, compensation), design, levels, measure=client.increase)

        def bare() -> None:
            with torch.inference_mode():
                for _ in range(PROBES):
                    outputs_of(client.world.model, client.trace.inputs)

        bare()
        probes()
        times = [(_seconds(bare), _seconds(probes)) for _ in range(turns)]
        forward, evaluation = (PROBES / median(column) for column in zip(*times, strict=True))
        ratio = median(b / p for b, p in times)
        rows.append(
            {
                "layers_per_probe": layers_per_probe,
                "forwards_per_second": forward,
                "evaluations_per_second": evaluation,
                "ratio": ratio,
                "target": TARGET if layers_per_probe == 1 else None,
            }
        )
    return rows


def main() -> None:
    """Measure and print; exit with 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="times that both are run in turns (default: 7)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    rows = measure(arguments.turns, arguments.seed)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        table = Table("layers in a probe", "forward passes/s", "evaluations/s", "ratio", "target")
        for row in rows:
            figures = [f"{row[key]:.2f}" for key in ("forwards_per_second", "evaluations_per_second", "ratio")]
            table.add_row(str(row["layers_per_probe"]), *figures, "" if row["target"] is None else str(row["target"]))
        Console().print(table)
    raise SystemExit(any(row["target"] is not None and row["ratio"] < row["target"] for row in rows))


if __name__ == "__main__":
    main()
