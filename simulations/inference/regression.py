"""The attackers' tools: ridge regression with known noise, and a small network, both on standardized statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FOLDS = 5
_BATCH = 256


@dataclass(frozen=True)
class LinearMap:
    """x -> offset + (x - center) @ weights, for x [rows, statistics]."""

    center: Array
    weights: Array
    offset: Array

    def __call__(self, rows: Array) -> Array:
        """Return the predictions [rows, outputs]."""
        return np.asarray(self.offset + (rows - self.center) @ self.weights)


def fit_ridge(
    rows: Array,
    outputs: Array,
    *,
    client: NDArray[np.int64],
    noise: float | Array = 0.0,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearMap:
    """Return the ridge regression of `outputs` [rows, outputs] on `rows` [rows, statistics].

    noise: standard deviation, of all or of each of the statistics, of noise that will be on what is asked later; it is
    added to the moments (Fuller 1987, Measurement Error Models). The strength, relative to entries of variance 1, is
    that with the smallest squared error over five folds of clients (`client` [rows]), so that no client helps to
    predict itself.
    """
    if len(strengths) == 1:
        return _solve(rows, outputs, noise, strengths)[0]
    fold = np.unique(client, return_inverse=True)[1] % _FOLDS
    errors = np.zeros(len(strengths))
    for number in range(_FOLDS):
        held = fold == number
        if not held.any() or held.all():
            continue
        maps = _solve(rows[~held], outputs[~held], noise, strengths)
        errors += [np.square(found(rows[held]) - outputs[held]).sum() for found in maps]
    return _solve(rows, outputs, noise, [strengths[int(errors.argmin())]])[0]


def _solve(rows: Array, outputs: Array, noise: float | Array, strengths: Sequence[float]) -> list[LinearMap]:
    center, offset = rows.mean(0), outputs.mean(0)
    spread = np.sqrt(rows.var(0) + np.square(noise))
    # What never changes tells nothing, and must not be blown up.
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9)
    standard = (rows - center) * scale
    moments = standard.T @ standard / len(rows) + np.diag(np.square(noise * scale))
    values, basis = np.linalg.eigh(moments)
    target = basis.T @ (standard.T @ (outputs - offset) / len(rows))
    values = np.maximum(values, 0.0)
    return [LinearMap(center, scale[:, None] * (basis @ (target / (values + s)[:, None])), offset) for s in strengths]


def fit_network(
    rows: Array, outputs: NDArray[np.bool_], *, epochs: int, seed: int, hidden: int = 64
) -> Callable[[Array], Array]:
    """Return a network of one hidden layer that gives a score for each of `outputs` [rows, outputs].

    Logistic loss, Adam with weight decay, dropout of a half: the rows are few or much alike.
    """
    center, scale = rows.mean(0), 1.0 / np.maximum(rows.std(0), 1e-9)
    scale[rows.std(0) <= 1e-9] = 0.0

    def ready(values: Array) -> Tensor:
        return torch.from_numpy((values - center) * scale).float()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(rows.shape[1], hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, outputs.shape[1])
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
        inputs, truth = ready(rows), torch.from_numpy(outputs).float()
        for _ in range(epochs):
            for pick in torch.randperm(len(inputs)).split(_BATCH):
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(model(inputs[pick]), truth[pick]).backward()
                optimizer.step()
    model.eval()

    def score(values: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(model(ready(values)).double().numpy())

    return score
