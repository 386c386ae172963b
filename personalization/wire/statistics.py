"""The one vector that a client sends: its layout, its bytes, and what the server accepts of it.

Every entry lies in [0, 1], so that clipping, fixed point and noise need no further bounds. Sensitivities span many
orders of magnitude and travel on a logarithmic scale, where the mean over clients is a geometric one that no single
client dominates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.sensing.prior import Prior

SCALARS = ("agreement", "entropy_increase", "size_ratio", "latency_ratio", "fit_r2")
SMALLEST_NATS = 1e-4
LARGEST_NATS = 20.0
WIRE_TYPE = np.dtype("<f2")


class StatisticsError(ValueError):
    """A statistics vector, or a reply, that does not fit what was asked for; the text names no values.

    reason: a short code for it that stays the same from version to version, for counts.
    """

    def __init__(self, text: str, *, reason: str = "form") -> None:
        """Take the text for whoever sent it, and the code for whoever counts."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class StatisticsLayout:
    """Where each field stands in the vector, for a backbone of `layers`, probe `levels` a layer and unit `groups`."""

    layers: int
    levels: int
    groups: int

    @property
    def atoms(self) -> int:
        """Number of (layer, probe level) pairs."""
        return self.layers * self.levels

    @property
    def widths(self) -> dict[str, int]:
        """Fields in their order, with the number of entries of each."""
        return {
            "precision": self.atoms,
            "weighted_sensitivity": self.atoms,
            "level": self.layers,
            "personalized": self.layers,
            "group_kept": self.groups,
            "scalars": len(SCALARS),
        }

    @property
    def size(self) -> int:
        """Number of entries of a vector."""
        return sum(self.widths.values())

    def field(self, name: str) -> slice:
        """Return the slice of the vector that holds field `name`."""
        start = 0
        for field, width in self.widths.items():
            if field == name:
                return slice(start, start + width)
            start += width
        raise KeyError(name)


@dataclass(frozen=True, kw_only=True)
class ClientStatistics:
    """What one client's round amounts to, before it becomes a vector.

    sensitivity [atoms] in nats; precision [atoms] in [0, 1]; level [layers]; personalized [layers];
    group_kept [groups]; agreement: share of held-out private samples on which the personal model predicts what the
    dense one does; entropy_increase in nats; size_ratio and latency_ratio of the personal to the dense model;
    fit_r2 of held-out probes.
    """

    sensitivity: NDArray[np.float64]
    precision: NDArray[np.float64]
    level: NDArray[np.float64]
    personalized: NDArray[np.bool_]
    group_kept: NDArray[np.float64]
    agreement: float
    entropy_increase: float
    size_ratio: float
    latency_ratio: float
    fit_r2: float | None


def to_wire(nats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map nats >= 0 to [0, 1] on a logarithmic scale; what exceeds `LARGEST_NATS` is clipped."""
    scaled = np.log1p(np.maximum(nats, 0.0) / SMALLEST_NATS) / np.log1p(LARGEST_NATS / SMALLEST_NATS)
    return np.asarray(np.clip(scaled, 0.0, 1.0), dtype=np.float64)


def from_wire(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map [0, 1] back to nats; inverse of `to_wire`."""
    nats = SMALLEST_NATS * np.expm1(np.clip(scaled, 0.0, 1.0) * np.log1p(LARGEST_NATS / SMALLEST_NATS))
    return np.asarray(nats, dtype=np.float64)


def to_vector(statistics: ClientStatistics, layout: StatisticsLayout) -> NDArray[np.float64]:
    """Return the vector [layout.size]; everything is clipped to [0, 1]. Raises StatisticsError on a wrong shape."""
    precision = np.clip(statistics.precision, 0.0, 1.0)
    increase = to_wire(np.array([statistics.entropy_increase]))[0]
    scalars = [
        statistics.agreement,
        increase,
        statistics.size_ratio,
        statistics.latency_ratio,
        0.0 if statistics.fit_r2 is None else statistics.fit_r2,
    ]
    parts = {
        "precision": precision,
        "weighted_sensitivity": precision * to_wire(statistics.sensitivity),
        "level": statistics.level,
        "personalized": statistics.personalized.astype(np.float64),
        "group_kept": statistics.group_kept,
        "scalars": np.array(scalars),
    }
    for name, width in layout.widths.items():
        if parts[name].shape != (width,):
            raise StatisticsError(f"field {name} has shape {parts[name].shape}, expected ({width},)")
    return check(np.clip(np.concatenate([parts[name] for name in layout.widths]), 0.0, 1.0), layout)


def fleet_prior(vector: NDArray[np.float64], layout: StatisticsLayout) -> Prior:
    """Return the prior that a reduced vector amounts to: sensitivity is weighted_sensitivity / precision.

    Cutting more of a layer costs at least as much: a known level is never below a lower known one. Where few clients
    measured, one on which nothing happens to matter would otherwise make the layer look free.
    """
    precision = vector[layout.field("precision")]
    weighted = vector[layout.field("weighted_sensitivity")]
    scaled = np.divide(weighted, precision, out=np.zeros_like(weighted), where=precision > 0)
    rising = np.maximum.accumulate(scaled.reshape(layout.layers, layout.levels), axis=1).ravel()
    return Prior(np.where(precision > 0, from_wire(rising), 0.0), precision.copy())


def check(vector: NDArray[np.float64], layout: StatisticsLayout) -> NDArray[np.float64]:
    """Return `vector` if every entry is finite and in [0, 1] and the length is right; else raise StatisticsError."""
    if vector.shape != (layout.size,):
        raise StatisticsError(f"a vector of shape {vector.shape}, expected ({layout.size},)", reason="length")
    if not np.isfinite(vector).all():
        raise StatisticsError("an entry is NaN or infinite", reason="not_finite")
    if (vector < 0.0).any() or (vector > 1.0).any():
        raise StatisticsError("an entry lies outside [0, 1]", reason="range")
    return vector


def encode(vector: NDArray[np.float64]) -> bytes:
    """Return the vector's bytes: two for each entry."""
    return vector.astype(WIRE_TYPE).tobytes()


def decode(raw: bytes, layout: StatisticsLayout) -> NDArray[np.float64]:
    """Return the vector that `raw` holds; raises StatisticsError unless it is exactly one valid vector of `layout`."""
    if len(raw) != layout.size * WIRE_TYPE.itemsize:
        raise StatisticsError(f"{len(raw)} bytes, expected {layout.size * WIRE_TYPE.itemsize}", reason="length")
    return check(np.frombuffer(raw, dtype=WIRE_TYPE).astype(np.float64), layout)
