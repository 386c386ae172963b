import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.comparison import intervals
from simulations.comparison.intervals import client_mean, estimate, resamples, worst_decile

SEEDS = st.lists(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=12), min_size=1, max_size=5)


@given(SEEDS)
@settings(max_examples=25)
def test_the_mean_is_over_seeds_of_means_over_clients(values: list[list[float]]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.mean == pytest.approx(np.mean([np.mean(seed) for seed in values]), abs=1e-12)
    lowest, highest = min(map(min, values)), max(map(max, values))
    assert lowest - 1e-12 <= found.low <= found.high <= highest + 1e-12


@given(SEEDS)
@settings(max_examples=25)
def test_the_worst_decile_is_at_most_the_mean(values: list[list[float]]) -> None:
    worst = estimate(values, worst_decile)
    assert worst is not None
    assert worst.mean <= np.mean([np.mean(seed) for seed in values]) + 1e-12
    assert worst.mean == pytest.approx(
        np.mean([np.mean(sorted(seed)[: max(1, len(seed) // 10)]) for seed in values]), abs=1e-12
    )


def test_drawing_again_picks_only_clients_of_the_drawn_seed() -> None:
    counts = (2, 5, 3)
    values = np.full((3, 5), np.nan)
    for seed, count in enumerate(counts):
        values[seed, :count] = 10 * seed + np.arange(count)
    (block,) = resamples(counts)
    drawn, picks = block
    picked = values[drawn, picks]
    assert picked.shape == (intervals.RESAMPLES, 3, 5)
    for resample, seeds in zip(picked, drawn[:, :, 0], strict=True):
        for row, seed in zip(resample, seeds, strict=True):
            present = row[~np.isnan(row)]
            assert len(present) == counts[seed]
            assert set(present // 10) == {seed}


def test_the_fast_path_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(1)
    values = [rng.random(count).tolist() for count in (4, 7, 5)]
    for statistic, slow in (
        (client_mean, np.mean),
        (worst_decile, lambda v: np.sort(v)[: max(1, len(v) // 10)].mean()),
    ):
        means = []
        for drawn, picks in resamples((4, 7, 5)):
            for seeds, clients in zip(drawn[:, :, 0], picks, strict=True):
                rows = zip(seeds, clients, strict=True)
                means.append(np.mean([slow(np.array(values[s])[row[: len(values[s])]]) for s, row in rows]))
        found = estimate(values, statistic)
        assert found is not None
        np.testing.assert_allclose([found.low, found.high], np.percentile(means, [2.5, 97.5]), atol=1e-12)


def test_intervals_are_wider_than_over_clients_alone_where_seeds_differ() -> None:
    rng = np.random.default_rng(2)
    apart = [(mean + 0.01 * rng.standard_normal(30)).tolist() for mean in (0.7, 0.8, 0.9)]
    found, pooled = estimate(apart), estimate([[value for seed in apart for value in seed]])
    assert found is not None
    assert pooled is not None
    assert found.high - found.low > 2 * (pooled.high - pooled.low)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        seeds = rng.normal(0.0, 1.0, 12)
        found = estimate([rng.normal(seed, 1.0, 10).tolist() for seed in seeds])
        assert found is not None
        covered += found.low <= 0.0 <= found.high
    assert 85 <= covered <= 100


def test_the_same_values_have_the_same_interval_whatever_came_between() -> None:
    values = [[0.1, 0.5, 0.9], [0.3, 0.4]]
    first = estimate(values)
    estimate([[0.2] * 7])
    intervals._kept.cache_clear()
    assert estimate(values) == first


def test_blocks_are_as_many_resamples_and_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_BLOCK", 300)
    blocks = list(resamples((10, 7)))
    assert sum(len(drawn) for drawn, _ in blocks) == intervals.RESAMPLES
    assert max(picks.size for _, picks in blocks) <= 300


def test_equal_values_have_no_width_and_none_no_estimate() -> None:
    found = estimate([[0.25, 0.25], [0.25], []])
    assert found is not None
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
    assert estimate([]) is None
    assert estimate([[], []]) is None
