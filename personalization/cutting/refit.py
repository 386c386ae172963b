"""Choose a layer's units and refit its writer in closed form, from second moments alone.

With x the writer's inputs in the (partly cut) model and y the dense model's output of the same layer, the writer of the
kept units k minimizes  E||y - W x_k - b||^2 + strength ||W - W0||^2, W0 the dense columns of k. Its solution is
W = W0 + (C_yk - W0 C_kk) (C_kk + strength)^-1, b = E[y] - W E[x_k], C the covariances: ridge regression that falls
back to mean folding where the samples say nothing. In the spirit of SparseGPT (2301.00774), FLAP (2312.11983) and
CORP (2602.05243).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personalization.errors import UserError
from personalization.settings import Score
from personalization.transformer.layers import Layer

# Units are eliminated in rounds and scored again in between; more rounds than these lower no entropy increase.
ELIMINATION_ROUNDS = 4
# Ridge for each column by row. With SmolLM2 and 16 or 64 windows of a speaker twice or half of it does as well on later
# speeches, and a tenth is far worse.
_RIDGE_OF_NOISE = 2.0
# Columns of a block of a covariance: smaller ones multiply more slowly than their symmetry saves.
_GRAM_BLOCK = 384


@dataclass(frozen=True)
class Moments:
    """First and second moments of a layer's writer over as many `rows`: inputs x [columns], dense outputs y [width].

    covariance [columns, columns] of x; cross [width, columns] of y and x.
    """

    rows: int
    x_mean: Tensor
    y_mean: Tensor
    covariance: Tensor
    cross: Tensor


@dataclass(frozen=True)
class RefitWriter:
    """A writer for the kept units: weight [width, kept columns] and bias [width]."""

    weight: Tensor
    bias: Tensor


def moments(x: Tensor, y: Tensor) -> Moments:
    """Return the moments of inputs x [rows, columns] and outputs y [rows, width]."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    return Moments(len(x), x_mean, y_mean, _gram(centred) / len(x), (y - y_mean).t() @ centred / len(x))


class MomentSum:
    """Moments of rows that come a few at a time."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._rows = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add inputs x [rows, columns] and outputs y [rows, width] of a writer."""
        if not self._rows:
            # Close to the means of all rows: what is multiplied is small, and so is what rounding takes from it.
            self._near_x, self._near_y = x.mean(0), y.mean(0)
            self._x, self._y = torch.zeros_like(self._near_x), torch.zeros_like(self._near_y)
            self._square, self._cross = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(y.shape[1], x.shape[1])
        x, y = x - self._near_x, y - self._near_y
        self._rows += len(x)
        self._x += x.sum(0)
        self._y += y.sum(0)
        self._square += _gram(x)
        self._cross += y.t() @ x

    def moments(self) -> Moments:
        """Return the moments of all rows so far."""
        x, y = self._x / self._rows, self._y / self._rows
        covariance = self._square / self._rows - torch.outer(x, x)
        cross = self._cross / self._rows - torch.outer(y, x)
        return Moments(self._rows, x + self._near_x, y + self._near_y, covariance, cross)


def _gram(x: Tensor) -> Tensor:
    """Return x^T x [columns, columns] of x [rows, columns]; only blocks on and above the diagonal are multiplied."""
    columns = x.shape[1]
    product = x.new_empty(columns, columns)
    for start in range(0, columns, _GRAM_BLOCK):
        end = min(start + _GRAM_BLOCK, columns)
        product[start:end, start:] = x[:, start:end].t() @ x[:, start:]
        product[end:, start:end] = product[start:end, end:].t()
    return product


def fold(weight: Tensor, moment: Moments, columns: Tensor) -> RefitWriter:
    """Keep the dense weights [width, all columns] of `columns`; the mean of everything else goes into the bias."""
    kept = weight[:, columns]
    return RefitWriter(kept, moment.y_mean - kept @ moment.x_mean[columns])


def refit(weight: Tensor, moment: Moments, columns: Tensor, ridge: float) -> RefitWriter:
    """Refit the dense `weight` [width, all columns] for `columns`; `ridge` is relative to the mean variance of x.

    Raises UserError for moments that are not finite.
    """
    dense = weight[:, columns]
    if not len(columns):
        return fold(weight, moment, columns)
    covariance = _part(moment.covariance, columns, columns)
    residual = moment.cross[:, columns] - dense @ covariance
    solved = torch.cholesky_solve(residual.t(), _factor(covariance, ridge))
    kept = dense + solved.t()
    return RefitWriter(kept, moment.y_mean - kept @ moment.x_mean[columns])


def ridge_for(columns: int, rows: int, least: float) -> float:
    """Return how strong the ridge of a refit of so many columns to so many rows has to be, `least` or more.

    What few rows say of many columns is noise, in proportion to columns by rows (Ledoit and Wolf 2004, section 2).
    """
    return max(least, _RIDGE_OF_NOISE * columns / max(rows, 1))


