import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure_fleet import Fleet, round_name

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout
from strategies.registry import make_strategy
from strategies.secure_aggregation.cohorts import draw_cohorts, reduce_cohorts
from strategies.secure_aggregation.server import SecureTotal

LAYOUT = StatisticsLayout(layers=3, levels=2, groups=4)


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=80), st.integers(1, 20), st.integers(0, 2**32))
def test_cohorts_are_an_even_partition(handles: set[int], size: int, seed: int) -> None:
    if size > len(handles):
        with pytest.raises(UserError, match="too few"):
            draw_cohorts(handles, size=size, seed=seed)
        return
    cohorts = draw_cohorts(handles, size=size, seed=seed)
    assert sorted(handle for cohort in cohorts for handle in cohort) == sorted(handles)
    sizes = {len(cohort) for cohort in cohorts}
    assert size <= min(sizes) <= max(sizes) <= min(sizes) + 1 < 2 * size + 1
    assert cohorts == draw_cohorts(sorted(handles, reverse=True), size=size, seed=seed)


def valid_vector(rng: np.random.Generator) -> np.ndarray:
    vector = 0.4 + 0.1 * rng.random(LAYOUT.size)
    vector[LAYOUT.field("weighted_sensitivity")] *= vector[LAYOUT.field("precision")]
    return vector


def totals_of(vectors: dict[int, np.ndarray], size: int) -> list[SecureTotal]:
    totals = []
    for version, cohort in enumerate(draw_cohorts(vectors, size=size, seed=5)):
        fleet = Fleet(len(cohort), seed=version)
        own = dict(zip(fleet.adverts, (vectors[handle] for handle in cohort), strict=True))
        total = fleet.run(own, name=round_name(version=version, entries=LAYOUT.size)).total
        assert total is not None
        totals.append(total)
    return totals


def test_one_cohort_is_the_mean_of_everybody() -> None:
    rng = np.random.default_rng(0)
    vectors = {handle: valid_vector(rng) for handle in range(8)}
    (total,) = totals_of(vectors, 8)
    expected = make_strategy("precision-weighted-mean")(list(vectors.values()), LAYOUT)
    np.testing.assert_allclose(
        reduce_cohorts([total], make_strategy("precision-weighted-mean"), LAYOUT), expected, atol=1e-4
    )


def test_a_median_over_cohorts_bears_what_a_mean_does_not() -> None:
    rng = np.random.default_rng(1)
    vectors = {handle: valid_vector(rng) for handle in range(28)}
    honest = np.mean(list(vectors.values()), axis=0)
    for attacker in (3, 11):
        vectors[attacker] = np.ones(LAYOUT.size)
    totals = totals_of(vectors, 4)
    level = LAYOUT.field("level")
    errors = {
        spec: np.abs(reduce_cohorts(totals, make_strategy(spec), LAYOUT) - honest)[level].max()
        for spec in ("mean", "median", "trimmed-mean:attackers=2")
    }
    assert max(errors["median"], errors["trimmed-mean:attackers=2"]) < 0.02 < errors["mean"]
