import numpy as np
import pytest
from cohorts import LAYOUT, PRECISION, SHARES, make_cohort
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from personalization.wire.statistics import StatisticsError
from strategies.clustered import Clustered
from strategies.k_means import k_means, nearest
from strategies.median import Median

SOME = settings(max_examples=20)


def two_kinds(rng: np.random.Generator, clients: int, *, measured: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of clients of two kinds, and the kind of each."""
    kinds = rng.permutation(np.arange(clients) % 2)
    types = np.array([0.2, 0.8])[(np.arange(LAYOUT.size) + kinds[:, None]) % 2]
    rows = np.clip(types + 0.05 * rng.standard_normal(types.shape), 0.0, 1.0)
    rows[:, PRECISION] = rng.random((clients, LAYOUT.atoms)) < measured
    rows[:, SHARES] *= rows[:, PRECISION]
    return rows, kinds


def same_partition(groups: list[int], kinds: np.ndarray) -> bool:
    return len(set(zip(groups, kinds.tolist(), strict=True))) == len(set(groups)) == len(set(kinds.tolist()))


@given(st.integers(0, 10**6), st.sampled_from([0.3, 2.0]))
@SOME
def test_clients_of_a_kind_share_a_group_and_newcomers_join_it(seed, measured):
    rng = np.random.default_rng(seed)
    rows, kinds = two_kinds(rng, 12, measured=measured)
    strategy = Clustered()
    groups = strategy.place(dict(enumerate(rows)), LAYOUT)
    assert same_partition(list(groups.values()), kinds)
    late, late_kinds = two_kinds(rng, 5, measured=measured)
    for row, kind in zip(late, late_kinds, strict=True):
        assert strategy.place({99: row}, LAYOUT) == {99: groups[int(np.flatnonzero(kinds == kind)[0])]}


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
@SOME
def test_neither_node_ids_nor_their_order_matter(seed, random):
    rows = make_cohort(np.random.default_rng(seed), 9)
    order = random.sample(range(9), 9)
    one = Clustered(groups=3).place({i: rows[i] for i in range(9)}, LAYOUT)
    other = Clustered(groups=3).place({i: rows[i] for i in order}, LAYOUT)
    assert one == other


def test_too_few_clients_are_placed_nowhere_until_there_are_centroids():
    rows, _ = two_kinds(np.random.default_rng(0), 4)
    strategy = Clustered()
    assert strategy.place(dict(enumerate(rows[:3])), LAYOUT) == {}
    assert strategy.state() == {}
    assert set(strategy.place(dict(enumerate(rows)), LAYOUT)) == {0, 1, 2, 3}
    assert len(strategy.place({7: rows[0]}, LAYOUT)) == 1
    assert strategy.place({}, LAYOUT) == {}


def test_centroids_stay():
    rng = np.random.default_rng(1)
    strategy = Clustered()
    strategy.place(dict(enumerate(two_kinds(rng, 8)[0])), LAYOUT)
    before = strategy.state()
    strategy.place(dict(enumerate(make_cohort(rng, 8))), LAYOUT)
    assert strategy.state() == before


def test_what_a_client_did_not_measure_is_no_distance():
    rows, _ = two_kinds(np.random.default_rng(2), 10)
    strategy = Clustered()
    groups = strategy.place(dict(enumerate(rows)), LAYOUT)
    blind = rows.copy()
    blind[:, : SHARES.stop] = 0.0
    assert strategy.place(dict(enumerate(blind)), LAYOUT) == groups


def test_a_group_is_reduced_by_the_base():
    rows = list(make_cohort(np.random.default_rng(3), 7))
    assert np.array_equal(Clustered(base=Median())(rows, LAYOUT), Median()(rows, LAYOUT))


def test_an_invalid_vector_is_placed_nowhere():
    strategy = Clustered()
    with pytest.raises(StatisticsError):
        strategy.place({n: np.full(LAYOUT.size, np.nan) for n in range(6)}, LAYOUT)
    assert strategy.state() == {}


@given(st.integers(0, 10**6), st.integers(2, 4))
@SOME
def test_k_means_is_a_fixed_point_of_scikit_learns(seed, groups):
    rows = np.random.default_rng(seed).random((20, 4))
    known = np.ones(rows.shape, dtype=bool)
    centroids = k_means(rows, known, groups, seed=0)
    theirs = KMeans(groups, init=centroids, n_init=1, tol=0.0).fit(rows)
    np.testing.assert_allclose(theirs.cluster_centers_, centroids, atol=1e-9)
    assert np.array_equal(theirs.labels_, nearest(rows, known, centroids))


@given(st.integers(0, 10**6))
@SOME
def test_unknown_entries_have_no_say(seed):
    rng = np.random.default_rng(seed)
    rows, known = rng.random((15, 5)), rng.random((15, 5)) < 0.6
    other = np.where(known, rows, rng.random(rows.shape))
    assert np.array_equal(k_means(rows, known, 3, seed=1), k_means(other, known, 3, seed=1))
    centroids = k_means(rows, known, 3, seed=1)
    placed = nearest(rows, known, centroids)
    slow = [np.argmin([((row - c)[mask] ** 2).sum() for c in centroids]) for row, mask in zip(rows, known, strict=True)]
    assert np.array_equal(placed, slow)
