"""Epsilon against accuracy and evaluations: `python -m benchmarks.privacy [--recorded 24] [--judged 6] [--json]`.

Some clients of the bundled data set measure every layer at every level once. Fleets of 50 and 500 are drawn from these
recordings, with replacement: 3 rounds of three in ten, 6 probes each, delta 1e-5, nobody asked twice. Noise, clipping
and the server's learning are the real ones. `error`: root mean square distance of the fleet's prior from the mean of
all recordings (scale of the wire), mean over --repeats. Accuracy: of the first --judged clients' personal models at
half of the weights, made with 6 probes of their own and the prior of the first repeat.
"""

import argparse
import json
import math
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.privacy.record import Clients
from benchmarks.privacy.replay import replay
from personalization.wire.privacy_terms import NoiseMode

EPSILONS = (math.inf, 8.0, 4.0, 2.0, 1.0, 0.5)
FLEETS = (50, 500)
MODES: tuple[NoiseMode, ...] = ("central", "distributed")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=int, default=24, help="clients that measure everything")
    parser.add_argument("--judged", type=int, default=6, help="clients whose personal models are made, of these")
    parser.add_argument("--repeats", type=int, default=10, help="runs of each fleet for the error")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    clients = Clients.load(chosen.recorded, chosen.seed)
    measured = np.stack([clients.measure(client) for client in range(chosen.recorded)])
    judged = range(min(chosen.judged, chosen.recorded))
    rows = [_alone(clients, judged)]
    for size in FLEETS:
        for mode in MODES:
            for epsilon in EPSILONS[mode != "central" :]:
                rows.append(_row(clients, measured, judged, size, mode, epsilon, chosen.repeats, chosen.seed))
                Console(stderr=True).print(rows[-1])
    if chosen.json:
        print(json.dumps({"settings": vars(chosen), "rows": rows}, indent=1))
    else:
        Console().print(_table(rows))


def _alone(clients: Clients, judged: range) -> dict[str, Any]:
    """Return the row of devices without a fleet."""
    found = [clients.personal_accuracy(client, None) for client in judged]
    return {"fleet": 0, "mode": "no fleet", "epsilon": "-", "error": None, "told": False, **_means(found)}


def _row(
    clients: Clients,
    measured: "np.typing.NDArray[np.float64]",
    judged: range,
    size: int,
    mode: NoiseMode,
    epsilon: float,
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    outcomes = [
        replay(measured, clients.layout, clients=size, epsilon=epsilon, mode=mode, seed=seed + repeat)
        for repeat in range(repeats)
    ]
    truth = measured.mean(axis=0)
    errors = [float(np.sqrt(np.mean((outcome.estimate.mean - truth) ** 2))) for outcome in outcomes]
    prior = outcomes[0].prior()
    found = [clients.personal_accuracy(client, prior) for client in judged]
    shown = "infinite" if math.isinf(epsilon) else f"{epsilon:g}"
    told = outcomes[0].told
    return {"fleet": size, "mode": mode, "epsilon": shown, "error": float(np.mean(errors)), "told": told} | _means(
        found
    )


def _means(found: list[tuple[float, int]]) -> dict[str, float]:
    accuracy, evaluations = np.mean(np.array(found), axis=0).tolist()
    return {"accuracy": accuracy, "evaluations": evaluations}


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="privacy, accuracy and evaluations")
    for name in ("fleet", "mode", "epsilon", "error", "told", "accuracy", "evaluations"):
        table.add_column(name)
    for row in rows:
        error = "-" if row["error"] is None else f"{row['error']:.3f}"
        cells = [str(row["fleet"]), row["mode"], row["epsilon"], error, "yes" if row["told"] else "no"]
        table.add_row(*cells, f"{100 * row['accuracy']:.1f} %", f"{row['evaluations']:.1f}")
    return table


if __name__ == "__main__":
    main()
