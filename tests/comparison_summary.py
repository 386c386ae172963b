"""A comparison's summary with made-up numbers, whole and without having run anything."""

import itertools
import json
from typing import Any

import numpy as np

STRATEGIES = ("precision-weighted-mean", "median", "bucketing:size=2+krum+adam:rate=0.1")
ARMS = ("arm:dense", "arm:local-only", "arm:fedavg")
LAYERS = [f"{block}.{kind}" for block in range(4) for kind in ("attention", "mlp")]
_SCALES = {
    "personal_accuracy": 0.9,
    "worst_decile": 0.78,
    "dense_accuracy": 0.9,
    "dense_fitted_accuracy": 0.93,
    "agreement": 0.95,
    "weights_kept": 0.4,
    "products_kept": 0.4,
    "bytes": 1.4e6,
    "evaluations": 12.0,
    "uplink_bytes": 800.0,
    "uplink_bytes_total": 2400.0,
    "downlink_bytes_total": 2.8e6,
    "rounds_to_target": 3.0,
    "wall_seconds": 40.0,
    "cpu_seconds": 60.0,
}


def spread(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def make_row(point: int, method: str, number: int, rng: np.random.Generator, **changes: Any) -> dict[str, Any]:
    loss = 0.02 * point / (1 + number)
    metrics: dict[str, Any] = {}
    for name, scale in _SCALES.items():
        shifted = scale * (1 + 0.02 * rng.random() + 0.004 * number) - (loss if "accuracy" in name else 0)
        metrics[name] = spread(shifted, 0.015 * scale)
    metrics["difference"] = None if number == 0 else spread(0.004 * number + loss, 0.003)
    metrics["change"] = None if point == 0 else spread(-loss, 0.003)
    if method in ("arm:dense", "arm:local-only"):
        metrics["uplink_bytes"] = metrics["uplink_bytes_total"] = spread(0.0, 0.0)
        metrics["rounds_to_target"] = None
    elif method == "arm:fedavg":
        metrics["uplink_bytes_total"] = spread(8e6, 0.0)
    elif method == "arm:wanda":
        metrics.update(
            products_kept=spread(1.0, 0.0), bytes_in_full=spread(2.7e6, 0.0), bytes_zipped=spread(1.3e6, 0.0)
        )
    arm = method.startswith("arm:")
    return {
        "point": point,
        "method": method,
        "kind": "arm" if arm else "strategy",
        "cells": 5,
        "failed": [],
        "metrics": metrics,
        "personal_share": [] if arm else [float(share) for share in rng.random(len(LAYERS)).round(2)],
        "late": None if arm else {"personal_accuracy": spread(0.88, 0.01), "evaluations": spread(4.0, 0.0)},
        "failures": {} if arm else {"timeout": 2 + number},
        "settings": {} if arm else {"groups": number + 1},
        "reached": 0.0 if metrics["rounds_to_target"] is None else 0.8,
        **changes,
    }


def make_summary(
    methods: tuple[str, ...] = STRATEGIES + ARMS, sweep: dict[str, list[Any]] | None = None
) -> dict[str, Any]:
    """The summary of a comparison over all combinations of the values in `sweep`."""
    sweep, rng = sweep or {}, np.random.default_rng(0)
    settings = [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]
    return {
        "scenario": {
            "name": "made-up",
            "description": "Every number on this page is made up.",
            "target_loss": 0.01,
            "fleet": {"clients": 20, "rounds": 3, "budget": 0.4},
            "conditions": {"dropout": 0.1, "stragglers": 0.0},
        },
        "seeds": [0, 1, 2, 3, 4],
        "methods": list(methods),
        "sweep": sweep,
        "points": [{"settings": s, "label": ", ".join(f"{k}={v}" for k, v in s.items()) or "all"} for s in settings],
        "model": {"layer_names": LAYERS, "weights": 678_730, "bytes_dense": 2_714_920},
        "rows": [
            make_row(point, method, number, rng)
            for point in range(len(settings))
            for number, method in enumerate(methods)
        ],
        "settings": {"probes": 6, "solver": "deviation"},
        "versions": {"fedsieve": "0.1.0", "torch": "2.13.0"},
        "command": "fedsieve compare --strategies " + ",".join(methods),
    }


def without_metrics(summary: dict[str, Any]) -> dict[str, Any]:
    """The same comparison after every run of it has failed."""
    failed: dict[str, Any] = {**json.loads(json.dumps(summary)), "model": None, "settings": {}}
    for row in failed["rows"]:
        row["metrics"] = dict.fromkeys(row["metrics"])
        row.update(cells=0, personal_share=[], late=None, failures={}, reached=None)
        row["failed"] = [{"seed": seed, "error": "a folder <could> not be written"} for seed in failed["seeds"]]
    return failed
