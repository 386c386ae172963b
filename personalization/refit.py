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
from personalization.layers import Layer
from personalization.settings import Score

# Units are eliminated in rounds and scored again in between; more rounds than these lower no entropy increase.
ELIMINATION_ROUNDS = 4


@dataclass(frozen=True)
class Moments:
    """First and second moments of a layer's writer: inputs x [columns], dense outputs y [width], weighted by position.

    covariance [columns, columns] of x; cross [width, columns] of y and x.
    """

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
    return Moments(x_mean, y_mean, centred.t() @ centred / len(x), (y - y_mean).t() @ centred / len(x))


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
    covariance = moment.covariance[columns][:, columns]
    residual = moment.cross[:, columns] - dense @ covariance
    solved = torch.cholesky_solve(residual.t(), _factor(covariance, ridge))
    kept = dense + solved.t()
    return RefitWriter(kept, moment.y_mean - kept @ moment.x_mean[columns])


def _factor(covariance: Tensor, ridge: float) -> Tensor:
    """Return the Cholesky factor of the loaded covariance; a ridge too small for its precision is raised tenfold."""
    variance = covariance.diagonal().mean().clamp_min(1e-12)
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    ridge = max(ridge, torch.finfo(covariance.dtype).eps)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance + ridge * variance * identity)
    while failed and ridge < 1.0:
        ridge *= 10.0
        factor, failed = torch.linalg.cholesky_ex(covariance + ridge * variance * identity)
    if failed or not bool(factor.isfinite().all()):
        raise UserError("a layer's activations on the private samples are not finite; check the samples and the model")
    return factor


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
    for target in rounds:
        order = np.argsort(-_residual_scores(layer, moment, allowed, ridge), kind="stable")
        allowed = np.sort(allowed[order[:target]])
    return allowed


def _variance_scores(layer: Layer, weight: Tensor, moment: Moments, units: NDArray[np.int64]) -> NDArray[np.float64]:
    columns = torch.from_numpy(layer.columns(units))
    per_column = moment.covariance.diagonal()[columns] * weight[:, columns].square().sum(0)
    return per_column.reshape(len(units), -1).sum(1).double().numpy()


def _residual_scores(layer: Layer, moment: Moments, units: NDArray[np.int64], ridge: float) -> NDArray[np.float64]:
    columns = torch.from_numpy(layer.columns(units))
    width = layer.columns_per_unit
    inverse = torch.cholesky_inverse(_factor(moment.covariance[columns][:, columns], ridge))
    weight = (moment.cross[:, columns] @ inverse).t().reshape(len(units), width, -1)
    blocks = inverse.reshape(len(units), width, len(units), width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    if width == 1:
        scores = weight.square().sum((1, 2)) / blocks[:, 0, 0]
    else:
        # Blocks of an inverse covariance are positive definite. (LU on several threads fails in some builds of MKL.)
        scores = (weight * torch.cholesky_solve(weight, torch.linalg.cholesky(blocks))).sum((1, 2))
    return scores.double().numpy()
