"""What an exported personal model saves on a device: `python -m benchmarks.device`.

A small fleet gets personal models of the bundled ViT; each is exported in every precision, tried on the client's own
test images, and timed against the dense model in the same runtime. Then a model of the size of ViT-S, with random
weights and 224 x 224 pixels, is cut to the levels that these clients chose, and timed against its dense self.

One thread, one image at a time. The models of a comparison run in turns in one process, so that what else the machine
does slows all of them alike: read ratios. Nothing is kept but the figures, in `device.json` and `device.md`.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from benchmarks.intervals import mean_interval
from client.data import InputFacts
from client.entries import MODEL
from personalization.cutting.cut_model import cut_model
from personalization.data.images import ImagePreprocessing
from personalization.device.manifest import Precision
from personalization.device.measurement import time_sessions
from personalization.device.runtime import open_session, run_session
from personalization.export.image_export import compare, quantized, torch_logits
from personalization.export.onnx_graph import export_graph
from personalization.model_files.backbone import load_backbone
from personalization.model_files.storage import load_personal_model
from personalization.transformer.layers import find_layers
from simulations.evaluation import client_folder
from simulations.fleet import run_fleet
from simulations.fleet_settings import FleetSettings
from simulations.private_data import make_fleet_data

SIZE_TARGET, SPEED_TARGET, ACCURACY_TARGET = 8.0, 3.5, 0.01
# Calibration images of the model with random weights: their ranges mean nothing, only their cost is looked at.
_RANDOM_SAMPLES = 4

Record = dict[str, Any]


def exports(model: nn.Module, preprocessing: ImagePreprocessing, pixels: NDArray[np.float32]) -> dict[Precision, bytes]:
    """Return `model` as an ONNX file in every precision, calibrated on `pixels`."""
    graph = export_graph(model, preprocessing)
    kinds: tuple[Precision, ...] = get_args(Precision)
    return {kind: quantized(graph, kind, pixels).SerializeToString() for kind in kinds}


def times_faster(
    dense: bytes, files: Mapping[Precision, bytes], pixels: NDArray[np.float32], *, runs: int
) -> dict[Precision, float]:
    """Return the median latency of `dense` over that of each file, for the first of `pixels`; all run in turns."""
    sessions = [open_session(data) for data in (dense, *files.values())]
    reference, *others = map(
        statistics.median, time_sessions(sessions, pixels[:1], runs=runs, warm_up=max(3, runs // 10))
    )
    return {kind: reference / own for kind, own in zip(files, others, strict=True)}


def bundled(*, clients: int, budget: float, seed: int, runs: int) -> list[Record]:
    """Return, for each client of a fleet of the bundled model, what its personal model saves in each precision."""
    with tempfile.TemporaryDirectory(prefix="fedsieve-") as folder:
        settings = FleetSettings(out=Path(folder) / "run", clients=clients, fraction=0.5, budget=budget, seed=seed)
        fleet = run_fleet(settings)
        models = [load_personal_model(client_folder(settings.out, c) / MODEL).model for c in range(clients)]
    config = settings.run_config()
    backbone = load_backbone(str(config["model"]))
    assert isinstance(backbone.preprocessing, ImagePreprocessing)
    facts = InputFacts(backbone.preprocessing, backbone.labels)
    data = make_fleet_data(config, clients, facts)
    test_pixels = data.test_pixels().numpy()
    dense = export_graph(backbone.model, backbone.preprocessing).SerializeToString()
    records = []
    for client, model in enumerate(models):
        own = data({"partition-id": client}, {}, facts).inputs["pixel_values"].numpy()
        split = data.split(client, None)
        tested, labels = test_pixels[split.test], data.dataset.test_labels[split.test]
        files = exports(model, backbone.preprocessing, own)
        faster = times_faster(dense, files, own, runs=runs)
        reference = torch_logits(model, own)
        for kind, file in files.items():
            session = open_session(file)
            accuracy = float((run_session(session, tested).argmax(-1) == labels).mean())
            check = compare(reference, run_session(session, own), kind)
            records.append(
                {
                    "client": client,
                    "precision": kind,
                    "levels": fleet.clients[client]["levels"],
                    "accuracy_lost": fleet.clients[client]["dense_fitted_accuracy"] - accuracy,
                    "times_smaller": len(dense) / len(file),
                    "times_faster": faster[kind],
                    "agreement": 1.0 - check.disagreements / check.samples,
                    "difference": check.difference,
                    "passed": check.passed,
                }
            )
    return records


def vit_small(levels: list[float], *, runs: int) -> list[Record]:
    """Return what cutting to `levels` saves a model of ViT-S's size; levels [layers] of a shallower model.

    Each block of the shallower model stands for as many of the twelve.
    """
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, image_size=224
    )
    model = ViTForImageClassification(config).eval()
    layers = find_layers(model)
    source = [layer.block * (len(levels) // 2) // 12 * 2 + layer.index % 2 for layer in layers]
    kept = [np.arange(round((1 - levels[s]) * layer.units)) for s, layer in zip(source, layers, strict=True)]
    preprocessing = ImagePreprocessing(height=224, width=224)
    pixels = np.random.default_rng(0).standard_normal((_RANDOM_SAMPLES, 3, 224, 224)).astype(np.float32)
    dense = export_graph(model, preprocessing).SerializeToString()
    files = exports(cut_model(model, layers, kept), preprocessing, pixels)
    faster = times_faster(dense, files, pixels, runs=runs)
    return [
        {"precision": kind, "times_smaller": len(dense) / len(file), "times_faster": faster[kind]}
        for kind, file in files.items()
    ]


def tables(clients: list[Record], small: list[Record], budget: float) -> str:
    """Return both comparisons as Markdown, and whether each target is met."""
    lines = [
        f"Bundled ViT, budget {budget:g}, {len({r['client'] for r in clients})} clients. Against dense fp32 in "
        "onnxruntime, one thread, batch 1: mean (least); accuracy with its 95 % interval over clients.",
        "",
        "| personal model | times smaller | times faster | points of accuracy lost | same class as torch |",
        "|---|---|---|---|---|",
    ]
    for kind in get_args(Precision):
        rows = [r for r in clients if r["precision"] == kind]
        lost, half = mean_interval([100 * r["accuracy_lost"] for r in rows])
        same = [100 * r["agreement"] for r in rows]
        lines.append(
            f"| {kind} | {_spread(rows, 'times_smaller')} | {_spread(rows, 'times_faster')} | "
            f"{lost:+.2f} ± {half:.2f} | {np.mean(same):.1f} % ({min(same):.1f} %) |"
        )
    lines += ["", "ViT-S size, 224 pixels, random weights, cut to the mean levels of these clients.", ""]
    lines += ["| cut model | times smaller | times faster |", "|---|---|---|"]
    lines += [f"| {r['precision']} | {r['times_smaller']:.2f} | {r['times_faster']:.2f} |" for r in small]
    return "\n".join([*lines, "", *_targets(clients, small), ""])


def _spread(rows: list[Record], key: str) -> str:
    values = [row[key] for row in rows]
    return f"{np.mean(values):.2f} ({min(values):.2f})"


def _targets(clients: list[Record], small: list[Record]) -> list[str]:
    lines = []
    for kind in ("int8-dynamic", "int8-static"):
        rows = [r for r in clients if r["precision"] == kind]
        (large,) = [r for r in small if r["precision"] == kind]
        checks = {
            f"at least {SIZE_TARGET:g} times smaller": min(r["times_smaller"] for r in rows) >= SIZE_TARGET,
            "never slower": min(r["times_faster"] for r in rows) >= 1.0,
            "within a point of dense": np.mean([r["accuracy_lost"] for r in rows]) <= ACCURACY_TARGET,
            "every export passes its check": all(r["passed"] for r in rows),
            f"ViT-S size at least {SPEED_TARGET:g} times faster": large["times_faster"] >= SPEED_TARGET,
        }
        lines += [f"- {kind}: {name}: {'reached' if met else 'NOT reached'}" for name, met in checks.items()]
    return lines


def main() -> None:
    """Run both comparisons, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=24, help="clients of the fleet (default: 24)")
    parser.add_argument("--budget", type=float, default=0.4, help="share of the blocks' weights kept (default: 0.4)")
    parser.add_argument("--seed", type=int, default=0, help="which clients (default: 0)")
    parser.add_argument("--runs", type=int, default=300, help="timed runs of each small model (default: 300)")
    parser.add_argument("--large-runs", type=int, default=30, help="timed runs of each large model (default: 30)")
    parser.add_argument("--out", type=Path, default=Path("runs/device"), help="folder for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clients = bundled(clients=arguments.clients, budget=arguments.budget, seed=arguments.seed, runs=arguments.runs)
    levels = np.mean([r["levels"] for r in clients if r["precision"] == "fp32"], axis=0).tolist()
    small = vit_small(levels, runs=arguments.large_runs)
    text = tables(clients, small, arguments.budget)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "device.md").write_text(text)
    (arguments.out / "device.json").write_text(json.dumps({"clients": clients, "vit_small": small}, indent=2) + "\n")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
