"""Each reduction against a library's, or against the paper's formula written down slowly."""

import numpy as np
import pytest
from cohorts import LAYOUT, SHARES, cohorts
from flwr.server.strategy.aggregate import aggregate, aggregate_bulyan, aggregate_krum, aggregate_median
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import trim_mean

from strategies.bucketing import Bucketing
from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.distances import squared_distances
from strategies.geometric_median import GeometricMedian
from strategies.krum import Krum
from strategies.majority_vote import vote
from strategies.mean import Mean
from strategies.median import Median
from strategies.multi_krum import MultiKrum
from strategies.nearest_neighbour_mixing import NearestNeighbourMixing
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.quantile_consensus import QuantileConsensus
from strategies.registry import make_strategy
from strategies.trimmed_mean import TrimmedMean

seeds = st.integers(0, 2**32 - 1)
SOME = settings(max_examples=25)


def random_rows(seed: int, rows: int = 11, columns: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, columns))


def as_flower(rows: np.ndarray) -> list:
    return [([row], 1) for row in rows]


@given(seeds)
@SOME
def test_mean_and_median_are_flowers(seed):
    rows = random_rows(seed)
    ones = np.ones_like(rows)
    np.testing.assert_allclose(Mean().reduce(rows, ones), aggregate(as_flower(rows))[0], atol=1e-12)
    np.testing.assert_allclose(PrecisionWeightedMean().reduce(rows, ones), aggregate(as_flower(rows))[0], atol=1e-12)
    assert np.array_equal(Median().reduce(rows, ones), aggregate_median(as_flower(rows))[0])


@given(cohorts(fewest=1, most=7))
@SOME
def test_the_plain_mean_counts_everybody_who_measured_once(fleet):
    found = Mean()(list(fleet), LAYOUT)
    for atom in range(LAYOUT.atoms):
        known = fleet[fleet[:, atom] > 0]
        expected = (known[:, SHARES.start + atom] / known[:, atom]).mean() if len(known) else 0.0
        assert found[SHARES][atom] == pytest.approx(found[atom] * expected, abs=1e-12)


@given(seeds, st.integers(5, 14), st.sampled_from([0.0, 0.1, 0.2, 0.29, 0.4, 0.49]))
@SOME
def test_trimmed_mean_is_scipys(seed, rows, share):
    values = random_rows(seed, rows)
    found = TrimmedMean(attackers=share).reduce(values, np.ones_like(values))
    np.testing.assert_allclose(found, trim_mean(values, share, axis=0), atol=1e-12)


@given(seeds, st.integers(0, 3))
@SOME
def test_krum_is_flowers(seed, attackers):
    rows = random_rows(seed)
    assert np.array_equal(
        Krum(attackers=attackers).reduce(rows, rows), aggregate_krum(as_flower(rows), attackers, 0)[0]
    )


@given(seeds, st.integers(0, 3))
@SOME
def test_multi_krum_is_flowers(seed, attackers):
    rows = random_rows(seed)
    expected = aggregate_krum(as_flower(rows), attackers, len(rows) - attackers)[0]
    np.testing.assert_allclose(MultiKrum(attackers=attackers).reduce(rows, rows), expected, atol=1e-12)


@given(seeds, st.integers(0, 2))
@SOME
def test_bulyan_is_flowers(seed, attackers):
    rows = random_rows(seed, 4 * attackers + 3)
    expected = aggregate_bulyan(as_flower(rows), attackers, aggregate_krum, to_keep=0)[0]
    found = Bulyan(attackers=attackers).reduce(rows, rows)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(seeds, st.integers(3, 9))
@SOME
def test_no_point_has_a_smaller_sum_of_distances_than_the_geometric_median(seed, rows):
    values = random_rows(seed, rows, 3)
    found = GeometricMedian().reduce(values, values)

    def total(point):
        return np.linalg.norm(values - point, axis=1).sum()

    best = min(minimize(total, start, method="Nelder-Mead", tol=1e-10).fun for start in (found, values.mean(0)))
    assert total(found) <= min(best, *(total(row) for row in values)) + 1e-5


def test_the_geometric_median_on_a_line_is_the_median():
    values = np.array([[0.1], [0.2], [0.4], [0.9], [1.0]])
    assert GeometricMedian().reduce(values, values) == pytest.approx(0.4, abs=1e-5)


