"""A stand-in for what runs a cell: its numbers follow from the cell, only its times from the clock."""

import os
import time
import zlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from personalization.errors import UserError
from simulations.comparison.cells import Cell
from simulations.comparison.comparison import Comparison, Point
from simulations.comparison.work import Outcome, compute

RUN_CELL = "fake_cells:run_cell"
LAYERS = ["0.attention", "0.mlp"]
SCENARIO: dict[str, Any] = {"name": "fake", "description": "", "target_loss": 0.01, "fleet": {"budget": 0.5}}


def run_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    """Some methods and a seed fail or die; all others work."""
    if cell.seed == 13:
        raise UserError("an unlucky seed")
    if cell.method == "refused":
        raise UserError("not with\nthis method")
    if cell.method == "broken":
        raise ZeroDivisionError("a fault of ours")
    if cell.method == "not-a-number":
        return {"clients": float("nan")}
    if cell.method == "killed":
        os.kill(os.getpid(), 9)
    if cell.method == "left":
        os._exit(3)
    (folder / "scratch").write_text("what a run writes")
    started = time.perf_counter()
    strategy = not cell.method.startswith("arm:")
    rng = np.random.default_rng([zlib.crc32(cell.method.encode()), cell.seed])
    accuracies = rng.uniform(0.8, 1.0, 4).tolist()
    rounds = [round_row(number, client, accuracies[client]) for number in (1, 2) for client in (2, 1)]
    return {
        "clients": [client_row(client, accuracy) for client, accuracy in enumerate(accuracies)],
        "rounds": [*rounds, {"round": 1, "client": 4, "status": "attacker"}] if strategy else [],
        "privacy": "none",
        "fleet": [{"failures": {"garbled": 1}, "uplink_bytes": 1200, "replies": 2}] if strategy else [],
        "model": {"layer_names": LAYERS, "weights": 10, "bytes_dense": 2000},
        "settings": {"budget": cell.scenario["fleet"]["budget"], "seed": cell.seed, "strategy": cell.method},
        "timing": {"wall_seconds": time.perf_counter() - started + 1e-9, "cpu_seconds": time.process_time()},
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def client_row(client: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    row = {
        "client": client,
        "samples": 8,
        "classes": [0, client],
        "dense_accuracy": 0.9,
        "dense_fitted_accuracy": 0.95,
        "personal_accuracy": accuracy,
        "agreement": 0.9,
        "weights_kept": 0.5,
        "bytes": 1000,
        "evaluations": 6,
        "personalized_layers": LAYERS[: client % 2],
        "levels": [0.5, 0.5],
        "entropy_increase": 0.1,
        "fit_r2": None,
        "uplink_bytes": 600,
        "downlink_bytes": 3000,
        "latency_ms": time.perf_counter(),
        "device": "standard",
        "late": client == 3,
        "drifted": False,
    }
    return {**row, **changes}


def round_row(number: int, client: int, accuracy: float | None, **changes: Any) -> dict[str, Any]:
    row = {"round": number, "client": client, "status": "replied", "evaluations": 6, "personal_accuracy": accuracy}
    return {**row, **changes}


def comparison(*methods: str, seeds: int = 2, budgets: Sequence[float] = (0.5,)) -> Comparison:
    points = [Point(settings={"budget": b}, scenario={**SCENARIO, "fleet": {"budget": b}}) for b in budgets]
    if len(points) == 1:
        points = [Point(settings={}, scenario=points[0].scenario)]
    return Comparison(
        methods=methods,
        scenario=SCENARIO,
        sweep={"budget": tuple(budgets)} if len(budgets) > 1 else {},
        points=tuple(points),
        seeds=tuple(range(seeds)),
    )


class Serially:
    """An engine in this process, which notes what it computes, last cell first, and stops after `most` cells."""

    def __init__(self, most: int | None = None) -> None:
        self.computed: list[tuple[str, int]] = []
        self._most = most

    def __call__(self, cells: Sequence[Cell], *, scratch: Path) -> Generator[Outcome, None, None]:
        for cell in reversed(cells):
            if self._most is not None and len(self.computed) == self._most:
                raise KeyboardInterrupt
            self.computed.append((cell.method, cell.seed))
            (scratch / cell.key).mkdir()
            yield Outcome.from_bytes(compute(cell, scratch / cell.key, run_cell=RUN_CELL))
