"""What a server sees of a round under differential privacy: for attacks, audits and measurements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.plan import Plan
from personalization.privacy_terms import GRID_STEPS, NoiseMode, PrivacyTerms
from personalization.statistics import StatisticsLayout
from strategies.privacy.accounting import rho_of
from strategies.privacy.mechanism import make_chain, make_terms
from strategies.privacy.postprocessor import (
    DistributedNoise,
    apply_on_client,
    apply_on_server,
    from_grid,
    to_grid,
)
from strategies.privacy.release import deviations
from strategies.privacy.settings import CLIP, DELTA
from strategies.secure_aggregation.entropy import Entropy, system_entropy

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class NoisySum:
    """total [atoms]: the noisy sum of clipped deviations, scale of the wire. variance: of the noise of each entry."""

    total: Vector
    variance: float


def noisy_sum(
    vectors: Sequence[Vector],
    layout: StatisticsLayout,
    *,
    plan: Plan,
    epsilon: float,
    delta: float = DELTA,
    answers: int = 1,
    mode: NoiseMode = "central",
    clip: float = CLIP,
    entropy: Entropy = system_entropy,
) -> NoisySum:
    """Return what the server learns of a round in which clients with these statistics vectors answered `plan`.

    vectors: each [statistics], as clients would send them in the open. epsilon, delta: of a client that answers so many
    rounds. A single vector gives what a server sees that adds noise for one client alone (local privacy). Raises
    UserError for cohorts that distributed noise is not for, ValueError for an epsilon or delta that makes no sense.
    """
    terms = make_terms(mode, clip=clip, rho=rho_of(epsilon, delta) / answers)
    return sum_under(terms, [deviations(vector, plan, layout) for vector in vectors], entropy=entropy)


def sum_under(terms: PrivacyTerms, released: Sequence[Vector], *, entropy: Entropy = system_entropy) -> NoisySum:
    """Return the noisy sum of released vectors [entries], before any clipping, under the terms of a plan."""
    chain = make_chain(terms, len(released))
    total = np.sum([apply_on_client(chain, to_grid(one, terms), entropy) for one in released], axis=0)
    return NoisySum(
        from_grid(apply_on_server(chain, total, entropy), terms),
        noise_in_sum(terms, clients=len(released), cohort=len(released)),
    )


def noise_in_sum(terms: PrivacyTerms, *, clients: int, cohort: int) -> float:
    """Return the variance of the noise in an entry of a sum over `clients` of a cohort, scale of the wire."""
    step = (terms.clip / GRID_STEPS) ** 2
    shares = [one.share for one in make_chain(terms, cohort) if isinstance(one, DistributedNoise)]
    return step * (clients * shares[0] if shares else terms.variance)
