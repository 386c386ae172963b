"""Judge a simulated fleet: every client's own saved personal model on its own held-out test images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.data import InputFacts
from client.state import MODEL, RECORD
from personalization.backbone import Backbone
from personalization.footprint import measure_latency, stored_bytes
from personalization.head import label_shift
from personalization.layers import find_layers
from personalization.storage import load_personal_model
from simulations.private_data import FleetData

_BATCH = 256


@dataclass(frozen=True)
class DenseFigures:
    """The backbone's own figures. model: id, weights, units, layers. stored_bytes: as it is handed out."""

    model: dict[str, Any]
    stored_bytes: int
    latency_ms: float


def client_folder(out: Path, client: int) -> Path:
    """Return the directory of a simulated client."""
    return out / "clients" / f"client-{client}"


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the logits [samples, classes] of `model` for `pixels` [samples, channels, height, width]."""
    with torch.inference_mode():
        return torch.cat([model(pixel_values=batch).logits for batch in pixels.split(_BATCH)])


def predictions(model: nn.Module, pixels: Tensor) -> NDArray[np.int64]:
    """Return the class that `model` finds most likely for each of `pixels` [samples, channels, height, width]."""
    return np.asarray(logits(model, pixels).argmax(-1).numpy())


def evaluate_fleet(out: Path, backbone: Backbone, data: FleetData, *, adapt_head: bool) -> list[dict[str, Any]]:
    """Return one row for each client that has a personal model, with the keys of `clients` in report.json.

    adapt_head: whether personal models had their heads fitted; the dense model beside them is treated alike.
    """
    pixels = data.test_pixels()
    dense = logits(backbone.model, pixels)
    rows = []
    for client in range(data.partition.clients):
        folder = client_folder(out, client)
        if (folder / RECORD).is_file():
            shift = _fitted_shift(backbone, data, client, adapt_head=adapt_head)
            rows.append(_evaluate_client(folder, client, data, pixels, dense, shift))
    return rows


def _fitted_shift(backbone: Backbone, data: FleetData, client: int, *, adapt_head: bool) -> Tensor:
    """Return how the client's own samples move the dense model's head, [classes]: what a personal model gets, too."""
    if not adapt_head:
        return torch.zeros(len(backbone.labels))
    inputs = data({"partition-id": client}, {}, InputFacts(backbone.preprocessing, backbone.labels)).inputs
    return label_shift(logits(backbone.model, inputs["pixel_values"]))


def _evaluate_client(
    folder: Path, client: int, data: FleetData, pixels: Tensor, dense: Tensor, shift: Tensor
) -> dict[str, Any]:
    entries = json.loads((folder / RECORD).read_text())["rounds"]
    last = entries[max(entries, key=int)]
    loaded = load_personal_model(folder / MODEL)
    test = data.split(client).test
    picked = torch.from_numpy(test)
    labels, own = data.dataset.test_labels[test], predictions(loaded.model, pixels[picked])
    plain, fitted = dense[picked].argmax(-1).numpy(), (dense[picked] + shift).argmax(-1).numpy()
    latency = measure_latency(loaded.model, {"pixel_values": pixels[:1]})
    fits = [entry["fit_r2"] for _, entry in sorted(entries.items(), key=lambda item: int(item[0]))]
    return {
        "client": client,
        "samples": last["samples"],
        "dense_accuracy": float((plain == labels).mean()),
        "dense_fitted_accuracy": float((fitted == labels).mean()),
        "personal_accuracy": float((own == labels).mean()),
        "agreement": float((own == plain).mean()),
        "weights_kept": last["weights_kept"],
        "bytes": loaded.manifest.weights_bytes,
        "latency_ms": latency,
        "personalized_layers": last["personalized_layers"],
        "evaluations": sum(entry["evaluations"] for entry in entries.values()),
        "fit_r2": next((fit for fit in reversed(fits) if fit is not None), None),
        "entropy_increase": last["entropy_increase"],
        "levels": last["levels"],
        "classes": list(data.split(client).classes),
    }


def dense_figures(backbone: Backbone, data: FleetData) -> DenseFigures:
    """Return what the backbone weighs and takes, measured as for a personal model."""
    layers = find_layers(backbone.model)
    latency = measure_latency(backbone.model, {"pixel_values": data.test_pixels()[:1]})
    floats = (p.detach() for p in backbone.model.state_dict().values() if p.is_floating_point())
    half = all(torch.equal(tensor, tensor.half().float()) for tensor in floats)
    model = {
        "id": backbone.identifier,
        "weights": sum(p.numel() for p in backbone.model.parameters()),
        "units": sum(layer.units for layer in layers),
        "layers": len(layers),
        "layer_names": [layer.name for layer in layers],
    }
    return DenseFigures(model, stored_bytes(backbone.model, "float16" if half else "float32"), latency)


def summarize(
    rows: list[dict[str, Any]], rounds: list[dict[str, Any]], final: dict[str, Any], dense: DenseFigures
) -> dict[str, Any]:
    """Return the `summary` of report.json but for its times and memory. The worst decile is the mean of a tenth."""
    everything = [*rounds, final]

    def total(key: str) -> int:
        return sum(record[key] for record in everything)

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    accuracies = np.sort([row["personal_accuracy"] for row in rows])
    return {
        "dense_accuracy_mean": mean("dense_accuracy"),
        "dense_fitted_accuracy_mean": mean("dense_fitted_accuracy"),
        "personal_accuracy_mean": mean("personal_accuracy"),
        "personal_accuracy_worst_decile": float(accuracies[: max(1, len(accuracies) // 10)].mean()),
        "agreement_mean": mean("agreement"),
        "weights_kept_mean": mean("weights_kept"),
        "bytes_mean": mean("bytes"),
        "bytes_dense": dense.stored_bytes,
        "latency_ms_mean": mean("latency_ms"),
        "latency_ms_dense": dense.latency_ms,
        "uplink_bytes_per_client_round_mean": _ratio(total("uplink_bytes"), total("replies")),
        "downlink_bytes_first_contact_mean": _ratio(total("first_contact_bytes"), total("first_contacts")),
        "downlink_bytes_later_mean": _ratio(total("later_bytes"), total("later_messages")),
        "evaluations_per_client_mean": mean("evaluations"),
    }


def _ratio(total: int, count: int) -> float:
    return total / count if count else 0.0
