import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from personalization.errors import UserError
from strategies.secure_aggregation.graph import (
    ALL_PAIRS,
    draw_graph,
    graph_size,
    is_plausible,
    reverse_places,
    ring_position,
)
from strategies.secure_aggregation.settings import SecureAggregationSettings

DEFAULT = SecureAggregationSettings()


@given(st.integers(3, ALL_PAIRS), st.floats(0.0, 0.3))
def test_small_cohorts_are_all_pairs_and_survive_any_allowed_loss(cohort: int, dropout: float) -> None:
    size = graph_size(cohort, SecureAggregationSettings(dropout=dropout))
    left = cohort - int(dropout * cohort)
    assert size.degree == cohort - 1
    assert left - 1 >= size.threshold
    assert 2 * size.threshold - size.degree > int(0.05 * cohort)


@given(st.integers(3, ALL_PAIRS), st.floats(0.0, 0.44))
def test_a_cohort_that_protects_nobody_is_refused(cohort: int, dropout: float) -> None:
    try:
        size = graph_size(cohort, SecureAggregationSettings(dropout=dropout, corrupted=0.0))
    except UserError:
        assert 2 * int(dropout * cohort) >= cohort - 1
    else:
        assert size.threshold > size.degree - size.threshold


@pytest.mark.parametrize("cohort", [150, 400, 1000, 10_000, 100_000])
def test_large_cohorts_meet_the_bounds_as_scipy_computes_them(cohort: int) -> None:
    size = graph_size(cohort, DEFAULT)
    gone, corrupted = int(0.3 * cohort), int(0.05 * cohort)
    assert size.degree % 2 == 0
    assert size.degree < cohort - 1
    few_left = hypergeom(cohort - 1, gone, size.degree).sf(size.degree - size.threshold)
    captured = hypergeom(cohort - 1, corrupted, size.degree).sf(2 * size.threshold - size.degree - 1)
    assert few_left * cohort <= 2.0**-20 * 1.001
    assert captured * cohort <= 2.0**-41 * 1.001
    smaller = graph_size(cohort, SecureAggregationSettings(dropout=0.1, corrupted=0.05))
    assert smaller.degree < size.degree


@given(st.integers(5, 60), st.integers(1, 28), st.integers(0, 2**32))
def test_the_graph_is_regular_symmetric_and_stays_connected(clients: int, half: int, seed: int) -> None:
    degree = min(2 * half, clients - 1)
    rng = np.random.default_rng(seed)
    peers = draw_graph(rng.permutation(clients).tolist(), degree)
    joined = np.zeros((clients, clients), dtype=bool)
    joined[np.arange(clients)[:, None], peers] = True
    assert (joined == joined.T).all()
    assert not joined.diagonal().any()
    assert (joined.sum(axis=1) == degree).all()
    places = reverse_places(peers)
    assert (peers[peers, places] == np.arange(clients)[:, None]).all()
    # A Harary graph is as connected as its degree allows: one removal fewer leaves it whole.
    left = rng.permutation(clients)[max(degree - 1, 0) :]
    reached = np.linalg.matrix_power(np.eye(len(left)) + joined[np.ix_(left, left)], len(left)) > 0
    assert reached.all()


def test_peers_are_the_nearest_on_the_ring() -> None:
    positions = [50, 10, 30, 20, 40, 0]
    assert draw_graph(positions, 2).tolist() == [[4, 5], [3, 5], [3, 4], [1, 2], [0, 2], [0, 1]]


@hypothesis_settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_honest_rings_are_plausible_and_captured_ones_are_not(seed: int) -> None:
    cohort, rng = 1000, np.random.default_rng(seed)
    degree = graph_size(cohort, DEFAULT).degree
    positions = [ring_position(b"place", rng.bytes(16)) for _ in range(cohort)]
    peers = draw_graph(positions, degree)
    for client in range(0, cohort, 50):
        assert is_plausible(positions[client], [positions[peer] for peer in peers[client]], cohort)
    # Half of the honest ones around a victim are left out, and others of the same cohort put in their place.
    kept = [*range(0, cohort, 2)]
    few = draw_graph([positions[client] for client in kept], degree)
    assert not is_plausible(positions[0], [positions[kept[peer]] for peer in few[0]], cohort)


@pytest.mark.parametrize("cohort", [0, 2, 2**18])
def test_cohorts_of_absurd_size_are_refused(cohort: int) -> None:
    with pytest.raises(UserError, match="expected 3 to"):
        graph_size(cohort, DEFAULT)


@pytest.mark.parametrize(
    "bad", [{"dropout": 0.5}, {"corrupted": -0.1}, {"dropout": 0.45}, {"smallest_cohort": 2}, {"fraction_bits": 0}]
)
def test_settings_that_protect_nothing_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="secure aggregation"):
        SecureAggregationSettings(**bad)  # type: ignore[arg-type]
