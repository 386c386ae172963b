"""Sensitivity, noise and the integer grid: what is exact has to be exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from personalization.errors import UserError
from personalization.wire.privacy_terms import GRID_STEPS, PrivacyTerms
from simulations.noise import SeededEntropy
from strategies.privacy.accounting import rho_of
from strategies.privacy.discrete_gaussian import sample_discrete_gaussian
from strategies.privacy.mechanism import answer_cost, honest_shares, make_terms
from strategies.privacy.noisy_grid import NoisyGrid
from strategies.privacy.postprocessor import Clipping, DistributedNoise, to_grid
from strategies.privacy.view import noise_in_sum, sum_under
from strategies.secure_aggregation.graph import graph_size
from strategies.secure_aggregation.settings import SecureAggregationSettings

TERMS = PrivacyTerms(mode="distributed", clip=0.3, variance=4 * GRID_STEPS**2)
numbers = arrays(np.float64, 24, elements=st.floats(-1e6, 1e6))


@given(numbers, st.sampled_from([0.01, 0.3, 100.0]))
def test_nobody_moves_a_sum_by_more_than_the_norm(vector: np.ndarray, clip: float) -> None:
    terms = PrivacyTerms(mode="central", clip=clip, variance=1)
    clipped = Clipping().on_client(to_grid(vector, terms), SeededEntropy(""))
    assert sum(int(entry) ** 2 for entry in clipped) <= GRID_STEPS**2
    if np.linalg.norm(vector) <= clip:
        assert np.abs(clipped * clip / GRID_STEPS - vector).max() <= clip / GRID_STEPS * (1.0 + 1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        to_grid(np.array([0.0, bad]), TERMS)


@pytest.mark.parametrize("cohort", [3, 10, 50, 128])
def test_words_add_up_to_the_clipped_vectors_and_their_noise_exactly(cohort: int) -> None:
    vectors = np.random.default_rng(cohort).normal(0.0, 0.1, (cohort, 24))
    grids = [NoisyGrid(TERMS, cohort, 24, SeededEntropy(str(client))) for client in range(cohort)]
    words = np.sum([g.to_words(v).astype(np.uint64) for g, v in zip(grids, vectors, strict=True)], axis=0)
    share = DistributedNoise(TERMS.variance, honest_shares(cohort)).share
    plain = sum(Clipping().on_client(to_grid(vector, TERMS), SeededEntropy("")) for vector in vectors)
    noise = sum(sample_discrete_gaussian(share, 24, SeededEntropy(str(client))) for client in range(cohort))
    server = NoisyGrid(TERMS, cohort, 24)
    summed = server.reduced(words.astype(server.dtype))
    assert np.array_equal(server.to_integers(summed), plain + noise)
    assert server.fits(summed, cohort)
    assert np.array_equal(server.unpack(server.pack(summed), 24), summed)


@given(st.integers(3, 128))
def test_noise_suffices_for_every_sum_that_a_server_can_open(cohort: int) -> None:
    settings = SecureAggregationSettings()
    shares, size = honest_shares(cohort), graph_size(cohort, settings)
    assert 1 <= shares <= cohort - int(settings.dropout * cohort) - int(settings.corrupted * cohort)
    assert shares <= 2 * size.threshold - size.degree + 1
    left = noise_in_sum(TERMS, clients=shares, cohort=cohort)
    assert left >= (TERMS.multiplier * TERMS.clip) ** 2


def test_sparse_cohorts_are_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match="at most 128; use secure-aggregation cohorts"):
        honest_shares(129)


@pytest.mark.parametrize("mode", ["central", "distributed"])
@pytest.mark.parametrize("epsilon", [0.5, 4.0, 100.0])
def test_terms_cost_what_they_are_made_for(mode, epsilon: float) -> None:
    rho = rho_of(epsilon, 1e-5)
    cost = answer_cost(make_terms(mode, clip=0.3, rho=rho), cohort=15, entries=24)
    assert 0.99 * rho <= cost <= rho


def test_the_view_has_the_variance_that_it_says() -> None:
    for mode in ("central", "distributed"):
        terms = PrivacyTerms(mode=mode, clip=0.3, variance=TERMS.variance)
        view = sum_under(terms, [np.zeros(5000)] * 5, entropy=SeededEntropy("view"))
        assert view.total.var() == pytest.approx(view.variance, rel=0.1)
