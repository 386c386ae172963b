"""Does what is seen in one round contain the client that something seen in another round came from?

Asked with a client's own vector of an earlier round as the reference, which a server of secure sums never has, and with
an earlier sum that the client was in.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.inference.regression import LinearMap, fit_ridge
from simulations.inference.scores import Trials
from simulations.inference.views import Array, View

ATTACKERS = ("likelihood ratio", "learned metric")
COMPONENTS = 64
_DAMPING = 0.05


@dataclass(frozen=True, kw_only=True)
class LinkageView:
    """later: what is seen, of one observation; earlier: the observation of the reference; summed: whether the
    reference is a sum of as many clients or one vector alone. Noise is on every sum.
    """

    later: View
    earlier: int
    summed: bool


@dataclass(frozen=True)
class Pairs:
    """reference, seen [pairs, statistics]; truth [pairs]: whether a client is in both; client [pairs]: whose
    reference it is.
    """

    reference: Array
    seen: Array
    truth: NDArray[np.bool_]
    client: NDArray[np.int64]


def draw_pairs(vectors: Array, view: LinkageView, *, trials: int, rng: np.random.Generator) -> Pairs:
    """Draw for each client of `vectors` [clients, observations, statistics] `trials` cohorts with and without it.

    The others in both sums of a pair, where there are two, are different clients.
    """
    clients, size = len(vectors), view.later.cohort
    reference, seen, truth, client = [], [], [], []
    for target in np.repeat(np.arange(clients), trials).tolist():
        order = rng.permutation(np.delete(np.arange(clients), target))
        first, second = np.array_split(order, 2)
        before = np.append(rng.choice(first, size - 1), target) if view.summed else np.array([target])
        others = rng.choice(second, size)
        for present in (True, False):
            now = np.append(others[1:], target) if present else others
            reference.append(vectors[before, view.earlier].mean(0))
            seen.append(vectors[now, view.later.observations[0]].mean(0))
            truth.append(present)
            client.append(target)
    shape = (len(seen), vectors.shape[-1])
    noise = view.later.entry_noise
    first = np.stack(reference) + (noise * rng.standard_normal(shape) if view.summed else 0.0)
    return Pairs(first, np.stack(seen) + noise * rng.standard_normal(shape), np.array(truth), np.array(client))


class LikelihoodRatio:
    """How much likelier what is seen is with the reference's client in it than without, all vectors being Gaussian.

    The two-covariance model of speaker verification (Ioffe 2006, Probabilistic Linear Discriminant Analysis), with
    different statistics in either round and any number of other clients in the sum.
    """

    def __init__(self, shadow: Array, view: LinkageView, basis: "Basis") -> None:
        """Learn from `shadow` [clients, observations, statistics] what a client's two vectors have in common."""
        later, size = shadow[:, view.later.observations[0]], view.later.cohort
        earlier, client = shadow[:, view.earlier], np.arange(len(shadow))
        self._basis = basis
        own = self._basis(later)
        noise = view.later.single_noise if view.summed else 0.0
        self._predict = fit_ridge(earlier, own, client=client, noise=noise)
        unexplained = own - _out_of_fold(earlier, own, noise)
        sum_noise = np.square(view.later.noise) * self._basis.gram
        common = _damped(own)
        self._with = (
            (size - 1) * common + (common if view.summed and size > 1 else _damped(unexplained)) + sum_noise
        ) / size**2
        self._without = (size * common + sum_noise) / size**2
        self._size = size

    def __call__(self, pairs: Pairs) -> Array:
        """Return the logarithm of the likelihood ratio [pairs]."""
        seen = self._basis(pairs.seen)
        shift = self._predict(pairs.reference) / self._size
        return _log_density(seen - shift, self._with) - _log_density(seen, self._without)

    def evidence(self, pairs: Pairs) -> Array:
        """Return what a learned metric weighs anew, [pairs, features]: products and squared differences."""
        seen, shift = self._basis(pairs.seen) * self._size, self._predict(pairs.reference)
        return np.concatenate([seen * shift, np.square(seen - shift), self(pairs)[:, None]], axis=1)


def linkage_scores(
    shadow: Array, pairs: Pairs, view: LinkageView, *, trials: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Return the scores [pairs] of each of ATTACKERS, trained on `shadow` [clients, observations, statistics]."""
    # One basis for all, so that what one half's evidence weighs means the same in the other's.
    basis = Basis(shadow[:, view.later.observations[0]])
    halves = np.array_split(rng.permutation(len(shadow)), 2)
    evidence, truth, client = [], [], []
    for own, other in (halves, halves[::-1]):
        drawn = draw_pairs(shadow[own], view, trials=trials, rng=rng)
        evidence.append(LikelihoodRatio(shadow[other], view, basis).evidence(drawn))
        truth.append(drawn.truth.astype(np.float64))
        client.append(own[drawn.client])
    metric = fit_ridge(np.concatenate(evidence), np.concatenate(truth)[:, None], client=np.concatenate(client))
    ratio = LikelihoodRatio(shadow, view, basis)
    return dict(zip(ATTACKERS, (ratio(pairs), metric(ratio.evidence(pairs))[:, 0]), strict=True))


def linkage_trials(scores: Array, pairs: Pairs) -> Trials:
    """Return a trial for each of `scores` [pairs]."""
    return Trials(scores, pairs.truth, pairs.client)


class Basis:
    """The leading principal components of standardized vectors, each with variance 1 over the clients."""

    def __init__(self, rows: Array) -> None:
        """Learn from `rows` [clients, statistics]."""
        self._center = rows.mean(0)
        spread = rows.std(0)
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9)
        _, values, basis = np.linalg.svd((rows - self._center) * scale, full_matrices=False)
        count = min(COMPONENTS, max(1, len(rows) // 4), int((values > 1e-6 * values[0]).sum()))
        deviation = values[:count] / np.sqrt(len(rows))
        self._map = scale[:, None] * basis[:count].T / deviation
        self.gram = self._map.T @ self._map

    def __call__(self, rows: Array) -> Array:
        """Return the components [rows, components]."""
        return np.asarray((rows - self._center) @ self._map)


def _out_of_fold(rows: Array, outputs: Array, noise: float) -> Array:
    """Return predictions of each client's `outputs` by what the others teach."""
    found, fold = np.zeros_like(outputs), np.arange(len(rows)) % 5
    for number in range(5):
        held = fold == number
        learned: LinearMap = fit_ridge(rows[~held], outputs[~held], client=np.flatnonzero(~held), noise=noise)
        found[held] = learned(rows[held])
    return found


def _damped(rows: Array) -> Array:
    """Return the covariance of `rows`, drawn a little towards its diagonal's mean so that it can be inverted."""
    covariance = rows.T @ rows / len(rows)
    return np.asarray(covariance + _DAMPING * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))


def _log_density(rows: Array, covariance: Array) -> Array:
    """Return the logarithm of the Gaussian density of mean 0 at each row, but for a constant."""
    factor = np.linalg.cholesky(covariance)
    scaled = np.linalg.solve(factor, rows.T)
    return np.asarray(-0.5 * np.square(scaled).sum(0) - np.log(np.diag(factor)).sum())