def _factor(covariance: Tensor, ridge: float) -> Tensor:
    """Return the Cholesky factor of the loaded covariance; a ridge too small for its precision is raised tenfold."""
    variance = covariance.diagonal().mean().clamp_min(1e-12)
    ridge = max(ridge, torch.finfo(covariance.dtype).eps)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(_loaded(covariance, ridge * variance))
    while failed and ridge < 1.0:
        ridge *= 10.0
        factor, failed = torch.linalg.cholesky_ex(_loaded(covariance, ridge * variance))
    # What is not finite anywhere reaches the diagonal.
    if failed or not bool(factor.diagonal().isfinite().all()):
        raise UserError("a layer's activations on the private samples are not finite; check the samples and the model")
    return factor


def _loaded(covariance: Tensor, load: Tensor) -> Tensor:
    loaded = covariance.clone()
    loaded.diagonal().add_(load)
    return loaded


def _part(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `matrix` at these rows and columns; columns first, which leaves less to copy for the rows."""
    return matrix.index_select(1, columns).index_select(0, rows)


def select_units(
    layer: Layer, weight: Tensor, moment: Moments, allowed: NDArray[np.int64], count: int, *, score: Score, ridge: float
) -> NDArray[np.int64]:
    """Return the `count` units of `allowed` that the layer needs most, sorted.

    `variance`: variance of the unit's inputs to the writer times its outgoing weights, one by one. `residual`: units
    are eliminated by what their loss costs after all others have been refitted (optimal brain surgeon, Hassibi and
    Stork 1992, equation 5, for blocks of columns), scored again in rounds.
    """
    if count >= len(allowed):
        return allowed
    if score == "variance":
        order = np.argsort(-_variance_scores(layer, weight, moment, allowed), kind="stable")
        return np.sort(allowed[order[:count]])
    rounds = np.unique(np.linspace(len(allowed), count, ELIMINATION_ROUNDS + 1).round().astype(int))[::-1][1:]
    return allowed[_eliminate(moment, layer.columns(allowed), layer.columns_per_unit, rounds, ridge)]


def _variance_scores(layer: Layer, weight: Tensor, moment: Moments, units: NDArray[np.int64]) -> NDArray[np.float64]:
    columns = torch.from_numpy(layer.columns(units))
    per_column = moment.covariance.diagonal()[columns] * weight[:, columns].square().sum(0)
    return per_column.reshape(len(units), -1).sum(1).double().numpy()


def _eliminate(
    moment: Moments, columns: NDArray[np.int64], width: int, rounds: NDArray[np.int64], ridge: float
) -> NDArray[np.int64]:
    """Return which units of `width` columns each, of those that `columns` [units * width] belong to, are left, sorted.

    rounds: how many are left after each round of elimination. The covariance is inverted once; what a round takes out
    leaves the inverse, and the weights of the refit, by block elimination.
    """
    index = torch.from_numpy(columns)
    covariance, cross = moment.covariance, moment.cross
    if len(index) < len(covariance):
        covariance, cross = _part(covariance, index, index), cross[:, index]
    inverse = torch.cholesky_inverse(_factor(covariance, ridge))
    weight = inverse @ cross.t()
    units = np.arange(len(columns) // width)
    for count in rounds:
        order = np.argsort(-_losses(inverse, weight, width), kind="stable")
        left, gone = np.sort(order[:count]), np.sort(order[count:])
        units = units[left]
        if count > rounds[-1]:
            inverse, weight = _without(inverse, weight, _columns_of(left, width), _columns_of(gone, width))
    return units


def _columns_of(units: NDArray[np.int64], width: int) -> Tensor:
    return torch.from_numpy((units[:, None] * width + np.arange(width)).ravel())


def _without(inverse: Tensor, weight: Tensor, left: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inverse covariance and the weights [columns, width] of the columns `left` without those `gone`."""
    shared = _part(inverse, left, gone)
    factor = torch.linalg.cholesky(_part(inverse, gone, gone))
    taken = torch.cholesky_solve(torch.cat([shared.t(), weight[gone]], 1), factor)
    return (
        _part(inverse, left, left).addmm_(shared, taken[:, : len(left)], alpha=-1.0),
        weight[left].addmm_(shared, taken[:, len(left) :], alpha=-1.0),
    )


def _losses(inverse: Tensor, weight: Tensor, width: int) -> NDArray[np.float64]:
    """Return what the loss of each unit costs when all others are refitted, [units]."""
    if width == 1:
        return (weight.square().sum(1) / inverse.diagonal()).double().numpy()
    units = len(inverse) // width
    own = weight.reshape(units, width, -1)
    blocks = inverse.reshape(units, width, units, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    # Blocks of an inverse covariance are positive definite. (LU on several threads fails in some builds of MKL.)
    return (own * torch.cholesky_solve(own, torch.linalg.cholesky(blocks))).sum((1, 2)).double().numpy()
