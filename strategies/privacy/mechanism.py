"""From the terms of a plan to the chain of postprocessors, and to what an answer costs the client that gives it."""

import math

from personalization.errors import UserError
from personalization.wire.privacy_terms import GRID_STEPS, NoiseMode, PrivacyTerms
from strategies.privacy.accounting import distributed_rho, gaussian_rho
from strategies.privacy.postprocessor import CentralNoise, Clipping, DistributedNoise, Postprocessor
from strategies.secure_aggregation.graph import ALL_PAIRS, graph_size
from strategies.secure_aggregation.settings import SecureAggregationSettings

_SECURE = SecureAggregationSettings()


def honest_shares(cohort: int, settings: SecureAggregationSettings = _SECURE) -> int:
    """Return how many honest clients any sum contains that a server can open, whoever vanishes and whatever it says.

    With k peers, threshold t and c corrupted clients: 2 t - k - c + 1 (docs/secure_aggregation.md). That is less than
    what is left when the allowed share vanishes, so noise that suffices for it suffices then. Raises UserError where
    not everybody is everybody's peer, because the number is only as large as it has to be there.
    """
    if cohort > ALL_PAIRS:
        raise UserError(
            f"distributed noise in a sum of {cohort} clients: expected at most {ALL_PAIRS}; use secure-aggregation "
            f"cohorts with a cohort-size of at most {ALL_PAIRS // 2}"
        )
    size = graph_size(cohort, settings)
    return 2 * size.threshold - size.degree - math.floor(settings.corrupted * cohort) + 1


def make_chain(terms: PrivacyTerms, cohort: int) -> tuple[Postprocessor, ...]:
    """Return the postprocessors for a sum of `cohort` clients. Raises UserError as `honest_shares` does."""
    if terms.mode == "central":
        return Clipping(), CentralNoise(terms.variance)
    return Clipping(), DistributedNoise(terms.variance, honest_shares(cohort))


def answer_cost(terms: PrivacyTerms, *, cohort: int, entries: int) -> float:
    """Return the rho that an answer costs its client. cohort: as announced; entries: length of the vector.

    Central noise is what the server says that it adds; a share of distributed noise the client adds itself.
    """
    if not terms.release:
        return 0.0
    if terms.mode == "central":
        return gaussian_rho(GRID_STEPS, terms.variance)
    shares = honest_shares(cohort)
    noise = DistributedNoise(terms.variance, shares)
    return distributed_rho(GRID_STEPS, noise.share, shares=shares, entries=entries)


def make_terms(mode: NoiseMode, *, clip: float, rho: float) -> PrivacyTerms:
    """Return terms under which an answer costs at most `rho`.

    The 1e-6 less covers what sums of discrete Gaussians differ from one (see `distributed_rho`) at any variance that a
    real budget leads to; clients work out the cost themselves in any case.
    """
    variance = math.ceil(gaussian_rho(GRID_STEPS, rho * (1.0 - 1e-6)))
    return PrivacyTerms(mode=mode, clip=clip, variance=max(variance, 1))
