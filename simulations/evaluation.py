"""Judge a simulated fleet: every client's own saved personal model on its own held-out test images."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.data import InputFacts
from client.entries import MODEL, RECORD
from personalization.allocation.footprint import measure_latency
from personalization.model_files.backbone import Backbone
from personalization.model_files.storage import LoadedPersonalModel, load_personal_model, stored_bytes
from personalization.transformer.head import label_shift
from personalization.transformer.layers import find_layers
from simulations.private_data import ROUND, FleetData
from simulations.speakers import SpeakerData
from simulations.text_evaluation import text_quality

_BATCH = 256
_ACCURACIES = ("dense_accuracy", "dense_fitted_accuracy", "personal_accuracy")


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


class Judge(Protocol):
    """Judges a client's personal model on data that nobody saw before."""

    def row(self, client: int, model: nn.Module, round_number: int | None = None) -> dict[str, Any]:
        """Return what `model` achieves for a client, with keys of `clients` in report.json.

        round_number: judged is on what the client holds in this round (None: in the end).
        """

    def loaded_row(self, client: int, loaded: LoadedPersonalModel, round_number: int | None = None) -> dict[str, Any]:
        """Return `row` for a personal model that was kept, which knows its own preprocessing."""


class Evaluator:
    """Judges models on the test images of the clients that they belong to, beside the dense model."""

    def __init__(
        self,
        backbone: Backbone,
        data: FleetData,
        *,
        adapt_head: bool,
        latency: bool = True,
        dense: Tensor | None = None,
    ) -> None:
        """Take the dense model and who holds what.

        adapt_head: whether personal models have their heads fitted; the dense model beside them is treated alike.
        latency: whether to time every model. dense: logits of all test images, for who has them already.
        """
        self._backbone, self._data, self._adapt_head, self._latency = backbone, data, adapt_head, latency
        self._pixels = data.test_pixels()
        self._dense = logits(backbone.model, self._pixels) if dense is None else dense
        self._shifts: dict[bytes, Tensor] = {}

    def row(self, client: int, model: nn.Module, round_number: int | None = None) -> dict[str, Any]:
        """Return what `model` achieves for a client, on the data that it holds in a round (None: in the end).

        client, samples, classes, dense_accuracy, dense_fitted_accuracy, personal_accuracy, agreement with the dense
        model on the test images, and latency_ms if that is wanted.
        """
        split = self._data.split(client, round_number)
        picked = torch.from_numpy(split.test)
        dense, labels = self._dense[picked], self._data.dataset.test_labels[split.test]
        plain = dense.argmax(-1).numpy()
        fitted = (dense + self._shift(client, round_number)).argmax(-1).numpy()
        own = predictions(model, self._pixels[picked])
        row: dict[str, Any] = {
            "client": client,
            "samples": len(split.train),
            "classes": list(split.classes),
            "dense_accuracy": float((plain == labels).mean()),
            "dense_fitted_accuracy": float((fitted == labels).mean()),
            "personal_accuracy": float((own == labels).mean()),
            "agreement": float((own == plain).mean()),
        }
        if self._latency:
            row["latency_ms"] = measure_latency(model, {"pixel_values": self._pixels[:1]})
        return row

    def loaded_row(self, client: int, loaded: LoadedPersonalModel, round_number: int | None = None) -> dict[str, Any]:
        """Return `row` for a personal model that was kept."""
        return self.row(client, loaded.model, round_number)

    def _shift(self, client: int, round_number: int | None) -> Tensor:
        """Return how the client's own samples move the dense model's head, [classes]."""
        if not self._adapt_head:
            return torch.zeros(self._dense.shape[-1])
        key = self._data.split(client, round_number).train.tobytes()
        if key not in self._shifts:
            facts = InputFacts(self._backbone.preprocessing, self._backbone.labels)
            own = {"partition-id": client} | ({} if round_number is None else {ROUND: round_number})
            self._shifts[key] = label_shift(
                logits(self._backbone.model, self._data(own, {}, facts).inputs["pixel_values"])
            )
        return self._shifts[key]


def evaluate_fleet(out: Path, evaluator: Judge, clients: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield one row for each of `clients` that has a personal model, with the keys of `clients` in report.json."""
    for client in clients:
        if (client_folder(out, client) / RECORD).is_file():
            yield evaluate_client(client_folder(out, client), client, evaluator)


def evaluate_client(folder: Path, client: int, evaluator: Judge) -> dict[str, Any]:
    """Return the row of a client for the personal model that its folder holds, and what it noted about it."""
    entries = json.loads((folder / RECORD).read_text())["rounds"]
    last = entries[max(entries, key=int)]
    loaded = load_personal_model(folder / MODEL)
    fits = [entry["fit_r2"] for _, entry in sorted(entries.items(), key=lambda item: int(item[0]))]
    return {
        **evaluator.loaded_row(client, loaded),
        "weights_kept": last["weights_kept"],
        "bytes": loaded.manifest.weights_bytes,
        "personalized_layers": last["personalized_layers"],
        "evaluations": sum(entry["evaluations"] for entry in entries.values()),
        "fit_r2": next((fit for fit in reversed(fits) if fit is not None), None),
        "entropy_increase": last["entropy_increase"],
        "levels": last["levels"],
    }


def dense_figures(backbone: Backbone, data: FleetData | SpeakerData) -> DenseFigures:
    """Return what the backbone weighs and takes, measured as for a personal model."""
    layers = find_layers(backbone.model)
    latency = measure_latency(backbone.model, data.one_sample())
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

    return {
        **(text_quality(rows) if "perplexity_ratio" in rows[0] else image_quality(rows)),
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


def image_quality(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a report's summary says of quality: means of accuracies, and that of the worst tenth."""
    accuracies = np.sort([row["personal_accuracy"] for row in rows])
    return {
        **{f"{key}_mean": float(np.mean([row[key] for row in rows])) for key in _ACCURACIES},
        "personal_accuracy_worst_decile": float(accuracies[: max(1, len(accuracies) // 10)].mean()),
    }


def _ratio(total: int, count: int) -> float:
    return total / count if count else 0.0