@given(seeds, st.sampled_from([0.3, 1.0, 4.0]), st.integers(1, 4))
@SOME
def test_centered_clipping_is_the_papers_formula(seed, radius, iterations):
    values = random_rows(seed)
    centre = np.median(values, axis=0)
    tau = radius * np.median([np.linalg.norm(row - centre) for row in values])
    for _ in range(iterations):
        moves = [(row - centre) * min(1.0, tau / np.linalg.norm(row - centre)) for row in values]
        centre = centre + sum(moves) / len(moves)
    found = CenteredClipping(radius=radius, iterations=iterations).reduce(values, values)
    np.testing.assert_allclose(found, centre, atol=1e-12)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=9))
def test_the_vote_keeps_what_more_than_half_keep(shares):
    kept = [share for share in shares if share > 0]
    expected = np.median(kept) if len(kept) > len(shares) / 2 else 0.0
    assert vote(np.array(shares)[:, None]) == expected


@given(cohorts(fewest=1, most=12, measured=1.0), st.sampled_from([0.5, 0.75, 0.9, 1.0]))
@SOME
def test_consensus_drops_only_what_a_share_of_the_fleet_can_spare(fleet, share):
    kept = LAYOUT.field("group_kept")
    found = QuantileConsensus(share=share)(list(fleet), LAYOUT)
    spare = (fleet[:, kept] == 0).mean(0)
    assert np.array_equal(found[kept] == 0, spare >= share)
    level = LAYOUT.field("level")
    assert np.array_equal(found[level], np.median(fleet[:, level], axis=0))


@given(cohorts(fewest=1))
@SOME
def test_a_higher_share_is_more_cautious(fleet):
    cautious = [LAYOUT.field(name) for name in ("weighted_sensitivity", "personalized", "group_kept")]
    less, more = (QuantileConsensus(share=share)(list(fleet), LAYOUT) for share in (0.6, 0.9))
    assert all((less[field] <= more[field]).all() for field in cautious)


@given(seeds, st.integers(0, 5))
@SOME
def test_each_row_is_mixed_with_its_nearest(seed, attackers):
    values, weights = random_rows(seed), random_rows(seed + 1)
    mixed, mixed_weights = NearestNeighbourMixing(attackers=attackers).mix(values, weights)
    for i, row in enumerate(values):
        nearest = sorted(range(len(values)), key=lambda j: np.linalg.norm(values[j] - row))[: len(values) - attackers]
        np.testing.assert_allclose(mixed[i], values[nearest].mean(0), atol=1e-12)
        np.testing.assert_allclose(mixed_weights[i], weights[nearest].mean(0), atol=1e-12)


@given(seeds, st.integers(1, 13), st.integers(1, 15))
@SOME
def test_every_client_is_in_one_bucket(seed, clients, size):
    marks = np.eye(clients)
    buckets, weights = Bucketing(size=size, seed=seed % 7).mix(marks, 2 * marks)
    sizes = (buckets > 0).sum(1)
    assert len(buckets) == Bucketing(size=size).rows(clients)
    assert (sizes[:-1] == size).all()
    assert ((buckets > 0).sum(0) == 1).all()
    np.testing.assert_allclose(buckets * sizes[:, None], buckets > 0)
    np.testing.assert_allclose(weights, 2 * buckets)


@given(cohorts())
@SOME
def test_buckets_of_one_and_mixing_with_nobody_change_nothing(fleet):
    for spec in ("median", "trimmed-mean", "geometric-median"):
        plain = make_strategy(spec)(list(fleet), LAYOUT)
        bucketed = make_strategy(f"bucketing:size=1+{spec}")(list(fleet), LAYOUT)
        np.testing.assert_allclose(bucketed, plain, atol=1e-6)
    mean = make_strategy("nnm:attackers=0+mean")(list(fleet), LAYOUT)
    rest = slice(SHARES.stop, None)
    np.testing.assert_allclose(mean[rest], fleet[:, rest].mean(0), atol=1e-12)


@given(seeds)
@SOME
def test_distances_are_the_slow_ones(seed):
    rows = random_rows(seed)
    slow = [[np.linalg.norm(a - b) ** 2 for b in rows] for a in rows]
    np.testing.assert_allclose(squared_distances(rows), slow, atol=1e-12)
