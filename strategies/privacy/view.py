"""What a server sees of a round under differential privacy: for attacks, audits and measurements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalization.wire.privacy_terms import GRID_STEPS, PrivacyTerms
from strategies.privacy.mechanism import make_chain
from strategies.privacy.postprocessor import (
    DistributedNoise,
    apply_on_client,
    apply_on_server,
    from_grid,
    to_grid,
)
from strategies.secure_aggregation.entropy import Entropy, system_entropy

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class NoisySum:
    """total [atoms]: the noisy sum of clipped deviations, scale of the wire. variance: of the noise of each entry."""

    total: Vector
    variance: float


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
