"""A fleet's rounds replayed on recorded measurements: real noise and the server's own learning, no forward pass."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.sensing.prior import Prior
from personalization.wire.plan import Plan
from personalization.wire.privacy_terms import NoiseMode, PrivacyTerms
from personalization.wire.statistics import StatisticsLayout, from_wire
from server.sampling import sample_size
from simulations.noise import SeededEntropy
from strategies.privacy.accounting import rho_of
from strategies.privacy.estimate import Estimate, observation_variance, observe, worth_telling
from strategies.privacy.mechanism import make_terms
from strategies.privacy.release import FIRST_CENTRE, centre_of, deviations, measured_share
from strategies.privacy.settings import CLIP, DELTA, most_answers
from strategies.privacy.view import sum_under

Vector = NDArray[np.float64]
PROBES, ROUNDS, FRACTION, LARGEST_COHORT = 6, 3, 0.3, 75
# Precision of a clean look at an atom.
_LOOK = 0.5


@dataclass(frozen=True)
class Outcome:
    """estimate: what the server believes after the last round. told: whether it is told to clients."""

    estimate: Estimate
    told: bool

    def prior(self) -> Prior | None:
        """Return what the final plan says."""
        if not self.told:
            return None
        return Prior(from_wire(self.estimate.mean), np.ones(len(self.estimate.mean)))


def replay(
    measured: Vector, layout: StatisticsLayout, *, clients: int, epsilon: float, mode: NoiseMode, seed: int
) -> Outcome:
    """Return what a fleet of `clients` learns in 3 rounds of three in ten, nobody asked twice.

    measured [recorded, atoms]: every client is one of the recorded ones, drawn with the seed, and measures 6 atoms of
    its own. epsilon: infinite clips and adds no noise. Distributed noise is added in cohorts of at most 75.
    """
    rng = np.random.default_rng([seed, clients])
    people = measured[rng.integers(len(measured), size=clients)]
    turns, each = rng.permutation(clients), sample_size(clients, FRACTION)
    estimate, told, probes = Estimate(np.full(layout.atoms, FIRST_CENTRE)), False, PROBES
    entropy = SeededEntropy(f"benchmark/{seed}/{clients}/{epsilon}/{mode}")
    for number in range(ROUNDS):
        prior = Outcome(estimate, told).prior()
        plan = Plan(version=number, prior=prior, dropped=np.zeros(layout.groups, bool), probes=probes, budget=0.5)
        released = [
            deviations(_vector(people[turn], layout, rng), plan, layout)
            for turn in turns[number * each : (number + 1) * each]
        ]
        total, noise = _sum(released, epsilon, mode, entropy)
        share = measured_share(plan, layout)
        observed = centre_of(plan, layout) + total / (len(released) * share)
        variance = observation_variance(noise, clients=len(released), share=share)
        estimate = observe(estimate, observed, variance, layout)
        told = worth_telling(estimate, layout)
    return Outcome(estimate, told)


def _sum(released: list[Vector], epsilon: float, mode: NoiseMode, entropy: SeededEntropy) -> tuple[Vector, float]:
    """Return the noisy sum [atoms] and the variance of its noise."""
    if np.isinf(epsilon):
        terms = PrivacyTerms(mode="central", clip=CLIP, variance=1)
    else:
        terms = make_terms(mode, clip=CLIP, rho=rho_of(epsilon, DELTA) / most_answers(ROUNDS, FRACTION))
    cohorts = -(-len(released) // LARGEST_COHORT) if mode == "distributed" else 1
    parts = np.array_split(np.stack(released), cohorts)
    sums = [sum_under(terms, list(part), entropy=entropy) for part in parts]
    return np.sum([one.total for one in sums], axis=0), sum(one.variance for one in sums)


def _vector(sensitivity: Vector, layout: StatisticsLayout, rng: np.random.Generator) -> Vector:
    """Return the statistics vector of a client that has measured 6 atoms once."""
    vector = np.zeros(layout.size)
    seen = rng.choice(layout.atoms, PROBES, replace=False)
    vector[layout.field("precision")][seen] = _LOOK
    vector[layout.field("weighted_sensitivity")][seen] = _LOOK * sensitivity[seen]
    return vector
