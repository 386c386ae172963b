"""Whether entropy rises in proportion to local errors, by their logarithms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.transformer.layers import Layer

Record = dict[str, Any]
Array = NDArray[np.float64]
# Increases below it are noise of the measurement (nats).
_FLOOR = 1e-6


def proportionality(sensed: Sequence[Record], layers: Sequence[Layer], levels: int) -> str:
    """Return a table of how log entropy increases follow log local errors, where only one thing differs.

    These are layers of one kind, speakers, or the level of a layer, from the lowest to the highest. Proportion is a
    slope of 1, and as large a rise of the one as of the other from level to level.
    """
    shape = (len(sensed), len(layers), levels)
    rises, errors = (
        np.log(np.maximum(np.array([record[name] for record in sensed]).reshape(shape), _FLOOR))
        for name in ("single", "errors")
    )
    lines = [
        "Entropy increase against local errors, of logarithms: correlation, and slope of the regression; from level to "
        "level the mean rise of both.",
        "",
        "| kind | over layers | over speakers | from level to level |",
        "|---|---|---|---|",
    ]
    kinds = np.array([layer.kind.value for layer in layers])
    for kind in sorted(set(kinds)):
        error, rise = errors[:, kinds == kind], rises[:, kinds == kind]
        cells = [
            _relation(error - error.mean(1, keepdims=True), rise - rise.mean(1, keepdims=True)),
            _relation(error - error.mean(0), rise - rise.mean(0)),
            _changes(error[..., -1] - error[..., 0], rise[..., -1] - rise[..., 0]),
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _relation(error: Array, rise: Array) -> str:
    matrix = np.cov(error.ravel(), rise.ravel())
    return f"{_correlation(error, rise):.2f}, slope {matrix[0, 1] / matrix[0, 0]:.2f}"


def _changes(error: Array, rise: Array) -> str:
    return f"{_correlation(error, rise):.2f}, error {error.mean():+.2f}, entropy {rise.mean():+.2f}"


def _correlation(error: Array, rise: Array) -> float:
    return float(np.corrcoef(error.ravel(), rise.ravel())[0, 1])
